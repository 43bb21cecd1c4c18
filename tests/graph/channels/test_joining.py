"""Sums and products of activations: what meets stays or goes together."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate
from deploykit.spec.network import Network
from tests.graph.removing import (
    assert_equal_in_runtime,
    channels,
    first_layer,
    pruned_to,
    removed,
    second_layer,
)
from tests.graph.text import expected, graph, values, weights, written


def two_branches(call: str) -> Network:
    """a: live, zero, 2, live, 4; d: live, zero, 8, zero, live; channel 4 is not read behind."""
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,3,3] output) {{
            a = Conv(input, w, b)
            d = Conv(input, w2, b2)
            s = {call}
            output = Conv(s, v, c)
        }}
        """,
        {**first_layer([0.5, 0.0, 2.0, 0.5, 4.0], live=[0, 3]),
         "w2": np.array([1.0, 0, 0, 0, 1]).reshape(5, 1, 1, 1), "b2": np.array([0.2, 0, 8, 0, 0.2]),
         "v": second_layer(1, 1, 1, 1, 0), "c": weights(2)},
    )  # fmt: skip


JOINS = {
    "Add(a, d)": ([0, 3], [0.0, 10.0]),
    "Sub(a, d)": ([0, 3], [0.0, -6.0]),
    "Mul(a, d)": ([0], [0.0, 16.0, 0.0]),
    "Max(a, d)": ([0, 3], [0.0, 8.0]),
    "Min(a, d)": ([0, 3], [0.0, 2.0]),
    "Sum(a, d)": ([0, 3], [0.0, 10.0]),
}
"""By call, which channels stay and which constants go."""


@pytest.mark.parametrize(("call", "told"), JOINS.items())
def test_what_meets_is_constant_where_both_are_or_a_product_has_a_zero(
    call: str, told: tuple[list[int], list[float]]
) -> None:
    stays, constants = told
    count = len(stays)
    network = two_branches(call)
    pruned = pruned_to(
        network,
        f"""
        a[1,{count},5,5] = Conv(input, w[{count},1,1,1], b[{count}])
        d[1,{count},5,5] = Conv(input, w2[{count},1,1,1], b2[{count}])
        s[1,{count},5,5] = {call}
        output[1,2,3,3] = Conv(s, v[2,{count},3,3], c[2])
        """,
    )
    sums = values(network)["v"].sum(axis=(2, 3))
    gone = [k for k in range(4) if k not in stays]
    offset = values(network)["c"] + sums[:, gone] @ np.array(constants)
    np.testing.assert_allclose(values(pruned)["c"], offset, rtol=0, atol=1e-4)


def test_a_quotient_of_constants_is_one_and_a_zero_over_what_varies_may_be_none() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            d = Conv(input, w2, b2)
            e = Softplus(d)
            s = Div(a, e)
            output = Conv(s, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 2.0, 0.0], live=[0]),
         "w2": np.array([0.001, 0.0, 0.0, 0.001]).reshape(4, 1, 1, 1), "b2": np.ones(4),
         "v": second_layer(1, 1, 1, 1), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        d[1,2,5,5] = Conv(input, w2[2,1,1,1], b2[2])
        e[1,2,5,5] = Softplus(d)
        s[1,2,5,5] = Div(a, e)
        output[1,2,3,3] = Conv(s, v[2,2,3,3], c[2])
        """,
    )


def test_a_residual_sum_over_a_chain_ties_all_of_its_layers() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<pads=[1,1,1,1]>(a, v, c)
            s = Add(a, d)
            e = Conv<pads=[1,1,1,1]>(s, u, f)
            t = Add(s, e)
            output = Conv(t, y, g)
        }
        """,
        {**first_layer([0.5, 0.5, 0.0, 0.0], live=[0, 1]),
         "v": second_layer(1, 1, 0, 0, outputs=4) * np.array([1, 1, 0, 1]).reshape(4, 1, 1, 1),
         "c": np.array([0.1, 0.1, 0.0, 0.1]),
         "u": second_layer(1, 1, 0, 0, outputs=4) * np.array([1, 1, 0, 1]).reshape(4, 1, 1, 1),
         "f": np.array([0.1, 0.1, 0.0, 0.1]), "y": second_layer(1, 0, 1, 1, size=1),
         "g": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,3,5,5] = Conv(input, w[3,1,1,1], b[3])
        d[1,3,5,5] = Conv<pads=1,1,1,1>(a, v[3,3,3,3], c[3])
        s[1,3,5,5] = Add(a, d)
        e[1,3,5,5] = Conv<pads=1,1,1,1>(s, u[3,3,3,3], f[3])
        t[1,3,5,5] = Add(s, e)
        output[1,2,5,5] = Conv(t, y[2,3,1,1], g[2])
        """,
    )


SQUEEZE_AND_EXCITE = """
    (float[1,1,5,5] input) => (float[1,2,5,5] output) {
        a = Conv(input, w, b)
        p = GlobalAveragePool(a)
        h = Conv(p, v1, c1)
        r = Relu(h)
        g = Conv(r, v2, c2)
        gate = HardSigmoid(g)
        m = Mul(a, gate)
        output = Conv<pads=[1,1,1,1]>(m, v, c)
    }"""


def squeeze_and_excite(bias: list[float], gate_bias: list[float]) -> Network:
    inner = weights(3, 4, 1, 1)
    inner[2] = 0.0
    outer = weights(4, 3, 1, 1)
    outer[3] = 0.0
    return graph(
        SQUEEZE_AND_EXCITE,
        {**first_layer(bias, live=[0, 1, 3]), "v1": inner, "c1": np.array([0.1, 0.1, -1.0]),
         "v2": outer, "c2": np.array(gate_bias), "v": second_layer(1, 0, 1, 1), "c": weights(2)},
    )  # fmt: skip


def test_a_squeeze_and_excite_gate_goes_with_what_it_gates() -> None:
    """Channel 1 feeds the gates of others, 2 is zero, 3 is gated to zero (-3 / 6 + 0.5)."""
    pruned_to(
        squeeze_and_excite([0.5, 0.5, 0.0, 0.5], [0.1, 0.1, 0.1, -4.0]),
        """
        a[1,3,5,5] = Conv(input, w[3,1,1,1], b[3])
        p[1,3,1,1] = GlobalAveragePool(a)
        h[1,2,1,1] = Conv(p, v1[2,3,1,1], c1[2])
        r[1,2,1,1] = Relu(h)
        g[1,3,1,1] = Conv(r, v2[3,2,1,1], c2[3])
        gate[1,3,1,1] = HardSigmoid(g)
        m[1,3,5,5] = Mul(a, gate)
        output[1,2,5,5] = Conv<pads=1,1,1,1>(m, v[2,3,3,3], c[2])
        """,
    )


def test_one_map_for_all_channels_stays_as_long_as_any_of_them() -> None:
    """A spatial gate; its layer reads channels that nobody else reads."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            g = Conv<pads=[1,1,1,1]>(a, u, f)
            gate = Sigmoid(g)
            m = Mul(a, gate)
            output = Conv(m, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5, 0.5], live=[0, 2, 3]), "f": weights(1),
         "u": second_layer(0, 1, 1, 0, outputs=1), "v": second_layer(1, 1, 0, 0, size=1),
         "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        g[1,1,5,5] = Conv<pads=1,1,1,1>(a, u[1,2,3,3], f[1])
        gate[1,1,5,5] = Sigmoid(g)
        m[1,2,5,5] = Mul(a, gate)
        output[1,2,5,5] = Conv(m, v[2,2,1,1], c[2])
        """,
    )


def test_a_gate_that_is_zero_takes_all_with_it() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            g = Conv(input, u, f)
            gate = Relu(g)
            m = Mul(a, gate)
            output = Conv<pads=[1,1,1,1]>(m, v, c)
        }
        """,
        {**first_layer([0.5, 0.5], live=[0, 1]), "u": np.zeros((1, 1, 1, 1)), "f": np.array([-1.0]),
         "v": second_layer(1, 1), "c": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned)["m"] == 1
    assert not values(pruned)["v"].any()
    np.testing.assert_array_equal(values(pruned)["c"], values(network)["c"])


def test_a_map_of_lower_rank_meets_the_channels_of_a_higher_one() -> None:
    """Squeezed to [C, 1, 1], a gate still meets [1, C, H, W] channel by channel."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            p = GlobalAveragePool(a)
            q = Squeeze(p, first)
            m = Mul(q, a)
            output = Conv(m, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5], live=[0, 2]), "first": np.array([0]),
         "v": second_layer(1, 1, 0, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        p[1,1,1,1] = GlobalAveragePool(a)
        q[1,1,1] = Squeeze(p, first[1])
        m[1,1,5,5] = Mul(q, a)
        output[1,2,5,5] = Conv(m, v[2,1,1,1], c[2])
        """,
    )


def test_maps_that_are_cut_along_different_axes_are_a_border() -> None:
    """[1, C, 1] + [1, 1, C]"""
    network = graph(
        """
        (float[1,4] input) => (float[1,3,3] output) {
            a = Gemm<transB=1>(input, w, b)
            column = Unsqueeze(a, two)
            row = Unsqueeze(a, one)
            output = Add(column, row)
        }
        """,
        {"w": weights(3, 4) * np.array([[1], [0], [1]]), "b": np.zeros(3), "one": np.array([1]),
         "two": np.array([2])},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 3
    assert report.borders == ("output (Add)",)


def test_two_inputs_of_the_graph_are_both_kept_whole() -> None:
    network = graph(
        """
        (float[1,3,4,4] left, float[1,3,4,4] right) => (float[1,2,4,4] output) {
            s = Add(left, right)
            a = Conv(s, w, b)
            output = Conv(a, v, c)
        }
        """,
        {"w": second_layer(1, 0, 1, outputs=3, size=1), "b": weights(3),
         "v": second_layer(1, 0, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned, report = remove_dead_channels(network, evaluate)
    assert written(pruned) == expected(
        """
        s[1,3,4,4] = Add(left, right)
        a[1,2,4,4] = Conv(s, w[2,3,1,1], b[2])
        output[1,2,4,4] = Conv(a, v[2,2,1,1], c[2])
        """
    )
    assert report.certificate.max_relative <= 1e-12
    assert_equal_in_runtime(network, pruned)
