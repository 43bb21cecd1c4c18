"""Swap Bayesian layers for the torch layers that compute their posterior mean."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.activation_range import (
    activations_of,
    add_activations,
    add_range,
    told_sign,
)
from deploykit.posterior.channel_scale import ChannelScale
from deploykit.posterior.family import TwinKind
from deploykit.posterior.loading import absent_buffers
from deploykit.posterior.recognise import RecognisedLayer
from deploykit.spec.posterior import LayerPosterior

Twin = (
    nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d
    | nn.BatchNorm1d | nn.BatchNorm2d | nn.Embedding | nn.LSTM | ChannelScale
)  # fmt: skip
PLAIN = frozenset({
    "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
})  # fmt: skip
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
    Where a layer returns a KL divergence beside its output, so does its twin: always 0.
    """
    root = copy.deepcopy(module)
    swapped: list[str] = []
    for layer in layers:
        posterior = layer.posterior()
        current = _submodule(root, layer)
        if layer.family.twin is TwinKind.ACTIVATION_RANGE:
            _add_range(current, told_sign(current, posterior))
            continue
        if _is_twin(current) and layer.family.twin is not TwinKind.QUANTIZED:
            _require_same_padding(current, layer)
            continue
        if not (_stands_for_gates(current, layer) or _stands_for_quantized(current, layer)):
            _require_same_tensors(current, layer)
            swapped.append(layer.name)
        twin = build_twin(posterior, current, layer.family.twin)
        if _returns_divergence(current):
            twin.register_forward_hook(_with_no_divergence)
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

    weight [O, I] -> Linear, [O, I/groups, k] -> Conv1d, [O, I/groups, kh, kw] -> Conv2d;
    [I, O/groups, ...] -> ConvTranspose1d or 2d, where the layer says so by an attribute
    `transposed` or by its class's name; [rows, features] -> Embedding, by its class's name. A
    layer that has a bias in the checkpoint and bias=False itself gets none.
    stride, padding, dilation, groups and padding_mode are the layer's attributes of that name;
    one that it does not have takes torch's default, which the mean-forward check then tests.
    """
    match kind:
        case TwinKind.CHANNEL_SCALE:
            return ChannelScale(posterior.mean["weight"].shape[0])
        case TwinKind.LSTM:
            return _lstm(posterior, bayesian)
        case TwinKind.BATCH_NORM:
            return _batch_norm(posterior, bayesian)
        case TwinKind.WEIGHTED:
            return _weighted(posterior, bayesian)
        case TwinKind.QUANTIZED:
            return _quantized(posterior, bayesian)
        case TwinKind.ACTIVATION_RANGE:
            raise ValueError(f"{posterior.name}: a range takes no layer's place")
        case _:
            assert_never(kind)


def _quantized(posterior: LayerPosterior, current: nn.Module) -> Twin:
    """The layer that a network has there, behind it the activation that it has there, and a range.

    A batch norm between them is in the layer's weights.
    """
    twin = _weighted(posterior, current)
    add_activations(twin, activations_of(current))
    _add_range(twin, told_sign(current, posterior))
    return twin


def _add_range(module: nn.Module, posterior: LayerPosterior) -> None:
    precision = posterior.precision
    if precision is not None and precision.activation is not None:
        add_range(module, precision.activation)


def _batch_norm(posterior: LayerPosterior, bayesian: nn.Module) -> nn.BatchNorm1d | nn.BatchNorm2d:
    own = type(bayesian).__name__
    made = nn.BatchNorm1d if "1d" in own else nn.BatchNorm2d
    eps = float(getattr(bayesian, "eps", 1e-5))
    return made(posterior.mean["weight"].shape[0], eps=eps)


def _lstm(posterior: LayerPosterior, bayesian: nn.Module) -> nn.LSTM:
    own = type(bayesian).__name__
    if "GRU" in own or getattr(bayesian, "peephole", False):
        raise ArchitectureError(
            f"layer '{posterior.name}': {own} is no plain LSTM (a GRU, or one with peepholes) and "
            "cannot be folded; write its mean out as a deterministic network and export that one "
            "with --prune-rule none"
        )
    states, inputs = posterior.mean["weight_ih_l0"].shape
    return nn.LSTM(inputs, states // 4, bias="bias_ih_l0" in posterior.mean, batch_first=True)


def _weighted(posterior: LayerPosterior, bayesian: nn.Module) -> Twin:
    shape = posterior.mean["weight"].shape
    bias = "bias" in posterior.mean and getattr(bayesian, "bias", True) is not False
    if len(shape) == 2 and "Embedding" in type(bayesian).__name__:
        return nn.Embedding(*shape)
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0], bias=bias, device="meta").to_empty(device="cpu")
    told_by = _wrapped(bayesian)
    groups = int(getattr(told_by, "groups", 1))
    transposed = _is_transposed(bayesian)
    if transposed and posterior.gate_axis is not None:
        raise ArchitectureError(
            f"layer '{posterior.name}': {type(bayesian).__name__} is a transposed convolution with "
            "gates, for which its family states no axis; it cannot be folded"
        )
    geometry: dict[str, Any] = {
        "in_channels": shape[0] if transposed else shape[1] * groups,
        "out_channels": shape[1] * groups if transposed else shape[0],
        "kernel_size": shape[2:],
        "groups": groups,
        "bias": bias,
        "stride": getattr(told_by, "stride", 1),
        "padding": getattr(told_by, "padding", 0),
        "dilation": getattr(told_by, "dilation", 1),
        "padding_mode": getattr(told_by, "padding_mode", "zeros"),
    }
    made: type[nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d]
    if transposed:
        geometry["output_padding"] = getattr(bayesian, "output_padding", 0)
        made = nn.ConvTranspose1d if len(shape) == 3 else nn.ConvTranspose2d
    else:
        made = nn.Conv1d if len(shape) == 3 else nn.Conv2d
    try:
        return made(**geometry, device="meta").to_empty(device="cpu")
    except (ValueError, TypeError) as error:
        raise ArchitectureError(
            f"layer '{posterior.name}': no torch convolution can take its place with {geometry}: "
            f"{error}; build the layer that was trained"
        ) from error


def _is_transposed(bayesian: nn.Module) -> bool:
    return bool(getattr(bayesian, "transposed", False)) or (
        "ConvTranspose" in type(bayesian).__name__
    )


def _returns_divergence(bayesian: nn.Module) -> bool:
    """Whether it returns (output, KL), as bayesian-torch's do unless dnn_to_bnn made them."""
    return getattr(bayesian, "dnn_to_bnn_flag", True) is False


def _with_no_divergence(
    _twin: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor | tuple[Any, ...]
) -> tuple[Any, ...]:
    return (output, 0.0) if isinstance(output, torch.Tensor) else (*output, 0.0)


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
    return isinstance(module, Twin) and _own_keys(module).keys() | absent_buffers(module) <= PLAIN


def _require_same_padding(module: nn.Module, layer: RecognisedLayer) -> None:
    mode = getattr(module, "padding_mode", "zeros")
    if mode in layer.family.padding_modes or not any(_padding_sides(module)):
        return
    raise ArchitectureError(
        f"layer '{layer.name}': the deterministic network pads with padding_mode={mode!r}, and a "
        f"{layer.family.name} layer does not pad as torch does there, whatever the network "
        "that it was made of says; give the network of the library's own layers as --model, or "
        "pad with zeros here, as the network was trained with (where it trained with other "
        "padding in its forward, call torch.nn.functional.pad there too)"
    )


def _padding_sides(module: nn.Module) -> Iterable[int]:
    """How many values a convolution pads with, on every side of every axis."""
    sides: list[int] = getattr(module, "_reversed_padding_repeated_twice", [])
    return sides


def _stands_for_gates(module: nn.Module, layer: RecognisedLayer) -> bool:
    """Whether a deterministic network marks with nn.Identity where a gate layer was."""
    return layer.family.twin is TwinKind.CHANNEL_SCALE and isinstance(module, nn.Identity)


def _stands_for_quantized(module: nn.Module, layer: RecognisedLayer) -> bool:
    """Whether a deterministic network has a torch layer where a quantized one was, alone or with
    what follows it.
    """
    if layer.family.twin is not TwinKind.QUANTIZED:
        return False
    first = next(iter(module.children()), None) if isinstance(module, nn.Sequential) else module
    return first is not None and _is_twin(first)


def _require_same_tensors(module: nn.Module, layer: RecognisedLayer) -> None:
    own = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
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
