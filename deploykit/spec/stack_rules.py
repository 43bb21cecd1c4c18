"""How each operator of a body works on several samples: one row per operator, see `stack`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.stack import OPEN, Stack, numbers_of, shape_of
from deploykit.spec.stack_joining import concat
from deploykit.spec.stack_recurrent import recurrent

Rule = Callable[[ir.Node, Stack], None]
"""Appends what gives the node's outputs."""

UNARY = (
    "Abs", "Cast", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Log", "Mish", "Neg", "Not", "PRelu", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Softsign",
    "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
BINARY = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
    "Mul", "Or", "Pow", "Sub", "Where",
)  # fmt: skip
IMAGES = (
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace",
    "GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "MaxPool",
    "SpaceToDepth",
)  # fmt: skip
VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


def stack_node(node: ir.Node, stack: Stack) -> None:
    """Append a node's form for all samples.

    Raises UnsupportedOperatorError naming the node, and what to do.
    """
    rule = RULES.get(node.op_type)
    if rule is None or node.domain not in {"", "ai.onnx"}:
        raise _refused(node, "its form for several samples is not known")
    rule(node, stack)


def _refused(node: ir.Node, why: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"--batch dynamic: {node.name}: operator {node.op_type}: {why}; leave --batch out"
    )


def _elementwise(node: ir.Node, stack: Stack) -> None:
    """As it is where samples are rows of every operand that varies, and of no constant."""
    output = shape_of(node.outputs[0])
    rows = len(output) > 0
    for value in node.inputs:
        shape = () if value is None else shape_of(value)
        if stack.varies(value):
            rows = rows and len(shape) == len(output) and shape[0] == output[0]
        else:
            rows = rows and (len(shape) < len(output) or shape[0] == 1)
    if rows:
        stack.copy(node)
    else:
        stack.lift(node, len(output))


def _view(node: ir.Node, stack: Stack) -> None:
    """Elements keep their order, and so do samples: one Reshape."""
    source, output = stack.held(node.inputs[0]), node.outputs[0]
    assert source is not None
    stack.together(source, output)


def _transpose(node: ir.Node, stack: Stack) -> None:
    """Behind N; axes of length 1 take no part."""
    shape, output = shape_of(node.inputs[0]), node.outputs[0]
    perm = tuple(node.attributes.get_ints("perm", tuple(range(len(shape))[::-1])))
    if perm[:1] == (0,):
        stack.copy(node)
        return
    long = tuple(axis for axis in range(len(shape)) if shape[axis] != 1)
    moved = tuple(long.index(axis) for axis in perm if axis in long)
    source = stack.held(node.inputs[0])
    assert source is not None
    sizes = tuple(shape[axis] for axis in long)
    apart = stack.reshaped(source, (OPEN, *sizes), (stack.samples, *sizes))
    if moved != tuple(range(len(moved))):
        axes = {"perm": [0, *(axis + 1 for axis in moved)]}
        turned = (stack.samples, *(sizes[axis] for axis in moved))
        apart = stack.step("Transpose", [apart], turned, output, axes)
    stack.together(apart, output)


def _along(default: int) -> Rule:
    """Along an attribute's axis."""

    def rule(node: ir.Node, stack: Stack) -> None:
        rank = len(shape_of(node.inputs[0]))
        axis = node.attributes.get_int("axis", default) % max(rank, 1)
        if axis > 0:
            stack.copy(node)
        else:
            stack.lift(node, rank, attributes={"axis": 1})

    return rule


def _gather(node: ir.Node, stack: Stack) -> None:
    """Of a table by ids that vary, or along an axis by constants."""
    if stack.varies(node.inputs[1]):
        if stack.varies(node.inputs[0]) or not shape_of(node.inputs[1]):
            raise _refused(node, "its indices are computed")
        stack.copy(node)
        return
    _along(0)(node, stack)


def _reduce(node: ir.Node, stack: Stack) -> None:
    rank = len(shape_of(node.inputs[0]))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    held = numbers_of(given)
    listed = node.attributes.get_ints("axes", ()) if held is None else held.reshape(-1).tolist()
    if not listed and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        stack.copy(node)
        return
    axes = [int(axis) % rank for axis in listed] or list(range(rank))
    if 0 not in axes:
        stack.copy(node)
        return
    moved = [axis + 1 for axis in axes]
    if "axes" in node.attributes:
        stack.lift(node, rank, attributes={"axes": moved})
        return
    name = f"{node.name}/axes"
    if len(node.inputs) < 2:
        raise _refused(node, "it reduces all axes without naming them")
    stack.lift(node, rank, {1: stack.numbers(name, moved)})


def _slice(node: ir.Node, stack: Stack) -> None:
    rank = len(shape_of(node.inputs[0]))
    starts = numbers_of(node.inputs[1])
    axes = numbers_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if starts is None:
        raise _refused(node, "its bounds are computed")
    listed = range(starts.size) if axes is None else (int(axis) % rank for axis in axes)
    cut = list(listed)
    if 0 not in cut:
        stack.copy(node)
    elif len(node.inputs) > 3:
        moved = [axis + 1 for axis in cut]
        stack.lift(node, rank, {3: stack.numbers(f"{node.name}/axes", moved)})
    else:
        raise _refused(node, "it names no axes")


def _pad(node: ir.Node, stack: Stack) -> None:
    rank, pads = len(shape_of(node.inputs[0])), numbers_of(node.inputs[1])
    axes = numbers_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if pads is None or axes is not None:
        raise _refused(node, "it pads axes that it names one by one")
    before, after = np.split(pads, 2)
    if not before[0] and not after[0]:
        stack.copy(node)
        return
    wide = np.concatenate([[0], before, [0], after]).tolist()
    stack.lift(node, rank, {1: stack.numbers(f"{node.name}/pads", wide)})


def _expand(node: ir.Node, stack: Stack) -> None:
    shape, output = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    name = f"{node.name}/shape"
    if shape and len(shape) == len(output) and shape[0] == output[0]:
        stack.copy(node, {1: stack.numbers(name, (1, *output[1:]))})
    else:
        stack.lift(node, len(output), {1: stack.numbers(name, (1, *output))})


def _matmul(node: ir.Node, stack: Stack) -> None:
    """Samples as rows of the left factor, or as stacked matrices."""
    left, right = (shape_of(value) for value in node.inputs[:2])
    output, both = shape_of(node.outputs[0]), [stack.varies(value) for value in node.inputs[:2]]
    if all(both):
        if min(len(left), len(right)) < 2:
            raise _refused(node, "it multiplies vectors")
        stacked = len(left) == len(right) > 2 and left[0] == right[0]
    elif both[0]:
        stacked = len(left) >= 2 and (
            len(right) <= 2 or (len(right) <= len(left) and right[0] == 1)
        )
    else:
        stacked = len(right) >= 3 and (len(left) == 2 or (len(left) <= len(right) and left[0] == 1))
    if stacked and output[:1] == (left if both[0] else right)[:1]:
        stack.copy(node)
    elif all(both):
        stack.lift(node, max(len(left), len(right)))
    else:
        stack.lift(node, max(len(left), len(right)) if min(len(left), len(right)) > 1 else 1)


def _gemm(node: ir.Node, stack: Stack) -> None:
    addend = shape_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else ()
    rows = len(addend) == 2 and addend[0] != 1
    if node.attributes.get_int("transA", 0) or stack.varies(node.inputs[1]) or rows:
        raise _refused(node, "its rows are no samples")
    stack.copy(node)


def _resize(node: ir.Node, stack: Stack) -> None:
    """By scales; sizes become the scales that they mean, in float32 as runtimes compute them."""
    sizes = numbers_of(node.inputs[3]) if len(node.inputs) > 3 else None
    if sizes is None:
        stack.copy(node)
        return
    shape, output = (
        np.array(shape_of(one), np.float32) for one in (node.inputs[0], node.outputs[0])
    )
    scales = output / shape
    if node.attributes.get_ints("axes", ()) or (np.floor(shape * scales) != output).any():
        raise _refused(node, "it resizes to sizes that no scales give")
    stack.copy(node, {2: stack.constant(f"{node.name}/scales", scales), 3: None})


RULES: Mapping[str, Rule] = {
    **dict.fromkeys((*UNARY, *BINARY), _elementwise),
    **dict.fromkeys(IMAGES, lambda node, stack: stack.copy(node)),
    **dict.fromkeys(VIEWS, _view),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LpNormalization"), _along(-1)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _along(-1)),
    **dict.fromkeys(("GRU", "LSTM"), recurrent),
    "Concat": concat,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _along(0),
    "Transpose": _transpose,
}
