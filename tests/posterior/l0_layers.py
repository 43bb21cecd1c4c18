"""L0 layers, restated from the equations for these tests: training draws the gates.

u ~ U(0, 1); s = sigmoid((log u - log(1 - u) + a) / (2/3)); z = clip(1.2 s - 0.1, 0, 1). Evaluation
takes z = clip(1.2 sigmoid(a) - 0.1, 0, 1). Louizos, Welling and Kingma 2018, equations 10 to 13.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def hard_concrete(location: Tensor, training: bool) -> Tensor:
    s = torch.sigmoid(location)
    if training:
        u = torch.rand_like(location).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + location) * 1.5)
    return (1.2 * s - 0.1).clamp(0.0, 1.0)


class L0Dense(nn.Module):
    """AMLab: y = (x z) weights + bias; weights [I, C], z per input."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(inputs, outputs))
        self.qz_loga = nn.Parameter(torch.zeros(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = (x * hard_concrete(self.qz_loga, self.training)) @ self.weights
        return y if self.bias is None else y + self.bias


class L0Conv2d(nn.Module):
    """AMLab: y = z (x * weights + bias), z per output channel."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0,
        groups: int = 1, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(outputs, inputs // groups, kernel, kernel))
        self.qz_loga = nn.Parameter(torch.zeros(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.stride, self.padding, self.dilation = (stride, stride), (padding, padding), (1, 1)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(
            x, self.weights, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        return y * hard_concrete(self.qz_loga, self.training)[:, None, None]


class MAPDense(nn.Module):
    """AMLab: y = x weight + bias; weight [I, C]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x.mm(self.weight) + self.bias


class MAPConv2d(nn.Module):
    """AMLab: a plain convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, padding=self.padding)


class _Elementwise(nn.Module):
    """moskomule: the weight of a torch layer times a gate for each of its entries."""

    def __init__(self, origin: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self._origin = origin
        self.loc = nn.Parameter(torch.zeros_like(origin.weight))
        self.register_buffer("uniform", torch.zeros_like(origin.weight))

    def gated(self) -> Tensor:
        return self._origin.weight * hard_concrete(self.loc, self.training)


class L0LinearOfWeights(_Elementwise):
    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(nn.Linear(inputs, outputs, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.gated(), self._origin.bias)


class L0Conv2dOfWeights(_Elementwise):
    def __init__(self, inputs: int, outputs: int, kernel: int, **geometry: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, kernel, **geometry))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        own = self._origin
        assert isinstance(own, nn.Conv2d)
        return functional.conv2d(
            x, self.gated(), own.bias, own.stride, own.padding, own.dilation, own.groups
        )


class LinearL0(nn.Linear):
    """cplxmodule: z(-log_alpha) by input, by output before the bias, or by weight."""

    def __init__(self, inputs: int, outputs: int, group: str, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias=bias)
        shapes = {"input": (1, inputs), "output": (outputs, 1), "weight": (outputs, inputs)}
        self.log_alpha = nn.Parameter(torch.zeros(shapes[group]))

    def forward(self, x: Tensor) -> Tensor:
        gates = hard_concrete(-self.log_alpha, self.training)
        if gates.shape[0] == 1:
            y = functional.linear(x * gates[0], self.weight)
        elif gates.shape[1] == 1:
            y = functional.linear(x, self.weight) * gates[:, 0]
        else:
            y = functional.linear(x, self.weight * gates)
        return y if self.bias is None else y + self.bias


class L0Gate(nn.Module):
    """Gates alone, per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qz_loga = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        gates = hard_concrete(self.qz_loga, self.training)
        return x * gates.reshape(1, -1, *(1,) * (x.ndim - 2))


class FixedL0Gate(nn.Module):
    """A gate that is kept open: its location is a buffer of 999."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("qz_loga", torch.full((channels,), 999.0))

    def forward(self, x: Tensor) -> Tensor:
        return x


class L0Residual(nn.Module):
    """relu(gated conv), batch norm, relu, plain conv, plus the input: a block of L0-WRN.

    The batch norm turns what a closed gate leaves, zero, into a constant.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = L0Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = MAPConv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.conv2(torch.relu(self.bn2(self.conv1(x))))
        return inner + x


def l0_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; a gated convolution under batch norm, a residual block, linears."""
    return nn.Sequential(
        L0Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        L0Residual(8),
        nn.MaxPool2d(2),
        nn.Flatten(),
        L0Dense(128, 12),
        nn.ReLU(),
        MAPDense(12, 3),
    )


class PlainResidual(L0Residual):
    """The same of torch layers."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)  # type: ignore[assignment]
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)  # type: ignore[assignment]


def l0_plain_net() -> nn.Module:
    """The deterministic twin of l0_net."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        PlainResidual(8),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )


def gates_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; gate layers behind a convolution with batch norm and behind a linear."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        L0Gate(6),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=1),
        FixedL0Gate(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(180, 9),
        nn.ReLU(),
        L0Gate(9),
        nn.Linear(9, 3),
    )


def gates_plain_net() -> nn.Module:
    """The deterministic twin of gates_net."""
    gates = {1, 5, 10}
    layers = list(gates_net())  # type: ignore[call-overload]
    return nn.Sequential(
        *(nn.Identity() if place in gates else layer for place, layer in enumerate(layers))
    )


def weights_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; a gate for every weight."""
    return nn.Sequential(
        L0Conv2dOfWeights(1, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        L0LinearOfWeights(96, 8),
        nn.ReLU(),
        LinearL0(8, 3, "input"),
    )
