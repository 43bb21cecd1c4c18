"""Products of two activations, as attention has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.channels.rule import (
    Arrangement,
    CannotArrangeError,
    Constants,
    Cutting,
    Plain,
    activations,
    coordinates,
    nothing,
    place,
)
from deploykit.spec.arrays import BoolArray, IntArray
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class Product(Plain):
    """MatMul of a [..., m, k] by b [..., k, n].

    The entries of a and b that meet along k stay or go together: a product with zero adds nothing.
    Leading axes (heads) are shared by a, b and the result. The result is cut along m as a is, and
    along n as b is; where neither is cut, each head is one new atom, which reads all its terms.
    """

    @staticmethod
    def of(node: ir.Node) -> Product | None:
        """Two activations of one rank, three or more, with equal leading axes."""
        shapes = [static_shape(value) for value in activations(node)]
        if len(shapes) != 2 or len(node.inputs) != 2:
            return None
        left, right = shapes
        if left is None or right is None or len(left) < 3 or left[:-2] != right[:-2]:
            return None
        return Product()

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """See the class; None where a head would be cut in one operand and not in the other."""
        a, b = inputs
        rows, columns = a.shape[-2] > 1, b.shape[-1] > 1
        summed = a.shape[-1] > 1 or b.shape[-2] > 1
        if rows + columns + summed > 1 or a.shape[:-2] != b.shape[:-2]:
            return None
        if summed:
            atoms.join(a[..., 0, :], b[..., :, 0])
            return [atoms.fresh((*a.shape[:-2], 1, 1))]
        if not rows and not columns:
            atoms.join(a, b)
        return [a if rows else b]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """Zero where either operand is zero; nothing else is followed."""
        a, b = inputs
        if a.shape[-1] > 1 or b.shape[-2] > 1:
            a_terms, b_terms = a[..., 0, :], b[..., :, 0]
            nothing = ((a_terms == 0) | (b_terms == 0)).all(axis=-1)
            return [np.where(nothing, 0.0, np.nan)[..., np.newaxis, np.newaxis]]
        return [np.where((a == 0) | (b == 0), 0.0, np.nan)]

    def needs(
        self, live: Sequence[BoolArray], inputs: Sequence[Constants]
    ) -> Sequence[BoolArray | None]:
        """Of each operand what is not one atom with the result.

        Terms of a live head, but for those that are zero in either operand; heads of a live result.
        """
        heads = np.asarray(live[0].any(axis=(-2, -1), keepdims=True))
        a, b = inputs
        if a.shape[-1] > 1 or b.shape[-2] > 1:
            terms = ~((a[..., 0, :] == 0) | (b[..., :, 0] == 0))
            of_a, of_b = heads & terms[..., np.newaxis, :], heads & terms[..., :, np.newaxis]
            return [
                of_a if a.shape[-1] > 1 else of_a.any(axis=-1, keepdims=True),
                of_b if b.shape[-2] > 1 else of_b.any(axis=-2, keepdims=True),
            ]
        return [
            heads if a.shape[-2:] == (1, 1) else None,
            heads if b.shape[-2:] == (1, 1) else None,
        ]

    def complete(
        self, inputs: Sequence[Labels], outputs: Sequence[Labels], kept: BoolArray
    ) -> None:
        """A head stays in both operands and in the result, or in none."""
        tensors = [labels.reshape(*labels.shape[:-2], -1) for labels in (*inputs, *outputs)]
        if tensors[0].shape[:-1] != tensors[1].shape[:-1]:
            return
        staying = np.any([kept[rows].any(axis=-1) for rows in tensors], axis=0)
        for rows in tensors:
            for head in np.argwhere(staying & ~kept[rows].any(axis=-1)):
                kept[rows[tuple(head)][0]] = True

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut; operands have to hold the same terms and heads in the same order."""
        a, b = cutting.inputs
        left, right = cutting.arranged
        target = cutting.outputs[0]
        if left.size == 0 or right.size == 0:
            return [nothing(target)]
        if a.shape[-1] > 1 or b.shape[-2] > 1:
            held = a.reshape(-1)[left][..., 0, :], b.reshape(-1)[right][..., :, 0]
            if not _same_terms(*held):
                raise CannotArrangeError
        heads = [_heads(left, a), _heads(right, b)]
        if a.shape[:-2] == b.shape[:-2] and not np.array_equal(heads[0], heads[1]):
            raise CannotArrangeError
        if b.shape[-1] > 1:
            return [right]
        if a.shape[-2] > 1:
            return [left]
        where = [axis[..., :1, :1] for axis in coordinates(left, a)]
        return [place([*where[:-2], where[-2] * 0, where[-1] * 0], target)]


def _same_terms(left: IntArray, right: IntArray) -> bool:
    """Whether both hold the same atoms; one that is not cut has a single one for all terms."""
    if left.shape[:-1] == right.shape[:-1] and 1 in (left.shape[-1], right.shape[-1]):
        left, right = np.broadcast_arrays(left, right)
    return np.array_equal(left, right)


def _heads(arranged: Arrangement, labels: Labels) -> IntArray:
    """Coordinates along the leading axes, one row per axis."""
    where = coordinates(arranged, labels)[:-2]
    return np.stack([axis[..., 0, 0] for axis in where])
