"""ResNet-18 for small grey images, gated and plain, under the same layer names, at any widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from information_bottleneck import InformationBottleneck
from torch import Tensor, nn

CLASSES = 10
SIDE = 28
BLOCKS = 8
_BLOCKS_PER_STAGE = 2


@dataclass(frozen=True)
class Widths:
    """Channels of the four stages' streams, and inside each of the eight blocks."""

    streams: tuple[int, ...]
    inner: tuple[int, ...]

    @classmethod
    def regular(cls, width: int) -> Widths:
        """`width`, doubled with every stage, as He et al. have it."""
        streams = tuple(width * 2**stage for stage in range(4))
        return cls(streams, tuple(streams[place // _BLOCKS_PER_STAGE] for place in range(BLOCKS)))

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Widths:
        """Those of a state dict."""
        firsts = range(0, BLOCKS, _BLOCKS_PER_STAGE)
        return cls(
            tuple(len(state[f"blocks.{place}.conv2.weight"]) for place in firsts),
            tuple(len(state[f"blocks.{place}.conv1.weight"]) for place in range(BLOCKS)),
        )

    def with_inner(self, inner: tuple[int, ...]) -> Widths:
        """The same streams."""
        return replace(self, inner=inner)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a gate, and a shortcut around them.

    x [N, inputs, H, W] -> [N, outputs, H/stride, W/stride]
    """

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, gate: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.gate = gate
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.gate(torch.relu(self.bn1(self.conv1(x))))
        return torch.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet18(nn.Module):
    """Four stages of two blocks; the stem is a 3x3 convolution without pooling.

    input    [N, 1, 28, 28]
    stem     [N, streams[0], 28, 28]
    stage s  [N, streams[s], 28/2^s, 28/2^s], the last one 4x4
    fc       [N, 10], the logits of the mean over positions
    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
    table 1; the stem as in their section 4.2.
    """

    def __init__(self, widths: Widths, gate: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, widths.streams[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths.streams[0])
        blocks = []
        before = widths.streams[0]
        for place, inner in enumerate(widths.inner):
            stage, later = divmod(place, _BLOCKS_PER_STAGE)
            after = widths.streams[stage]
            stride = 2 if stage and not later else 1
            blocks.append(BasicBlock(before, inner, after, stride, gate(inner)))
            before = after
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(before, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        logits: Tensor = self.fc(self.blocks(x).mean(dim=(2, 3)))
        return logits


def gated(widths: Widths) -> ResNet18:
    """With a gate for every channel inside a block: those go without touching a stream."""
    return ResNet18(widths, InformationBottleneck)


def plain(widths: Widths) -> ResNet18:
    """Without gates."""
    return ResNet18(widths, lambda channels: nn.Identity())


def gated16() -> ResNet18:
    """Width 16: 702,138 parameters, 28.6 million MACs."""
    return gated(Widths.regular(16))


def gated32() -> ResNet18:
    """Width 32: 2,798,954 parameters, 114 million MACs."""
    return gated(Widths.regular(32))


def dense16() -> ResNet18:
    """The deterministic twin of gated16."""
    return plain(Widths.regular(16))


def dense32() -> ResNet18:
    """The deterministic twin of gated32."""
    return plain(Widths.regular(32))


def gates(network: ResNet18) -> tuple[InformationBottleneck, ...]:
    """The gates of the eight blocks, in order; none of a plain network."""
    found = (block.gate for block in network.blocks if isinstance(block, BasicBlock))
    return tuple(gate for gate in found if isinstance(gate, InformationBottleneck))
