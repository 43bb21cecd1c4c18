"""What an operator has to say about channels (axis 1 of a tensor), one object per operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from deploykit.graph.passes.affine import Affine
from deploykit.spec.arrays import BoolArray, Float64Array, IntArray

Constants = Float64Array
"""Per channel the value it has at every position of every input, NaN where it has none. [C]"""


@dataclass(frozen=True)
class Link:
    """Channels that stay or go together: input channel source[k] and output channel target[k]."""

    input: int
    source: IntArray
    target: IntArray


@dataclass(frozen=True)
class Kept:
    """Per tensor, the channels that stay, ascending; and their constants.

    merged: by removed constant channel of the input, (channel that stays, ratio of the constants):
    a padded reader adds `ratio` times the removed channel's kernel to the kept one's.
    """

    inputs: Sequence[IntArray]
    output: IntArray
    input_constants: Sequence[Constants]
    output_constants: Constants
    merged: dict[int, tuple[int, float]]


class Rule(Protocol):
    """One operator's row in the table."""

    def supports(self, node: ir.Node) -> bool:
        """Whether this node's attributes and operands are ones the rule speaks for."""
        ...

    def constants(self, node: ir.Node, inputs: Sequence[Constants]) -> Constants:
        """Forward: which output channels are constant, given the inputs' (activations only)."""
        ...

    def links(self, node: ir.Node) -> Sequence[Link]:
        """Which channels of inputs and output are one and the same for removal."""
        ...

    def reads(self, node: ir.Node, live: BoolArray) -> BoolArray | None:
        """Backward: which channels of input 0 the `live` output channels read with a weight.

        None for operators that only pass channels on (their links say all there is).
        """
        ...

    def absorbs(self, node: ir.Node) -> bool:
        """Whether a constant input channel can move into the bias exactly (no zero padding)."""
        ...

    def shrink(self, affine: Affine, node: ir.Node, kept: Kept) -> None:
        """Cut the node's own parameters down to the channels that stay."""
        ...


def activations(node: ir.Node) -> list[ir.Value]:
    """The inputs that are computed at run time, in order."""
    return [value for value in node.inputs if value is not None and value.const_value is None]


def channel_count(value: ir.Value) -> int | None:
    """Size of axis 1 of a tensor of rank 2 or more with static shape, else None."""
    if value.shape is None or len(value.shape) < 2 or not isinstance(value.shape[1], int):
        return None
    return int(value.shape[1])


def unknown(count: int) -> Constants:
    """No channel is constant."""
    return np.full(count, np.nan)
