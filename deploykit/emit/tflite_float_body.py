"""The nodes of a float graph, each in its TFLite form, one after another."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_operators import lower
from deploykit.emit.tflite_float_patterns import spelled_gelus
from deploykit.emit.tflite_float_site import FloatSite


def lower_nodes(graph: ir.Graph, site: FloatSite) -> None:
    """Append every node of a graph whose inputs the site knows.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    for gelu in spelled_gelus(graph):
        site.gelus[gelu.last] = gelu.value
        site.absorbed.update(gelu.inner)
    for node in graph:
        if node not in site.absorbed and read.constant(node.outputs[0]) is None:
            lower(node, site)
