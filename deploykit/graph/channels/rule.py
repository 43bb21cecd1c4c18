"""What an operator has to say about channels: one object per node, made by a row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.passes.affine import Affine
from deploykit.spec.arrays import BoolArray, Float64Array, IntArray

Constants = Float64Array
"""By entry of a tensor's labels, the value it has at every position of every input, else NaN."""

Arrangement = IntArray
"""Which entries of a tensor's labels the cut tensor holds, in order: flat indices into the labels,
in an array of the cut tensor's rank, size 1 along the axes that are not cut."""


class CannotArrangeError(Exception):
    """What stays does not fill a rectangular tensor; the node's tensors have to stay whole."""


@dataclass(frozen=True)
class Merge:
    """Constant channels of one tensor that become a few. survivors: the channels that stay."""

    survivors: tuple[int, ...]


@dataclass(frozen=True)
class Cutting:
    """All a node has to know to cut its own parameters.

    Per activation that it reads (inputs) and per output: labels; the constants, as they are from
    now on; for inputs their arrangement and the constants before (a surviving constant may have
    been restated). kept, needed: by atom, whether it stays and whether anybody needs its value.
    merge: of input 0.
    """

    affine: Affine
    node: ir.Node
    inputs: Sequence[Labels]
    outputs: Sequence[Labels]
    arranged: Sequence[Arrangement]
    constants: Sequence[Constants]
    constants_before: Sequence[Constants]
    output_constants: Sequence[Constants]
    kept: BoolArray
    needed: BoolArray
    merge: Merge | None


class Operator(Protocol):
    """What one node means for channels."""

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """Labels of the outputs. None, with nothing joined, where these inputs are not modelled."""
        ...

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """Forward: which output entries are constant, given the inputs'."""
        ...

    def reads(self, live: Sequence[BoolArray]) -> BoolArray | None:
        """Backward: entries of input 0 that `live` output entries sum up with a non-zero weight.

        A constant among them may be stated elsewhere. None: the node sums nothing over channels.
        """
        ...

    def needs(
        self, live: Sequence[BoolArray], inputs: Sequence[Constants]
    ) -> Sequence[BoolArray | None]:
        """Backward: entries of each input that must be there as they are, constant or not."""
        ...

    def absorbs(self) -> bool:
        """Whether a constant input channel can move into the bias exactly (no zero padding)."""
        ...

    def complete(
        self, inputs: Sequence[Labels], outputs: Sequence[Labels], kept: BoolArray
    ) -> None:
        """Mark in `kept` what has to stay besides, so that the node is legal."""
        ...

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Cut the node's own parameters down to what stays; the arrangements of the outputs.

        Raises CannotArrangeError.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """Defaults: nothing is summed, nothing is needed, nothing is a parameter."""

    def reads(self, live: Sequence[BoolArray]) -> BoolArray | None:
        """Nothing."""
        return None

    def needs(
        self, live: Sequence[BoolArray], inputs: Sequence[Constants]
    ) -> Sequence[BoolArray | None]:
        """Nothing beyond equal labels."""
        return ()

    def absorbs(self) -> bool:
        """The label keeps the channel, so nothing has to be absorbed."""
        return False

    def complete(
        self, inputs: Sequence[Labels], outputs: Sequence[Labels], kept: BoolArray
    ) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Site:
    """One node of the graph under analysis. operator: None at a border."""

    node: ir.Node
    operator: Operator | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Tensors:
    """Labels and constants by tensor name."""

    labels: dict[str, Labels] = field(default_factory=dict)
    constants: dict[str, Constants] = field(default_factory=dict)


def activations(node: ir.Node) -> list[ir.Value]:
    """The inputs that are computed at run time, in order."""
    return [value for value in node.inputs if value is not None and value.const_value is None]


def unknown(labels: Labels) -> Constants:
    """No entry is constant."""
    return np.full(labels.shape, np.nan)


def nothing(labels: Labels) -> Arrangement:
    """The arrangement of a tensor of which nothing stays; one number has no empty form but [0]."""
    return np.zeros((0,) * max(labels.ndim, 1), dtype=np.int64)


def arrange(labels: Labels, kept: BoolArray) -> Arrangement:
    """What stays, in ascending order.

    Along several cut axes, every row that stays at all has to keep equally many.

    Raises CannotArrangeError where they do not.
    """
    mask = kept[labels]
    wide = [axis for axis, size in enumerate(labels.shape) if size > 1]
    if len(wide) <= 1:
        shape = [1] * labels.ndim
        places = np.flatnonzero(mask)
        if not wide:
            return places.reshape(shape) if len(places) else nothing(labels)
        shape[wide[0]] = len(places)
        return places.reshape(shape)
    return _nested(mask, np.arange(labels.size).reshape(labels.shape))


def _nested(mask: BoolArray, places: IntArray) -> Arrangement:
    if mask.ndim == 1:
        return places[mask]
    rows = [_nested(m, p) for m, p in zip(mask, places, strict=True) if m.any()]
    if not rows:
        return np.zeros((0,) * mask.ndim, dtype=np.int64)
    if len({row.shape for row in rows}) > 1:
        raise CannotArrangeError
    return np.stack(rows)


def coordinates(arrangement: Arrangement, labels: Labels) -> list[IntArray]:
    """Coordinates in the labels of every arranged entry, one array of its shape per axis."""
    return [np.asarray(axis) for axis in np.unravel_index(arrangement, labels.shape)]


def place(where: Sequence[IntArray], labels: Labels) -> Arrangement:
    """The inverse of `coordinates`."""
    return np.asarray(np.ravel_multi_index(tuple(np.broadcast_arrays(*where)), labels.shape))
