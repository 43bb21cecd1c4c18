"""What kind of kernel a layer runs in, and how often it runs it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_ints, constant
from deploykit.graph.widths.table import LayerKind
from deploykit.spec.network import static_shape


def layer_kind(node: ir.Node) -> LayerKind:
    """Of a Conv, ConvTranspose, Gemm or MatMul that is not depthwise."""
    if node.op_type in {"Gemm", "MatMul"}:
        shape = static_shape(node.outputs[0]) or ()
        return LayerKind.LINEAR if int(np.prod(shape[:-1])) == 1 else LayerKind.POINTWISE
    weight = constant(node.inputs[1])
    kernel = attribute_ints(node, "kernel_shape", () if weight is None else weight.shape[2:])
    return LayerKind.POINTWISE if set(kernel) <= {1} else LayerKind.SPATIAL


def positions_and_taps(node: ir.Node) -> float:
    """Output positions * taps of a sample; a transposed convolution's input positions."""
    value = node.inputs[0] if node.op_type == "ConvTranspose" else node.outputs[0]
    shape = static_shape(value) or ()
    if node.op_type in {"Gemm", "MatMul"}:
        return float(np.prod(shape[:-1]))
    weight = constant(node.inputs[1])
    taps = 1 if weight is None else int(np.prod(weight.shape[2:]))
    return float(np.prod(shape[2:]) * taps)
