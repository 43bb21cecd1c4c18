"""Per-channel products and sums go into a neighbouring weight where that is exact."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.passes.scales import fold_channel_scales
from deploykit.graph.tracking import apply_pass
from deploykit.spec.network import Network
from tests.graph.text import assert_same_function, expected, graph, values, weights, written

GATE = np.array([0.5, 0.0, -2.0], np.float32).reshape(1, 3, 1, 1)


def folded(network: Network) -> Network:
    return apply_pass("fold_channel_scales", fold_channel_scales, network)


@pytest.mark.parametrize(
    "operation",
    ["Mul(a, s)", "Mul(s, a)", "Div(a, d)", "Add(a, s)", "Add(s, a)", "Sub(a, s)", "Mul(a, two)"],
)
def test_a_constant_goes_back_into_the_convolution(operation: str) -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {{
            a = Conv<pads=[1,1,1,1]>(input, "c.weight", "c.bias")
            output = {operation}
        }}
        """,
        {"c.weight": weights(3, 2, 3, 3), "c.bias": weights(3), "s": GATE, "d": GATE + 3,
         "two": np.float32(2)},
        ["c.weight", "c.bias"],
    )  # fmt: skip
    after = folded(before)
    assert written(after) == expected(
        """
        output[1,3,4,4] = Conv<pads=1,1,1,1>(input, c.weight[3,2,3,3], c.bias[3])
        """
    )
    assert_same_function(before, after)


def test_variances_grow_by_the_square_of_the_gate() -> None:
    before = graph(
        """
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {
            a = Conv(input, w, b)
            output = Mul(a, s)
        }
        """,
        {"w": weights(3, 2, 1, 1), "b": weights(3), "s": GATE},
        ["w", "b"],
    )
    after = folded(before)
    for o, gate in enumerate([0.5, 0.0, -2.0]):
        np.testing.assert_allclose(after.variance["w"][o], before.variance["w"][o] * gate**2)
        np.testing.assert_allclose(after.variance["b"][o], before.variance["b"][o] * gate**2)


def test_a_product_behind_an_activation_goes_forward_into_every_reader() -> None:
    before = graph(
        """
        (float[1,3,4,4] input) => (float[1,2,4,4] output) {
            r = Relu(input)
            g = Mul(r, s)
            a = Conv<pads=[1,1,1,1]>(g, v)
            b = Conv(g, w)
            output = Add(a, b)
        }
        """,
        {"v": weights(2, 3, 3, 3), "w": weights(2, 3, 1, 1), "s": GATE},
        ["v"],
    )
    after = folded(before)
    assert written(after) == expected(
        """
        r[1,3,4,4] = Relu(input)
        a[1,2,4,4] = Conv<pads=1,1,1,1>(r, v[2,3,3,3])
        b[1,2,4,4] = Conv(r, w[2,3,1,1])
        output[1,2,4,4] = Add(a, b)
        """
    )
    assert_same_function(before, after)
    gained = before.variance["v"] * GATE**2
    np.testing.assert_allclose(after.variance["v"], gained, rtol=1e-6)


STAYS = {
    "a sum behind an activation, since padding would see it": """
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {
            r = Relu(input)
            g = Add(r, s)
            output = Conv<pads=[1,1,1,1]>(g, w)
        }""",
    "a product whose other reader is no layer": """
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {
            r = Relu(input)
            g = Mul(r, s)
            a = Conv<pads=[1,1,1,1]>(g, w)
            output = Add(a, g)
        }""",
    "a product before a pool, which a negative gate would turn round": """
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {
            r = Relu(input)
            g = Mul(r, s)
            p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(g)
            output = Conv<pads=[1,1,1,1]>(p, w)
        }""",
    "a constant that is divided": """
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {
            a = Conv<pads=[1,1,1,1]>(input, w)
            output = Div(s, a)
        }""",
}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_it_stays(text: str) -> None:
    before = graph(text, {"w": weights(3, 3, 3, 3), "s": GATE})
    assert written(folded(before)) == written(before)


@pytest.mark.parametrize("scale", [np.float32(2), weights(3, 1)], ids=["number", "per step"])
def test_a_product_over_a_sequence_stays_since_axis_1_is_not_the_weights(
    scale: np.ndarray,
) -> None:
    before = graph(
        """
        (float[1,3,3] input) => (float[1,3,3] output) {
            a = MatMul(input, w)
            b = Mul(a, s)
            r = Relu(b)
            c = Mul(r, s)
            output = MatMul(c, v)
        }
        """,
        {"w": weights(3, 3), "v": weights(3, 3, seed=1), "s": scale},
    )
    after = folded(before)
    assert_same_function(before, after)
    assert written(after) == written(before)


def test_a_transposed_reader_does_not_take_the_product() -> None:
    before = graph(
        """
        (float[3,3] input) => (float[3,2] output) {
            r = Relu(input)
            g = Mul(r, s)
            output = Gemm<transA=1>(g, w)
        }
        """,
        {"w": weights(3, 2), "s": GATE.reshape(1, 3)},
    )
    assert written(folded(before)) == written(before)


def test_a_weight_that_is_also_an_output_keeps_its_values() -> None:
    before = graph(
        """
        (float[1,2] input) => (float[1,3] output, float[2,3] w) {
            a = Gemm(input, w)
            output = Mul(a, s)
        }
        """,
        {"w": weights(2, 3), "s": GATE.reshape(1, 3)},
    )
    np.testing.assert_array_equal(values(folded(before))["w"], values(before)["w"])
