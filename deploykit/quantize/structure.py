"""Which nodes of the float graph become which integer operator; decided before any number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.network import Network, static_shape
from deploykit.spec.quantized import Window

SHARING = frozenset({"MaxPool", "Flatten", "Clamp"})
"""Operators whose output keeps the quantization of their input."""

SUPPORTED = (
    "Conv (2-D), Gemm, Add of two activations, MaxPool, GlobalAveragePool, Flatten, Relu, Clip"
)


@dataclass(frozen=True)
class Layer:
    """One integer operator to be: its nodes, its float tensors, and the bounds of its activation.

    low, high: what a fused Relu or Clip clips to (real values), None where it does not.
    """

    name: str
    operator: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[str, ...]
    output: str
    low: float | None = None
    high: float | None = None


def build_structure(network: Network) -> tuple[Layer, ...]:
    """Layers in graph order.

    A Relu, or a Clip from zero up, that is the only reader of a Conv, Gemm or Add is fused: the
    output's range starts at zero, and integer saturation does the clipping. Any other Relu or Clip
    becomes a Clamp.

    Raises UnsupportedOperatorError naming the operator, the node, and what to do.
    """
    layers: list[Layer] = []
    fused: set[ir.Node] = set()
    for node in network.model.graph:
        if node in fused:
            continue
        operator = _operator(node)
        follower = _fusable_activation(node) if operator in {"Conv", "Linear", "Add"} else None
        nodes = (node,) if follower is None else (node, follower)
        fused.update(nodes[1:])
        low, high = (None, None) if follower is None else clip_bounds(follower)
        if operator == "Clamp":
            low, high = clip_bounds(node)
        layers.append(
            Layer(
                _name(node),
                operator,
                nodes,
                _activations(node),
                str(nodes[-1].outputs[0].name),
                low,
                high,
            )
        )
    return tuple(layers)


def _operator(node: ir.Node) -> str:
    match node.op_type:
        case "Conv" if _rank(node.inputs[0]) == 4 and _constant(node.inputs[1]):
            return "Conv"
        case "Gemm" if _constant(node.inputs[1]) and "transB" in node.attributes:
            return "Linear"
        case "Add" if len(_activations(node)) == 2 and _equal_shapes(node):
            return "Add"
        case "MaxPool" if _rank(node.inputs[0]) == 4 and _floor_mode(node):
            return "MaxPool"
        case "GlobalAveragePool" if _rank(node.inputs[0]) == 4:
            return "GlobalAveragePool"
        case "Flatten" if _keeps_samples(node):
            return "Flatten"
        case "Relu" | "Clip" if len(_activations(node)) == 1:
            return "Clamp"
        case _:
            raise UnsupportedOperatorError(
                f"{node.name}: operator {node.op_type} has no integer form here in this shape; "
                f"supported are {SUPPORTED}. Replace it in the network, or end the network "
                "before it"
            )


def window_of(node: ir.Node) -> Window:
    """The sliding window of a canonical Conv or MaxPool node.

    Padding behind the last window, which no window reaches, is left out: formats that state
    padding as VALID or SAME cannot carry it, and it changes nothing.
    """

    def pair(name: str) -> tuple[int, int]:
        first, second = node.attributes[name].as_ints()
        return int(first), int(second)

    kernel, strides, dilations = pair("kernel_shape"), pair("strides"), pair("dilations")
    top, left, *_ = (int(pad) for pad in node.attributes["pads"].as_ints())
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    assert source is not None and output is not None
    ends = []
    for axis, begin in ((0, top), (1, left)):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        last = (output[2 + axis] - 1) * strides[axis] + reach
        ends.append(max(last - begin - source[2 + axis], 0))
    return Window(kernel, strides, (top, left, ends[0], ends[1]), dilations)


def clip_bounds(node: ir.Node) -> tuple[float | None, float | None]:
    """(low, high) of a Relu or Clip node; None where it does not bound."""
    if node.op_type == "Relu":
        return 0.0, None
    bounds: list[float | None] = []
    for index in (1, 2):
        value = node.inputs[index] if len(node.inputs) > index else None
        tensor = None if value is None else value.const_value
        bound = math.nan if tensor is None else float(np.asarray(tensor.numpy()))
        bounds.append(bound if math.isfinite(bound) else None)
    return bounds[0], bounds[1]


def _fusable_activation(node: ir.Node) -> ir.Node | None:
    output = node.outputs[0]
    uses = tuple(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    follower = uses[0].node
    if follower.op_type not in {"Relu", "Clip"} or len(_activations(follower)) != 1:
        return None
    low, high = clip_bounds(follower)
    return follower if low == 0.0 and (high is None or high > 0.0) else None


def _activations(node: ir.Node) -> tuple[str, ...]:
    return tuple(
        str(value.name) for value in node.inputs if value is not None and value.const_value is None
    )


def _name(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)


def _rank(value: ir.Value | None) -> int:
    return -1 if value is None or value.shape is None else len(value.shape)


def _constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None


def _equal_shapes(node: ir.Node) -> bool:
    shapes = [value.shape for value in node.inputs if value is not None]
    return len(shapes) == 2 and shapes[0] is not None and shapes[0] == shapes[1]


def _keeps_samples(node: ir.Node) -> bool:
    """Whether the output is [N, everything else]."""
    source, output = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return source is not None and output == (source[0], math.prod(source[1:]))


def _floor_mode(node: ir.Node) -> bool:
    """Whether no window reaches beyond the stated padding, as ceil_mode lets it."""
    if static_shape(node.inputs[0]) is None or static_shape(node.outputs[0]) is None:
        return False
    stated = node.attributes["pads"].as_ints()
    used = window_of(node).pads
    return used[2] <= stated[2] and used[3] <= stated[3]
