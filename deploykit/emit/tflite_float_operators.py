"""The float32 TFLite form of every operator of a canonical float graph.

XNNPACK takes them all, but for a max pool that needs a PADV2.

Conv               CONV_2D, kernel_ohwi with I = channels / groups;
                   DEPTHWISE_CONV_2D, kernel_1hwo, where groups = channels
Gemm               FULLY_CONNECTED, weight [O, I]
Add                ADD
MaxPool            MAX_POOL_2D
AveragePool        AVERAGE_POOL_2D, without pads
GlobalAveragePool  MEAN over H and W
Flatten            RESHAPE to [N, H*W*C]; its readers' weight columns are permuted
Relu, Clip(0, 6)   fused into the producer that nobody else reads, else RELU, RELU6
Clip               MAXIMUM and MINIMUM with a constant
pads               SAME, VALID, or a PAD before the window, see tflite_padding
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_graph import Activation, Options, TfliteGraph
from deploykit.emit.tflite_layout import file_shape
from deploykit.emit.tflite_lowering import (
    channel_major,
    columns_as_hwc,
    convolution_form,
    limit,
    mean_over_pixels,
    padded,
    pool,
    require_dense,
    reshape,
)
from deploykit.emit.tflite_padding import Padding
from deploykit.spec.arrays import AnyArray


@dataclass
class FloatSite:
    """The file under construction, and where the network's tensors are in it.

    index: tensors by their name in the network. flattened: those that the file keeps as H, W, C,
    with the (C, H, W) they come from. absorbed: activations that are fused into their producers.
    """

    graph: TfliteGraph = field(default_factory=TfliteGraph)
    index: dict[str, int] = field(default_factory=dict)
    flattened: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    absorbed: set[ir.Node] = field(default_factory=set)

    def define(self, value: ir.Value) -> int:
        """Index of the new tensor of a value, rank 4 as [N, H, W, C]."""
        shape = file_shape(read.value_shape(value))
        name = str(value.name)
        self.index[name] = self.graph.activation(name, shape, None, np.float32)
        return self.index[name]

    def source(self, node: ir.Node, position: int = 0) -> int:
        """Index of an activation that a node reads."""
        value = node.inputs[position] if position < len(node.inputs) else None
        name = None if value is None else value.name
        if name is None or name not in self.index:
            raise read.refuse(
                node,
                f"its input {position} ({name!r}) is no activation",
                "only weights, biases and bounds may be constants, and nodes have to be sorted",
            )
        return self.index[name]

    def unflattened(self, node: ir.Node) -> tuple[int, int, int] | None:
        """(C, H, W) where a node reads elements that the file keeps as H, W, C."""
        value = node.inputs[0]
        return None if value is None else self.flattened.get(str(value.name))

    def result(self, node: ir.Node) -> tuple[int, Activation]:
        """Index of the new tensor that a node fills, and the activation that it fuses to do so."""
        fused = read.fused_activation(node)
        if fused is None:
            return self.define(node.outputs[0]), Activation.NONE
        follower, activation = fused
        self.absorbed.add(follower)
        return self.define(follower.outputs[0]), activation


def lower(node: ir.Node, site: FloatSite) -> None:
    """Append one operator of the network to the graph."""
    if node.op_type not in LOWER or node.domain not in {"", "ai.onnx"}:
        raise read.refuse(
            node,
            "this operator has no float TFLite form here",
            f"supported are {', '.join(LOWER)}: replace it in the network, or end the network "
            "before it",
        )
    if len(node.outputs) != 1:
        raise read.refuse(
            node, f"it has {len(node.outputs)} outputs", "only operators with one output work"
        )
    LOWER[node.op_type](node, site)


def _conv(node: ir.Node, site: FloatSite) -> None:
    weight = read.weight(node, 4)
    _, channels, _, _ = read.image_shape(node, node.inputs[0])
    window = read.window(node, weight.shape[2:])
    source = site.source(node)
    result, activation = site.result(node)
    data, padding = padded(site.graph, source, result, window, read.label(node))
    groups = node.attributes.get_int("group", 1)
    form = convolution_form(weight, window, groups, channels, padding)
    parameters = _parameters(node, site, form.kernel, weight.shape[0])
    options = form.options.fusing(activation)
    site.graph.operator(form.code, (data, *parameters), result, options)


def _gemm(node: ir.Node, site: FloatSite) -> None:
    read.require_canonical_gemm(node)
    stored = weight = read.weight(node, 2)
    source = site.source(node)
    unflattened = site.unflattened(node)
    if unflattened is not None:
        stored = columns_as_hwc(weight, unflattened)
    result, activation = site.result(node)
    parameters = _parameters(node, site, stored, weight.shape[0])
    options = Options("FullyConnectedOptions").fusing(activation)
    site.graph.operator("FULLY_CONNECTED", (source, *parameters), result, options)


def _add(node: ir.Node, site: FloatSite) -> None:
    left, right = site.source(node, 0), site.source(node, 1)
    shapes = [site.graph.tensors[index].shape for index in (left, right)]
    if shapes[0] != shapes[1]:
        raise read.refuse(
            node,
            f"its terms have the shapes {list(shapes[0])} and {list(shapes[1])} in the file",
            "add tensors of one shape",
        )
    result, activation = site.result(node)
    site.graph.operator("ADD", (left, right), result, Options("AddOptions").fusing(activation))


def _max_pool(node: ir.Node, site: FloatSite) -> None:
    """Padded positions never win: they hold 0 where the input or the result has no value below it.

    Elsewhere they hold -inf, by a PADV2, which XNNPACK does not take.
    """
    read.image_shape(node, node.inputs[0])
    window = read.window(node, tuple(node.attributes.get_ints("kernel_shape", ())))
    require_dense(window, read.label(node))
    source = site.source(node)
    result, activation = site.result(node)
    zero_loses = read.is_never_negative(node.inputs[0]) or activation is not Activation.NONE
    fill = None if zero_loses else -inf
    data, padding = padded(site.graph, source, result, window, read.label(node), fill)
    pool(site.graph, "MAX_POOL_2D", data, result, window, padding, activation)


def _average_pool(node: ir.Node, site: FloatSite) -> None:
    read.image_shape(node, node.inputs[0])
    window = read.window(node, tuple(node.attributes.get_ints("kernel_shape", ())))
    require_dense(window, read.label(node))
    source = site.source(node)
    result, activation = site.result(node)
    data, padding = padded(site.graph, source, result, window, read.label(node))
    if padding is not Padding.VALID or data != source:
        raise read.refuse(
            node,
            f"its windows reach beyond the image (pads {window.pads})",
            "use an average pool without padding and without ceil_mode",
        )
    pool(site.graph, "AVERAGE_POOL_2D", data, result, window, padding, activation)


def _global_average_pool(node: ir.Node, site: FloatSite) -> None:
    read.image_shape(node, node.inputs[0])
    source = site.source(node)
    result, _ = site.result(node)
    mean_over_pixels(site.graph, source, result)


def _flatten(node: ir.Node, site: FloatSite) -> None:
    source, value, output = site.source(node), node.inputs[0], node.outputs[0]
    shape = () if value is None else read.value_shape(value)
    axis = node.attributes.get_int("axis", 1)
    if axis not in {1, 1 - len(shape)}:
        raise read.refuse(node, f"it flattens from axis {axis}", "only axis 1 is written")
    if len(shape) == 4 and read.may_be_reordered(output):
        site.flattened[str(output.name)] = (shape[1], shape[2], shape[3])
    else:
        source = channel_major(site.graph, source, str(output.name))
    result, _ = site.result(node)
    reshape(site.graph, source, result)


def _clip(node: ir.Node, site: FloatSite) -> None:
    """A Relu or Clip that no producer takes in."""
    source = site.source(node)
    low, high = read.bounds(node)
    unflattened = site.unflattened(node)
    if unflattened is not None:
        site.flattened[str(node.outputs[0].name)] = unflattened
    result, _ = site.result(node)
    activation = read.ACTIVATIONS.get((low, high))
    if activation is not None:
        site.graph.operator(activation.name, (source,), result)
        return
    steps = [("MAXIMUM", low)] if low > -inf else []
    steps += [("MINIMUM", high)] if high < inf else []
    if not steps:
        raise read.refuse(node, "it has no bounds", "remove it from the network")
    limit(site.graph, source, result, read.label(node), steps)


def _parameters(node: ir.Node, site: FloatSite, stored: AnyArray, outputs: int) -> tuple[int, int]:
    """Indices of the weight, in the file's layout, and of the bias."""
    name = read.label(node)
    return (
        site.graph.constant(f"{name}/weight", stored),
        site.graph.constant(f"{name}/bias", read.bias(node, outputs)),
    )


LOWER: Mapping[str, Callable[[ir.Node, FloatSite], None]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Conv": _conv,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "MaxPool": _max_pool,
    "Relu": _clip,
}
