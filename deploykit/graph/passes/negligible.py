"""Replace weights by exact zeros where float32 rounding hides the channels that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import constant, floats, label
from deploykit.graph.passes.affine import Affine
from deploykit.graph.ranges.channels import Channels
from deploykit.graph.ranges.flow import Flow, spans, trace
from deploykit.graph.ranges.hiding import (
    ROUNDOFF,
    SAFETY,
    Hidden,
    find_hidden,
    roundings,
    with_errors,
)
from deploykit.graph.ranges.layers import Layer
from deploykit.graph.ranges.measured import Measured, measure, outputs, samples
from deploykit.graph.ranges.span import Span
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.spec.arrays import BoolArray, Float64Array, IntArray
from deploykit.spec.difference import relative_difference
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.negligible import Hiding, Negligible, NegligibleChannel, Outcome, ReaderBound
from deploykit.spec.network import FloatEvaluator, Network

MAX_OF_FLOAT32_ERROR = 4.0
"""Largest accepted measured change, over the network's own float32 error on the same inputs.

That error counts as one rounding of the largest output at least: on a few inputs it may be zero.
"""


def zero_negligible(
    network: Network,
    evaluate: FloatEvaluator,
    inputs: GraphInputs,
    evaluate_float32: FloatEvaluator,
) -> tuple[Network, Negligible]:
    """The network with exact zeros where rounding hides a whole channel, so that removal finds it.

    Run on a normalized network, before removal. `evaluate` computes every tensor in float64 and
    `evaluate_float32` the outputs in float32, on `inputs` [N, ...]: calibration samples, else
    random ones. How a channel is judged: ranges.hiding.find_hidden. What nobody would remove is
    left alone.

    An UNREAD channel loses its readers' kernels, a CONSTANT one its own and those of the depthwise
    convolutions on its way, with the middle of its range as bias. The variance of a zeroed weight
    is zero too: the mean network is what is certified, and a removed weight is no longer random.
    The variance of a bias stays, as for every shift.

    Where the measured change exceeds the bound or MAX_OF_FLOAT32_ERROR, the outcome is GIVEN_BACK
    and the network is the one given.
    """
    measured = measure(network, evaluate, inputs)
    flow = trace(network.model.graph, measured.shapes)
    hidden = find_hidden(flow, measured)
    channels = _channels(flow, hidden)
    single = outputs(network, evaluate_float32, inputs)
    float32_error = _largest_relative(measured.outputs, single)
    allowed = MAX_OF_FLOAT32_ERROR * float(np.maximum(float32_error, ROUNDOFF))
    bound, rounding_bound = _bounds(flow, hidden, measured)
    result, outcome, change = network, Outcome.NOTHING, 0.0
    if channels:
        zeroed = apply_pass("zero_negligible", _Zeroing(flow, hidden), network)
        change = _largest_relative(measured.outputs, outputs(zeroed, evaluate, inputs))
        accepted = change <= allowed and change <= bound + _FLOAT64_SLACK
        outcome = Outcome.ZEROED if accepted else Outcome.GIVEN_BACK
        result = zeroed if accepted else network
    return result, Negligible(
        outcome,
        channels,
        samples(inputs),
        ROUNDOFF,
        SAFETY,
        bound,
        rounding_bound,
        change,
        float32_error,
        allowed,
    )


_FLOAT64_SLACK = 1e-9 * ROUNDOFF
"""float64 rounds too: a channel whose bound is zero may move the output by its last digits."""


@dataclass(frozen=True)
class _Zeroing:
    """The rewrite: decided, it only stores zeros and middles."""

    flow: Flow
    hidden: Hidden

    def __call__(self, network: Network) -> Rewritten:
        model = network.model.clone()
        affine = Affine(model.graph, dict(network.variance))
        for node, layer in self.flow.layers.items():
            rows = np.flatnonzero(self.hidden.constant[_made(self.flow, node)])
            columns = np.flatnonzero(self._forgotten(node, layer))
            if len(rows) or len(columns):
                _zero(affine, str(layer.weight.name), layer.mask(rows, columns))
            if len(rows) and layer.bias is not None:
                _set(affine, str(layer.bias.name), rows, self.hidden.middles[node][rows])
        return affine.finish(network, model)

    def _forgotten(self, node: ir.Node, layer: Layer) -> BoolArray:
        """[I], whether the layer's kernels for an input go; a depthwise one's are no reader's."""
        if layer.depthwise:
            return np.zeros(layer.inputs, dtype=np.bool_)
        return self.hidden.unread[self.flow.read[node].atoms]


def _zero(affine: Affine, name: str, mask: BoolArray) -> None:
    value, spread = floats(affine.graph.initializers[name]), affine.spread(name)
    assert value is not None
    left = None if spread is None else np.where(mask, 0.0, spread)
    affine.store(name, np.where(mask, 0.0, value), left)


def _set(affine: Affine, name: str, rows: IntArray, values: Float64Array) -> None:
    value = floats(affine.graph.initializers[name])
    assert value is not None
    changed = value.reshape(-1).copy()
    changed[rows] = values
    affine.store(name, changed.reshape(value.shape), affine.spread(name))


def _made(flow: Flow, node: ir.Node) -> IntArray:
    """[O], the set of each channel that a layer computes."""
    return flow.channels[str(node.outputs[0].name)].atoms


def _bounds(flow: Flow, hidden: Hidden, measured: Measured) -> tuple[float, float]:
    """(of zeroing, of one rounding per sum) on the outputs, over the largest output."""

    def at_layer(layer: Layer, source: Span, output: Channels) -> Span:
        del output
        read = hidden.reads.get(layer.node)
        given = source if read is None else with_errors(source, read, hidden)
        result = layer.span(given)
        result.error[:, 1] += roundings(layer, measured.mean[layer.node])
        return result

    known = spans(flow, hidden.limits, at_layer, 2)
    worst = np.zeros(2)
    for name, values in measured.outputs.items():
        largest = float(np.abs(values).max(initial=0.0))
        if name not in known:
            # Behind an operator that is not followed, nothing is known but what is measured.
            return float("inf"), float("inf")
        error = known[name].error.max(axis=0, initial=0.0)
        worst = np.maximum(worst, error / largest if largest > 0 else error)
    return float(worst[0]), float(worst[1])


def _largest_relative(
    before: Mapping[str, Float64Array], after: Mapping[str, Float64Array]
) -> float:
    """Largest change over the largest value, of the worst output; NaN where either holds one."""
    return float(np.max([relative_difference(before[name], after[name]) for name in before]))


def _channels(flow: Flow, hidden: Hidden) -> tuple[NegligibleChannel, ...]:
    """One entry per output of a layer that belongs to a hidden set, in graph order."""
    readers = _readers(flow, hidden)
    found = []
    for node, layer in flow.layers.items():
        made = _made(flow, node)
        largest = _largest_weight(layer)
        for channel in np.flatnonzero((hidden.unread | hidden.constant)[made]).tolist():
            still = bool(hidden.constant[made[channel]])
            row = layer.mask(np.array([channel]), np.array([], dtype=np.intp))
            found.append(
                NegligibleChannel(
                    str(node.outputs[0].name),
                    label(node),
                    channel,
                    Hiding.CONSTANT if still else Hiding.UNREAD,
                    _largest_weight(layer, row) / largest if largest > 0 else 0.0,
                    float(hidden.middles[node][channel]) if still else None,
                    tuple(readers.get(int(made[channel]), ())),
                )
            )
    return tuple(found)


def _readers(flow: Flow, hidden: Hidden) -> dict[int, list[ReaderBound]]:
    """The layers that sum over each hidden set, but for their outputs that go themselves."""
    gone = hidden.unread | hidden.constant
    found: dict[int, list[ReaderBound]] = {}
    for node, read in hidden.reads.items():
        sets = np.unique(read.sets[gone[read.sets]])
        if not len(sets):
            continue
        live = ~gone[read.output_sets]
        size = np.where(hidden.constant[read.sets], read.deviation, read.largest)
        effects = read.effects(read.weight(live, flow.sets), size)
        largest = _largest_weight(read.layer)
        for number in sets.tolist():
            none = np.array([], dtype=np.intp)
            column = read.layer.mask(none, np.flatnonzero(read.sets == number))
            weight = _largest_weight(read.layer, column) / largest if largest > 0 else 0.0
            bound = ReaderBound(label(node), weight, float(effects[number]))
            found.setdefault(number, []).append(bound)
    return found


def _largest_weight(layer: Layer, chosen: BoolArray | None = None) -> float:
    array = constant(layer.weight)
    assert array is not None
    return float(np.abs(array if chosen is None else array[chosen]).max(initial=0.0))
