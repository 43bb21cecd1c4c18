"""Which sets of channels the rounding of their readers hides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant
from deploykit.graph.ranges.channels import Channels
from deploykit.graph.ranges.flow import Flow, read_span, spans
from deploykit.graph.ranges.layers import Layer
from deploykit.graph.ranges.measured import Measured
from deploykit.graph.ranges.span import Span, points
from deploykit.spec.arrays import BoolArray, Float64Array, IntArray

ROUNDOFF = 2.0**-24
"""Unit roundoff u of float32: the largest relative error of one rounding to nearest."""

SAFETY = 2.0
"""No element of a tensor is taken to exceed this times the largest that was measured."""


@dataclass(frozen=True)
class Reads:
    """One layer that sums over channels, other than a depthwise one.

    largest: [I], of |x|; deviation: [I], of |x - the constant that would stand for it|, infinite
    where that is none; rounding: [O], u * (sum |W| * mean |x| + |b|).
    """

    layer: Layer
    sets: IntArray
    output_sets: IntArray
    largest: Float64Array
    deviation: Float64Array
    rounding: Float64Array

    @property
    def share(self) -> float:
        """The part of the rounding that one set may take: 1 / number of sets read.

        All sets together stay within one rounding, and whether a set may go does not depend on
        which others do, so a second search finds nothing new.
        """
        return 1.0 / len(np.unique(self.sets))

    def weight(self, live: BoolArray, sets: int) -> Float64Array:
        """[sets], largest over live outputs [O] of sum |W| / rounding; zero where it is not read.

        The sum is over all the channels of a set that the layer reads.
        """
        worst = np.zeros(sets)
        for block in self.layer.blocks():
            shape = block.kernels.shape
            owners = self.sets[block.inputs].reshape(shape[0], shape[2])
            present, absolute = _by_set(block.absolute(), owners)
            rounding = self.rounding[block.outputs].reshape(shape[0], shape[1], 1)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = np.where(absolute == 0, 0.0, absolute / rounding)
            reading = live[block.outputs].reshape(shape[0], shape[1], 1)
            relative = np.where(reading, relative, 0.0)
            np.maximum.at(worst, present, relative.max(axis=1, initial=0.0))
        return worst

    def effects(self, weight: Float64Array, size: Float64Array) -> Float64Array:
        """[sets], the largest effect of each set, of `weight` and size [I], over the rounding."""
        largest = np.zeros(len(weight))
        np.maximum.at(largest, self.sets, size)
        with np.errstate(invalid="ignore"):
            return np.where((weight == 0) | (largest == 0), 0.0, weight * largest)


def _by_set(absolute: Float64Array, owners: IntArray) -> tuple[IntArray, Float64Array]:
    """[G, R, J] summed over the columns of each set: the sets [G, S] and [G, R, S].

    owners: [G, J], the set of each column. A group with several columns of one set is summed by
    itself, so that all have an equal number of sets, padded with empty ones.
    """
    ordered = np.sort(owners, axis=1)
    if not np.any(ordered[:, 1:] == ordered[:, :-1]):
        return owners, absolute
    width = max(len(np.unique(row)) for row in owners)
    present = np.repeat(owners[:, :1], width, axis=1)
    total = np.zeros((*absolute.shape[:2], width))
    for group, row in enumerate(owners):
        order = np.argsort(row, kind="stable")
        columns = absolute[group]
        if not np.array_equal(order, np.arange(len(order))):
            columns = columns[:, order]
        firsts = np.flatnonzero(np.diff(row[order], prepend=-1))
        present[group, : len(firsts)] = row[order][firsts]
        total[group, :, : len(firsts)] = np.add.reduceat(columns, firsts, axis=1)
    return present, total


@dataclass(frozen=True)
class Hidden:
    """The sets that may go, [sets] each.

    unread: every reader's kernels for it are hidden. constant: it is constant to rounding.
    middles: by layer, the bias [O] that stands for an output that does not vary.
    limits: the bound of |x| by tensor.
    """

    unread: BoolArray
    constant: BoolArray
    middles: Mapping[ir.Node, Float64Array]
    reads: Mapping[ir.Node, Reads]
    limits: Mapping[str, float]


def find_hidden(flow: Flow, measured: Measured) -> Hidden:
    """Decide which whole sets of coupled channels the rounding of their readers hides.

    A reader's output is y = sum W x + b in float32. Storing each weight in float32 moves it by up
    to u |W|, so y is known to r = u (sum |W| mean |x| + |b|) only, whatever the order of the sum
    (Higham 2002, sections 3.1 and 3.5: backward error of inner products). A set of channels is

      unread    where sum |W| * max |x| over its channels is at most r / n at every output, and
      constant  where sum |W| * max |x - c| is, with c the value that is left when every layer that
                computes the set gives the middle of its range, whatever it reads,

    with n the sets that the layer reads: all together stay below r. r takes the mean of |x|, the
    effects take bounds: interval arithmetic from layer to layer, cut off at SAFETY times the
    largest measured magnitude of the tensor. An output of a layer that goes itself, or that is
    zero, reads nothing.
    """
    limits = {
        name: SAFETY * size if size > 0 and np.isfinite(size) else np.inf
        for name, size in measured.largest.items()
    }
    ranges = spans(flow, limits, lambda layer, source, _: layer.span(source), 1)
    middles = {
        node: _middles(layer, ranges[str(node.outputs[0].name)])
        for node, layer in flow.layers.items()
    }
    frozen = spans(flow, limits, _Frozen(flow, middles), 1)
    exact = spans(flow, {}, _exact, 1)
    reads = {
        node: _reads(flow, node, ranges, frozen, measured)
        for node, layer in flow.layers.items()
        if not layer.depthwise
    }
    varies = _varying(flow, reads, exact)
    unread, constant_ = _fixpoint(flow, reads, varies)
    return Hidden(unread, constant_, middles, reads, limits)


def _middles(layer: Layer, output: Span) -> Float64Array:
    """The middle of each output's range in the bias's element type; 0 where there is no bias."""
    held = constant(layer.bias)
    if held is None:
        return np.zeros(layer.outputs)
    with np.errstate(invalid="ignore"):
        middle = output.low + (output.high - output.low) / 2
    fixed = np.where(output.low == output.high, output.low, middle)
    return np.where(np.isfinite(fixed), fixed, layer.offset).astype(held.dtype).astype(np.float64)


@dataclass(frozen=True)
class _Frozen:
    """Every layer computes its middles, but for channels that have to stay."""

    flow: Flow
    middles: Mapping[ir.Node, Float64Array]

    def __call__(self, layer: Layer, source: Span, output: Channels) -> Span:
        middle = points(self.middles[layer.node], source.error.shape[1])
        pinned = self.flow.pinned[output.atoms]
        moving = layer.span(source)
        return Span(
            np.where(pinned, moving.low, middle.low),
            np.where(pinned, moving.high, middle.high),
            middle.error,
        )


def _exact(layer: Layer, source: Span, output: Channels) -> Span:
    """What is constant by zeros alone; every other channel may be anything."""
    del output
    fixed = source.low == source.high
    unknown = Span(
        np.where(fixed, source.low, -np.inf), np.where(fixed, source.high, np.inf), source.error
    )
    result = layer.span(unknown)
    same = result.low == result.high
    return Span(
        np.where(same, result.low, -np.inf), np.where(same, result.high, np.inf), result.error
    )


def _reads(
    flow: Flow,
    node: ir.Node,
    ranges: Mapping[str, Span],
    frozen: Mapping[str, Span],
    measured: Measured,
) -> Reads:
    layer = flow.layers[node]
    span, still = read_span(flow, node, ranges), read_span(flow, node, frozen)
    deviation = np.maximum(span.high - still.low, still.low - span.low)
    return Reads(
        layer,
        flow.read[node].atoms,
        flow.channels[str(node.outputs[0].name)].atoms,
        span.largest,
        np.where(still.low == still.high, deviation, np.inf),
        roundings(layer, measured.mean[node]),
    )


def roundings(layer: Layer, mean: Float64Array) -> Float64Array:
    """[O], u * (sum |W| * mean |x| + |b|); 0, which hides nothing, where that is not finite."""
    rounding = ROUNDOFF * layer.absolute_sum(mean)
    return np.where(np.isfinite(rounding), rounding, 0.0)


def _varying(flow: Flow, reads: Mapping[ir.Node, Reads], exact: Mapping[str, Span]) -> BoolArray:
    """[sets], whether a reader sees it vary for all that zeros alone can tell."""
    varies = np.zeros(flow.sets, dtype=np.bool_)
    for node, read in reads.items():
        span = read_span(flow, node, exact)
        varies[read.sets[span.low != span.high]] = True
    return varies


def _fixpoint(
    flow: Flow, reads: Mapping[ir.Node, Reads], varies: BoolArray
) -> tuple[BoolArray, BoolArray]:
    """Sets found, until no more are: what a layer that goes has read may go too."""
    unread = np.zeros(flow.sets, dtype=np.bool_)
    constant_ = np.zeros(flow.sets, dtype=np.bool_)
    dead = np.zeros(flow.sets, dtype=np.bool_)
    free = ~flow.pinned
    seen: dict[ir.Node, tuple[BoolArray, Float64Array]] = {}
    while True:
        touched = np.zeros(flow.sets, dtype=np.bool_)
        hides_all, hides_change = free.copy(), free.copy()
        for node, read in reads.items():
            live = ~dead[read.output_sets]
            if node not in seen or not np.array_equal(seen[node][0], live):
                seen[node] = live, read.weight(live, flow.sets)
            weight = seen[node][1]
            touched |= weight != 0
            hides_all &= read.effects(weight, read.largest) <= read.share
            hides_change &= read.effects(weight, read.deviation) <= read.share
        found_unread = free & ~dead & touched & hides_all & varies
        found_constant = free & ~dead & touched & ~hides_all & hides_change & varies
        nobody = free & ~dead & ~touched
        if not np.any(found_unread | found_constant | nobody):
            return unread, constant_
        unread |= found_unread
        constant_ |= found_constant
        dead |= found_unread | found_constant | nobody


def with_errors(span: Span, read: Reads, hidden: Hidden) -> Span:
    """The span with error 0 of hidden channels as zeroing leaves them to this reader."""
    error = span.error.copy()
    error[:, 0] = np.where(hidden.constant[read.sets], read.deviation, error[:, 0])
    error[:, 0] = np.where(hidden.unread[read.sets], read.largest, error[:, 0])
    return replace(span, error=error)
