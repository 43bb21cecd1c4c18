"""Padding along the channels."""

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
    arrange,
)
from deploykit.graph.edit import (
    attribute_string,
    constant,
    floats,
    set_operand,
)
from deploykit.spec.network import static_shape


@dataclass(frozen=True)
class PadChannels(Plain):
    """Pad by a constant, along the channels too: what it adds is constant channels.

    Along the other axes a constant channel stays one only where it equals the filling. begin, end:
    how many channels it adds; place: of axis 1 among the axes that the node names; elsewhere: the
    other axes that it lengthens; fill: None where it repeats what is there (reflect, edge, wrap).
    """

    node: ir.Node
    channels: int
    begin: int
    end: int
    place: int
    elsewhere: tuple[int, ...]
    fill: float | None

    @staticmethod
    def of(node: ir.Node) -> PadChannels | None:
        """Constant, non-negative widths; along the channels by a constant only."""
        shape = static_shape(node.inputs[0])
        if shape is None or len(shape) < 2 or len(activations(node)) != 1:
            return None
        widths = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        given_axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
        if widths is None or np.any(widths < 0):
            return None
        axes = list(range(len(shape))) if given_axes is None else (given_axes % len(shape)).tolist()
        both = np.zeros((2, len(shape)), dtype=np.int64)
        both[:, axes] = widths.reshape(2, -1)
        begin, end = (int(width) for width in both[:, 1])
        value = floats(node.inputs[2]) if len(node.inputs) > 2 else None
        fill = 0.0 if value is None else float(value.reshape(-1)[0])
        repeats = attribute_string(node, "mode", "constant") != "constant"
        if repeats and (begin or end):
            return None
        return PadChannels(
            node,
            shape[1],
            begin,
            end,
            axes.index(1) if 1 in axes else 0,
            tuple(k for k in range(len(shape)) if k != 1 and both[:, k].any()),
            None if repeats else fill,
        )

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """New ones for the channels that it adds. None where it lengthens another cut axis."""
        (given,) = inputs
        if any(given.shape[axis] > 1 for axis in self.elsewhere):
            return None
        if self._adds_channels(given.shape):
            ends = [atoms.fresh((1, count, *given.shape[2:])) for count in (self.begin, self.end)]
            return [np.concatenate([ends[0], given, ends[1]], axis=1)]
        return None if (self.begin or self.end) and given.shape[1] > 1 else [given]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        (given,) = inputs
        adds = self._adds_channels(given.shape)
        if self.fill is None:
            return [given]
        if self.elsewhere or ((self.begin or self.end) and not adds):
            given = np.where(given == self.fill, given, np.nan)
        if not adds:
            return [given]
        ends = [
            np.full((1, count, *given.shape[2:]), self.fill) for count in (self.begin, self.end)
        ]
        return [np.concatenate([ends[0], given, ends[1]], axis=1)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Pads by as many channels as stay of those it adds."""
        if not self._adds_channels(cutting.inputs[0].shape):
            return cutting.arranged[:1]
        found = arrange(cutting.outputs[0], cutting.kept)
        held = found.reshape(-1)
        total = cutting.outputs[0].size
        widths = np.array(constant(self.node.inputs[1]))
        widths[self.place] = int((held < self.begin).sum())
        widths[len(widths) // 2 + self.place] = int((held >= total - self.end).sum())
        if cutting.arranged[0].size == 0 and len(held):
            raise CannotArrangeError
        set_operand(cutting.affine.graph, cutting.node, 1, widths)
        return [found]

    def _adds_channels(self, cut: Sequence[int]) -> bool:
        """Whether it lengthens axis 1, and that alone is cut (or has one entry)."""
        along_channels = cut[1] == self.channels and int(np.prod(cut)) == cut[1]
        return (self.begin > 0 or self.end > 0) and along_channels
