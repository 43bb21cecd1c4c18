"""Float TFLite forms of what takes or gives whole numbers: rows of a table, the largest entry."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_order import natural
from deploykit.emit.tflite_float_site import FloatSite, Place
from deploykit.emit.tflite_graph import Options

INT64 = 4
"""The schema's number of the element type."""


def embedding(node: ir.Node, site: FloatSite, ids: Place) -> None:
    """Rows of a constant table by whole numbers that the network is given."""
    table = read.constant(node.inputs[0])
    assert table is not None
    held = site.graph.constant(f"{read.label(node)}/table", np.ascontiguousarray(table))
    rank = len(read.value_shape(node.outputs[0]))
    result = site.define(node.outputs[0], natural(rank))
    options = Options("GatherOptions", {"axis": 0})
    site.graph.operator("GATHER", (held, site.in_order(ids, natural(rank - 1))), result, options)


def arg_max(node: ir.Node, site: FloatSite) -> None:
    """ARG_MAX of the first largest, to int64 at the end of a network."""
    place, output = site.place(node), node.outputs[0]
    last = node.attributes.get_int("select_last_index", 0)
    if last or not output.is_graph_output() or node.attributes.get_int("keepdims", 1):
        raise read.refuse(node, "it is no plain ArgMax at the end", "take the first, without axis")
    axis, name = read.axis(node, len(place.shape), 0), str(output.name)
    shape = read.value_shape(output)
    source = site.in_order(place, natural(len(place.shape)))
    index = site.graph.activation(name, shape, None, np.int64)
    options = Options("ArgMaxOptions", {"outputType": INT64})
    axes = site.graph.integers("axis", np.array([axis]))
    site.graph.operator("ARG_MAX", (source, axes), index, options)
    site.places[name] = Place(index, shape, natural(len(shape)))
