"""The deterministic twin of a residual network of Bayesian Bits, as its user writes it."""

from __future__ import annotations

from torch import Tensor, nn


def layer(inputs: int, outputs: int, kernel: int, stride: int, *behind: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        *behind,
    )


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            layer(inputs, outputs, 3, stride, nn.ReLU()), layer(outputs, outputs, 3, 1)
        )
        self.downsample = layer(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return (self.features(x) + self.downsample(x)).relu()  # type: ignore[no-any-return]


def residual() -> nn.Module:
    return nn.Sequential(
        layer(1, 8, 5, 2, nn.ReLU()),
        nn.Sequential(Block(8, 8, 1), Block(8, 12, 2)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    )
