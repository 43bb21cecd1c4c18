"""A float network -> float32 .tflite, in the form that LiteRT is fast on; int8 is measured by it.

The caller holds a canonical float graph, for example the one that a bundle keeps:

    network = Network(ir.load(path), {})
    data = write_float_tflite(network)
"""

from __future__ import annotations

import onnx_ir as ir

from deploykit.emit.tflite_flatbuffer import FilePort, pack_graph
from deploykit.emit.tflite_float_operators import FloatSite, lower
from deploykit.errors import GraphError
from deploykit.spec.network import Network


def write_float_tflite(network: Network) -> bytes:
    """Bytes of a float32 file; the same network always gives the same bytes.

    network: canonical, with fixed shapes. Inputs and outputs of rank 4 are [N, H, W, C] in the
    file, others as in the network; the signature "serving_default" carries the graph's own names.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    model_graph = network.model.graph
    site = FloatSite()
    inputs = [
        FilePort(str(value.name), site.define(_float_input(value)))
        for value in model_graph.inputs
        if value.name not in model_graph.initializers
    ]
    for node in model_graph:
        if node not in site.absorbed:
            lower(node, site)
    outputs = [FilePort(str(value.name), _output(value, site)) for value in model_graph.outputs]
    return pack_graph(site.graph, inputs, outputs)


def _float_input(value: ir.Value) -> ir.Value:
    if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
        raise GraphError(
            f"Input {value.name!r} has element type {value.dtype.name}; a float TFLite file takes "
            "float32: capture the network from its float form."
        )
    return value


def _output(value: ir.Value, site: FloatSite) -> int:
    if value.name not in site.index:
        raise GraphError(
            f"Output {value.name!r} is not computed from the inputs; remove it from the network."
        )
    return site.index[value.name]
