"""Rows of a constant table, taken by numbers that the network is given: token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Labels
from deploykit.graph.channels.rule import (
    Arrangement,
    Constants,
    Cutting,
    Plain,
    activations,
    arrange,
)
from deploykit.graph.edit import floats
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import Float64Array
from deploykit.spec.whole_numbers import table_rows


@dataclass(frozen=True)
class Embedding(Plain):
    """y[..., c] = table[ids, c]. table: [rows, C]; a column of equal numbers is a constant channel.

    The table's columns are the channels; rows stay, for any may be asked for.
    """

    node: ir.Node
    table: Float64Array

    @staticmethod
    def of(node: ir.Node) -> Embedding | None:
        """None for any other Gather, and where others read the table too."""
        source = activations(node)
        if len(source) != 1 or node.inputs[1] is not source[0] or not own_weight(node.inputs[0]):
            return None
        table = floats(node.inputs[0])
        if table is None or table_rows(node, source[0]) is None:
            return None
        return Embedding(node, table)

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """New channels along the last axis."""
        return [atoms.fresh([*(1,) * inputs[0].ndim, self.table.shape[1]])]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        first = self.table[0]
        same = (self.table == first).all(axis=0)
        return [np.where(same, first, np.nan).reshape(*(1,) * inputs[0].ndim, -1)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """The columns that stay."""
        (labels,) = cutting.outputs
        arranged = arrange(labels, cutting.kept)
        if arranged.size:
            value = self.node.inputs[0]
            assert value is not None
            cutting.affine.take(str(value.name), arranged.reshape(-1), axis=1)
        return [arranged]
