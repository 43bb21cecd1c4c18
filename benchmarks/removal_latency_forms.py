"""A network as it is, and pruned with and without alignment: what removal_latency.py times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import onnx_ir as ir
from removal_graph import Graph, graph_of
from removal_masks import Pattern, draw, masked, patterns_for
from removal_sources import unfolded
from removal_walk import Walk, walk

from deploykit.emit.tflite_float import write_float_tflite
from deploykit.graph.cost import totals
from deploykit.graph.normalize import normalize
from deploykit.graph.options import Groups, Measured, RemovalOptions
from deploykit.graph.removal import cut_channels
from deploykit.graph.widths.host import Element, Runtime, host_target
from deploykit.graph.widths.table import WidthTable
from deploykit.spec.network import Network

PREFERRED = (Pattern.AFTER_NORM_TIED, Pattern.AFTER_NORM, Pattern.HEADS)
"""What group-sparse training leaves: tied where layers are tied; of attention, whole heads."""

SUFFIX: Mapping[Runtime, str] = {Runtime.ORT: ".onnx", Runtime.LITERT: ".tflite"}


class Form(Enum):
    """dense: nothing removed; none, auto: pruned, by alignment."""

    DENSE = "dense"
    NONE = "none"
    AUTO = "auto"


@dataclass(frozen=True)
class Forms:
    """networks: by form; kept: zero channels that alignment kept or added, over all blocks."""

    networks: Mapping[Form, Network]
    pattern: Pattern
    kept: int

    def macs(self, form: Form) -> int:
        """Multiply-accumulates of one sample."""
        return totals(self.networks[form].model)[1]


def forms(name: str, kill: float, wanted: Pattern | None, runtime: Runtime) -> Forms:
    """One network of the zoo, its mask drawn with seed 0; aligned by this machine's table.

    wanted: None for the first of PREFERRED that the network has.

    Raises ConfigError where no table fits this processor, ValueError where the network does not
    have the pattern.
    """
    graph = graph_of(unfolded(name))
    found = walk(graph)
    pattern = _pattern(graph, found, wanted)
    mask = draw(graph, found, kill, pattern)
    sparse = normalize(Network(ir.from_proto(masked(graph, mask)), {}))
    table = WidthTable.load(host_target(runtime, Element.FLOAT32))
    aligned = cut_channels(sparse, RemovalOptions(align=Measured(table), groups=Groups.SPLIT))
    networks = {
        Form.DENSE: normalize(Network(ir.from_proto(graph.model), {})),
        Form.NONE: cut_channels(sparse, RemovalOptions(groups=Groups.SPLIT)).pruned,
        Form.AUTO: aligned.pruned,
    }
    kept = sum(
        block.width - block.needed for block in (*aligned.steps[-1].found.widened, *aligned.added)
    )
    return Forms(networks, pattern, kept)


def _pattern(graph: Graph, found: Walk, wanted: Pattern | None) -> Pattern:
    known = patterns_for(graph, found)
    for pattern in PREFERRED if wanted is None else (wanted,):
        if pattern in known:
            return pattern
    raise ValueError(f"the network has only the patterns {[one.value for one in known]}")


def model_file(network: Network, runtime: Runtime) -> bytes:
    """The float network in the runtime's format."""
    match runtime:
        case Runtime.ORT:
            data: bytes = ir.to_proto(network.model).SerializeToString()
            return data
        case Runtime.LITERT:
            return write_float_tflite(network)
