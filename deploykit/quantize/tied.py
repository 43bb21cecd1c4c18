"""Layers that multiply by the same numbers: their weights are quantized, and stored, once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from deploykit.quantize.moments import InputMoments
from deploykit.quantize.nodes import groups_of, parameter
from deploykit.quantize.operators import WEIGHTED
from deploykit.quantize.structure import Layer

Tied = Mapping[str, tuple[Layer, ...]]
"""By layer with weights, every layer of the same weights in graph order, itself included."""


def tied_layers(layers: Sequence[Layer]) -> Tied:
    """Layers of one kind whose weights are equal, number by number; most are alone."""
    groups: dict[tuple[object, ...], list[Layer]] = {}
    for layer in layers:
        if layer.kind in WEIGHTED:
            node = layer.nodes[0]
            weight = parameter(node, 1)
            digest = hashlib.sha256(weight.tobytes()).digest()
            key = (layer.kind, weight.shape, groups_of(node), digest)
            groups.setdefault(key, []).append(layer)
    return {layer.name: tuple(group) for group in groups.values() for layer in group}


def joint_moments(
    group: Sequence[Layer], moments: Mapping[str, InputMoments]
) -> InputMoments | None:
    """Mean of the layers' second moments, by positions; None where one was not observed."""
    found = [moments[layer.name] for layer in group if layer.name in moments]
    if len(found) < len(group):
        return None
    first, *others = found
    if not others:
        return first
    positions = sum(one.positions for one in found)
    blocks = sum(one.blocks.astype(np.float64) * (one.positions / positions) for one in found)
    return replace(first, blocks=np.asarray(blocks, np.float32), positions=positions)
