"""A detector like YOLOv8-n: C2f backbone, SPPF, PAN neck, decoupled heads at three strides."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import ConvNorm

WIDTHS = (16, 32, 64, 128, 256)
DEPTHS = (1, 2, 2, 1)
BOXES = 64
CLASSES = 80


class Conv(ConvNorm):
    """Convolution, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, activation=nn.SiLU)


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a sum around them in the backbone."""

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(channels, channels, 3), Conv(channels, channels, 3))
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same."""
        y: torch.Tensor = self.body(x)
        return x + y if self.residual else y


class C2f(nn.Module):
    """Split in two, a chain of bottlenecks on the second half, all parts joined."""

    def __init__(self, inputs: int, outputs: int, depth: int, residual: bool) -> None:
        super().__init__()
        self.enter = Conv(inputs, outputs)
        self.chain = nn.ModuleList(Bottleneck(outputs // 2, residual) for _ in range(depth))
        self.leave = Conv((2 + depth) * (outputs // 2), outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W]."""
        parts = list(self.enter(x).chunk(2, dim=1))
        for bottleneck in self.chain:
            parts.append(bottleneck(parts[-1]))
        joined: torch.Tensor = self.leave(torch.cat(parts, dim=1))
        return joined


class Sppf(nn.Module):
    """Three max pools in a row, all joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = Conv(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = Conv(channels * 2, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same."""
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        joined: torch.Tensor = self.leave(torch.cat(parts, dim=1))
        return joined


def head(inputs: int, hidden: int, outputs: int) -> nn.Module:
    """Two 3x3 convolutions and the prediction."""
    return nn.Sequential(
        Conv(inputs, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1)
    )


class Detector(nn.Module):
    """[N, 3, H, W], multiples of 32 -> three of [N, 64 + 80, H/s, W/s] at strides 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        one, two, three, four, five = WIDTHS
        self.stem = nn.Sequential(
            Conv(3, one, 3, 2), Conv(one, two, 3, 2), C2f(two, two, DEPTHS[0], True)
        )
        self.stride8 = nn.Sequential(Conv(two, three, 3, 2), C2f(three, three, DEPTHS[1], True))
        self.stride16 = nn.Sequential(Conv(three, four, 3, 2), C2f(four, four, DEPTHS[2], True))
        self.stride32 = nn.Sequential(
            Conv(four, five, 3, 2), C2f(five, five, DEPTHS[3], True), Sppf(five)
        )
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.up16 = C2f(five + four, four, 1, False)
        self.up8 = C2f(four + three, three, 1, False)
        self.down16 = Conv(three, three, 3, 2)
        self.join16 = C2f(three + four, four, 1, False)
        self.down32 = Conv(four, four, 3, 2)
        self.join32 = C2f(four + five, five, 1, False)
        widths = (three, four, five)
        self.boxes = nn.ModuleList(head(width, 64, BOXES) for width in widths)
        self.classes = nn.ModuleList(head(width, 80, CLASSES) for width in widths)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Box distributions and class logits per stride, box channels first."""
        p8 = self.stride8(self.stem(x))
        p16 = self.stride16(p8)
        p32 = self.stride32(p16)
        n16 = self.up16(torch.cat([self.up(p32), p16], dim=1))
        n8 = self.up8(torch.cat([self.up(n16), p8], dim=1))
        o16 = self.join16(torch.cat([self.down16(n8), n16], dim=1))
        o32 = self.join32(torch.cat([self.down32(o16), p32], dim=1))
        return tuple(
            torch.cat([boxes(level), classes(level)], dim=1)
            for level, boxes, classes in zip(
                (n8, o16, o32), self.boxes, self.classes, strict=True
            )
        )  # fmt: skip


def yolo() -> nn.Module:
    """3.2 million parameters."""
    return Detector()
