"""Bring the tensors of a checkpoint under the names of the network's layers."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import replace

from torch import nn

from deploykit.errors import ArchitectureError, CheckpointError
from deploykit.posterior.layer_map import propose, unfitting
from deploykit.posterior.layer_map_file import LayerMap
from deploykit.posterior.layer_map_text import map_table, open_layers
from deploykit.posterior.layer_shapes import placed_layers, shown, stored_layers
from deploykit.posterior.recognise import join_key, layer_keys, recognise
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.posterior import Checkpoint


def names_fit(checkpoint: Checkpoint, network: nn.Module) -> bool:
    """Whether every layer of the checkpoint is one of the network's by its name."""
    layers = {name for name, _ in network.named_modules(remove_duplicate=False)}
    keys = layer_keys(recognise(checkpoint), checkpoint)
    return all(name in layers for name, _ in keys.values())


def mapped(checkpoint: Checkpoint, network: nn.Module, layer_map: LayerMap) -> Checkpoint:
    """The checkpoint's layers under the names that the map gives them; others keep theirs.

    Raises ArchitectureError naming the first entry that names no layer, or one of other shapes.
    """
    stored = {layer.name: layer for layer in stored_layers(checkpoint)}
    placed = {place.name: place for place in placed_layers(network, {})}
    origin, targets = layer_map.origin, layer_map.targets
    taken: dict[str, str] = {}
    for name, target in targets.items():
        if name not in stored:
            raise ArchitectureError(
                f"{origin}: {checkpoint.path} has no layer '{name}'{_close(name, stored)}"
            )
        if target not in placed:
            raise ArchitectureError(
                f"{origin}: '{name}' is mapped to '{target}', and the network has no such layer"
                f"{_close(target, placed)}"
            )
        if not stored[name].fits(placed[target]):
            raise ArchitectureError(
                f"{origin}: '{name}' ({shown(stored[name].twin[0])}) does not fit '{target}' "
                f"({shown(placed[target].shapes) or 'nn.Identity, for gates alone'})"
            )
    for name in stored:
        target = targets.get(name, name)
        if target in taken:
            raise ArchitectureError(
                f"{origin}: '{taken[target]}' and '{name}' are both '{target}'; map each layer of "
                "the checkpoint to one of its own"
            )
        if target not in placed:
            raise ArchitectureError(
                f"{origin}: does not map '{name}', and the network has no layer of that name; "
                "add it"
            )
        taken[target] = name
    keys = layer_keys(recognise(checkpoint), checkpoint)
    renamed = {
        join_key(targets.get(name, name), key): checkpoint.tensors[full]
        for full, (name, key) in keys.items()
    }
    return replace(checkpoint, tensors=renamed, layer_map=dict(targets))


def other_names(
    checkpoint: Checkpoint, network: nn.Module, inputs: GraphInputs, flags: str
) -> ArchitectureError | None:
    """What to say of a checkpoint whose layers have other names than the network's.

    None where no map can be proposed and some names agree, so that loading says better which tensor
    is too many or missing. flags: of the command line, that name the network and its inputs.
    """
    try:
        matches = propose(checkpoint, network, inputs)
        placed = placed_layers(network, {})
    except CheckpointError:
        return None  # a layer of the network itself that no family explains
    path = checkpoint.path
    stored = stored_layers(checkpoint)
    if not matches:
        names = {place.name for place in placed}
        if any(layer.name in names for layer in stored):
            return None
        lacking = unfitting(stored, placed)
        return ArchitectureError(
            f"{path}: its layers have other names than the network's, and {lacking}; build the "
            "network that was trained"
        )
    save = f"deploykit inspect {path} {flags} --write-layer-map map.json"
    told = open_layers(matches)
    if told:
        then = "that writes the candidates down; leave one for each, and export with"
    else:
        told, then = "by shape and order they would be these", "if that is right, export with"
    return ArchitectureError(
        f"{path}: its layers have other names than the network's; {told}:\n"
        f"{map_table(matches)}\n{save}\n{then} --layer-map map.json"
    )


def _close(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; perhaps '{close[0]}'" if close else f"; there are {', '.join(list(known)[:8])}"
