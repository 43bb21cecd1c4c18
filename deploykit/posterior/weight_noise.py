"""Measure how much variance the weights' noise adds to what batch norms read."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from deploykit.posterior.recognise import join_key
from deploykit.spec.arrays import Float32Array

LayerOutput = torch.Tensor | tuple[torch.Tensor, float]
"""What a layer returns: its output, or that and a KL divergence of 0."""

LayerHook = Callable[[nn.Module, tuple[torch.Tensor, ...], LayerOutput], None]
InputHook = Callable[[nn.Module, tuple[torch.Tensor, ...]], None]


@dataclass
class NoiseSum:
    """Running sum [C] of added variance, and over how many numbers per channel.

    common: [O, ...] variances of a weight that one draw of stands for a batch, or None; inputs: sum
    of what each of its entries was multiplied with.
    """

    total: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    count: int = 0
    common: torch.Tensor | None = None
    inputs: torch.Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def mean(self) -> torch.Tensor:
        """Mean added variance per channel [C], float64."""
        if self.common is None:
            return self.total / self.count
        shifts = self.common * (self.inputs / self.count) ** 2
        return self.total / self.count - shifts.flatten(1).sum(1)


@dataclass(frozen=True)
class _Produced:
    """A layer's latest output and its noise. version tells whether it was changed in place."""

    output: weakref.ref[torch.Tensor]
    version: int
    total: torch.Tensor
    count: int
    common: torch.Tensor | None
    inputs: torch.Tensor

    def is_still(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor is that output, unchanged."""
        return self.output() is tensor and tensor._version == self.version


@contextmanager
def measuring_noise(
    module: nn.Module,
    variance: Mapping[str, Float32Array],
    readers: Mapping[str, nn.Module],
    together: Collection[str] = (),
) -> Iterator[Mapping[str, NoiseSum]]:
    """While open, sums up the noise in what each reader is fed directly by a noisy layer.

    The noise of a layer at input x is the layer itself at x^2 with weight s_w^2 and bias s_b^2,
    which is exact under padding, groups and dilation. together: layers of which one draw stands for
    a batch: their bias, and what the mean of the inputs carries, shift all of a batch alike.
    """
    produced: dict[str, _Produced] = {}
    sums: dict[str, NoiseSum] = {}
    handles = []
    for name, noisy in noise_layers(module, variance).items():
        layer = module.get_submodule(name)
        common = None
        if name in together:
            common = noisy.get_parameter("weight").detach().double()
            if "bias" in dict(noisy.named_parameters()):
                nn.init.zeros_(noisy.get_parameter("bias"))
        handles.append(layer.register_forward_hook(_producer_hook(name, noisy, common, produced)))
    for name, reader in readers.items():
        handles.append(reader.register_forward_pre_hook(_reader_hook(name, produced, sums)))
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def noise_layers(
    module: nn.Module, variance: Mapping[str, Float32Array]
) -> Mapping[str, nn.Module]:
    """Copies of the layers that have any variance, with it in place of their parameters."""
    noisy: dict[str, nn.Module] = {}
    for name, layer in module.named_modules():
        own = {
            key: variance[join_key(name, key)]
            for key, _ in layer.named_parameters(recurse=False)
            if join_key(name, key) in variance
        }
        if "weight" not in own or not any(array.any() for array in own.values()):
            continue
        noisy[name] = copy.deepcopy(layer)
        with torch.no_grad():
            for key, parameter in noisy[name].named_parameters(recurse=False):
                parameter.copy_(torch.tensor(own[key]) if key in own else torch.tensor(0.0))
    return noisy


def _producer_hook(
    name: str, noisy: nn.Module, common: torch.Tensor | None, produced: dict[str, _Produced]
) -> LayerHook:
    def hook(_layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: LayerOutput) -> None:
        noise = _tensor(noisy(inputs[0].square())).double().transpose(0, 1).flatten(1)
        read = _tensor(output)
        multiplied = torch.zeros(1) if common is None else _multiplied(noisy, inputs[0])
        produced[name] = _Produced(
            weakref.ref(read), read._version, noise.sum(dim=1), noise.shape[1], common,
            multiplied.double(),
        )  # fmt: skip

    return hook


def _multiplied(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What each weight is multiplied with, summed over samples and positions: d(sum y) / dw."""
    weight = layer.get_parameter("weight").requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(_tensor(layer(inputs.detach())).sum(), weight)
    return found


def _tensor(output: LayerOutput) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _reader_hook(
    name: str, produced: Mapping[str, _Produced], sums: dict[str, NoiseSum]
) -> InputHook:
    def hook(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        for source in produced.values():
            if source.is_still(inputs[0]):
                found = sums.setdefault(name, NoiseSum())
                found.total = found.total + source.total
                found.count += source.count
                found.common = source.common
                found.inputs = found.inputs + source.inputs

    return hook
