"""What the float TFLite writer reads off a node of the ONNX graph, or the error that refuses it."""

from __future__ import annotations

from math import inf

import numpy as np
import onnx_ir as ir

from deploykit.emit.tflite_graph import Activation
from deploykit.emit.tflite_lowering import require_dense
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.network import static_shape
from deploykit.spec.operators import Window

FUSING = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "Div",
        "Gemm",
        "MaxPool",
        "Mul",
        "Sub",
    }
)
"""Operators whose TFLite form ends in one with a fused activation."""

ELEMENTWISE = frozenset(
    {
        "Abs",
        "Clip",
        "Elu",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Neg",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    }
)
"""Operators that give every element from the same element alone, wherever it lies."""

ACTIVATIONS = {
    (0.0, inf): Activation.RELU,
    (-1.0, 1.0): Activation.RELU_N1_TO_1,
    (0.0, 6.0): Activation.RELU6,
}
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


def require_image(node: ir.Node, value: ir.Value | None) -> tuple[int, ...]:
    """[N, C, H, W] or [N, C, L] of what a node over pixels reads or gives."""
    shape = () if value is None else value_shape(value)
    if len(shape) not in {3, 4}:
        raise refuse(
            node,
            f"it works on shape {list(shape)}",
            "only images [N, C, H, W] and sequences [N, C, L] are written",
        )
    return shape


def constant(value: ir.Value | None) -> AnyArray | None:
    """A value that depends on no input of the network, None for any other."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        return tensor.numpy()
    node = value.producer()
    if node is not None and node.op_type in {"Cast", "CastLike", "Identity"}:
        return constant(node.inputs[0])
    return None


def integers(
    node: ir.Node, position: int, attribute: str, default: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """A list of integers that is a constant input, or an attribute as before some opset."""
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is not None:
        values = constant(value)
        if values is None:
            raise refuse(
                node,
                f"its input {position} ({value.name!r}) is computed by the network",
                "axes, sizes and indices have to be constants",
            )
        return tuple(int(number) for number in values.reshape(-1))
    if attribute not in node.attributes:
        return default
    return tuple(node.attributes.get_ints(attribute, ()))


def axis(node: ir.Node, rank: int, default: int) -> int:
    """The attribute axis, counted from the front."""
    return node.attributes.get_int("axis", default) % rank


def parameter(node: ir.Node, position: int) -> Float32Array | None:
    """A constant input as float32, None where it is left out."""
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        return None
    values = constant(value)
    if values is None:
        raise refuse(
            node,
            f"its input {position} ({value.name!r}) is computed by the network",
            "weights and bounds have to be constants",
        )
    return np.asarray(values, dtype=np.float32)


def term(node: ir.Node, position: int) -> Float32Array | None:
    """A constant operand as float32, None for one that the network computes."""
    values = constant(node.inputs[position] if position < len(node.inputs) else None)
    return None if values is None else np.asarray(values, dtype=np.float32)


def weight(node: ir.Node, rank: int) -> Float32Array:
    """The constant input 1 of a Conv or Gemm."""
    values = parameter(node, 1)
    if values is None or values.ndim != rank:
        found = "is missing" if values is None else f"has shape {list(values.shape)}"
        raise refuse(node, f"its weight {found}", f"only weights of rank {rank} are written")
    return values


def kernel(node: ir.Node) -> Float32Array:
    """The weight of a convolution, [.., .., kh, kw]; kh = 1 where it runs along one axis."""
    values = weight(node, len(require_image(node, node.inputs[0])))
    return values if values.ndim == 4 else values[:, :, None, :]


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
    """The sliding window of a Conv or pool with the pads that the node states.

    kernel: over H and W, or over L alone, which becomes W with H = 1.
    """
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad not in {"NOTSET", "VALID"}:
        raise refuse(node, f"its pads are left to auto_pad={auto_pad}", NORMALIZE)
    rank = len(require_image(node, node.inputs[0])) - 2
    kernel = kernel[-rank:]
    if len(kernel) != rank:
        raise refuse(node, f"its kernel_shape is {list(kernel)}", NORMALIZE)
    pads = tuple(node.attributes.get_ints("pads", (0,) * 2 * rank))
    strides = tuple(node.attributes.get_ints("strides", (1,) * rank))
    dilations = tuple(node.attributes.get_ints("dilations", (1,) * rank))
    if auto_pad == "VALID":
        pads = (0,) * 2 * rank
    if rank == 1:
        kernel, strides, dilations = (1, *kernel), (1, *strides), (1, *dilations)
        pads = (0, pads[0], 0, pads[1])
    top, left, bottom, right = pads
    return Window(
        (kernel[0], kernel[1]),
        (strides[0], strides[1]),
        (top, left, bottom, right),
        (dilations[0], dilations[1]),
    )


def pool_window(node: ir.Node) -> Window:
    """The window of a pool, which has to be dense."""
    found = window(node, tuple(node.attributes.get_ints("kernel_shape", ())))
    require_dense(found, label(node))
    return found


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


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, None where there are others or the caller reads it."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def fused_activation(node: ir.Node) -> tuple[ir.Node, Activation] | None:
    """The Relu or Clip that moves into a node as its only reader, and its form."""
    follower = only_reader(node.outputs[0]) if node.op_type in FUSING else None
    if follower is None or follower.op_type not in {"Relu", "Clip"}:
        return None
    activation = ACTIVATIONS.get(bounds(follower))
    return None if activation is None else (follower, activation)


def bias_follower(node: ir.Node, outputs: int) -> tuple[ir.Node, Float32Array] | None:
    """The Add that puts a constant [outputs] on the last axis of a product, as its only reader."""
    follower = only_reader(node.outputs[0])
    if follower is None or follower.op_type != "Add":
        return None
    rank = len(value_shape(node.outputs[0]))
    for position in (0, 1):
        values = term(follower, position)
        if values is not None and values.ndim <= rank and values.shape[-1:] == (outputs,):
            return (follower, values.reshape(-1)) if values.size == outputs else None
    return None


def is_never_negative(value: ir.Value | None) -> bool:
    """Whether the operator that made a value, or what it rearranges, leaves nothing below zero."""
    node = None if value is None else value.producer()
    if node is None:
        return False
    match node.op_type:
        case "Relu" | "Clip":
            return bounds(node)[0] >= 0.0
        case "Sigmoid" | "HardSigmoid" | "Softmax" | "Softplus":
            return True
        case "Concat":
            return all(is_never_negative(part) for part in node.inputs)
        case "MaxPool" | "AveragePool" | "Slice" | "Split" | "Gather":
            return is_never_negative(node.inputs[0])
        case _:
            return False


def may_be_reordered(value: ir.Value) -> bool:
    """Whether only Gemms read a flattened tensor, directly or through elementwise operators.

    The elements may then come as H, W, C, with the columns of the Gemms' weights in that order.
    """
    return not value.is_graph_output() and all(
        (use.node.op_type == "Gemm" and use.idx == 0)
        or (use.node.op_type in ELEMENTWISE and may_be_reordered(use.node.outputs[0]))
        for use in value.uses()
    )
