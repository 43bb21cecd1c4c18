"""Applies an analysis to a graph: every node is cut to the channels that stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from deploykit.graph.channels.joining import Join
from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.liveness import Liveness
from deploykit.graph.channels.reshaping import cut_shape
from deploykit.graph.channels.rule import Arrangement, CannotArrangeError, Cutting, Site
from deploykit.graph.edit import bypass, fresh_name, label, set_initializer
from deploykit.graph.passes.affine import Affine, scale_producer
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network, static_shape


class NotArrangedError(Exception):
    """What stays does not fill rectangular tensors at `node`: its `tensors` have to stay whole."""

    def __init__(self, node: str, tensors: tuple[str, ...]) -> None:
        super().__init__(node)
        self.node = node
        self.tensors = tensors


@dataclass(frozen=True)
class Step:
    """One round of analysis and cut. arranged: by tensor, which entries of its labels it holds.

    simplified: whether a branch that is constant went.
    """

    found: Liveness
    arranged: Mapping[str, Arrangement]
    simplified: bool

    @property
    def changed(self) -> bool:
        """Whether anything went, which may leave more to remove."""
        labels = self.found.structure.labels
        return self.simplified or any(
            places.size < labels[name].size for name, places in self.arranged.items()
        )


def cut(network: Network, found: Liveness) -> tuple[Rewritten, Step]:
    """The graph with fewer channels, numbers in float64.

    Raises NotArrangedError.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance), element=np.dtype(np.float64))
    arranged: dict[str, Arrangement] = {}
    labels = found.structure.labels
    shapes = {
        str(value.name): static_shape(value) for node in model.graph for value in node.outputs
    }
    for value in (*model.graph.inputs, *model.graph.outputs):
        if str(value.name) in labels:
            arranged[str(value.name)] = _everything(labels[str(value.name)])
    nodes = list(model.graph)
    for node, site in zip(nodes, found.structure.sites, strict=True):
        try:
            _cut_node(affine, node, site, found, arranged)
        except CannotArrangeError:
            raise NotArrangedError(label(site.node), (*site.inputs, *site.outputs)) from None
    for node in model.graph:
        for value in node.outputs:
            name = str(value.name)
            shape = shapes.get(name)
            if shape is not None and name in arranged:
                value.shape = ir.Shape(cut_shape(shape, labels[name], arranged[name]))
    simplified = [
        isinstance(site.operator, Join)
        and _without_constant_branch(affine, node, site, found, arranged)
        for node, site in zip(nodes, found.structure.sites, strict=True)
    ]
    common.RemoveUnusedNodesPass()(model)
    return affine.finish(network, model), Step(found, arranged, any(simplified))


def _cut_node(
    affine: Affine, node: ir.Node, site: Site, found: Liveness, arranged: dict[str, Arrangement]
) -> None:
    labels = found.structure.labels
    outputs = [labels[name] for name in site.outputs]
    if site.operator is None:
        for name, held in zip(site.outputs, outputs, strict=True):
            arranged[name] = _everything(held)
        return
    inputs = [labels[name] for name in site.inputs]
    cutting = Cutting(
        affine,
        node,
        inputs,
        outputs,
        [arranged[name] for name in site.inputs],
        [found.constants[name] for name in site.inputs],
        [found.constants_before[name] for name in site.inputs],
        [found.constants[name] for name in site.outputs],
        found.kept,
        found.needed,
        found.merges.get(site.inputs[0]),
    )
    made = site.operator.cut(cutting)
    for name, arrangement, held in zip(site.outputs, made, outputs, strict=False):
        if not np.array_equal(
            np.sort(arrangement.reshape(-1)), np.flatnonzero(found.kept[held.reshape(-1)])
        ):
            raise CannotArrangeError
        arranged[name] = arrangement


def _everything(labels: Labels) -> Arrangement:
    return np.arange(labels.size).reshape(labels.shape)


def _without_constant_branch(
    affine: Affine, node: ir.Node, site: Site, found: Liveness, arranged: Mapping[str, Arrangement]
) -> bool:
    """A sum or product with a tensor of which all is constant needs no tensor for it.

    Whether it was one.
    """
    output = site.outputs[0]
    if _all_constant(found, arranged, output) is not None or not arranged[output].size:
        return False
    graph = affine.graph
    for index, name in enumerate(site.inputs):
        values = _all_constant(found, arranged, name)
        if values is None or len(node.inputs) != 2:
            continue
        other = node.inputs[1 - index]
        assert other is not None
        whole = static_shape(other) == static_shape(node.outputs[0])
        neutral = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}.get(node.op_type)
        first_matters = node.op_type in {"Sub", "Div"} and index == 0
        is_neutral = neutral is not None and not first_matters and bool((values == neutral).all())
        spare = other.producer() is not None and not (
            other.is_graph_output() and node.outputs[0].is_graph_output()
        )
        if (whole and is_neutral and spare) or (
            whole and node.op_type == "Add" and _into_bias(affine, other, values)
        ):
            bypass(graph, node, other)
        else:
            spread = _spread(values, node, index)
            held = set_initializer(graph, fresh_name(graph, f"{name}.constant"), spread)
            node.replace_input_with(index, held)
        return True
    return False


def _spread(values: Float64Array, node: ir.Node, index: int) -> Float64Array:
    """Values of operand `index`, in its whole shape where the result takes its size from it."""
    left, right = (static_shape(value) for value in node.inputs)
    shapes = [values.shape if k == index else shape for k, shape in enumerate((left, right))]
    whole = static_shape(node.outputs[0])
    assert shapes[0] is not None and shapes[1] is not None
    if np.broadcast_shapes(shapes[0], shapes[1]) == whole:
        return values
    own = static_shape(node.inputs[index])
    assert own is not None
    return np.array(np.broadcast_to(values, own))


def _into_bias(affine: Affine, source: ir.Value, values: Float64Array) -> bool:
    """Add constants per channel to the bias of the layer that computes `source` for nobody else."""
    producer = source.producer()
    if producer is None or len(source.uses()) != 1 or source.is_graph_output():
        return False
    if producer.op_type not in {"Conv", "Gemm"} or values.ndim != len(source.shape or ()):
        return False
    if values.size != values.shape[1]:
        return False
    offset = values.reshape(-1)
    return scale_producer(affine, producer, np.ones_like(offset), offset)


def _all_constant(
    found: Liveness, arranged: Mapping[str, Arrangement], name: str
) -> Float64Array | None:
    """What a tensor holds, where all of it is constant; what nobody needs counts as zero."""
    places = arranged[name]
    values = found.constants[name].reshape(-1)[places]
    needed = found.needed[found.structure.labels[name].reshape(-1)[places]]
    values = np.where(np.isnan(values) & ~needed, 0.0, values)
    return values if values.size and not np.isnan(values).any() else None
