"""Group normal-Jeffreys layers, restated from the equations for these tests.

q(z) = N(z_mu, exp(z_logvar)), q(w) = N(weight_mu, exp(weight_logvar)), the bias likewise.
Linear: y = (x z) w^T + b. Convolution: y = z (x * w + b). In eval mode every variable is its mean;
in training mode it is drawn by local reparametrisation. Louizos, Ullrich and Welling 2017.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploykit.spec.arrays import Float32Array


def _drawn(mean: Tensor, variance: Tensor, training: bool) -> Tensor:
    return mean + variance.sqrt() * torch.randn_like(mean) if training else mean


class _GroupNormalJeffreys(nn.Module):
    def __init__(self, gates: int, weight_shape: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.z_mu = nn.Parameter(torch.ones(gates))
        self.z_logvar = nn.Parameter(torch.full((gates,), -3.0))
        self.weight_mu = nn.Parameter(torch.zeros(weight_shape))
        self.weight_logvar = nn.Parameter(torch.full(weight_shape, -4.0))
        if bias:
            self.bias_mu = nn.Parameter(torch.zeros(weight_shape[0]))
            self.bias_logvar = nn.Parameter(torch.full((weight_shape[0],), -4.0))
        else:
            self.bias_mu = self.bias_logvar = None  # type: ignore[assignment]

    def bias_variance(self) -> Tensor | None:
        return None if self.bias_logvar is None else self.bias_logvar.exp()


class LinearGNJ(_GroupNormalJeffreys):
    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, (outputs, inputs), bias)

    def forward(self, x: Tensor) -> Tensor:
        z = _drawn(self.z_mu.expand_as(x), self.z_logvar.exp().expand_as(x), self.training)
        mean = functional.linear(x * z, self.weight_mu, self.bias_mu)
        variance = functional.linear(
            (x * z).square(), self.weight_logvar.exp(), self.bias_variance()
        )
        return _drawn(mean, variance, self.training)


class Conv2dGNJ(_GroupNormalJeffreys):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        super().__init__(outputs, (outputs, inputs // groups, *size), bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.padding_mode = groups, padding_mode

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = functional.pad(x, (padding,) * 4, mode=self.padding_mode), 0
        return functional.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        mean = self._convolve(x, self.weight_mu, self.bias_mu)
        variance = self._convolve(x.square(), self.weight_logvar.exp(), self.bias_variance())
        gates = self.z_mu.expand(len(x), -1)[:, :, None, None]
        spread = self.z_logvar.exp().expand(len(x), -1)[:, :, None, None]
        return _drawn(gates, spread, self.training) * _drawn(mean, variance, self.training)


class Conv1dGNJ(_GroupNormalJeffreys):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(outputs, (outputs, inputs, kernel), bias=True)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv1d(x, self.weight_mu, self.bias_mu, self.stride)
        return y * self.z_mu[None, :, None]


def bayesian_net() -> nn.Module:
    """conv(1, 4) -> BN -> ReLU -> conv(4, 6) -> pool -> linear(6, 5) -> ReLU -> linear(5, 3)."""
    return nn.Sequential(
        Conv2dGNJ(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Conv2dGNJ(4, 6, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        LinearGNJ(6, 5),
        nn.ReLU(),
        LinearGNJ(5, 3),
    )


def plain_net() -> nn.Module:
    """The deterministic twin of bayesian_net."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every mean and log-variance random, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("logvar"):
                tensor.copy_(noise - 3.0)
            elif name.endswith("running_var"):
                tensor.copy_(noise.exp())
            elif tensor.is_floating_point():
                tensor.copy_(noise)
    return module


def images(count: int = 8, seed: int = 0, size: int = 8) -> Float32Array:
    """Inputs [count, 1, size, size]."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 1, size, size)).astype(np.float32)
