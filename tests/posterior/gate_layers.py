"""Layers of structured Bayesian pruning, the information bottleneck and the group horseshoe.

Restated from the equations for these tests; evaluation as published, in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

ROOT = 2.0**0.5
LOW, HIGH = -20.0, 0.0


def _phi(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / ROOT))


def _erfcx(x: Tensor) -> Tensor:
    """The published one: 1 where the reflection overflows."""
    positive = torch.special.erfcx(x.abs())
    negative = 2 * torch.exp(x * x) - positive
    return torch.where(x > 0, positive, torch.where(negative.isfinite(), negative, 1.0))


class _LogNormalGates(nn.Module):
    """theta, log theta ~ N(mu, sigma^2) on [-20, 0]: E[theta] where SNR > 1. Neklyudov 2017."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(channels))
        self.log_sigma = nn.Parameter(torch.full((channels,), -5.0))

    def _normal(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mu, sigma = self.mu.clamp(-20, 5), self.log_sigma.clamp(-20, 5).exp()
        return mu, sigma, (LOW - mu) / sigma, (HIGH - mu) / sigma

    def kl(self) -> Tensor:
        """To the log-uniform prior on [-20, 0]: log 20 less the entropy; equation 8."""
        _, sigma, alpha, beta = self._normal()
        z = _phi(beta) - _phi(alpha)
        density = (
            alpha * torch.exp(-(alpha**2) / 2) - beta * torch.exp(-(beta**2) / 2)
        ) / math.sqrt(2 * math.pi)
        entropy = torch.log(math.sqrt(2 * math.pi * math.e) * sigma * z) + density / (2 * z)
        return (math.log(HIGH - LOW) - entropy).sum()

    def gates(self) -> Tensor:
        """Drawn in training, by the inverse of the distribution function."""
        mu, sigma, alpha, beta = self._normal()
        if self.training:
            low, high = _phi(alpha), _phi(beta)
            between = (low + (high - low) * torch.rand_like(low)).clamp(1e-6, 1 - 1e-6)
            return torch.exp((mu + sigma * torch.special.ndtri(between)).clamp(LOW, HIGH))
        z = _phi(beta) - _phi(alpha)

        def raised(power: int, shift: Tensor | float) -> Tensor:
            high = _erfcx((power * sigma - beta) / ROOT)
            low = _erfcx((power * sigma - alpha) / ROOT)
            return high * torch.exp(power * (HIGH - shift) - beta**2 / 2) - low * torch.exp(
                power * (LOW - shift) - alpha**2 / 2
            )

        mean, ratio = raised(1, 0.0) / (2 * z), raised(1, mu)
        snr = ratio / torch.sqrt(1e-8 + 2 * z * raised(2, mu) - ratio**2)
        return mean * (snr > 1)


class SBPLayer(_LogNormalGates):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates().reshape(1, -1, *(1,) * (x.ndim - 2))


class Conv2dSBP(_LogNormalGates):
    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__(outputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, self.weight, padding=self.padding)
        return y * self.gates()[:, None, None]


class LinearSBP(_LogNormalGates):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(outputs)
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias) * self.gates()


class InformationBottleneck(nn.Module):
    """x * mu where log alpha < 0, else 0. Dai et al. 2018."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prior_z_logD = nn.Parameter(torch.zeros(channels))
        self.post_z_mu = nn.Parameter(torch.ones(channels))
        self.post_z_logD = nn.Parameter(torch.full((channels,), -9.0))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.post_z_mu
        if self.training:
            z = z + (self.post_z_logD / 2).exp() * torch.randn_like(z)
        else:
            z = z * (self.post_z_logD - torch.log(z.square() + 1e-8) < 0)
        return x * z.reshape(1, -1, *(1,) * (x.ndim - 2))

    def kl(self) -> Tensor:
        """The bound on the information that passes: sum of log(1 + mu^2 / sigma^2) / 2."""
        inverse = (torch.log(self.post_z_mu.square() + 1e-8) - self.post_z_logD).exp()
        return 0.5 * torch.log1p(inverse).sum()


class _Horseshoe(nn.Module):
    """z^2 = s_a s_b alpha beta, each log-normal; Louizos, Ullrich and Welling 2017, section 4.2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        shapes = {
            "sa": (1,), "sb": (1,), "alpha": (inputs,), "beta": (inputs,),
            "weight": (outputs, inputs),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_parameter(f"{name}_mu", nn.Parameter(torch.zeros(shape)))
            self.register_parameter(f"{name}_logvar", nn.Parameter(torch.full(shape, -3.0)))

    def factors(self) -> list[tuple[Tensor, Tensor]]:
        """Mean and variance of the logarithm of each factor."""
        return [
            (self.get_parameter(f"{name}_mu"), self.get_parameter(f"{name}_logvar").exp())
            for name in ("sa", "sb", "alpha", "beta")
        ]

    def drawn(self, x: Tensor) -> Tensor:
        """x z w^T of one draw of the scales and of every weight, without a bias."""
        logarithm = torch.zeros(())
        for mean, variance in self.factors():
            logarithm = logarithm + (mean + variance.sqrt() * torch.randn_like(mean)) / 2
        spread = (self.get_parameter("weight_logvar") / 2).exp()
        weight = self.get_parameter("weight_mu") + spread * torch.randn_like(spread)
        return functional.linear(x * logarithm.exp(), weight)

    def kl(self, scale: float) -> Tensor:
        """To s_a ~ Gamma(1/2, scale^2), alpha ~ Gamma(1/2, 1), InvGamma(1/2, 1), and N(0, 1).

        Of a log-normal with log-mean m and log-variance v its entropy is m + log(2 pi e v) / 2, and
        the mean of x^p is exp(p m + p^2 v / 2). Section 4.2 and appendix A, equations 18 to 21.
        """
        total = torch.zeros(())
        for (m, v), power, rate in zip(
            self.factors(), (1, -1, 1, -1), (scale**-2, 1.0, 1.0, 1.0), strict=True
        ):
            entropy = m + 0.5 * torch.log(2 * math.pi * math.e * v)
            # log p = (power / 2 - 1) log x - rate x^power + log(rate) / 2 - log(pi) / 2
            log_prior = (power / 2 - 1) * m - rate * (power * m + v / 2).exp()
            constant = 0.5 * math.log(rate / math.pi)
            total = total - (entropy + log_prior + constant).sum()
        mean, logvar = self.get_parameter("weight_mu"), self.get_parameter("weight_logvar")
        return total + 0.5 * (mean.square() + logvar.exp() - logvar - 1).sum()


class LinearGroupHS(_Horseshoe):
    """Evaluates at the mean of the scale."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.bias_mu = nn.Parameter(torch.zeros(outputs))
        self.bias_logvar = nn.Parameter(torch.full((outputs,), -3.0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            noise = (self.bias_logvar / 2).exp() * torch.randn_like(self.bias_mu)
            return self.drawn(x) + self.bias_mu + noise
        m = sum(mean for mean, _ in self.factors()) / 2
        v = sum(variance for _, variance in self.factors()) / 4
        z = torch.exp(torch.as_tensor(m + v / 2))
        return functional.linear(x * z, self.get_parameter("weight_mu"), self.bias_mu)


class LinearGroupHSWithColumn(_Horseshoe):
    """One input more, held at 1; evaluates at the root of the product of the means."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs + 1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
        if self.training:
            return self.drawn(x)
        product = torch.ones(())
        for mean, variance in self.factors():
            product = product * torch.exp(mean + variance / 2)
        return functional.linear(x, product.sqrt() * self.get_parameter("weight_mu"))


def sbp_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; gates in and behind layers, batch norm and padding behind a gate."""
    return nn.Sequential(
        Conv2dSBP(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        SBPLayer(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        LinearSBP(128, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    )


def sbp_plain_net() -> nn.Module:
    """The deterministic twin of sbp_net."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.Identity(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    )


def _vib(first: nn.Module, second: nn.Module, third: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), first, nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), second, nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32, 10), nn.ReLU(), third, nn.Linear(10, 3),
    )  # fmt: skip


def vib_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; conv, batch norm, ReLU, bottleneck, pool; linear, ReLU, bottleneck."""
    return _vib(*(InformationBottleneck(channels) for channels in (6, 8, 10)))


def vib_plain_net() -> nn.Module:
    """The deterministic twin of vib_net."""
    return _vib(*(nn.Identity() for _ in range(3)))


def horseshoe_net() -> nn.Module:
    """Takes [N, 1, 8, 8]; one layer of each version."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), LinearGroupHS(216, 10), nn.ReLU(),
        LinearGroupHSWithColumn(10, 3),
    )  # fmt: skip


def horseshoe_plain_net() -> nn.Module:
    """The deterministic twin of horseshoe_net."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10), nn.ReLU(),
        nn.Linear(10, 3),
    )  # fmt: skip
