"""Operators that combine activations element by element, broadcasting where shapes differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Entries, Labels
from deploykit.graph.channels.operands import at_positions, combine
from deploykit.graph.channels.rule import (
    Arrangement,
    CannotArrangeError,
    Constants,
    Cutting,
    Plain,
    activations,
)
from deploykit.spec.arrays import BoolArray, Float64Array
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Join(Plain):
    """y = f(x1, x2, ...) of activations: what meets at an element stays or goes together.

    An input that is broadcast along a cut axis (one map for all channels) is not cut by it: it is
    needed as long as any of them is. shapes: of the inputs.
    """

    function: Callable[..., Float64Array]
    shapes: tuple[tuple[int, ...], ...]

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The joined labels; None where two inputs would have to be cut along different axes."""
        wide = self._widened(inputs)
        full = np.broadcast_shapes(*(labels.shape for labels in wide))
        spread = [self._is_spread(index, full) for index in range(len(inputs))]
        if any(s and labels.size > 1 for s, labels in zip(spread, wide, strict=True)):
            return None
        linked = [labels for s, labels in zip(spread, wide, strict=True) if not s]
        carriers = [labels for labels in linked if labels.shape == full]
        if not carriers:
            return None
        for labels in linked:
            atoms.join(carriers[0], labels)
        return [carriers[0]]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """NaN is contagious, so all have to be constant, or one the zero of a product."""
        wide = self._widened(inputs)
        full = np.broadcast_shapes(*(values.shape for values in wide))
        return [combine(self.function, full, *wide)]

    def at_positions(self, inputs: Sequence[Constants]) -> Float64Array:
        """f at every position."""
        wide = self._widened(inputs)
        return at_positions(self.function, wide[0].ndim, *wide)

    def needs(
        self, live: Sequence[BoolArray], inputs: Sequence[Constants]
    ) -> Sequence[BoolArray | None]:
        """A broadcast input as a whole, by any live element."""
        wanted = bool(live[0].any())
        return [
            np.full((1,) * len(shape), wanted) if self._is_spread(index, live[0].shape) else None
            for index, shape in enumerate(self.shapes)
        ]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut; the inputs have to hold the same positions, in the same order.

        Positions, not atoms: in x + shuffle(x) one atom stands at several.
        """
        wide = self._widened(cutting.inputs)
        full = cutting.outputs[0].shape
        found: Arrangement | None = None
        atoms = None
        for index, labels in enumerate(wide):
            if labels.shape == full and not self._is_spread(index, full):
                found = cutting.arranged[index].reshape(
                    (1,) * (len(full) - cutting.arranged[index].ndim)
                    + cutting.arranged[index].shape
                )
                atoms = labels.reshape(-1)[found]
                break
        assert found is not None and atoms is not None
        for index, labels in enumerate(wide):
            if self._is_spread(index, full):
                continue
            stays = cutting.arranged[index]
            stays = stays.reshape((1,) * (len(full) - stays.ndim) + stays.shape)
            held, wanted = stays, found
            if labels.shape != full:
                held, wanted = labels.reshape(-1)[stays], atoms
            try:
                equal = np.array_equal(np.broadcast_to(held, wanted.shape), wanted)
            except ValueError:
                equal = False
            if not equal:
                raise CannotArrangeError
        return [found]

    def _widened(self, arrays: Sequence[Entries]) -> list[Entries]:
        rank = max(len(shape) for shape in self.shapes)
        return [array.reshape((1,) * (rank - array.ndim) + array.shape) for array in arrays]

    def _is_spread(self, index: int, full: Sequence[int]) -> bool:
        """Whether input `index` has one element along an axis that is cut."""
        shape = (1,) * (len(full) - len(self.shapes[index])) + self.shapes[index]
        return any(size == 1 and cut > 1 for size, cut in zip(shape, full, strict=True))


def join(function: Callable[..., Float64Array]) -> Callable[[ir.Node], Join | None]:
    """The row of an operator on two or more activations."""

    def bind(node: ir.Node) -> Join | None:
        sources = activations(node)
        shapes = [static_shape(source) for source in sources]
        known = tuple(shape for shape in shapes if shape is not None)
        if len(sources) < 2 or len(sources) != len(node.inputs) or len(known) != len(shapes):
            return None
        return Join(function, known)

    return bind
