"""The torch layers of a quantizer-aware checkpoint: a layer, its activation, and its range.

The range clips; it does not round, which is planning's to do. Between an activation and the clip of
a tensor whose integers do not fill int8 stands a Relu of its own, so that a layer takes in the Relu
as its saturation, and the clip stays an operator.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.spec.posterior import ActivationRange, LayerPosterior

RANGE, ACTIVATION = "activation_range", "activation"
"""Names of the parts that a layer or block gets; neither has parameters."""
QUANTIZER = "activation_quantizer"
"""Name of the published part that the range stands for."""
POSITIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)
KEEPS_GRID = (nn.Identity, nn.ReLU)
"""Activations that leave a number of an unsigned grid where it is."""


class HeldTo(nn.Module):
    """y = min(max(x, low), high), behind a Relu where low is zero."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of any shape."""
        positive = torch.relu(x) if self.low == 0.0 else x
        return torch.clamp(positive, self.low, self.high)


def activations_of(module: nn.Module) -> tuple[nn.Module, ...] | None:
    """What a module computes behind its layer.

    That is what `add_activations` gave it, the activation_function of published layers, or the rest
    of an nn.Sequential but for batch norms, which are folded.

    None where the module is the layer alone, and the network's forward may go on with anything.
    """
    if hasattr(module, ACTIVATION):
        return tuple(module.get_submodule(ACTIVATION).children())
    if hasattr(module, "activation_function"):
        function = module.activation_function
        return (function,) if isinstance(function, nn.Module) else ()
    if isinstance(module, nn.Sequential):
        rest = list(module.children())[1:]
        return tuple(one for one in rest if not isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d))
    return None


def add_activations(layer: nn.Module, activations: tuple[nn.Module, ...] | None) -> None:
    """Let a layer go on with these, in place."""
    if activations is not None:
        layer.add_module(ACTIVATION, nn.Sequential(*activations))
        layer.register_forward_hook(_go_on)


def add_range(module: nn.Module, held: ActivationRange) -> None:
    """Hold what a module gives to a range, in place of the quantizer that it ends with, if any."""
    if hasattr(module, QUANTIZER):
        module.add_module(QUANTIZER, nn.Identity())
    module.add_module(RANGE, HeldTo(held.low, held.high))
    module.register_forward_hook(_hold)


def told_sign(module: nn.Module, posterior: LayerPosterior) -> LayerPosterior:
    """The posterior, its activations' sign told by the network where the file does not.

    module: what stands in the network in the layer's or block's place.
    """
    precision = posterior.precision
    held = None if precision is None else precision.activation
    if precision is None or held is None or held.if_signed is None:
        return posterior
    activations = activations_of(module)
    if activations is None:
        found = getattr(module, "relu", None)
        activations = (found,) if isinstance(found, nn.Module) else None
    if activations is None:
        raise ArchitectureError(
            f"layer '{posterior.name}': its file keeps a learned scale, and not whether what it "
            "gives may be negative; put nn.Sequential(layer, nn.ReLU()) in its place, or "
            "nn.Sequential(layer, nn.Identity()), and call the activation of a block `relu`"
        )
    positive = any(isinstance(one, POSITIVE) for one in activations)
    told = replace(held, if_signed=None) if positive else held.if_signed
    return replace(posterior, precision=replace(precision, activation=told))


def with_constants_on_grid(layer: nn.Module, posterior: LayerPosterior) -> LayerPosterior:
    """The posterior, what its pruned channels give being numbers of the activations' grid.

    A channel without weights gives its bias, which the network rounds to the grid; folded into the
    layers that read it, it has to be that number.
    """
    precision = posterior.precision
    held = None if precision is None else precision.activation
    if held is None or held.grid is None or "bias" not in posterior.mean:
        return posterior
    rest = getattr(layer, ACTIVATION, nn.Sequential())
    if not all(isinstance(one, KEEPS_GRID) for one in rest):
        return posterior
    weight, bias = posterior.mean["weight"], posterior.mean["bias"]
    silent = ~weight.reshape(len(weight), -1).any(axis=1)
    bias = bias.copy()
    bias[silent] = held.grid.nearest(bias[silent])
    return replace(posterior, mean=dict(posterior.mean) | {"bias": bias})


def _go_on(module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    found = module.get_submodule(ACTIVATION)(output)
    assert isinstance(found, torch.Tensor)
    return found


def _hold(module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    found = module.get_submodule(RANGE)(output)
    assert isinstance(found, torch.Tensor)
    return found
