"""A grouped convolution as one convolution per group, and back.

    y = Conv<group = G>(x)  =  Concat(Conv(x_1), ..., Conv(x_G))        x_1 ... x_G = Split(x)

Taken apart, every group loses its own dead channels; what stays equally wide is put together again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import (
    attribute_int,
    bypass,
    constant,
    floats,
    fresh_name,
    label,
    set_initializer,
    take_over,
)
from deploykit.graph.passes.affine import Affine, own_weight
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network, static_shape

AXIS = 1
"""Of the channels."""
CONVOLUTIONS = frozenset(("Conv", "ConvTranspose"))
JOINED = ".joined"
"""Behind the first group's tensor: the name of what several groups compute together."""


@dataclass(frozen=True)
class Part:
    """A tensor that holds the channels of `tensor` from `first` on. layer: that makes `tensor`."""

    tensor: str
    layer: str
    first: int


@dataclass(frozen=True)
class Parts:
    """By tensor. made: what one group computes; read: what it reads."""

    made: Mapping[str, Part]
    read: Mapping[str, Part]


NO_PARTS = Parts({}, {})


def split_groups(network: Network, layers: frozenset[str] | None = None) -> tuple[Rewritten, Parts]:
    """Grouped convolutions, depthwise ones apart, taken to their groups.

    network: canonical. layers: which, None for all. The very same network where there is none.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance))
    made: dict[str, Part] = {}
    read: dict[str, Part] = {}
    for node in list(model.graph):
        if is_grouped(node) and (layers is None or label(node) in layers):
            _take_apart(affine, node, made, read)
    return (affine.finish(network, model) if made else Rewritten(network)), Parts(made, read)


def is_grouped(node: ir.Node) -> bool:
    """A convolution of a weight and bias of its own, with several channels in a group."""
    groups = attribute_int(node, "group", 1)
    if node.op_type not in CONVOLUTIONS or groups == 1 or len(node.inputs) != 3:
        return False
    weight = constant(node.inputs[1])
    held = all(own_weight(value) and constant(value) is not None for value in node.inputs[1:])
    return held and weight is not None and (weight.shape[0] > groups or weight.shape[1] > 1)


def _take_apart(
    affine: Affine, node: ir.Node, made: dict[str, Part], read: dict[str, Part]
) -> None:
    graph, groups = affine.graph, attribute_int(node, "group", 1)
    source, output = node.inputs[0], node.outputs[0]
    assert source is not None and source.shape is not None and output.shape is not None
    name, layer = str(output.name), label(node)
    ins, outs = (int(value.shape[AXIS]) // groups for value in (source, output))  # type: ignore[arg-type, index]
    sizes = set_initializer(
        graph, fresh_name(graph, f"{name}.groups"), np.full(groups, ins, np.int64)
    )
    split = ir.node(
        "Split", [source, sizes], {"axis": AXIS}, num_outputs=groups, name=f"{layer}.split"
    )
    convs = []
    for place, piece in enumerate(split.outputs):
        piece.name = fresh_name(graph, f"{name}.in{place}")
        piece.shape, piece.type = _with(source, ins), source.type
        read[piece.name] = Part(str(source.name), layer, place * ins)
        values = [
            _sliced(affine, str(value.name), place, groups) for value in node.inputs[1:] if value
        ]
        attributes = [one for one in node.attributes.values() if one.name != "group"]
        conv = ir.Node("", node.op_type, [piece, *values], attributes, name=f"{layer}.group{place}")
        (part,) = conv.outputs
        part.name = fresh_name(graph, f"{name}.group{place}")
        part.shape, part.type = _with(output, outs), output.type
        made[part.name] = Part(name, layer, place * outs)
        convs.append(conv)
    joined = ir.node(
        "Concat", [conv.outputs[0] for conv in convs], {"axis": AXIS}, name=f"{layer}.joined"
    )
    graph.insert_after(node, [split, *convs, joined])
    take_over(graph, output, joined.outputs[0])
    graph.remove(node, safe=True)


def _sliced(affine: Affine, name: str, place: int, groups: int) -> ir.Value:
    """One group's rows of a weight or bias, and of its variance."""
    graph = affine.graph
    array = constant(graph.initializers[name])
    assert array is not None
    held = fresh_name(graph, f"{name}.group{place}")
    if name in affine.variance:
        affine.variance[held] = np.split(affine.variance[name], groups)[place]
        affine.updated.add(held)
    return set_initializer(graph, held, np.split(array, groups)[place])


def _with(value: ir.Value, channels: int) -> ir.Shape:
    assert value.shape is not None
    return ir.Shape([*value.shape[:AXIS], channels, *value.shape[AXIS + 1 :]])


def join_groups(network: Network, parts: Parts) -> Rewritten:
    """Neighbouring groups that stayed equally wide become one grouped convolution again.

    parts: of split_groups, by which the convolutions are known.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), element=np.dtype(np.float64))
    for node in list(model.graph):
        if node.op_type == "Concat":
            held = [value for value in node.inputs if value is not None]
            if any(str(value.name) in parts.made for value in held):
                _put_together(affine, node, parts)
    return affine.finish(network, model)


def _put_together(affine: Affine, concat: ir.Node, parts: Parts) -> None:
    """Nothing where its groups are not all that one Split gives, in order."""
    graph = affine.graph
    convs = [None if value is None else value.producer() for value in concat.inputs]
    known = [conv for conv in convs if conv is not None and _is_part(conv, parts)]
    split = known[0].inputs[0].producer() if known and known[0].inputs[0] is not None else None
    if split is None or split.op_type != "Split" or len(known) != len(split.outputs):
        return
    if [conv.inputs[0] for conv in known] != list(split.outputs):
        return
    layer = parts.made[str(known[0].outputs[0].name)].layer
    runs = _runs(convs, known)
    merged = [_merged(affine, run) for run in runs]
    lengths = [sum(_channels(conv.inputs[0]) for conv in run) for run in runs]
    source = split.inputs[0]
    assert source is not None
    pieces: Sequence[ir.Value] = [source]
    if len(runs) > 1:
        sizes = set_initializer(
            graph, fresh_name(graph, f"{label(split)}.sizes"), np.array(lengths, np.int64)
        )
        new = ir.node(
            "Split", [source, sizes], {"axis": AXIS}, num_outputs=len(runs), name=label(split)
        )
        for piece, run, length in zip(new.outputs, runs, lengths, strict=True):
            piece.name = fresh_name(graph, f"{run[0].inputs[0].name}.run")  # type: ignore[union-attr]
            piece.shape, piece.type = _with(source, length), source.type
        graph.insert_before(split, new)
        pieces = new.outputs
    for piece, run, conv in zip(pieces, runs, merged, strict=True):
        conv.replace_input_with(0, piece)
        graph.insert_before(run[0], conv)
    first_of = {run[0]: conv for run, conv in zip(runs, merged, strict=True)}
    inputs = [
        value if conv not in known else first_of[conv].outputs[0]
        for value, conv in zip(concat.inputs, convs, strict=True)
        if conv not in known or conv in first_of
    ]
    new_concat = ir.node("Concat", inputs, {"axis": AXIS}, name=label(concat))
    (made,) = new_concat.outputs
    graph.insert_before(concat, new_concat)
    take_over(graph, concat.outputs[0], made)
    graph.remove([concat, *reversed(known), split], safe=True)
    if len(inputs) == 1:
        name = str(made.name)
        bypass(graph, new_concat, merged[0].outputs[0])
        merged[0].outputs[0].name, merged[0].name = name, layer


def _is_part(conv: ir.Node, parts: Parts) -> bool:
    output = conv.outputs[0]
    alone = len(tuple(output.uses())) == 1 and not output.is_graph_output()
    return str(output.name) in parts.made and conv.op_type in CONVOLUTIONS and alone


def _runs(convs: Sequence[ir.Node | None], known: Sequence[ir.Node]) -> list[list[ir.Node]]:
    """Neighbours in the concatenation of equal widths."""
    runs: list[list[ir.Node]] = []
    before: ir.Node | None = None
    for conv in convs:
        if conv is None or conv not in known:
            before = None
            continue
        if before is not None and _shape(before) == _shape(conv):
            runs[-1].append(conv)
        else:
            runs.append([conv])
        before = conv
    return runs


def _shape(conv: ir.Node) -> tuple[int, ...]:
    weight = constant(conv.inputs[1])
    assert weight is not None
    return weight.shape


def _channels(value: ir.Value | None) -> int:
    shape = None if value is None else static_shape(value)
    assert shape is not None
    return shape[AXIS]


def _merged(affine: Affine, run: Sequence[ir.Node]) -> ir.Node:
    """One convolution for several; its input is set by the caller."""
    graph, first = affine.graph, run[0]
    values: list[ir.Value | None] = [None]
    for place in range(1, len(first.inputs)):
        names = [str(conv.inputs[place].name) for conv in run]  # type: ignore[union-attr]
        arrays = [floats(graph.initializers[name]) for name in names]
        held = fresh_name(graph, names[0].rpartition(".group")[0])
        value = set_initializer(graph, held, np.concatenate(_present(arrays)))
        spreads = [affine.spread(name) for name in names]
        if all(spread is not None for spread in spreads):
            affine.variance[held] = np.concatenate(_present(spreads)).astype(np.float32)
            affine.updated.add(held)
        values.append(value)
    attributes = [one for one in first.attributes.values() if one.name != "group"]
    if len(run) > 1:
        attributes.append(ir.AttrInt64("group", len(run)))
    conv = ir.Node("", first.op_type, values, attributes, name=label(first))
    (output,) = conv.outputs
    output.name = fresh_name(graph, f"{first.outputs[0].name}{JOINED}")
    channels = sum(_channels(one.outputs[0]) for one in run)
    output.shape, output.type = _with(first.outputs[0], channels), first.outputs[0].type
    return conv


def _present(arrays: Sequence[Float64Array | None]) -> list[Float64Array]:
    return [array for array in arrays if array is not None]
