"""Swap Bayesian layers for the torch layers that compute their posterior mean."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.channel_scale import ChannelScale
from deploykit.posterior.family import TwinKind
from deploykit.posterior.recognise import RecognisedLayer
from deploykit.spec.posterior import LayerPosterior

Twin = (
    nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d
    | nn.BatchNorm1d | nn.BatchNorm2d | ChannelScale
)  # fmt: skip
PLAIN = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
"""Parameters and buffers of torch layers."""
IDENTITY = "build the gate layer, or put an nn.Identity() where the gate layer stood"


@dataclass(frozen=True)
class Swapped:
    """A network of torch layers only.

    layers: the names of those that took a Bayesian's place; an nn.Identity that stands for gates
    is none.
    """

    module: nn.Module
    layers: tuple[str, ...]


def swap_layers(module: nn.Module, layers: Sequence[RecognisedLayer]) -> Swapped:
    """A deep copy of the module, its Bayesian layers replaced under the same names.

    A layer that is a torch layer already stays. Weights are not copied; see `loading`.
    """
    root = copy.deepcopy(module)
    swapped: list[str] = []
    for layer in layers:
        current = _submodule(root, layer)
        if _is_twin(current):
            continue
        if not _stands_for_gates(current, layer):
            _require_same_tensors(current, layer)
            swapped.append(layer.name)
        twin = build_twin(layer.posterior(), current, layer.family.twin)
        if not layer.name:
            root = twin
            continue
        parent, _, child = layer.name.rpartition(".")
        setattr(root.get_submodule(parent), child, twin)
    return Swapped(root, tuple(swapped))


def build_twin(
    posterior: LayerPosterior, bayesian: nn.Module, kind: TwinKind = TwinKind.WEIGHTED
) -> Twin:
    """The torch layer with the posterior's shapes and the Bayesian layer's own geometry.

    weight [O, I] -> Linear, [O, I/groups, k] -> Conv1d, [O, I/groups, kh, kw] -> Conv2d.
    stride, padding, dilation, groups and padding_mode are the layer's attributes of that name;
    one that it does not have takes torch's default, which the mean-forward check then tests.
    """
    shape = posterior.mean["weight"].shape
    match kind:
        case TwinKind.CHANNEL_SCALE:
            return ChannelScale(shape[0])
        case TwinKind.BATCH_NORM:
            return _batch_norm(posterior, bayesian)
        case TwinKind.WEIGHTED:
            return _weighted(posterior, bayesian)
        case _:
            assert_never(kind)


def _batch_norm(posterior: LayerPosterior, bayesian: nn.Module) -> nn.BatchNorm1d | nn.BatchNorm2d:
    own = type(bayesian).__name__
    made = nn.BatchNorm1d if "1d" in own else nn.BatchNorm2d
    eps = float(getattr(bayesian, "eps", 1e-5))
    return made(posterior.mean["weight"].shape[0], eps=eps)


def _weighted(posterior: LayerPosterior, bayesian: nn.Module) -> Twin:
    shape = posterior.mean["weight"].shape
    bias = "bias" in posterior.mean
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0], bias=bias, device="meta").to_empty(device="cpu")
    if getattr(bayesian, "transposed", False):
        raise ArchitectureError(
            f"layer '{posterior.name}': {type(bayesian).__name__} is a transposed convolution, "
            "which cannot be folded yet"
        )
    told_by = _wrapped(bayesian)
    groups = int(getattr(told_by, "groups", 1))
    geometry: dict[str, Any] = {
        "in_channels": shape[1] * groups,
        "out_channels": shape[0],
        "kernel_size": shape[2:],
        "groups": groups,
        "bias": bias,
        "stride": getattr(told_by, "stride", 1),
        "padding": getattr(told_by, "padding", 0),
        "dilation": getattr(told_by, "dilation", 1),
        "padding_mode": getattr(told_by, "padding_mode", "zeros"),
    }
    try:
        if len(shape) == 3:
            return nn.Conv1d(**geometry, device="meta").to_empty(device="cpu")
        return nn.Conv2d(**geometry, device="meta").to_empty(device="cpu")
    except (ValueError, TypeError) as error:
        raise ArchitectureError(
            f"layer '{posterior.name}': no torch convolution can take its place with {geometry}: "
            f"{error}; build the layer that was trained"
        ) from error


def _wrapped(bayesian: nn.Module) -> nn.Module:
    """The convolution that a layer keeps as a part of itself, or the layer."""
    parts = (part for part in bayesian.children() if isinstance(part, nn.Conv1d | nn.Conv2d))
    return next(parts, bayesian)


def _submodule(root: nn.Module, layer: RecognisedLayer) -> nn.Module:
    try:
        return root.get_submodule(layer.name)
    except AttributeError as error:
        names = ", ".join(name for name, module in root.named_modules() if _own_keys(module))
        hint = f"; {IDENTITY}" if layer.family.twin is TwinKind.CHANNEL_SCALE else ""
        raise ArchitectureError(
            f"the checkpoint has a {layer.family.name} layer '{layer.name}' and the network has "
            f"none of that name; its layers are {names or 'none'}{hint}"
        ) from error


def _is_twin(module: nn.Module) -> bool:
    return isinstance(module, Twin) and _own_keys(module).keys() <= PLAIN


def _stands_for_gates(module: nn.Module, layer: RecognisedLayer) -> bool:
    """Whether a deterministic network marks with nn.Identity where a gate layer was."""
    return layer.family.twin is TwinKind.CHANNEL_SCALE and isinstance(module, nn.Identity)


def _require_same_tensors(module: nn.Module, layer: RecognisedLayer) -> None:
    own = _own_keys(module)
    if not layer.tensors.keys() & own.keys():
        gates = layer.family.twin is TwinKind.CHANNEL_SCALE
        instead = IDENTITY if gates else "build the layer that was trained, or its torch twin"
        raise ArchitectureError(
            f"layer '{layer.name}': the network builds a {type(module).__name__} with "
            f"{', '.join(own) or 'no parameters'}, the checkpoint holds {layer.family.name} with "
            f"{', '.join(layer.tensors)}; {instead}"
        )
    for key, array in layer.tensors.items():
        if key in own and own[key] != array.shape:
            raise ArchitectureError(
                f"layer '{layer.name}': {key} has shape {own[key]} in the network and "
                f"{array.shape} in the checkpoint; build the network that was trained"
            )


def _own_keys(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters and buffers that the module itself owns, children left out."""
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return {name: tuple(tensor.shape) for name, tensor in own}
