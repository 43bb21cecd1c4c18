"""Zero channels where the kernels around a block run faster for them.

A channel whose weights and bias are zero, and which every reader multiplies by zero, changes
nothing. Blocks that an operator with parameters or sizes by channel touches keep their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.align import predicted_gain, width_by
from deploykit.graph.channels.blocks import Block, find_blocks, layers_around
from deploykit.graph.channels.depthwise import Depthwise
from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.rule import Site, activations
from deploykit.graph.channels.structure import Structure, build_structure
from deploykit.graph.edit import floats
from deploykit.graph.options import Measured, MultipleOf
from deploykit.graph.passes.affine import Affine, output_axis
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network
from deploykit.spec.removal import WidenedBlock

CHANNEL_BY_CHANNEL = frozenset(
    (
        "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "Erf",
        "Softplus", "Elu", "Add", "Sub", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool",
        "GlobalMaxPool", "ReduceMean", "Flatten", "Squeeze",
    )
)  # fmt: skip
"""Finite at zero, and without a number per channel where everything that they read is computed."""
LEAST_GAIN = 1.1
"""Predicted, of the layers around a block: zeros that are added cost memory, unlike those kept."""
WITH_SCALARS = frozenset(("Clip", "ReduceMean", "Squeeze"))
"""Those whose further inputs are no channels."""


def widen_blocks(
    network: Network, alignment: MultipleOf | Measured
) -> tuple[Rewritten, tuple[WidenedBlock, ...]]:
    """The same function, every block at the width that the rule gives to it.

    network: canonical, its dead channels gone or kept for their width.
    """
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance))
    structure = build_structure(model.graph)
    ports = {str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)}
    everything = np.ones(structure.count, dtype=bool)
    wider: list[tuple[Block, WidenedBlock]] = []
    for block in find_blocks(structure.sites, structure.labels, everything):
        if ports.intersection(block.tensors) or not _can_grow(block, structure):
            continue
        uses = layers_around(block, structure.sites, structure.labels, everything)
        width = len(block.atoms)
        grown = width_by(width, None, uses, alignment) if uses else width
        gain = predicted_gain(width, grown, uses, alignment)
        if isinstance(alignment, Measured) and grown > alignment.most_added * width:
            continue
        if grown > width and (gain is None or gain >= LEAST_GAIN):
            wider.append((block, WidenedBlock(block.tensors, width, grown, gain)))
    for block, found in wider:
        _grow(affine, structure, block, found.width - found.needed)
    made = tuple(found for _, found in wider)
    return (affine.finish(network, model) if made else Rewritten(network)), made


def _can_grow(block: Block, structure: Structure) -> bool:
    """Whether its tensors hold nothing else, and every node at them takes a channel more."""
    if structure.pinned[block.atoms].any():
        return False
    held = set(block.tensors)
    if any(structure.labels[name].size != len(block.atoms) for name in held):
        return False
    return all(
        _takes_more(site, structure.labels, held)
        for site in structure.sites
        if held.intersection((*site.inputs, *site.outputs))
    )


def _takes_more(site: Site, labels: Mapping[str, Labels], held: set[str]) -> bool:
    node, operator = site.node, site.operator
    if isinstance(operator, Mixing):
        whole = labels[site.inputs[0]].size == operator.touched.shape[1]
        return whole and operator.layout.groups == 1 and node.op_type != "MatMul"
    if isinstance(operator, Depthwise):
        return True
    if operator is None or node.op_type not in CHANNEL_BY_CHANNEL:
        return False
    if not held.issuperset({*site.inputs, *site.outputs}):
        return False
    return node.op_type in WITH_SCALARS or len(activations(node)) == len(node.inputs)


def _grow(affine: Affine, structure: Structure, block: Block, more: int) -> None:
    held = set(block.tensors)
    for site in structure.sites:
        node = site.node
        if isinstance(site.operator, Depthwise) and site.outputs[0] in held:
            for value in node.inputs[1:]:
                _pad(affine, value, 0, more)
            count = affine.graph.initializers[_name(node.inputs[1])].shape
            assert count is not None
            node.attributes["group"] = ir.AttrInt64("group", int(count[0]))  # type: ignore[arg-type]
        elif isinstance(site.operator, Mixing) and held.intersection(
            (site.inputs[0], site.outputs[0])
        ):
            axis = output_axis(node)
            assert axis is not None
            if site.outputs[0] in held:
                _pad(affine, node.inputs[1], axis, more)
                _pad(affine, node.inputs[2], 0, more)
            if site.inputs[0] in held:
                _pad(affine, node.inputs[1], 1 - axis, more)
    for value in _values(affine.graph, block.tensors):
        labels = structure.labels[str(value.name)]
        (axis,) = (axis for axis, size in enumerate(labels.shape) if size > 1)
        assert value.shape is not None
        sizes = list(value.shape)
        sizes[axis] = len(block.atoms) + more
        value.shape = ir.Shape(sizes)


def _pad(affine: Affine, value: ir.Value | None, axis: int, more: int) -> None:
    """Zeros behind an initializer and its variance."""
    name = _name(value)
    array = floats(affine.graph.initializers[name])
    assert array is not None
    spread = affine.spread(name)
    affine.store(
        name,
        _with_zeros(array, axis, more),
        None if spread is None else _with_zeros(spread, axis, more),
    )


def _with_zeros(array: Float64Array, axis: int, more: int) -> Float64Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, more)
    return np.pad(array, widths)


def _name(value: ir.Value | None) -> str:
    assert value is not None
    return str(value.name)


def _values(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    wanted = set(names)
    return [value for node in graph for value in node.outputs if str(value.name) in wanted]
