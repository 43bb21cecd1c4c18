"""Which nodes of the float graph become which integer operator; decided before any number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from deploykit.quantize.grid_ends import grid_behind, saturates
from deploykit.quantize.nodes import activations, clip_bounds, constant
from deploykit.quantize.operators import FUSING, Kind, kind_of
from deploykit.quantize.regions import Region, find_regions
from deploykit.spec.given import ActivationGrid
from deploykit.spec.network import Network
from deploykit.spec.quantized import Tail, tail_axis
from deploykit.spec.whole_numbers import answer_of, whole_outputs

TAILS = {"Softmax": Tail.SOFTMAX, "LogSoftmax": Tail.LOG_SOFTMAX}
NO_SCORE = -30.0
"""exp of it, 1e-13, is under any step of a softmax."""


@dataclass(frozen=True)
class Layer:
    """One integer operator to be: its nodes, its float tensors, and the bounds of its activation.

    inputs: activations. low, high: what a fused Relu or Clip clips to (real values), None where it
    does not. place: which of its node's outputs. region: what an ISLAND or REARRANGE stands for.
    """

    name: str
    kind: Kind
    nodes: tuple[ir.Node, ...]
    inputs: tuple[str, ...]
    output: str
    low: float | None = None
    high: float | None = None
    place: int = 0
    region: Region | None = None


def build_structure(network: Network) -> tuple[Layer, ...]:
    """Layers in graph order.

    A Relu, or a Clip from zero up, that is the only reader of a Conv, Gemm, Add or Mul is fused:
    the output's range starts at zero, and integer saturation does the clipping, unless the output
    has a grid that ends elsewhere. Any other Relu or Clip becomes a Clamp. A Cast behind an ArgMax
    at the end belongs to it.

    What has no integer form becomes a region (see `regions`), in the place of its last node. What
    `tails` finds stays outside.

    Raises UnsupportedOperatorError naming the operator, the node, and what to do.
    """
    layers: list[Layer] = []
    fused = set(tails(network)) | _casts_of_answers(network)
    in_float = _left_in_float(network)
    regions = find_regions(network, fused, in_float)
    inside = {node for region in regions.values() for node in region.nodes}
    for node in network.model.graph:
        if node in regions:
            layers.append(_region_layer(node, regions[node], network))
        elif node not in inside and node not in fused:
            for layer in _layers(node, network.given.activations):
                layers.append(layer)
                fused.update(layer.nodes[1:])
    return tuple(layers)


def tails(network: Network) -> dict[ir.Node, Tail]:
    """The nodes that turn the last integers' real values into a graph output, in float.

    A Softmax or LogSoftmax along `tail_axis` whose input nobody else reads: runtimes have no
    integer form of it that is fast and equal, and nothing behind it needs one. Scores that a mask
    was added to stay in float with it instead: they make an island.
    """
    found: dict[ir.Node, Tail] = {}
    for value in network.model.graph.outputs:
        node = value.producer()
        source = None if node is None or node.op_type not in TAILS else node.inputs[0]
        if node is None or source is None or source.producer() is None or value.uses():
            continue
        axis, rank = node.attributes.get_int("axis", -1), len(source.shape or ())
        along = 2 <= rank <= 4 and axis % rank == tail_axis(rank)
        alone = len(source.uses()) == 1 and not source.is_graph_output()
        if along and alone and not _masked(source.producer()):
            found[node] = TAILS[node.op_type]
    return found


def _masked(node: ir.Node | None) -> bool:
    """Whether a sum or minimum with a constant leaves scores out."""
    if node is None or node.op_type not in {"Add", "Min"}:
        return False
    held = [array for index in (0, 1) if (array := constant(node, index)) is not None]
    return any(bool((array <= NO_SCORE).any()) for array in held)


def _casts_of_answers(network: Network) -> set[ir.Node]:
    """The Casts behind an ArgMax at the end: its own type of whole numbers."""
    ends = [value for value in whole_outputs(network) if answer_of(value) is not None]
    makers = [value.producer() for value in ends]
    return {node for node in makers if node is not None and node.op_type == "Cast"}


def _left_in_float(network: Network) -> frozenset[ir.Node]:
    """The nodes that `network` names as such, each with the Relu or Clip that it would take in."""
    named = [node for node in network.model.graph if node.name in network.in_float]
    grids = network.given.activations
    followers = [_fusable_activation(node, grids) for node in named]
    return frozenset((*named, *(node for node in followers if node is not None)))


def _region_layer(last: ir.Node, region: Region, network: Network) -> Layer:
    """Called after its last layer that the user left in float, else after its last node."""
    read = tuple(str(value.name) for value in region.inputs)
    output = str(region.output.name)
    left = [str(node.name) for node in region.nodes if node.name in network.in_float]
    name = left[-1] if left else last.name or output
    return Layer(name, region.kind, region.nodes, read, output, region=region)


def _layers(node: ir.Node, grids: Mapping[str, ActivationGrid]) -> Iterator[Layer]:
    """One per output of a Split that is read, one of any other node."""
    kind = kind_of(node)
    assert kind is not None
    follower = _fusable_activation(node, grids) if kind in FUSING else None
    if kind is Kind.ARG_MAX:
        follower = next((use.node for use in node.outputs[0].uses()), None)
    nodes = (node,) if follower is None else (node, follower)
    low, high = (None, None)
    if follower is not None and kind is not Kind.ARG_MAX:
        low, high = clip_bounds(follower)
    if kind is Kind.CLAMP:
        low, high = clip_bounds(node)
    read = tuple(str(value.name) for value in activations(node))
    for place, output in enumerate(nodes[-1].outputs):
        if len(node.outputs) > 1 and not output.uses() and not output.is_graph_output():
            continue
        name = node.name or str(node.outputs[0].name)
        called = name if len(node.outputs) == 1 else f"{name}.{place}"
        yield Layer(called, kind, nodes, read, str(output.name), low, high, place)


def _fusable_activation(node: ir.Node, grids: Mapping[str, ActivationGrid]) -> ir.Node | None:
    output = node.outputs[0]
    uses = tuple(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    follower = uses[0].node
    if follower.op_type not in {"Relu", "Clip"} or len(activations(follower)) != 1:
        return None
    low, high = clip_bounds(follower)
    grid = grid_behind(follower.outputs[0], grids)
    if grid is not None and not saturates(grid, low, high):
        return None
    return follower if low == 0.0 and (high is None or high > 0.0) else None
