"""Zero channels are added where a rule asks for a wider block, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.options import Measured, MultipleOf, RemovalOptions
from deploykit.graph.passes.widen import widen_blocks
from deploykit.graph.removal import remove_dead_channels
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.reference.float import evaluate
from deploykit.spec.network import Network
from deploykit.spec.removal import WidenedBlock
from tests.graph.removing import assert_equal_in_runtime
from tests.graph.text import assert_same_function, expected, graph, values, weights, written
from tests.graph.widths.tables import staircase, table_of

EIGHTS = MultipleOf(8)


def widened(
    network: Network, alignment: MultipleOf | Measured = EIGHTS
) -> tuple[Network, tuple[WidenedBlock, ...]]:
    blocks: list[WidenedBlock] = []

    def rewrite(before: Network) -> Rewritten:
        rewritten, found = widen_blocks(before, alignment)
        blocks.extend(found)
        return rewritten

    after = apply_pass("widen_blocks", rewrite, network)
    again, more = widen_blocks(after, alignment)
    assert again.network is after and not more
    return after, tuple(blocks)


def separable(between: str = "Relu(d)") -> Network:
    """Pointwise, depthwise, pointwise, of six channels; and what lies before the last."""
    return graph(
        f"""
        (float[1,3,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            c = Clip(a, low, high)
            d = Conv<group=6, pads=[1,1,1,1]>(c, k, e)
            r = {between}
            output = Conv(r, v, f)
        }}
        """,
        {
            "w": weights(6, 3, 1, 1), "b": weights(6), "low": np.float32(0), "high": np.float32(6),
            "k": weights(6, 1, 3, 3, seed=1), "e": weights(6, seed=2),
            "v": weights(2, 6, 1, 1, seed=3), "f": weights(2), "s": weights(1, 6, 1, 1, seed=4),
            "one": np.float32(2),
        },
        variance=["w", "b", "k", "e", "v"],
    )  # fmt: skip


def test_every_layer_around_a_block_gets_zeros() -> None:
    before = separable()
    after, blocks = widened(before)
    assert [(block.needed, block.width, block.gain) for block in blocks] == [(6, 8, None)]
    assert set(blocks[0].tensors) == {"a", "c", "d", "r"}
    assert written(after) == expected(
        """
        a[1,8,5,5] = Conv(input, w[8,3,1,1], b[8])
        c[1,8,5,5] = Clip(a, low[], high[])
        d[1,8,5,5] = Conv<group=8 pads=1,1,1,1>(c, k[8,1,3,3], e[8])
        r[1,8,5,5] = Relu(d)
        output[1,2,5,5] = Conv(r, v[2,8,1,1], f[2])
        """
    )
    held = values(after)
    for name, rest in (("w", 6), ("b", 6), ("k", 6), ("e", 6)):
        np.testing.assert_array_equal(held[name][:rest], values(before)[name])
        assert not held[name][rest:].any() and not after.variance[name][rest:].any()
        np.testing.assert_array_equal(after.variance[name][:rest], before.variance[name])
    assert not held["v"][:, 6:].any()
    assert_same_function(before, after, atol=1e-15)
    assert_equal_in_runtime(before, after)


def test_a_residual_stream_grows_as_one() -> None:
    before = graph(
        """
        (float[1,3,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<pads=[1,1,1,1]>(a, u, c)
            g = GlobalAveragePool(d)
            h = Sigmoid(g)
            m = Mul(d, h)
            s = Add(a, m)
            output = Conv(s, v, f)
        }
        """,
        {
            "w": weights(5, 3, 1, 1), "b": weights(5), "u": weights(5, 5, 3, 3), "c": weights(5),
            "v": weights(2, 5, 1, 1), "f": weights(2),
        },
    )  # fmt: skip
    after, blocks = widened(before)
    assert [(block.needed, block.width) for block in blocks] == [(5, 8)]
    assert values(after)["u"].shape == (8, 8, 3, 3)
    assert_same_function(before, after, atol=1e-15)
    assert_equal_in_runtime(before, after)


@pytest.mark.parametrize("between", ["Mul(d, s)", "Add(d, one)", "PRelu(d, s)", "Div(d, one)"])
def test_a_block_that_meets_numbers_of_its_channels_stays(between: str) -> None:
    before = separable(between)
    after, blocks = widened(before)
    assert not blocks
    assert written(after) == written(before)


def test_inputs_outputs_groups_and_concatenations_stay() -> None:
    before = graph(
        """
        (float[1,3,5,5] input) => (float[1,6,5,5] output) {
            a = Conv(input, w, b)
            p = Relu(input)
            x = Concat<axis=1>(a, p)
            output = Conv<group=2>(x, v, f)
        }
        """,
        {"w": weights(3, 3, 1, 1), "b": weights(3), "v": weights(6, 3, 1, 1), "f": weights(6)},
    )
    after, blocks = widened(before)
    assert not blocks
    assert written(after) == written(before)


def test_a_linear_behind_a_pool_reads_what_grew_and_one_behind_positions_does_not() -> None:
    def head(size: int) -> Network:
        return graph(
            f"""
            (float[1,3,{size},{size}] input) => (float[1,2] output) {{
                a = Conv(input, w, b)
                x = Flatten(a)
                output = Gemm<transB=1>(x, v, f)
            }}
            """,
            {
                "w": weights(6, 3, 1, 1), "b": weights(6), "v": weights(2, 6 * size**2),
                "f": weights(2),
            },
        )  # fmt: skip

    after, blocks = widened(head(1))
    assert [(block.needed, block.width) for block in blocks] == [(6, 8)]
    assert values(after)["v"].shape == (2, 8)
    assert_same_function(head(1), after, atol=1e-15)
    assert not widened(head(2))[1]


def test_a_measured_table_decides_and_the_report_counts_what_was_added() -> None:
    network = separable()
    measured = Measured(table_of(staircase(8, penalty=1.5)))
    pruned, report = remove_dead_channels(network, evaluate, RemovalOptions(align=measured))
    (block,) = report.widened
    assert (block.needed, block.width) == (6, 8)
    assert block.gain is not None and block.gain > 1.0
    assert [(entry.channels_before, entry.channels_after) for entry in report.tensors] == [
        (6, 8), (6, 8), (2, 2)
    ]  # fmt: skip
    assert report.certificate.max_relative <= 1e-12
    little = Measured(table_of(staircase(8, penalty=1.0), margin=0.0))
    assert (
        remove_dead_channels(separable(), evaluate, RemovalOptions(align=little))[1].widened == ()
    )
    limited = Measured(table_of(staircase(8, penalty=1.5)), most_added=1.25)
    assert not remove_dead_channels(network, evaluate, RemovalOptions(align=limited))[1].widened
    even = Measured(table_of(staircase(1)))
    assert not remove_dead_channels(network, evaluate, RemovalOptions(align=even))[1].widened
    again, second = remove_dead_channels(pruned, evaluate, RemovalOptions(align=measured))
    assert written(again) == written(pruned)
    assert second.macs_after == report.macs_after
