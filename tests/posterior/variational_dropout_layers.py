"""Layers with a Gaussian on every weight, restated from the equations for these tests.

y = sum x theta + sqrt(sum x^2 sigma^2) eps in training; log alpha = log sigma^2 - 2 log |theta|.
Evaluation puts weights with log alpha >= 3 to zero, or leaves them (cplxmodule).
Molchanov, Ashukha and Vetrov 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

THRESHOLD = 3.0


class LinearARD(nn.Module):
    """pytorch_ard: masked at log alpha 3, clamped to 10 either way."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.log_sigma2 = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def dropout_rate(self) -> Tensor:
        values = self.log_sigma2 - 2 * torch.log(self.weight.abs() + 1e-15)
        return values.clamp(-10, 10)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            kept = torch.where(self.dropout_rate() >= THRESHOLD, 0.0, self.weight)
            return functional.linear(x, kept, self.bias)
        variance = functional.linear(x.square(), self.dropout_rate().exp() * self.weight.square())
        mean = functional.linear(x, self.weight, self.bias)
        return mean + (variance + 1e-15).sqrt() * torch.randn_like(mean)


class Conv2dARD(nn.Conv2d):
    """pytorch_ard: never a bias, log alpha clamped to 8."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, padding=padding, bias=False)
        self.log_sigma2 = nn.Parameter(torch.zeros_like(self.weight))

    def dropout_rate(self) -> Tensor:
        values = self.log_sigma2 - 2 * torch.log(self.weight.abs() + 1e-15)
        return values.clamp(-8, 8)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            kept = torch.where(self.dropout_rate() >= THRESHOLD, 0.0, self.weight)
            masked: Tensor = self._conv_forward(x, kept, None)
            return masked
        noise = self.dropout_rate().exp() * self.weight.square()
        mean: Tensor = self._conv_forward(x, self.weight, None)
        variance: Tensor = self._conv_forward(x.square(), noise, None)
        return mean + (variance + 1e-15).sqrt() * torch.randn_like(mean)


class LinearVD(nn.Linear):
    """cplxmodule: evaluation is the plain mean."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.log_sigma2 = nn.Parameter(torch.zeros_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        mean = super().forward(x)
        if not self.training:
            return mean
        variance = functional.linear(x.square(), self.log_sigma2.exp())
        return mean + variance.clamp(1e-8).sqrt() * torch.randn_like(mean)


class Conv2dVD(nn.Conv2d):
    """cplxmodule: evaluation is the plain mean."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__(inputs, outputs, kernel, padding=padding)
        self.log_sigma2 = nn.Parameter(torch.zeros_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        mean = super().forward(x)
        if not self.training:
            return mean
        variance: Tensor = self._conv_forward(x.square(), self.log_sigma2.exp(), None)
        return mean + variance.clamp(1e-8).sqrt() * torch.randn_like(mean)


class LinearSVDO(nn.Module):
    """The notebooks' layer, its tensors under any of the names that it goes by."""

    def __init__(
        self, inputs: int, outputs: int, weight: str, spread: str, bias: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.names = (weight, spread)
        self.register_parameter(weight, nn.Parameter(torch.zeros(outputs, inputs)))
        self.register_parameter(spread, nn.Parameter(torch.zeros(outputs, inputs)))
        self.bias = nn.Parameter(torch.zeros(bias))

    def dropout_rate(self) -> Tensor:
        weight, stored = (self.get_parameter(name) for name in self.names)
        if self.names[1] == "log_alpha":
            return stored
        log_variance = 2 * stored if self.names[1] == "log_sigma" else stored
        return (log_variance - 2 * torch.log(1e-16 + weight.abs())).clamp(-10, 10)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.get_parameter(self.names[0])
        if self.training:
            noise = self.dropout_rate().exp() * weight.square()
            mean = functional.linear(x, weight) + self.bias
            variance = functional.linear(x.square(), noise)
            return mean + (variance + 1e-8).sqrt() * torch.randn_like(mean)
        kept = weight * (self.dropout_rate() < THRESHOLD)
        return functional.linear(x, kept) + self.bias


class LinearMasked(nn.Linear):
    """cplxmodule: a fixed mask by weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.get_buffer("mask"), self.bias)


class SharedAlphaConv2d(nn.Module):
    """One dropout rate for the layer, bias [1, C, 1, 1]; evaluation is the plain mean."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))
        self.log_alpha = nn.Parameter(torch.zeros(1, 1))
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        mean = functional.conv2d(x, self.weight, padding=self.padding) + self.bias
        if not self.training:
            return mean
        noise = self.log_alpha.exp() * self.weight.square()
        variance = functional.conv2d(x.square(), noise, padding=self.padding)
        return mean + (variance + 1e-15).sqrt() * torch.randn_like(mean)


def _net(conv1: nn.Module, conv2: nn.Module, fc1: nn.Module, fc2: nn.Module) -> nn.Module:
    return nn.Sequential(
        conv1, nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), conv2, nn.ReLU(), nn.Flatten(),
        fc1, nn.ReLU(), fc2,
    )  # fmt: skip


def ard_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; pytorch_ard's layers."""
    return _net(Conv2dARD(1, 8, 3, 1), Conv2dARD(8, 6, 3), LinearARD(24, 10), LinearARD(10, 3))


def vd_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; cplxmodule's layers."""
    return _net(Conv2dVD(1, 8, 3, 1), Conv2dVD(8, 6, 3), LinearVD(24, 10), LinearVD(10, 3))


def vd_plain_net() -> nn.Module:
    """The deterministic twin of vd_net."""
    return _net(
        nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 6, 3), nn.Linear(24, 10), nn.Linear(10, 3)
    )
