"""What the networks share: a convolution with batch norm, and statistics like a trained net's."""

from __future__ import annotations

import torch
from torch import nn


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, activation: [N, I, H, W] -> [N, O, H/s, W/s].

    The padding keeps the size at stride 1. activation None: linear.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
        padding: int | tuple[int, int] | None = None,
    ) -> None:
        sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
        same = (sizes[0] // 2, sizes[1] // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(
                inputs,
                outputs,
                sizes,
                stride,
                same if padding is None else padding,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(outputs),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)


def settle(network: nn.Module, input_shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    """Seeded random weights, and batch norm as training leaves it; the network in eval mode.

    Weights: normal, std sqrt(2 / fan in) (He et al. 2015). Batch norm: scales in 0.5 to 1.5, shifts
    normal with std 0.3, running mean and variance measured on random images.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0.0, (2.0 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.3, generator=generator)
            module.momentum = None
    images = torch.randn((4, *input_shape[1:]), generator=generator)
    with torch.no_grad():
        network.train()(images)
    return network.eval()
