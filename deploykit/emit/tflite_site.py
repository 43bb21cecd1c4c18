"""Where an integer operator is written: its network, the file's graph, and where tensors are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploykit.emit.tflite_graph import TfliteGraph
from deploykit.emit.tflite_layout import file_axis
from deploykit.spec.quantized import QuantizedNetwork


@dataclass(frozen=True)
class Site:
    """What lowering an operator needs: where its tensors are, and the graph it adds to.

    index: by tensor name of the network; flattened: see tflite_layout.flattened_order. constants:
    indices by name, as they are written. weights: indices by what is stored.
    """

    network: QuantizedNetwork
    graph: TfliteGraph
    index: Mapping[str, int]
    flattened: Mapping[str, tuple[int, int, int]]
    constants: dict[str, int] = field(default_factory=dict)
    weights: dict[tuple[object, ...], int] = field(default_factory=dict)


def axis_of(site: Site, tensor: str, axis: int) -> int:
    """An axis of the network where the file has it."""
    return file_axis(axis, len(site.network.tensors[tensor].shape))
