"""The layers of a checkpoint and of a network by the shapes of their tensors, names left aside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from deploykit.posterior.family import TwinKind
from deploykit.posterior.l0 import L0_AMLAB
from deploykit.posterior.loading import IMPLIED
from deploykit.posterior.plain_tensors import with_plain
from deploykit.posterior.recognise import (
    Recognised,
    RecognisedLayer,
    layer_keys,
    recognise,
    split_key,
)
from deploykit.spec.posterior import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]
"""By tensor name relative to the layer."""

RELEASE_BUFFERS = re.compile(r"(^|[._])(eps|prior)_")
"""Buffers that only some releases of a library keep."""


@dataclass(frozen=True)
class StoredLayer:
    """A layer of the checkpoint.

    own: as the file holds it. twin: the forms of the torch layers that compute its mean, the first
    one being shown. gates: how many channels it multiplies, where an nn.Identity may stand for it.
    """

    name: str
    own: Shapes
    twin: tuple[Shapes, ...]
    gates: int | None = None

    def fits(self, place: PlacedLayer) -> bool:
        """Whether the layer of the network can hold this one, or its mean."""
        if place.stands_for_gates:
            return self.gates is not None and place.channels in (None, self.gates)
        return place.shapes in (self.own, *self.twin)


@dataclass(frozen=True)
class PlacedLayer:
    """A layer of the network. An nn.Identity has no shapes, and channels where its output is known.

    channels: of what an nn.Identity gives on, which may stand where a gate layer was.
    """

    name: str
    shapes: Shapes
    stands_for_gates: bool = False
    channels: int | None = None


def stored_layers(checkpoint: Checkpoint) -> tuple[StoredLayer, ...]:
    """In the order of the file. Raises CheckpointError where a layer is not understood."""
    recognised = recognise(checkpoint)
    posteriors = {layer.name: layer for layer in recognised.layers}
    turned = any(layer.family is L0_AMLAB for layer in recognised.layers)
    return tuple(
        _bayesian(posteriors[name], own, _plain_part(recognised, name))
        if name in posteriors
        else StoredLayer(name, own, (own, _turned(own)) if turned else (own,))
        for name, own in _grouped(recognised, checkpoint).items()
    )


def placed_layers(network: nn.Module, channels: Mapping[str, int]) -> tuple[PlacedLayer, ...]:
    """In the order of the network's state dict, with every nn.Identity.

    channels: of what each nn.Identity gives on. Raises CheckpointError where a layer of the network
    is not understood.
    """
    held = _as_checkpoint(network)
    own = _grouped(recognise(held), held)
    return tuple(
        PlacedLayer(name, {}, stands_for_gates=True, channels=channels.get(name))
        if isinstance(module, nn.Identity)
        else PlacedLayer(name, own[name])
        for name, module in network.named_modules(remove_duplicate=False)
        if name in own or isinstance(module, nn.Identity)
    )


def shown(shapes: Shapes) -> str:
    """shown({"weight": (3, 4), "bias": (3,)}) -> "weight 3x4, bias 3"."""
    return ", ".join(
        f"{key} {'x'.join(map(str, shape)) or 'one number'}" for key, shape in shapes.items()
    )


def owners(network: nn.Module) -> Mapping[str, str]:
    """The layer of each entry of the network's state dict."""
    held = _as_checkpoint(network)
    return {key: name for key, (name, _) in layer_keys(recognise(held), held).items()}


def _as_checkpoint(network: nn.Module) -> Checkpoint:
    """Zeros in the shapes of the network's tensors."""
    zero = np.float32(0)
    state = {
        name: np.broadcast_to(zero, tuple(tensor.shape))
        for name, tensor in network.state_dict().items()
    }
    return with_plain(Checkpoint(Path("the network"), state), network)


def _grouped(recognised: Recognised, checkpoint: Checkpoint) -> dict[str, Shapes]:
    """Shapes by layer."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for full, (name, key) in layer_keys(recognised, checkpoint).items():
        shapes = found.setdefault(name, {})
        if not key.endswith(IMPLIED) and not RELEASE_BUFFERS.search(key):
            shapes[key] = checkpoint.tensors[full].shape
    return dict(found)


def _plain_part(recognised: Recognised, name: str) -> dict[str, tuple[int, ...]]:
    return {
        key: array.shape
        for full, array in recognised.plain.items()
        for layer, key in (split_key(full),)
        if layer == name and not key.endswith(IMPLIED)
    }


def _bayesian(
    layer: RecognisedLayer, own: Shapes, plain: dict[str, tuple[int, ...]]
) -> StoredLayer:
    mean = layer.posterior().mean
    twin = {key: array.shape for key, array in mean.items()} | plain
    forms = [twin]
    if layer.family.maybe_unused and "bias" in twin:
        forms.append({key: shape for key, shape in twin.items() if key != "bias"})
    gates = mean["weight"].shape[0] if layer.family.twin is TwinKind.CHANNEL_SCALE else None
    return StoredLayer(layer.name, own, tuple(forms), gates)


def _turned(own: Shapes) -> Shapes:
    """With the weight of a plain linear layer as AMLab's MAPDense stores it."""
    weight = own.get("weight", ())
    return {**own, "weight": weight[::-1]} if len(weight) == 2 else own
