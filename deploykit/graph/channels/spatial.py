"""Operators that work on each channel's map by itself: pools, resizing, instance normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.labels import Atoms, Entries, Labels, other_axes_are_one
from deploykit.graph.channels.rule import Arrangement, Constants, Cutting, Plain, activations
from deploykit.graph.edit import (
    attribute_int,
    attribute_ints,
    attribute_string,
    constant,
    floats,
    fresh_name,
    padded,
    set_initializer,
)
from deploykit.graph.passes.affine import own_weight
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import static_shape


class Follows(Enum):
    """Which constants stay themselves through an operator on maps."""

    ALL = "any"
    ZERO = "zero alone"
    NONE = "none"


@dataclass(frozen=True)
class Map(Plain):
    """y_c = f(x_c): a constant stays itself, or is lost (NaN)."""

    follows: Follows

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's, where it is cut along the channels alone."""
        return [inputs[0]] if other_axes_are_one(inputs[0], 1) else None

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        (given,) = inputs
        match self.follows:
            case Follows.ALL:
                return [given]
            case Follows.ZERO:
                return [np.where(given == 0, 0.0, np.nan)]
            case Follows.NONE:
                return [np.full(given.shape, np.nan)]
            case _:
                assert_never(self.follows)

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut."""
        return cutting.arranged[:1]


def pool(node: ir.Node) -> Map | None:
    """Max and average over a window: a constant stays itself.

    Not for an average that counts padded zeros: at the border it is smaller, unless it is zero. Nor
    for a window with holes that may lie wholly in the padding.
    """
    if len(activations(node)) != 1 or len(node.outputs) != 1:
        return None
    reaches_out = padded(node) or attribute_int(node, "ceil_mode", 0) == 1
    counts_padding = attribute_int(node, "count_include_pad", 0) == 1
    has_holes = any(step != 1 for step in attribute_ints(node, "dilations", ()))
    if reaches_out and has_holes:
        return Map(Follows.NONE)
    return Map(Follows.ZERO if reaches_out and counts_padding else Follows.ALL)


def global_pool(node: ir.Node) -> Map | None:
    """Mean or maximum of a whole map."""
    return Map(Follows.ALL)


@dataclass(frozen=True)
class Resize(Map):
    """Spatial axes only. Interpolation weights sum to 1; cubic and cropping forms are not followed.

    sizes: whether the target is given by sizes, which name the channels too.
    """

    sizes: bool

    @staticmethod
    def of(node: ir.Node) -> Resize | None:
        """None unless batch and channels keep their sizes by constant targets."""
        before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        if len(activations(node)) != 1 or before is None or after is None:
            return None
        if before[:2] != after[:2] or "axes" in node.attributes:
            return None
        follows = attribute_string(node, "mode", "nearest") in {"nearest", "linear"}
        mode = attribute_string(node, "coordinate_transformation_mode", "half_pixel")
        given = node.inputs[3] if len(node.inputs) > 3 else None
        keeps = follows and mode != "tf_crop_and_resize"
        return Resize(Follows.ALL if keeps else Follows.NONE, constant(given) is not None)

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """The channel count among the target sizes."""
        (arranged,) = cutting.arranged
        if self.sizes and cutting.inputs[0].size > 1 and arranged.size:
            graph, node = cutting.affine.graph, cutting.node
            target = np.array(constant(node.inputs[3]))
            target[1] = arranged.size
            name = fresh_name(graph, f"{node.outputs[0].name}.sizes")
            node.replace_input_with(3, set_initializer(graph, name, target))
        return [arranged]


@dataclass(frozen=True)
class InstanceNorm(Plain):
    """y_c = s_c * (x_c - mean) / std + t_c over a channel's map: a constant becomes t_c.

    Where the input is cut along the map too (groups of channels written as one map), a map goes
    as a whole or stays as a whole.
    """

    scale: Float64Array
    offset: Float64Array

    @staticmethod
    def of(node: ir.Node) -> InstanceNorm | None:
        """With parameters of its own."""
        scale, offset = floats(node.inputs[1]), floats(node.inputs[2])
        if scale is None or offset is None or not all(own_weight(v) for v in node.inputs[1:3]):
            return None
        return InstanceNorm(scale, offset)

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """The input's. A map that is cut itself becomes one atom."""
        (given,) = inputs
        if given.shape[0] != 1:
            return None
        if not other_axes_are_one(given, 1):
            first = given[(slice(None), slice(None), *(slice(0, 1),) * (given.ndim - 2))]
            atoms.join(first, given)
        return [given]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """t_c where the map is constant, or its scale is zero."""
        (given,) = inputs
        if given.shape[1] != len(self.offset):
            return [np.full(given.shape, np.nan)]
        column = (1, -1, *(1,) * (given.ndim - 2))
        axes = tuple(range(2, given.ndim))
        first = given[(slice(None), slice(None), *(slice(0, 1),) * (given.ndim - 2))]
        flat = (given == first).all(axis=axes, keepdims=True) | (self.scale == 0).reshape(column)
        found = np.where(flat, self.offset.reshape(column), np.nan)
        return [np.array(np.broadcast_to(found, given.shape))]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Index scale and offset."""
        (arranged,) = cutting.arranged
        shape = cutting.inputs[0].shape
        if shape[1] > 1 and arranged.size:
            where = np.asarray(np.unravel_index(arranged, shape)[1])
            channels = where.reshape(*where.shape[:2], -1)[0, :, 0]
            for operand in cutting.node.inputs[1:3]:
                cutting.affine.take(str(operand.name), channels, 0)  # type: ignore[union-attr]
        return [arranged]


@dataclass(frozen=True)
class BlockShuffle(Plain):
    """DepthToSpace and SpaceToDepth: b*b channels that make one go together.

    Constant where all of them hold the same constant.
    """

    deep: int
    block: int
    column_row_depth: bool
    to_space: bool

    @staticmethod
    def of(node: ir.Node) -> BlockShuffle | None:
        """From static shapes."""
        shape = static_shape(node.inputs[0])
        if shape is None or len(shape) != 4:
            return None
        block = attribute_int(node, "blocksize", 1)
        to_space = node.op_type == "DepthToSpace"
        deep = shape[1] if to_space else shape[1] * block * block
        crd = to_space and attribute_string(node, "mode", "DCR") == "CRD"
        return BlockShuffle(deep, block, crd, to_space)

    def label(self, inputs: Sequence[Labels], atoms: Atoms) -> Sequence[Labels] | None:
        """One label per channel of the shallow side."""
        (given,) = inputs
        if given.size == 1:
            return [given]
        if not other_axes_are_one(given, 1):
            return None
        if not self.to_space:
            return [np.tile(given, (1, self.block**2, 1, 1))]
        rows = self._by_shallow(given)
        atoms.join(rows[:, :1], rows)
        return [rows[:, 0].reshape(1, -1, 1, 1)]

    def constants(self, inputs: Sequence[Constants]) -> Sequence[Constants]:
        """See the class."""
        (given,) = inputs
        if given.size == 1:
            return [given]
        if not self.to_space:
            return [np.tile(given, (1, self.block**2, 1, 1))]
        rows = self._by_shallow(given)
        same = (rows == rows[:, :1]).all(axis=1)
        return [np.where(same, rows[:, 0], np.nan).reshape(1, -1, 1, 1)]

    def cut(self, cutting: Cutting) -> Sequence[Arrangement]:
        """Nothing to cut: block positions stay whole."""
        (arranged,) = cutting.arranged
        held = arranged.reshape(-1)
        if cutting.inputs[0].size == 1 or not len(held):
            return [arranged]
        if self.to_space:
            shallow = self._shallow_of(held)
            share = len(held) // self.block**2
            ordered = shallow.reshape(share, -1)[:, 0] if self.column_row_depth else shallow[:share]
            return [ordered.reshape(1, -1, 1, 1)]
        step = cutting.inputs[0].size
        found = (np.arange(self.block**2)[:, None] * step + held[None, :]).reshape(1, -1, 1, 1)
        return [found]

    def _by_shallow(self, given: Entries) -> Entries:
        """[shallow, b*b]"""
        flat, squared = given.reshape(-1), self.block**2
        if self.column_row_depth:
            return flat.reshape(-1, squared)
        return flat.reshape(squared, -1).T

    def _shallow_of(self, deep: Labels) -> Labels:
        squared = self.block**2
        return deep // squared if self.column_row_depth else deep % (self.deep // squared)
