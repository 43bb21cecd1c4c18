"""Rounding weights up or down so that their errors cancel in the layer's output.

    minimise e' H e   over e[i] in {floor(w[i]) - w[i], ceil(w[i]) - w[i]}

for the weights w of one output in steps of its scale. From rounding to nearest on, moves that
lower the sum are taken until none is left: it never ends above nearest. Rows of a few weights
also move two at once, and try larger scales, whose grid may happen to fit them better.
Source: Nagel et al. 2020, "Up or Down? Adaptive rounding", equation 13 (the objective).
"""

from __future__ import annotations

import numpy as np

from deploykit.quantize.moments import InputMoments
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, Int8Array
from deploykit.spec.quantized import int_range

SWEEPS = 3
SHORT = 25
"""Weights per output up to which pairs move and larger scales are tried: depthwise layers'."""
SCALES = np.linspace(1.0, 1.3, 16)
PAIR_MOVES = 64
COLUMNS = 32
"""Weights that move before the rest of the row hears of it, in one matrix product."""
ELEMENTS_AT_ONCE = 2**22


def compensated_weights(
    weight: Float64Array, least: Float32Array, moments: InputMoments, bits: int
) -> tuple[Int8Array, Float32Array]:
    """(integers [O, ...], scale [O]); every integer is one of its weight's two neighbours.

    least: [O], the smallest scale of each output; scales grow where the whole row is short.
    """
    _, highest = int_range(bits)
    blocking, trusted = moments.blocking, moments.trusted()
    real = blocking.split(weight)
    outputs = real.shape[1]
    scale = least
    if blocking.parts == 1 and real.shape[2] <= SHORT:
        smallest = least.reshape(-1, outputs)
        scale = _fitting_scales(real, smallest, trusted, highest).reshape(-1)
    by_group = scale.astype(np.float64).reshape(blocking.groups, outputs)
    steps = real / by_group.repeat(blocking.parts, axis=0)[:, :, None]
    error = _descend(steps, trusted, highest)
    if blocking.parts == 1 and real.shape[2] <= SHORT:
        error = _move_pairs(error, _movable(steps, highest), trusted)
    integers = np.clip(np.rint(steps + error), -highest, highest).astype(np.int8)
    return blocking.join(integers, weight.shape), scale


def output_error(error: AnyArray, moments: AnyArray) -> Float64Array:
    """e' H e of every row: [B, R, n] and [B, n, n] -> [B, R]"""
    moved = error.astype(np.float64) @ moments.astype(np.float64)
    return np.asarray((moved * error).sum(axis=2))


def _fitting_scales(
    real: Float64Array, least: Float32Array, moments: Float32Array, highest: int
) -> Float32Array:
    """[B, R]: of the scales tried the one whose rounded row errs least."""
    best = np.full(least.shape, np.inf)
    chosen = least
    for factor in SCALES:
        scale = (least * factor).astype(np.float32)
        wide = scale.astype(np.float64)
        error = _descend(real / wide[:, :, None], moments, highest)
        found = output_error(error, moments) * wide**2
        chosen, best = np.where(found < best, scale, chosen), np.minimum(found, best)
    return chosen


def _movable(steps: Float64Array, highest: int) -> AnyArray:
    """Weights that lie between two integers of the range."""
    low, high = np.floor(steps), np.ceil(steps)
    return (low < high) & (low >= -highest) & (high <= highest)


def _descend(steps: Float64Array, moments: Float32Array, highest: int) -> Float32Array:
    """Errors [B, R, n] after sweeps of single moves over every row, weight after weight."""
    size = steps.shape[2]
    movable = np.ascontiguousarray(_movable(steps, highest).transpose(0, 2, 1))
    rounded = np.clip(np.rint(steps), -highest, highest) - steps
    error = np.ascontiguousarray(rounded.transpose(0, 2, 1), dtype=np.float32)
    for _ in range(SWEEPS):
        slope, moved = moments @ error, 0
        for start in range(0, size, COLUMNS):
            end = min(start + COLUMNS, size)
            taken = np.zeros((len(error), end - start, error.shape[2]), np.float32)
            for j in range(start, end):
                step = np.where(error[:, j] > 0, np.float32(-1), np.float32(1))
                gains = 2 * step * slope[:, j] + moments[:, j, j, None] < 0
                gains &= movable[:, j]
                if not gains.any():
                    continue
                change = np.where(gains, step, np.float32(0))
                error[:, j] += change
                taken[:, j - start] = change
                slope[:, j + 1 : end] += moments[:, j, j + 1 : end, None] * change[:, None, :]
            moved += int(np.count_nonzero(taken))
            if end < size:
                slope[:, end:] += moments[:, end:, start:end] @ taken
        if not moved:
            break
    return error.transpose(0, 2, 1)


def _move_pairs(error: Float32Array, movable: AnyArray, moments: Float32Array) -> Float32Array:
    """Of every row the best one or two moves, until none helps or PAIR_MOVES were made."""
    rows = error.reshape(-1, error.shape[2]).copy()
    free = movable.reshape(rows.shape)
    block = np.arange(len(error)).repeat(error.shape[1])
    at_once = max(1, ELEMENTS_AT_ONCE // rows.shape[1] ** 2)
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        rows[part] = _pairs(rows[part], free[part], moments[block[part]])
    return rows.reshape(error.shape)


def _pairs(rows: Float32Array, free: AnyArray, moments: Float32Array) -> Float32Array:
    """[r, n], each with its own moments [r, n, n]."""
    every = np.arange(rows.shape[1])
    live = np.arange(len(rows))
    for _ in range(PAIR_MOVES):
        error, own = rows[live], moments[live]
        slope = (error[:, None, :] @ own)[:, 0]
        step = np.where(free[live], np.where(error > 0, -1, 1), 0).astype(np.float32)
        alone = 2 * step * slope + step**2 * own[:, every, every]
        both = 2 * step[:, :, None] * step[:, None, :] * own
        both += alone[:, :, None] + alone[:, None, :]
        both[:, every, every] = alone
        flat = both.reshape(len(live), -1)
        place = flat.argmin(axis=1)
        # Under float32's own rounding a move and its way back would alternate.
        helps = flat[np.arange(len(live)), place] < -1e-5 * np.abs((error * slope).sum(axis=1))
        live, place, step = live[helps], place[helps], step[helps]
        if not live.size:
            break
        first, second = np.divmod(place, rows.shape[1])
        each = np.arange(len(live))
        rows[live, first] += step[each, first]
        apart = first != second
        rows[live[apart], second[apart]] += step[each[apart], second[apart]]
    return rows
