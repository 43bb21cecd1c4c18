"""Which tensors share one order of their channels, and where moved channels come from.

A *group* holds the tensors that are tied position by position: through activations, pools,
depthwise convolutions, residual sums. Concat, Split, Slice and Gather along the channels *move*
them: what they put out may come in any order that its readers are told of. A layer's rows and
columns may come in any order; what keeps its order (graph inputs and outputs, grouped
convolutions, operators without a rule) makes its group *fixed*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from deploykit.graph.channels.concat import Concat, Stack
from deploykit.graph.channels.depthwise import Depthwise
from deploykit.graph.channels.elementwise import PerChannel, Unary, WithConstant
from deploykit.graph.channels.joining import Join
from deploykit.graph.channels.labels import Labels
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.pad_channels import PadChannels
from deploykit.graph.channels.reshaping import Reshape, Transpose
from deploykit.graph.channels.rule import Site
from deploykit.graph.channels.selecting import Select
from deploykit.graph.channels.spatial import InstanceNorm, Map
from deploykit.graph.channels.spatial_matmul import SpatialMatMul
from deploykit.graph.channels.structure import Structure
from deploykit.graph.channels.whole import Across, Reduce
from deploykit.spec.network import static_shape

Source = tuple[str, int]
"""A tensor that no move puts out, and a position along its channels."""


@dataclass(frozen=True)
class Moved:
    """What a Concat, Split, Slice or Gather puts out.

    origin: by position, where the channel comes from. chain: the moved tensors on the way, itself
    included. read: whether anybody but another move reads it.
    """

    value: ir.Value
    axis: int
    origin: tuple[Source, ...]
    chain: frozenset[str]
    read: bool

    @property
    def node(self) -> ir.Node:
        """The move that puts it out."""
        node = self.value.producer()
        assert node is not None
        return node


@dataclass(frozen=True)
class Groups:
    """of: group by tensor. fixed: groups whose order has to stay. moved: by tensor, in order."""

    of: Mapping[str, int]
    fixed: frozenset[int]
    moved: Mapping[str, Moved]


def find_groups(graph: ir.Graph, structure: Structure) -> Groups:
    """Groups and moves of a canonical graph. structure: of this very graph."""
    ties = _Ties(structure.labels)
    moved: dict[str, Moved] = {}
    inside = set(graph)
    moves = {site.node for site in structure.sites if is_move(site, structure.labels)}
    for value in (*graph.inputs, *graph.outputs):
        ties.fix(str(value.name))
    for site in structure.sites:
        if site.node in moves:
            _follow(site, moved, moves)
        else:
            _tie(site, ties)
        for value in site.node.outputs:
            if any(use.node not in inside for use in value.uses()):
                ties.fix(str(value.name))  # The branch of an If, say, reads it.
    ties.settle(moved)
    of = {name: ties.root(name) for name in structure.labels}
    fixed = frozenset(ties.root(name) for name in ties.fixed)
    return Groups(of, fixed, moved)


def is_move(site: Site, labels: Mapping[str, Labels]) -> bool:
    """Whether a node only says which channel goes where."""
    match site.operator:
        case Concat(axis=axis, parts=parts):
            return None not in parts and all(
                _size(value, axis) == labels[str(value.name)].shape[axis]
                for value in site.node.inputs
                if value is not None
            )
        case Select(axis=axis, drops_axis=False, several=()):
            given = labels[site.inputs[0]]
            return bool(given.size == given.shape[axis] > 1)
        case _:
            return False


def channel_axis(labels: Labels) -> int | None:
    """The axis along which alone channels are told apart."""
    wide = [axis for axis, size in enumerate(labels.shape) if size > 1]
    return wide[0] if len(wide) == 1 else None


def _follow(site: Site, moved: dict[str, Moved], moves: set[ir.Node]) -> None:
    """Where every channel of a move's outputs comes from."""
    operator = site.operator
    assert isinstance(operator, Concat | Select)
    axis, origins = operator.axis, []
    for value in site.node.inputs[: None if isinstance(operator, Concat) else 1]:
        name = "" if value is None else str(value.name)
        earlier = moved.get(name)
        own = tuple((name, k) for k in range(_size(value, axis)))
        origins.append(own if earlier is None else earlier.origin)
    if isinstance(operator, Concat):
        made = [tuple(source for origin in origins for source in origin)]
    else:
        made = [tuple(origins[0][int(k)] for k in index) for index in operator.taken]
    chain = frozenset[str]().union(*(moved[name].chain for name in site.inputs if name in moved))
    for value, origin in zip(site.node.outputs, made, strict=True):
        read = value.is_graph_output() or any(use.node not in moves for use in value.uses())
        name = str(value.name)
        if name:
            moved[name] = Moved(value, axis, origin, chain | {name}, read)


def _size(value: ir.Value | None, axis: int) -> int:
    shape = static_shape(value)
    assert shape is not None
    return shape[axis]


def _tie(site: Site, ties: _Ties) -> None:
    match site.operator:
        case Mixing(layout=layout) if layout.groups == 1:
            ties.layers.update(site.outputs)
        case Reshape(before=before, after=after):
            ties.reshape(site.inputs[0], site.outputs[0], before, after)
        case Across(axes=axes) | Reduce(axes=axes):
            if channel_axis(ties.labels[site.inputs[0]]) in axes:
                ties.fix(*site.inputs, *site.outputs)
            else:
                ties.tie(site)
        case PadChannels(begin=0, end=0) | Select(drops_axis=False, several=()):
            ties.tie(site)
        case (
            Depthwise() | InstanceNorm() | Join() | Map() | PerChannel() | SpatialMatMul()
            | Stack() | Transpose() | Unary() | WithConstant()
        ):  # fmt: skip
            ties.tie(site)
        case _:
            ties.fix(*site.inputs, *site.outputs)


class _Ties:
    """Union-find over tensors, with what is fixed, and which tensor is another one's, flattened."""

    def __init__(self, labels: Mapping[str, Labels]) -> None:
        self.labels = labels
        self.fixed = {name for name, held in labels.items() if channel_axis(held) is None}
        self._number = {name: number for number, name in enumerate(labels)}
        self._roots = list(range(len(labels)))
        self._flattened: list[tuple[str, str]] = []
        self.layers: set[str] = set()

    def root(self, name: str) -> int:
        """The group's number."""
        number = self._number[name]
        while self._roots[number] != number:
            self._roots[number] = self._roots[self._roots[number]]
            number = self._roots[number]
        return number

    def fix(self, *names: str) -> None:
        """These tensors keep their order."""
        self.fixed.update(name for name in names if name in self.labels)

    def tie(self, site: Site) -> None:
        """Outputs and inputs hold the same channels in the same order.

        A tensor with one element for all channels has no order; one whose channels are not told
        apart has one that nobody may change.
        """
        wide = [name for name in (*site.inputs, *site.outputs) if self.labels[name].size > 1]
        axes = {channel_axis(self.labels[name]) for name in wide}
        sizes = {self.labels[name].size for name in wide}
        if None in axes or len(sizes) > 1 or self._hides_channels(site):
            self.fix(*site.inputs, *site.outputs)
            return
        for name in wide[1:]:
            self._roots[self.root(name)] = self.root(wide[0])

    def reshape(
        self, source: str, target: str, before: tuple[int, ...], after: tuple[int, ...]
    ) -> None:
        """Tied where both tell the same channels apart; flattened where each became several."""
        at, to = channel_axis(self.labels[source]), channel_axis(self.labels[target])
        if (
            at is None
            or to is None
            or prod(before[:at]) != prod(after[:to])
            or after[to] % before[at]
        ):
            self.fix(source, target)
        elif before[at] == after[to]:
            self._roots[self.root(target)] = self.root(source)
        else:
            self._flattened.append((source, target))

    def settle(self, moved: Mapping[str, Moved]) -> None:
        """A flattened tensor has the order of what it was: fixed unless nothing else makes it."""
        made: dict[int, int] = {}
        for name in (*self.layers, *moved, *(target for _, target in self._flattened)):
            made[self.root(name)] = made.get(self.root(name), 0) + 1
        drawn = {self.root(name) for held in moved.values() for name, _ in held.origin}
        fixed = {self.root(name) for name in self.fixed}
        for source, target in reversed(self._flattened):
            group = self.root(target)
            if made[group] > 1 or group in drawn or group in fixed:
                self.fix(source, target)
                fixed.add(self.root(source))

    def _hides_channels(self, site: Site) -> bool:
        """Whether an operand has many channels that its labels do not tell apart."""
        out = self.labels[site.outputs[0]]
        axis = channel_axis(out)
        if axis is None:
            return False
        for value in site.node.inputs:
            shape = static_shape(value)
            if value is None or str(value.name) not in site.inputs or shape is None:
                continue
            held = self.labels[str(value.name)]
            place = axis - out.ndim + len(shape)
            if held.size == 1 and place >= 0 and shape[place] > 1:
                return True
        return False
