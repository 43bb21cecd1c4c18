"""A convolutional network over windows of a wrist's motion, gated and plain, under equal names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from l0_gates import L0Gate
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (24, 40, 48, 48)
KERNELS = (9, 5, 5, 3)
INPUTS, CLASSES = 6, 7


class HarNet(nn.Module):
    """Four convolutions over time, each with batch norm, relu and a gate; then a mean, a linear.

    input  [N, 6, 128]
    conv1  [N, 24, 128], 9 taps, max pool 2 -> [N, 24, 64]
    conv2  [N, 40, 64],  5 taps, max pool 2 -> [N, 40, 32]
    conv3  [N, 48, 32],  5 taps, max pool 2 -> [N, 48, 16]
    conv4  [N, 48, 16],  3 taps, mean over time -> [N, 48]
    fc     [N, 7], the logits
    """

    def __init__(self, gate: Callable[[int], nn.Module]) -> None:
        super().__init__()
        before = INPUTS
        for place, (width, taps) in enumerate(zip(WIDTHS, KERNELS, strict=True), start=1):
            conv = nn.Conv1d(before, width, taps, padding=taps // 2, bias=False)
            self.add_module(f"conv{place}", conv)
            self.add_module(f"norm{place}", nn.BatchNorm1d(width))
            self.add_module(f"gate{place}", gate(width))
            before = width
        self.fc = nn.Linear(before, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        last = len(WIDTHS)
        for place in range(1, last + 1):
            x = self.get_submodule(f"conv{place}")(x)
            x = functional.relu(self.get_submodule(f"norm{place}")(x))
            x = self.get_submodule(f"gate{place}")(x)
            if place < last:
                x = functional.max_pool1d(x, 2)
        logits: Tensor = self.fc(torch.mean(x, 2))
        return logits


def gated_har() -> HarNet:
    """With an L0 gate for every channel of every convolution."""
    return HarNet(L0Gate)


def dense_har() -> HarNet:
    """The deterministic twin."""
    return HarNet(lambda channels: nn.Identity())


def expected_weights(network: HarNet) -> Tensor:
    """Weights of the convolutions and the linear that are left on average, a scalar.

    A weight goes with the channel that it reads and with the one that it makes, so of independent
    gates  E = sum over layers of taps * E[open inputs] * E[open outputs].
    """
    before = torch.tensor(float(INPUTS))
    total = torch.zeros(())
    for place, taps in enumerate(KERNELS, start=1):
        gate = network.get_submodule(f"gate{place}")
        assert isinstance(gate, L0Gate), "the plain twin has no gates to count"
        after = gate.open_probability().sum()
        total = total + taps * before * after
        before = after
    return total + CLASSES * before


def all_weights() -> int:
    """The same with every gate open."""
    return _weights(WIDTHS)


def widths(network: HarNet) -> tuple[int, ...]:
    """Channels of each convolution whose gate is open in eval mode."""
    gates = (module for module in network.modules() if isinstance(module, L0Gate))
    return tuple(int((gate.evaluated() > 0).sum()) for gate in gates)


def kept_weights(network: HarNet) -> int:
    """Weights of convolutions and linear that are left when the closed channels are gone."""
    return _weights(widths(network))


def _weights(kept: tuple[int, ...]) -> int:
    layers = zip((INPUTS, *kept[:-1]), kept, KERNELS, strict=True)
    return sum(before * after * taps for before, after, taps in layers) + CLASSES * kept[-1]
