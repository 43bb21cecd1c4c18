"""What a layer reads of each set of channels, against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.ranges.hiding import Reads, roundings
from deploykit.graph.ranges.layers import layer_of
from deploykit.spec.arrays import BoolArray, Float64Array
from tests.graph.text import graph, weights

SETS = {
    "each its own": [4, 0, 2, 1, 5, 3],
    "side by side": [0, 0, 1, 1, 1, 3],
    "apart": [2, 0, 2, 1, 0, 1],
}


def reads(groups: int, sets: list[int]) -> Reads:
    """A convolution of 6 channels to 4, whose last output reads nothing."""
    kernel = weights(4, 6 // groups, 2, 2)
    kernel[3] = 0
    network = graph(
        f"""
        (float[1,6,2,2] input) => (float[1,4,1,1] output) {{
            output = Conv<group={groups}>(input, w, b)
        }}
        """,
        {"w": kernel, "b": np.array([0.5, -1.0, 0.0, 0.0])},
    )
    layer = layer_of(network.model.graph[0])
    assert layer is not None
    size = np.arange(6.0)
    rounding = roundings(layer, np.arange(1.0, 7.0))
    return Reads(layer, np.array(sets), np.arange(4), size, size, rounding)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_weights_and_effects_equal_a_slow_loop(groups: int, sets: list[int]) -> None:
    read = reads(groups, sets)
    live = np.array([True, False, True, True])
    weight = read.weight(live, 7)
    expected = slow_weight(read, groups, live)
    np.testing.assert_allclose(weight, expected, rtol=1e-12)
    effects = read.effects(weight, read.largest)
    for number in range(7):
        sizes = [read.largest[i] for i in range(6) if sets[i] == number]
        assert effects[number] == pytest.approx(expected[number] * max(sizes, default=0.0))


def slow_weight(read: Reads, groups: int, live: BoolArray) -> Float64Array:
    kernel = np.abs(values_of(read)).astype(np.float64)
    worst = np.zeros(7)
    for o in range(4):
        first = o // (4 // groups) * (6 // groups)
        rounding = abs([0.5, -1.0, 0.0, 0.0][o])
        total = np.zeros(7)
        for j in range(6 // groups):
            rounding += kernel[o, j].sum() * (first + j + 1)
            total[read.sets[first + j]] += kernel[o, j].sum()
        if live[o] and total.any():
            worst = np.maximum(worst, total / (rounding * 2.0**-24))
    return worst


def values_of(read: Reads) -> Float64Array:
    held = read.layer.weight.const_value
    assert held is not None
    return np.asarray(held.numpy())


def test_a_sum_that_is_not_finite_hides_nothing() -> None:
    layer = reads(1, SETS["apart"]).layer
    mean = np.ones(6)
    mean[2] = np.inf
    assert roundings(layer, mean)[:3].tolist() == [0.0, 0.0, 0.0]
