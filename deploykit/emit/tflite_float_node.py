"""What the float TFLite writer reads off a node of the ONNX graph, or the error that refuses it."""

from __future__ import annotations

from math import inf

import numpy as np
import onnx_ir as ir

from deploykit.emit.tflite_graph import Activation
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import static_shape
from deploykit.spec.quantized import Window

FUSING = frozenset({"Add", "AveragePool", "Conv", "Gemm", "MaxPool"})
"""Operators whose TFLite form has a fused activation."""

ACTIVATIONS = {(0.0, inf): Activation.RELU, (0.0, 6.0): Activation.RELU6}
"""By (low, high) of the Relu or Clip; other bounds take MAXIMUM and MINIMUM."""

NORMALIZE = "normalize the network before it is written"


def refuse(node: ir.Node, what: str, instead: str) -> UnsupportedOperatorError:
    """The error that names operator and node. instead: what to do."""
    return UnsupportedOperatorError(f"{node.op_type} {label(node)!r}: {what}; {instead}.")


def label(node: ir.Node) -> str:
    """A node's name, or the name of what it computes."""
    return node.name or str(node.outputs[0].name)


def value_shape(value: ir.Value) -> tuple[int, ...]:
    """Sizes of a tensor, batch included, all of them known."""
    shape = static_shape(value)
    if shape is None:
        raise GraphError(
            f"Tensor {value.name!r} has no fixed shape; export the network with a fixed input "
            "shape, batch included, and infer the shapes of all its tensors."
        )
    return shape


def image_shape(node: ir.Node, value: ir.Value | None) -> tuple[int, int, int, int]:
    """[N, C, H, W] of what a node over H and W reads or gives."""
    shape = () if value is None else value_shape(value)
    if len(shape) != 4:
        raise refuse(
            node, f"it works on shape {list(shape)}", "only images [N, C, H, W] are written"
        )
    batch, channels, height, width = shape
    return batch, channels, height, width


def parameter(node: ir.Node, position: int) -> Float32Array | None:
    """A constant input as float32, None where it is left out."""
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise refuse(
            node,
            f"its input {position} ({value.name!r}) is computed by the network",
            "weights and bounds have to be constants",
        )
    return np.asarray(tensor.numpy(), dtype=np.float32)


def weight(node: ir.Node, rank: int) -> Float32Array:
    """The constant input 1 of a Conv or Gemm."""
    values = parameter(node, 1)
    if values is None or values.ndim != rank:
        found = "is missing" if values is None else f"has shape {list(values.shape)}"
        raise refuse(node, f"its weight {found}", f"only weights of rank {rank} are written")
    return values


def bias(node: ir.Node, outputs: int) -> Float32Array:
    """The constant input 2 of a Conv or Gemm, [outputs]; zeros where it is left out."""
    values = parameter(node, 2)
    if values is None:
        return np.zeros(outputs, dtype=np.float32)
    if values.shape != (outputs,):
        raise refuse(node, f"its bias has shape {list(values.shape)}, not {[outputs]}", NORMALIZE)
    return values


def require_canonical_gemm(node: ir.Node) -> None:
    """Refuse a Gemm that is more than x @ weight' + bias, ' a transpose."""
    transposed = tuple(node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    factors = tuple(node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    if transposed != (0, 1) or factors != (1.0, 1.0):
        what = f"it has (transA, transB) = {transposed} and (alpha, beta) = {factors}"
        raise refuse(node, what, NORMALIZE)


def window(node: ir.Node, kernel: tuple[int, ...]) -> Window:
    """The sliding window of a Conv or pool over H and W, with the pads that the node states."""
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad not in {"NOTSET", "VALID"}:
        raise refuse(node, f"its pads are left to auto_pad={auto_pad}", NORMALIZE)
    if len(kernel) != 2:
        raise refuse(node, f"its kernel_shape is {list(kernel)}", "only windows over H and W work")
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    if auto_pad == "VALID":
        pads = (0, 0, 0, 0)
    top, left, bottom, right = pads
    stride_h, stride_w = node.attributes.get_ints("strides", (1, 1))
    dilation_h, dilation_w = node.attributes.get_ints("dilations", (1, 1))
    return Window(
        (kernel[0], kernel[1]),
        (stride_h, stride_w),
        (top, left, bottom, right),
        (dilation_h, dilation_w),
    )


def bounds(node: ir.Node) -> tuple[float, float]:
    """(low, high) of a Relu or Clip, infinite where it does not limit.

    Clip has its bounds as attributes before opset 11, as inputs since.
    """
    if node.op_type == "Relu":
        return 0.0, inf
    low, high = parameter(node, 1), parameter(node, 2)
    return (
        node.attributes.get_float("min", -inf) if low is None else low.item(),
        node.attributes.get_float("max", inf) if high is None else high.item(),
    )


def fused_activation(node: ir.Node) -> tuple[ir.Node, Activation] | None:
    """The Relu or Clip that moves into a node as its only reader, and its form."""
    output = node.outputs[0]
    uses = tuple(output.uses())
    if node.op_type not in FUSING or len(uses) != 1 or output.is_graph_output():
        return None
    follower = uses[0].node
    if follower.op_type not in {"Relu", "Clip"}:
        return None
    activation = ACTIVATIONS.get(bounds(follower))
    return None if activation is None else (follower, activation)


def is_never_negative(value: ir.Value | None) -> bool:
    """Whether a Relu, or a Clip from zero up, made the value, as pooling leaves it."""
    node = None if value is None else value.producer()
    if node is None:
        return False
    match node.op_type:
        case "Relu" | "Clip":
            return bounds(node)[0] >= 0.0
        case "MaxPool" | "AveragePool":
            return is_never_negative(node.inputs[0])
        case _:
            return False


def may_be_reordered(value: ir.Value) -> bool:
    """Whether only Gemms read a flattened tensor, directly or through Relu and Clip.

    The elements may then come as H, W, C, with the columns of the Gemms' weights in that order.
    """
    return not value.is_graph_output() and all(
        (use.node.op_type == "Gemm" and use.idx == 0)
        or (use.node.op_type in {"Relu", "Clip"} and may_be_reordered(use.node.outputs[0]))
        for use in value.uses()
    )
