"""What each layer costs: one layer's integers at a time, while all else stays float.

    weights      y = f(x; P'), no grid     P': what the integers of its weights stand for
    activations  y = grid(f(x; P))

The error that either leaves at the network's outputs, over their signal. Errors of layers are
nearly independent, so that those of all layers add up to about the integer network's own.
Source: Nagel et al. 2021, "A white paper on neural network quantization", section 4.3 (debugging
by quantizing one tensor at a time).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deploykit.diagnose.findings import Channel, LayerFinding
from deploykit.diagnose.simulation import on_grid
from deploykit.diagnose.subject import Opened, Runs, relative_error
from deploykit.quantize.operators import SHARING
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray
from deploykit.spec.progress import Advance
from deploykit.spec.quantized import Quantization
from deploykit.spec.whole_numbers import real_inputs
from deploykit.verify.metrics import sqnr_db

CHANNELS_SHOWN = 3
INPUT = "Input"
"""What stands as the operator of the network's own inputs."""


def find_contributions(opened: Opened, runs: Runs, progress: Advance) -> tuple[LayerFinding, ...]:
    """Inputs, then layers in graph order. Layers that move integers alone cost nothing."""
    sources = [name for name in real_inputs(opened.lowered) if name in opened.grids]
    layers = opened.simulation.layers
    found = []
    for place, name in enumerate(sources):
        found.append(_of_input(opened, runs, name))
        progress(place + 1, len(sources) + len(layers))
    for place, layer in enumerate(layers, len(sources)):
        found.append(_of_layer(opened, runs, layer))
        progress(place + 1, len(sources) + len(layers))
    return tuple(found)


def _of_input(opened: Opened, runs: Runs, name: str) -> LayerFinding:
    grid = opened.grids[name]
    held = on_grid(runs.real[name], grid)
    return LayerFinding(
        name, INPUT, None, sqnr_db(runs.real[name], held), 0.0,
        at_the_end(opened, runs, name, held), saturated(runs.real[name], grid),
        clipped(runs.real[name], grid), _channels(runs.real[name], held),
    )  # fmt: skip


def _of_layer(opened: Opened, runs: Runs, layer: Layer) -> LayerFinding:
    form, real = opened.forms[layer.name], runs.real[layer.output]
    weights = activations = 0.0
    by_weights = real
    if not form.parameters.own:
        by_weights = opened.simulation.computed(layer, runs.real, form.parameters)
        weights = at_the_end(opened, runs, layer.output, by_weights)
    held = real
    if layer.kind not in SHARING:
        held = on_grid(real, form.grid)
        activations = at_the_end(opened, runs, layer.output, held)
    return LayerFinding(
        layer.name, layer.kind.value, planned_bits(opened.plan, layer.name),
        sqnr_db(real, runs.quantized[layer.output]), weights, activations,
        saturated(real, form.grid), clipped(real, form.grid),
        _channels(real, by_weights if weights >= activations else held),
        sensitivity_of(opened.plan, layer.name),
    )  # fmt: skip


def at_the_end(opened: Opened, runs: Runs, tensor: str, values: AnyArray) -> float:
    """Relative error of the float network's outputs with other values in one tensor."""
    ends = opened.simulation.changed(runs.real, {tensor: values}, {}, opened.ends)
    return relative_error(runs.real, ends, opened.ends)


def saturated(values: AnyArray, grid: Quantization | None) -> float:
    """Share of values that lie beyond the grid by more than half a step."""
    if grid is None or not values.size:
        return 0.0
    low, high = grid.ends
    slack = grid.scale / 2
    beyond = (values < low - slack) | (values > high + slack)
    return float(beyond.mean())


def clipped(values: AnyArray, grid: Quantization | None) -> float:
    """Of the power of the grid's error, the share of what lies beyond it."""
    if grid is None:
        return 0.0
    low, high = grid.ends
    error = np.square(values.astype(np.float64) - on_grid(values, grid))
    total = float(error.sum())
    outside = float(error[(values < low) | (values > high)].sum())
    return outside / total if total > 0.0 else 0.0


def planned_bits(plan: Mapping[str, Any], layer: str) -> int | None:
    """Of a layer's weights."""
    bits = plan["layers"].get(layer, {}).get("weight", {}).get("bits")
    return bits if isinstance(bits, int) else None


def sensitivity_of(plan: Mapping[str, Any], layer: str) -> float | None:
    """What bits were allocated by, where they were (plan.json, allocation)."""
    for one in plan.get("allocation", {}).get("layers", []):
        if layer in one.get("layers", []) and isinstance(one.get("sensitivity"), float):
            return float(one["sensitivity"])
    return None


def _channels(real: AnyArray, found: AnyArray) -> tuple[Channel, ...]:
    """The channels [.., C, ..] that hold most of the layer's own error; axis 1."""
    if real.ndim < 2 or real.shape != found.shape:
        return ()
    others = tuple(axis for axis in range(real.ndim) if axis != 1)
    noise = np.square(real.astype(np.float64) - found).sum(axis=others)
    total = float(noise.sum())
    if total <= 0.0:
        return ()
    order = np.argsort(-noise, kind="stable")[:CHANNELS_SHOWN]
    return tuple(
        Channel(
            int(index), float(noise[index] / total),
            sqnr_db(real.take(index, axis=1), found.take(index, axis=1)),
        )
        for index in order
        if noise[index] > 0.0
    )  # fmt: skip
