"""Linear and convolution layers with a group normal-Jeffreys posterior.

One gate z per group multiplies Gaussian weights; both have a factorised Gaussian posterior:

    q(z)   = N(z_mu, exp(z_logvar))                      improper prior p(z) ~ 1/|z|
    q(w|z) = N(z * weight_mu, z^2 * exp(weight_logvar))  prior N(0, z^2); the bias likewise

A gate whose relative noise alpha = exp(z_logvar) / z_mu^2 is large carries no information,
and its whole group can be removed.

Source: Louizos, Ullrich, Welling, "Bayesian Compression for Deep Learning", NeurIPS 2017,
sections 4.1 and 4.3; parameter names as in the authors' published code.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# Molchanov, Ashukha, Vetrov, "Variational Dropout Sparsifies Deep Neural Networks",
# ICML 2017, equation 14.
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695

_INITIAL_LOGVAR = -9.0
_INITIAL_SPREAD = 0.01
_EPSILON = 1e-8

_Pair = int | tuple[int, int]


def _as_pair(value: _Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _sample(mean: Tensor, variance: Tensor) -> Tensor:
    """Draw from N(mean, variance), element by element, differentiably in both."""
    return mean + (variance + _EPSILON).sqrt() * torch.randn_like(mean)


def _kl_to_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mean, exp(logvar)) || N(0, 1)) in nats, summed: (mean^2 + var - 1 - logvar) / 2."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum()


class GroupNormalJeffreys(nn.Module):
    """The posterior that both layers share: gates, weights and biases, all Gaussian.

    z_mu, z_logvar            [gates]
    weight_mu, weight_logvar  the shape of the torch.nn layer's weight
    bias_mu, bias_logvar      [outputs]
    The logvar tensors hold log(sigma^2).
    """

    def __init__(self, gates: int, weight_shape: tuple[int, ...]) -> None:
        super().__init__()
        outputs = weight_shape[0]
        self.z_mu = nn.Parameter(torch.empty(gates))
        self.z_logvar = nn.Parameter(torch.empty(gates))
        self.weight_mu = nn.Parameter(torch.empty(weight_shape))
        self.weight_logvar = nn.Parameter(torch.empty(weight_shape))
        self.bias_mu = nn.Parameter(torch.empty(outputs))
        self.bias_logvar = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Open gates (mean 1), weights N(0, 1/fan_in), all variances near exp(-9)."""
        fan_in = math.prod(self.weight_mu.shape[1:])
        nn.init.normal_(self.z_mu, 1.0, _INITIAL_SPREAD)
        nn.init.normal_(self.weight_mu, 0.0, 1.0 / math.sqrt(fan_in))
        nn.init.zeros_(self.bias_mu)
        for logvar in (self.z_logvar, self.weight_logvar, self.bias_logvar):
            nn.init.normal_(logvar, _INITIAL_LOGVAR, _INITIAL_SPREAD)

    def log_alpha(self) -> Tensor:
        """Log of the gates' relative noise, z_logvar - log(z_mu^2 + 1e-8)  [gates]."""
        return self.z_logvar - (self.z_mu.square() + _EPSILON).log()

    def kl_divergence(self) -> Tensor:
        """KL from the prior to the posterior in nats, a scalar.

        Gates:  -KL ~= k1*sigmoid(k2 + k3*log_alpha) - log(1 + 1/alpha)/2 - k1
        Weights and biases: against N(0, 1); the scale z cancels.
        """
        log_alpha = self.log_alpha()
        gates = (
            _K1 * torch.sigmoid(-(_K2 + _K3 * log_alpha)) + 0.5 * functional.softplus(-log_alpha)
        ).sum()
        weights = _kl_to_standard_normal(self.weight_mu, self.weight_logvar)
        biases = _kl_to_standard_normal(self.bias_mu, self.bias_logvar)
        return gates + weights + biases


class LinearGroupNJ(GroupNormalJeffreys):
    """Fully connected layer with one gate per input feature.

    eval():  y = (x * z_mu) @ weight_mu.T + bias_mu
    train(): one z per example, then y drawn from its Gaussian given z (local
             reparametrisation, Kingma, Salimans, Welling 2015)
    x [N, in_features], weight_mu [out_features, in_features], z_mu [in_features],
    y [N, out_features]
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(gates=in_features, weight_shape=(out_features, in_features))
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return functional.linear(x * self.z_mu, self.weight_mu, self.bias_mu)
        gated = x * _sample(self.z_mu.expand_as(x), self.z_logvar.exp())
        mean = functional.linear(gated, self.weight_mu, self.bias_mu)
        variance = functional.linear(
            gated.square(), self.weight_logvar.exp(), self.bias_logvar.exp()
        )
        return _sample(mean, variance)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Conv2dGroupNJ(GroupNormalJeffreys):
    """2-d convolution with one gate per output channel, which scales the bias too.

    eval():  y = (conv(x, weight_mu) + bias_mu) * z_mu
    train(): one z per example and channel, then y drawn from its Gaussian given z
    x [N, in_channels, H, W], weight_mu [out_channels, in_channels/groups, kh, kw],
    z_mu [out_channels], y [N, out_channels, H', W']
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Pair,
        stride: _Pair = 1,
        padding: _Pair = 0,
        dilation: _Pair = 1,
        groups: int = 1,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2dGroupNJ: {in_channels} input and {out_channels} output channels "
                f"cannot be split into {groups} equal groups"
            )
        kernel = _as_pair(kernel_size)
        super().__init__(
            gates=out_channels, weight_shape=(out_channels, in_channels // groups, *kernel)
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = _as_pair(stride)
        self.padding = _as_pair(padding)
        self.dilation = _as_pair(dilation)
        self.groups = groups

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv2d(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = self._convolve(x, self.weight_mu, self.bias_mu)
        if not self.training:
            return mean * self.z_mu[:, None, None]
        variance = self._convolve(x.square(), self.weight_logvar.exp(), self.bias_logvar.exp())
        z_mean = self.z_mu.expand(x.shape[0], -1)
        z = _sample(z_mean, self.z_logvar.exp())[:, :, None, None]
        return _sample(mean, variance) * z

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}"
        )
