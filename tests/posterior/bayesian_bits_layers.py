"""Bayesian Bits, restated from the equations for these tests; names of tensors as published.

x_q = z_2 (x_2 + z_4 (e_4 + z_8 (e_8 + z_16 (e_16 + z_32 e_32))))   e_b = s_b round(residual / s_b)
s_2 = (beta - alpha) / 3, s_2b = s_b / (2^b + 1), residuals of what is clipped to [alpha, beta].
Training draws hard concrete gates (Louizos et al. 2018); evaluation takes z = 1 where the draw is
zero with a probability under 0.34. Source: van Baalen et al. 2020, equations 3 to 6, 10 and 22.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FINER = (4, 8, 16, 32)
STRETCH = math.log(1 / 11)


def hard_concrete(gamma: Tensor) -> Tensor:
    u = torch.rand_like(gamma).clamp(1e-6, 1 - 1e-6)
    s = torch.sigmoid((torch.log(u) - torch.log1p(-u) + gamma) * 1.5)
    return (1.2 * s - 0.1).clamp(0.0, 1.0)


def probability_of_zero(gamma: Tensor) -> Tensor:
    return torch.sigmoid(STRETCH * 2 / 3 - gamma)


def rounded(x: Tensor, training: bool) -> Tensor:
    return x + (torch.round(x) - x).detach() if training else torch.round(x)


class BitsQuantizer(nn.Module):
    """limits: "range" learns x_min and x_max, "scale" learns s_2. channels: how many have gates."""

    def __init__(
        self, gammas: tuple[float, ...], reach: float, signed: bool, limits: str, channels: int = 0
    ) -> None:
        super().__init__()
        for bits, gamma in zip(FINER, gammas, strict=True):
            self.register_parameter(f"gamma_{bits}", nn.Parameter(torch.tensor([gamma])))
        if channels:
            self.gamma_2 = nn.Parameter(torch.full((channels,), 6.0))
        self.signed, self.limits = signed, limits
        if limits == "range":
            self.x_min = nn.Parameter(torch.tensor([-reach if signed else 0.0]))
            self.x_max = nn.Parameter(torch.tensor([reach]))
        else:
            self.s_2 = nn.Parameter(torch.tensor([(2 if signed else 1) * reach / 3]))

    def clipped(self, x: Tensor) -> Tensor:
        """PACT's clip, its end moved inwards so that it rounds to the largest integer."""
        end = self.x_max if self.limits == "range" else (1 - 1e-7) * (3 * self.s_2)
        high = (1 - 1e-7) * end
        low = -high if self.signed else 0.0
        return -functional.relu(high - low - functional.relu(x - low)) + high

    def coarsest(self) -> Tensor:
        if self.limits == "scale":
            return self.s_2
        return (self.x_max + self.x_max if self.signed else self.x_max) / 3

    def gates(self) -> list[Tensor]:
        found: list[Tensor] = []
        for bits in FINER:
            gamma = self.get_parameter(f"gamma_{bits}")
            opened = (probability_of_zero(gamma) < 0.34).float()
            found.append(hard_concrete(gamma) if self.training else opened)
        return found

    def forward(self, x: Tensor) -> Tensor:
        scale = self.coarsest()
        x = self.clipped(x)
        parts = [scale * rounded(x / scale, self.training)]
        for bits in FINER:
            scale = scale / (2 ** (bits // 2) + 1)
            x = x - parts[-1]
            parts.append(scale * rounded(x / scale, self.training))
        total = torch.zeros_like(x)
        for part, gate in zip(reversed(parts[1:]), reversed(self.gates()), strict=True):
            total = gate * (part + total)
        total = parts[0] + total
        if not hasattr(self, "gamma_2"):
            return total
        closed = (probability_of_zero(self.gamma_2) < 0.34).float()
        gate = hard_concrete(self.gamma_2) if self.training else closed
        return gate.view(-1, *(1,) * (x.ndim - 1)) * total

    def bits(self) -> int:
        """In use at evaluation."""
        found = 2
        for bits in FINER:
            if not probability_of_zero(self.get_parameter(f"gamma_{bits}")) < 0.34:
                break
            found = bits
        return found

    def step(self) -> Tensor:
        """The scale of these bits."""
        scale = self.coarsest()
        for bits in FINER[: FINER.index(self.bits()) + 1] if self.bits() > 2 else ():
            scale = scale / (2 ** (bits // 2) + 1)
        return scale

    def cost(self) -> Tensor:
        """Expected bits, of equation 22: more where finer gates are likely to be open."""
        total, likely = torch.zeros(()), torch.ones(())
        if hasattr(self, "gamma_2"):
            likely = 1 - probability_of_zero(self.gamma_2)
            total = total + (2 * likely).mean()
        for bits in FINER:
            likely = likely * (1 - probability_of_zero(self.get_parameter(f"gamma_{bits}")))
            total = total + (bits * likely).mean()
        return total


class Holder(nn.Module):
    """quantizer: the published modules make it in their first forward."""

    def __init__(self, quantizer: BitsQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(x)  # type: ignore[no-any-return]


OPEN, SHUT = 6.0, -6.0
GAMMAS = {
    2: (SHUT, OPEN, SHUT, OPEN),
    4: (OPEN, SHUT, OPEN, SHUT),
    8: (OPEN, OPEN, SHUT, SHUT),
    16: (OPEN, OPEN, OPEN, SHUT),
    32: (OPEN, OPEN, OPEN, OPEN),
}
"""Gates nest: of 2 bits, those beyond the closed one do not count."""


class Quantized(nn.Module):
    """What layers share: a quantizer of the weight and one of what they give.

    bits: of the weight; given_bits: of the activations, None where they stay in float.
    """

    def prepare(
        self, outputs: int, bits: int, given_bits: int | None, function: nn.Module | None,
        pruning: bool = False, limits: str = "range", reach: float = 2.0, weights: float = 0.5,
    ) -> None:  # fmt: skip
        channels = outputs if pruning else 0
        self.activation_function = function
        self.weight_quantizer = Holder(BitsQuantizer(GAMMAS[bits], weights, True, limits, channels))
        if given_bits is not None:
            signed = function is None
            held = BitsQuantizer(GAMMAS[given_bits], reach, signed, limits)
            self.activation_quantizer = Holder(held)

    def finish(self, y: Tensor) -> Tensor:
        if self.activation_function is not None:
            y = self.activation_function(y)
        return self.activation_quantizer(y) if hasattr(self, "activation_quantizer") else y


class QConv2d(nn.Conv2d, Quantized):
    """A convolution with a bias."""

    def __init__(self, *sizes: Any, bits: int, given_bits: int | None, function: Any = None,
                 quantizers: Any = None, **geometry: Any) -> None:  # fmt: skip
        super().__init__(*sizes, **geometry)
        self.prepare(self.out_channels, bits, given_bits, function, **(quantizers or {}))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self._conv_forward(x, self.weight_quantizer(self.weight), self.bias))


class QLinear(nn.Linear, Quantized):
    """A linear layer."""

    def __init__(self, *sizes: Any, bits: int, given_bits: int | None, function: Any = None,
                 quantizers: Any = None) -> None:  # fmt: skip
        super().__init__(*sizes)
        self.prepare(self.out_features, bits, given_bits, function, **(quantizers or {}))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_quantizer(self.weight)
        return self.finish(functional.linear(x, weight, self.bias))


class BNQConv2d(nn.Conv2d, Quantized):
    """A convolution that folds a batch norm before its weight is quantized."""

    def __init__(self, *sizes: Any, bits: int, given_bits: int | None, function: Any = None,
                 quantizers: Any = None, **geometry: Any) -> None:  # fmt: skip
        super().__init__(*sizes, **geometry | {"bias": False})
        self.gamma = nn.Parameter(torch.ones(self.out_channels))
        self.beta = nn.Parameter(torch.zeros(self.out_channels))
        self.register_buffer("running_mean", torch.zeros(self.out_channels))
        self.register_buffer("running_var", torch.ones(self.out_channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.prepare(self.out_channels, bits, given_bits, function, **(quantizers or {}))

    def quantized_weight(self) -> Tensor:
        sigma = torch.sqrt(self.running_var + 1e-5)
        folded = (self.weight.transpose(0, -1) * self.gamma / sigma).transpose(0, -1)
        return self.weight_quantizer(folded)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        sigma = torch.sqrt(self.running_var + 1e-5)
        y = self._conv_forward(x, self.quantized_weight(), None)
        if self.training:
            plain = self._conv_forward(x, self.weight, None).detach()
            mean, variance = plain.mean((0, 2, 3)), plain.var((0, 2, 3))
            self.running_mean.mul_(0.9).add_(0.1 * mean)
            self.running_var.mul_(0.9).add_(0.1 * variance)
            batch = torch.sqrt(variance + 1e-5)
            y = y * (sigma / batch)[:, None, None]
            return self.finish(y + (self.beta - self.gamma * mean / batch)[:, None, None])
        bias = self.beta - self.gamma * self.running_mean / sigma
        return self.finish(y + bias[:, None, None])


class Block(nn.Module):
    """A residual block: its layers in `features`, and a quantizer of what it gives."""

    def __init__(
        self, features: nn.Module, downsample: nn.Module | None, given_bits: int, reach: float,
        limits: str = "range",
    ) -> None:  # fmt: skip
        super().__init__()
        self.features, self.downsample, self.relu = features, downsample, nn.ReLU()
        held = BitsQuantizer(GAMMAS[given_bits], reach, False, limits)
        self.activation_quantizer = Holder(held)

    def forward(self, x: Tensor) -> Tensor:
        beside = x if self.downsample is None else self.downsample(x)
        return self.activation_quantizer(self.relu(self.features(x) + beside))  # type: ignore[no-any-return]


def quantizers(network: nn.Module) -> list[BitsQuantizer]:
    return [module for module in network.modules() if isinstance(module, BitsQuantizer)]
