"""Depth to space in the order of torch's PixelShuffle (CRD) in that of the runtimes (DCR).

    CRD: pixel (i, j) of channel c is channel c*b*b + i*b + j; DCR: (i*b + j)*C + c

The channels before it change places: in the weights of the convolution that computes them, through
operators that treat all numbers alike, or by a Gather.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, attribute_string, floats
from deploykit.graph.lowering.building import Replacement, replace_each
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

ALIKE = frozenset(
    (
        "Abs", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish",
        "LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh",
    )
)  # fmt: skip
"""Operators that do the same to every number."""


def lower_pixel_shuffles(network: Network) -> Rewritten:
    """Replace every DepthToSpace of mode CRD."""
    return replace_each(network, _fits, _replace)


def _fits(node: ir.Node) -> bool:
    crd = node.op_type == "DepthToSpace" and attribute_string(node, "mode", "DCR") == "CRD"
    return crd and static_shape(node.outputs[0]) is not None


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    source, result = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert source is not None and result is not None and node.inputs[0] is not None
    block, channels = attribute_int(node, "blocksize", 2), result[1]
    order = np.arange(source[1]).reshape(channels, block * block).T.reshape(-1)
    new, read = Replacement(graph, node), node.inputs[0]
    maker = _convolution(node)
    if maker is None:
        places = new.constant("places", order)
        read = new.node("Gather", [read, places], "ordered", source, {"axis": 1})
    else:
        for index, what in ((1, "weight"), (2, "bias")):
            values = floats(maker.inputs[index])
            assert values is not None
            maker.replace_input_with(index, new.constant(what, values[order]))
    new.finish(
        new.node("DepthToSpace", [read], "pixels", result, {"blocksize": block, "mode": "DCR"})
    )


def _convolution(node: ir.Node) -> ir.Node | None:
    """The convolution whose outputs a node reads alone, through operators of ALIKE alone."""
    value = node.inputs[0]
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        maker = value.producer()
        if maker is None:
            return None
        if maker.op_type == "Conv":
            plain = attribute_int(maker, "group", 1) == 1 and len(maker.inputs) > 2
            held = [floats(one) for one in maker.inputs[1:]]
            return maker if plain and all(one is not None for one in held) else None
        if maker.op_type not in ALIKE:
            return None
        value = maker.inputs[0]
    return None
