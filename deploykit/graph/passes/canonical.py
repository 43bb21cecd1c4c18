"""One spelling per operator, so that later stages need one rule each."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_int,
    attribute_ints,
    attribute_string,
    bypass,
    constant,
    fresh_name,
    set_initializer,
)
from deploykit.graph.passes.affine import Affine
from deploykit.graph.passes.axes import name_squeezed_axes, pad_every_axis
from deploykit.graph.passes.linears import replace_node, spell_gemm, spell_matmul, zero_bias
from deploykit.graph.passes.shuffle import gather_shuffles
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def canonicalize(network: Network) -> Rewritten:
    """Rewrite synonyms; the function stays the same.

    - a weight that several nodes read is copied, so that each may change alone
    - Dropout (inference) and Identity go
    - Reshape, Squeeze of [N, C, H, W] to [N, C*H*W] -> Flatten(axis=1)
    - ReduceMean over H, W -> GlobalAveragePool (and Flatten where the axes are not kept)
    - MatMul, MatMul + Add, Gemm with alpha, beta or transB=0 -> Gemm(transB=1) [out, in], with bias
    - Gemm whose C is computed, or not the same for every sample -> Gemm, Add
    - Conv: explicit pads, kernel_shape, strides and dilations; Conv and ConvTranspose: with bias
    - MaxPool: the same; AveragePool: explicit pads
    - Squeeze without axes -> with axes; Pad of some axes -> of all
    - CastLike of a constant -> a constant
    - Reshape, Transpose, Reshape that only permute the channels (a channel shuffle) -> Gather
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), rounded=network.given.activations.keys())
    _unshare(affine)
    gather_shuffles(model.graph)
    for node in list(model.graph):
        match node.op_type:
            case "Dropout" | "Identity" if node.inputs[0] is not None:
                ports = node.inputs[0].producer() is None and node.outputs[0].is_graph_output()
                if not ports:
                    bypass(model.graph, node, node.inputs[0])
            case "Reshape" | "Squeeze":
                name_squeezed_axes(model.graph, node)
                _flatten(model.graph, node)
            case "ReduceMean":
                _global_average_pool(model.graph, node)
            case "MatMul":
                spell_matmul(affine, node)
            case "Gemm":
                spell_gemm(affine, node)
            case "Conv":
                _conv(affine, node)
            case "ConvTranspose":
                _conv_transpose(affine, node)
            case "CastLike":
                _cast_constant(model.graph, node)
            case "Pad":
                pad_every_axis(model.graph, node)
            case "MaxPool":
                _explicit_window(node, tuple(attribute_ints(node, "kernel_shape", ())))
            case "AveragePool" if attribute_string(node, "auto_pad", "NOTSET") != "NOTSET":
                _explicit_window(node, tuple(attribute_ints(node, "kernel_shape", ())))
                if set(node.attributes["dilations"].as_ints()) == {1}:
                    node.attributes.pop("dilations")  # opset 18 has none
            case _:
                pass
    _name_layers(affine)
    return affine.finish(network, model)


def _cast_constant(graph: ir.Graph, node: ir.Node) -> None:
    """A constant cast to the type of an activation is a constant, once that type is known."""
    array, kind = constant(node.inputs[0]), node.outputs[0].dtype
    if array is None or kind is None or node.outputs[0].is_graph_output():
        return
    name = fresh_name(graph, f"{node.outputs[0].name}.constant")
    held = set_initializer(graph, name, array.astype(kind.numpy()))
    ir.convenience.replace_all_uses_with(node.outputs[0], held)
    graph.remove(node, safe=True)


def _name_layers(affine: Affine) -> None:
    """Name a Conv or Gemm after its weight ("features.0"), any other node after its output.

    A bias that has no variance (batch norm or the exporter made it) follows its weight's name.
    """
    graph = affine.graph
    taken: set[str] = set()
    for node in graph:
        weight = node.inputs[1] if node.op_type in WEIGHTED else None
        named = weight is not None and str(weight.name).endswith(".weight")
        stem = str(weight.name).removesuffix(".weight") if weight is not None and named else None
        name = stem or str(node.outputs[0].name)
        node.name = name if name not in taken else f"{name}.{node.outputs[0].name}"
        taken.add(node.name)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if stem is None or bias is None or str(bias.name) in affine.variance:
            continue
        array = constant(bias)
        if array is not None and fresh_name(graph, f"{stem}.bias") == f"{stem}.bias":
            node.replace_input_with(2, set_initializer(graph, f"{stem}.bias", array))


def _unshare(affine: Affine) -> None:
    graph = affine.graph
    for name, value in list(graph.initializers.items()):
        owners = 0 if value.is_graph_output() else 1
        for node, index in [(use.node, use.idx) for use in value.uses()][owners:]:
            array = constant(value)
            assert array is not None
            copy = set_initializer(graph, fresh_name(graph, f"{name}.copy"), array)
            node.replace_input_with(index, copy)
            affine.copies[str(copy.name)] = name
            if name in affine.variance:
                affine.variance[str(copy.name)] = affine.variance[name]


def _flatten(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    if source is None:
        return
    before, after = static_shape(source), static_shape(node.outputs[0])
    if before is None or after is None or len(after) != 2 or len(before) < 2:
        return
    if before[0] == after[0] and int(np.prod(before[1:])) == after[1]:
        if before == after:
            if source.producer() is not None:
                bypass(graph, node, source)
            return
        replace_node(graph, node, "Flatten", [source], {"axis": 1})


def _global_average_pool(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    if source is None:
        return
    shape = static_shape(source)
    if shape is None or len(shape) != 4:
        return
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = attribute_ints(node, "axes", ()) if given is None else given.reshape(-1).tolist()
    if sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        return
    if attribute_int(node, "keepdims", 1):
        replace_node(graph, node, "GlobalAveragePool", [source], {})
        return
    pooled = ir.node("GlobalAveragePool", [source], name=f"{node.name}.pool")
    pooled.outputs[0].name = fresh_name(graph, f"{node.outputs[0].name}.pool")
    pooled.outputs[0].shape = ir.Shape([shape[0], shape[1], 1, 1])
    pooled.outputs[0].type = source.type
    graph.insert_before(node, pooled)
    replace_node(graph, node, "Flatten", [pooled.outputs[0]], {"axis": 1})


def _conv(affine: Affine, node: ir.Node) -> None:
    array = constant(node.inputs[1])
    if array is None:
        return
    _explicit_window(node, array.shape[2:])
    if len(node.inputs) < 3 or node.inputs[2] is None:
        zero_bias(affine.graph, node, array.shape[0], array.dtype)


def _conv_transpose(affine: Affine, node: ir.Node) -> None:
    array = constant(node.inputs[1])
    if array is not None and (len(node.inputs) < 3 or node.inputs[2] is None):
        outputs = array.shape[1] * attribute_int(node, "group", 1)
        zero_bias(affine.graph, node, outputs, array.dtype)


def _explicit_window(node: ir.Node, kernel: tuple[int, ...]) -> None:
    """Write pads, strides, dilations and kernel_shape out; auto_pad becomes pads."""
    ones = (1,) * len(kernel)
    strides = attribute_ints(node, "strides", ones)
    dilations = attribute_ints(node, "dilations", ones)
    pads = attribute_ints(node, "pads", (0,) * 2 * len(kernel))
    auto_pad = attribute_string(node, "auto_pad", "NOTSET")
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        assert node.inputs[0] is not None
        shape = static_shape(node.inputs[0])
        if shape is None:
            return
        pads = _same_pads(shape[2:], kernel, strides, dilations, auto_pad == "SAME_UPPER")
    node.attributes.pop("auto_pad", None)
    for name, values in (
        ("kernel_shape", kernel),
        ("strides", strides),
        ("dilations", dilations),
        ("pads", pads),
    ):
        node.attributes[name] = ir.AttrInt64s(name, list(values))


def _same_pads(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    upper: bool,
) -> tuple[int, ...]:
    """Pads of ONNX SAME_UPPER (the odd one at the end) or SAME_LOWER.

    Those at the begin of every axis, then those at the end: top, left, bottom, right.
    """
    begins, ends = [], []
    for length, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        reach = (k - 1) * dilation + 1
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)
