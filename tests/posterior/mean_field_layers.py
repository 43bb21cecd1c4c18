"""Mean-field Gaussian layers, restated from their equations for these tests.

q(w) = N(mean, sigma^2), q(b) likewise, drawn anew in every forward, in eval mode too.
Source: Blundell et al. 2015, section 3.2; key names as the libraries write them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def drawn(
    layer: nn.Module,
    mean: str,
    spread: str,
    sigma: Callable[[Tensor], Tensor] = functional.softplus,
) -> Tensor:
    """mean + sigma(spread) * noise, of the layer's parameters by these names."""
    center = layer.get_parameter(mean)
    return center + sigma(layer.get_parameter(spread)) * torch.randn_like(center)


def _parameters(layer: nn.Module, names: dict[str, tuple[int, ...]], spread: float) -> None:
    for name, shape in names.items():
        start = spread if "rho" in name or "sigma" in name else 0.0
        layer.register_parameter(name, nn.Parameter(torch.full(shape, start)))


class BBBLinear(nn.Module):
    """W_mu, W_rho, bias_mu, bias_rho as in PyTorch-BayesianCNN."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("W_mu", "W_rho"), (outputs, inputs))
        _parameters(self, shapes | dict.fromkeys(("bias_mu", "bias_rho"), (outputs,)), -3.0)

    def forward(self, x: Any) -> Any:
        weight, bias = drawn(self, "W_mu", "W_rho"), drawn(self, "bias_mu", "bias_rho")
        return functional.linear(x, weight, bias)


class BBBConv2d(nn.Module):
    """The convolution of the same library: square kernels, no groups."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int = 0) -> None:
        super().__init__()
        shape = (outputs, inputs, kernel, kernel)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("W_mu", "W_rho"), shape)
        _parameters(self, shapes | dict.fromkeys(("bias_mu", "bias_rho"), (outputs,)), -3.0)
        self.stride, self.padding, self.dilation, self.groups = 1, padding, 1, 1

    def forward(self, x: Any) -> Any:
        weight, bias = drawn(self, "W_mu", "W_rho"), drawn(self, "bias_mu", "bias_rho")
        return functional.conv2d(x, weight, bias, self.stride, self.padding)


class WithKl(nn.Module):
    """mu_*, rho_*, mu_bias, rho_bias as in bayesian-torch: returns (output, KL).

    shape: of the weight. part: what it is called, "weight" in a linear layer, else "kernel".
    """

    dnn_to_bnn_flag = False

    def __init__(self, shape: tuple[int, ...], part: str, outputs: int, **geometry: Any) -> None:
        super().__init__()
        self.part, self.geometry = part, geometry
        shapes = dict.fromkeys((f"mu_{part}", f"rho_{part}"), shape)
        _parameters(self, shapes | dict.fromkeys(("mu_bias", "rho_bias"), (outputs,)), -3.0)
        for name, value in geometry.items():
            setattr(self, name, value)

    def forward(self, x: Any) -> Any:
        names = f"mu_{self.part}", f"rho_{self.part}"
        weight, bias = drawn(self, *names), drawn(self, "mu_bias", "rho_bias")
        mean, rho = (self.get_parameter(name) for name in names)
        sigma = functional.softplus(rho)
        kl = (0.5 * (mean**2 + sigma**2 - 1) - sigma.log()).mean()
        return self.compute(x, weight, bias), kl

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The layer with these numbers."""
        return functional.linear(x, weight, bias)


class Conv2dWithKl(WithKl):
    """Its convolution."""

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv2d(x, weight, bias, **self.geometry)


class ConvTranspose2dWithKl(WithKl):
    """Its transposed convolution, which only its class's name tells apart."""

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv_transpose2d(x, weight, bias, **self.geometry)


class ConvTranspose1dWithKl(WithKl):
    """The same over one axis."""

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.conv_transpose1d(x, weight, bias, **self.geometry)


class LstmWithKl(nn.Module):
    """bayesian-torch's LSTM: two linear layers, which draw anew in every step; returns a KL too."""

    dnn_to_bnn_flag = False

    def __init__(self, inputs: int, states: int) -> None:
        super().__init__()
        self.states = states
        self.ih = WithKl((4 * states, inputs), "weight", 4 * states)
        self.hh = WithKl((4 * states, states), "weight", 4 * states)

    def forward(self, x: Any) -> Any:
        hidden, cell = x.new_zeros(len(x), self.states), x.new_zeros(len(x), self.states)
        outputs: list[Tensor] = []
        cells: list[Tensor] = []
        kl: Any = 0.0
        for step in range(x.shape[1]):
            (of_input, first), (of_state, second) = self.ih(x[:, step]), self.hh(hidden)
            enter, forget, new, leave = torch.chunk(of_input + of_state, 4, dim=1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            outputs, cells, kl = [*outputs, hidden], [*cells, cell], kl + first + second
        return torch.stack(outputs, 1), (torch.stack(outputs, 1), torch.stack(cells, 1)), kl


class NetWithKl(nn.Module):
    """Unpacks (output, KL) of a convolution, a batch norm's input, a transposed one, a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2dWithKl((6, 1, 3, 3), "kernel", 6, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.up = ConvTranspose2dWithKl(
            (6, 2, 3, 3), "kernel", 4, stride=2, padding=1, output_padding=1, groups=2
        )
        self.fc = WithKl((3, 4 * 8 * 8), "weight", 3)

    def forward(self, x: Any) -> Any:
        x, first = self.conv(x)
        x, second = self.up(self.norm(x).relu())
        x, third = self.fc(x.relu().flatten(1))
        self.kl = first + second + third
        return x


class TwinOfNetWithKl(nn.Module):
    """The same of torch layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.fc = nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Any) -> Any:
        return self.fc(self.up(self.norm(self.conv(x)).relu()).relu().flatten(1))


class Sampler(nn.Module):
    """blitz's sampler: the tensors that a forward reads."""

    def __init__(self, mu: nn.Parameter, rho: nn.Parameter) -> None:
        super().__init__()
        self.mu, self.rho = mu, rho
        self.register_buffer("eps_w", torch.full(mu.shape, float("nan")))

    def forward(self) -> Tensor:
        return drawn(self, "mu", "rho")


class BlitzLinear(nn.Module):
    """Saves a bias whether it has one or not."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.bias = bias
        shapes: dict[str, tuple[int, ...]] = {}
        shapes |= dict.fromkeys(("weight_mu", "weight_rho"), (outputs, inputs))
        _parameters(self, shapes | dict.fromkeys(("bias_mu", "bias_rho"), (outputs,)), -3.0)
        own = dict(self.named_parameters())
        self.weight_sampler = Sampler(own["weight_mu"], own["weight_rho"])
        self.bias_sampler = Sampler(own["bias_mu"], own["bias_rho"])

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias_sampler() if self.bias else None
        return functional.linear(x, self.weight_sampler(), bias)


class TorchbnnConv2d(nn.Module):
    """weight_mu, weight_log_sigma and biases; pads circularly with half its padding a side."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int, mode: str) -> None:
        super().__init__()
        shape = (outputs, inputs, kernel, kernel)
        shapes: dict[str, tuple[int, ...]] = {}
        shapes |= dict.fromkeys(("weight_mu", "weight_log_sigma"), shape)
        names = dict.fromkeys(("bias_mu", "bias_log_sigma"), (outputs,))
        _parameters(self, shapes | names, -3.0)
        self.stride, self.padding, self.padding_mode = (1, 1), (padding, padding), mode

    def forward(self, x: Any) -> Any:
        weight = drawn(self, "weight_mu", "weight_log_sigma", torch.exp)
        bias = drawn(self, "bias_mu", "bias_log_sigma", torch.exp)
        padding = self.padding[0]
        if self.padding_mode == "circular":
            half = (padding + 1) // 2, padding // 2
            x, padding = functional.pad(x, (*half, *half), mode="circular"), 0
        return functional.conv2d(x, weight, bias, self.stride, padding)


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every mean random, every spread about 0.05 or 0.14, running variances positive; in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if "rho" in name or "log_sigma" in name:
                tensor.copy_(0.3 * noise - 3.0)
            elif name.endswith("running_var"):
                tensor.copy_(noise.exp())
            elif tensor.is_floating_point() and "eps" not in name:
                tensor.copy_(noise)
    return network
