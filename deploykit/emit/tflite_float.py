"""A float network -> float32 .tflite, in the form that LiteRT is fast on; int8 is measured by it.

The caller holds a canonical float graph, for example the one that a bundle keeps:

    network = Network(ir.load(path), {})
    data = write_float_tflite(network)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_flatbuffer import FilePort, pack_graph
from deploykit.emit.tflite_float_body import lower_nodes
from deploykit.emit.tflite_float_live import live_part
from deploykit.emit.tflite_float_order import natural, port_order
from deploykit.emit.tflite_float_site import FloatSite, Place
from deploykit.emit.tflite_graph import TfliteGraph
from deploykit.errors import GraphError
from deploykit.spec.network import Network


@dataclass(frozen=True)
class FloatFile:
    """A float network's operators in TFLite's terms, before they are packed."""

    graph: TfliteGraph
    inputs: Sequence[FilePort]
    outputs: Sequence[FilePort]


def write_float_tflite(network: Network) -> bytes:
    """Bytes of a float32 file; the same network always gives the same bytes.

    Token ids are int32 in the file.

    network: canonical, with fixed shapes. Inputs and outputs of rank 4 are [N, H, W, C] in the
    file, others as in the network; the signature "serving_default" carries the graph's own names.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    file = float_file(network)
    return pack_graph(file.graph, file.inputs, file.outputs)


def float_file(network: Network) -> FloatFile:
    """What `write_float_tflite` packs."""
    model_graph = network.model.graph
    site = FloatSite(network.model.opset_imports.get("", 1))
    inputs = [
        FilePort(str(value.name), _input(value, site))
        for value in model_graph.inputs
        if value.name not in model_graph.initializers
    ]
    lower_nodes(model_graph, site)
    outputs = [FilePort(str(value.name), _output(value, site)) for value in model_graph.outputs]
    live, index = live_part(site.graph, [port.tensor for port in (*inputs, *outputs)])
    moved_in, moved_out = (
        [FilePort(port.name, index[port.tensor]) for port in side] for side in (inputs, outputs)
    )
    return FloatFile(live, moved_in, moved_out)


def _input(value: ir.Value, site: FloatSite) -> int:
    if value.dtype in (ir.DataType.INT32, ir.DataType.INT64):
        shape, name = read.value_shape(value), str(value.name)
        index = site.graph.activation(name, shape, None, np.int32)
        site.places[name] = Place(index, shape, natural(len(shape)))
        return index
    if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
        raise GraphError(
            f"Input {value.name!r} has element type {value.dtype.name}; a float TFLite file takes "
            "float32: capture the network from its float form."
        )
    return site.define(value, port_order(len(read.value_shape(value))))


def _output(value: ir.Value, site: FloatSite) -> int:
    if value.name not in site.places:
        raise GraphError(
            f"Output {value.name!r} is not computed from the inputs; remove it from the network."
        )
    place = site.places[str(value.name)]
    return site.in_order(place, port_order(len(place.shape)))
