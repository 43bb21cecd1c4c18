"""A layer computes its live channels alone, and only where copying the rest is cheaper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.graph.options import RemovalOptions
from deploykit.graph.passes.narrow import narrow_layers
from deploykit.graph.removal import remove_dead_channels
from deploykit.graph.tracking import apply_pass
from deploykit.graph.widths.table import Move, MoveCost, WidthTable
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.removal import NarrowedLayer
from tests.graph.text import assert_same_function, expected, graph, values, weights, written
from tests.graph.widths.tables import staircase, table_of


def table(per_element: float, fixed: float = 0.0, add: float | None = None) -> WidthTable:
    """Time is proportional to MACs; a copy costs so much by number, and an addition as much."""
    costs = (per_element, per_element if add is None else add)
    moves = {move: MoveCost(fixed, cost) for move, cost in zip(Move, costs, strict=True)}
    return replace(table_of(staircase(1)), moves=moves)


FREE, DEAR = table(0.0), table(1e6)


def narrowed(network: Network, costs: WidthTable) -> tuple[Network, tuple[NarrowedLayer, ...]]:
    layers: list[NarrowedLayer] = []

    def rewrite(before):  # type: ignore[no-untyped-def]
        rewritten, found = narrow_layers(before, costs)
        layers.extend(found)
        return rewritten

    after = apply_pass("narrow_layers", rewrite, network)
    again, more = narrow_layers(after, costs)
    assert again.network is after and not more
    return after, tuple(layers)


def rows(live: list[int], outputs: int, *shape: int, seed: int = 0) -> Float32Array:
    """A weight of which only these rows are not zero."""
    held = weights(outputs, *shape, seed=seed)
    held[[k for k in range(outputs) if k not in live]] = 0.0
    return held


def residual(bias: list[float], other: str = "Relu(x)", **more: Float32Array) -> Network:
    """y = Relu(other + Conv(x)) of four channels, of which the convolution has 1 and 3 live."""
    constants = {
        "w0": weights(4, 2, 1, 1), "b0": weights(4), "w1": rows([1, 3], 4, 4, 3, 3, seed=2),
        "b1": np.array(bias, np.float32), "w2": weights(3, 4, 1, 1, seed=4), **more,
    }  # fmt: skip
    return graph(
        f"""
        (float[1,2,5,5] input) => (float[1,3,5,5] output) {{
            x = Conv(input, w0, b0)
            side = {other}
            branch = Conv<pads=[1,1,1,1]>(x, w1, b1)
            sum = Add(side, branch)
            output = Conv(sum, w2)
        }}
        """,
        constants,
        variance=["w1", "b1"],
    )


def test_a_branch_computes_its_live_rows_and_one_of_zeros() -> None:
    before = residual([0.0, 0.5, 0.0, -1.0])
    after, layers = narrowed(before, FREE)
    assert layers == (NarrowedLayer("branch", 4, 2, 3, 4 / 3),)
    assert written(after) == expected(
        """
        x[1,4,5,5] = Conv(input, w0[4,2,1,1], b0[4])
        side[1,4,5,5] = Relu(x)
        branch.live[1,3,5,5] = Conv<pads=1,1,1,1>(x, w1[3,4,3,3], b1[3])
        branch[1,4,5,5] = Gather<axis=1>(branch.live, branch.rows[4])
        sum[1,4,5,5] = Add(side, branch)
        output[1,3,5,5] = Conv(sum, w2[3,4,1,1])
        """
    )
    held = values(after)
    assert held["branch.rows"].tolist() == [0, 1, 0, 2]
    np.testing.assert_array_equal(held["w1"], values(before)["w1"][[0, 1, 3]])
    np.testing.assert_array_equal(held["b1"], np.array([0.0, 0.5, -1.0], np.float32))
    np.testing.assert_array_equal(after.variance["w1"], before.variance["w1"][[0, 1, 3]])
    np.testing.assert_array_equal(after.variance["b1"], before.variance["b1"][[0, 1, 3]])
    assert_same_function(before, after, atol=1e-15)


def test_constants_go_into_the_layer_on_the_other_side() -> None:
    before = residual([2.0, 0.5, -3.0, -1.0], "Conv(x, ws, bs)", ws=weights(4, 4, 1, 1, seed=6),
                      bs=weights(4, seed=7))  # fmt: skip
    after, _ = narrowed(before, FREE)
    assert "branch[1,4,5,5] = Gather" in written(after)
    shift = values(after)["bs"] - values(before)["bs"]
    np.testing.assert_allclose(shift, [2.0, 0.0, -3.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(values(after)["b1"], np.array([0.0, 0.5, -1.0], np.float32))
    assert_same_function(before, after, atol=1e-6)


def test_constants_are_added_where_no_layer_takes_them() -> None:
    before = residual([2.0, 0.5, 0.0, -1.0])
    after, _ = narrowed(before, FREE)
    assert "branch[1,4,5,5] = Add(branch.spread, branch.constant[1,4,1,1])" in written(after)
    assert values(after)["branch.constant"].reshape(-1).tolist() == [2.0, 0.0, 0.0, 0.0]
    assert_same_function(before, after, atol=1e-15)


def test_a_transposed_convolution_is_narrowed_along_its_outputs() -> None:
    before = graph(
        """
        (float[1,3,4,4] input) => (float[1,4,8,8] output) {
            up = ConvTranspose<kernel_shape=[2,2], strides=[2,2]>(input, w, b)
            output = Relu(up)
        }
        """,
        {
            "w": np.moveaxis(rows([2], 4, 3, 2, 2), 0, 1),
            "b": np.zeros(4),
        },
    )
    after, layers = narrowed(before, FREE)
    assert [(layer.live, layer.width) for layer in layers] == [(1, 2)]
    assert values(after)["w"].shape == (3, 2, 2, 2)
    assert_same_function(before, after, atol=1e-15)


@pytest.mark.parametrize(
    ("per_element", "fixed", "wins"),
    [(8.9, 0.0, True), (9.1, 0.0, False), (0.0, 890.0, True), (0.0, 910.0, False)],
)
def test_the_copy_must_be_cheaper_than_the_rows_that_go(
    per_element: float, fixed: float, wins: bool
) -> None:
    """Four channels of 25 positions from 36 products each; one row of them goes: 25 * 36 = 900.

    The table's margin is 2 % of the layer, 72.
    """
    margin = 72.0 / 100
    costs = table(per_element - margin * (per_element > 0), max(fixed - 72.0, 0.0))
    _, layers = narrowed(residual([0.0, 1.0, 0.0, 1.0]), costs)
    assert bool(layers) is wins


def test_an_addition_counts_where_one_is_needed() -> None:
    costs = table(1.0, add=20.0)
    assert narrowed(residual([0.0, 1.0, 0.0, 1.0]), costs)[1]
    assert not narrowed(residual([2.0, 1.0, 0.0, 1.0]), costs)[1]


def test_what_others_hold_stays() -> None:
    shared = graph(
        """
        (float[1,4,5,5] input) => (float[1,4,5,5] output, float[1,4,5,5] b) {
            a = Conv(input, w)
            s = Relu(a)
            output = Conv(s, w)
            b = Conv(input, v)
        }
        """,
        {"w": rows([0], 4, 4, 1, 1), "v": rows([0], 4, 4, 1, 1)},
    )
    after, layers = narrowed(shared, FREE)
    assert not layers
    assert written(after) == written(shared)


def test_removal_narrows_what_a_sum_keeps_wide_and_proves_it() -> None:
    network = residual([0.0, 0.5, 0.0, -1.0])
    whole, nothing = remove_dead_channels(network, evaluate, RemovalOptions())
    assert not nothing.narrowed
    pruned, report = remove_dead_channels(network, evaluate, RemovalOptions(narrow=FREE))
    assert [layer.layer for layer in report.narrowed] == ["branch"]
    assert report.macs_after == report.macs_before - 25 * 36
    assert report.certificate.max_relative <= 1e-12
    assert not remove_dead_channels(network, evaluate, RemovalOptions(narrow=DEAR))[1].narrowed
    again, second = remove_dead_channels(pruned, evaluate, RemovalOptions(narrow=FREE))
    assert not second.narrowed
    assert second.macs_after == report.macs_after
    assert_same_function(whole, again)
