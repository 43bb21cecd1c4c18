"""Products per channel go through the activations and pools that they commute with."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.normalize import normalize
from deploykit.graph.passes.scales import fold_channel_scales
from deploykit.graph.tracking import apply_pass
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from tests.graph.text import assert_same_function, expected, graph, values, weights, written

POSITIVE = np.array([0.5, 0.0, 2.0], np.float32).reshape(1, 3, 1, 1)
NEGATIVE = np.array([0.5, -2.0, 0.0], np.float32).reshape(1, 3, 1, 1)


def folded(network: Network) -> Network:
    return apply_pass("fold_channel_scales", fold_channel_scales, network)


def gated(body: str, gate: Float32Array) -> Network:
    """conv -> `body`, which reads c and s and gives p -> conv."""
    return graph(
        f"""
        (float[1,2,4,4] input) => (float[1,2,2,2] output) {{
            c = Conv<pads=[1,1,1,1]>(input, w, b)
            {body}
            output = Conv(p, v)
        }}
        """,
        {"w": weights(3, 2, 3, 3), "b": weights(3), "v": weights(2, 3, 1, 1), "s": gate},
        ["w", "b", "v"],
    )


RELU_POOL = """
    r = Relu(c)
    g = Mul(r, s)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(g)
"""


def test_factors_of_no_sign_go_through_relu_and_maximum() -> None:
    before = gated(RELU_POOL, POSITIVE)
    after = folded(before)
    assert written(after) == expected(
        """
        c[1,3,4,4] = Conv<pads=1,1,1,1>(input, w[3,2,3,3], b[3])
        r[1,3,4,4] = Relu(c)
        p[1,3,2,2] = MaxPool<kernel_shape=2,2 strides=2,2>(r)
        output[1,2,2,2] = Conv(p, v[2,3,1,1])
        """
    )
    assert_same_function(before, after)
    np.testing.assert_allclose(after.variance["v"], before.variance["v"] * POSITIVE**2, rtol=1e-6)


def test_only_the_sign_stays_before_a_maximum() -> None:
    before = gated(RELU_POOL, NEGATIVE)
    after = folded(before)
    assert [node.op_type for node in after.model.graph] == [
        "Conv",
        "Relu",
        "Mul",
        "MaxPool",
        "Conv",
    ]
    (sign,) = (node.inputs[1] for node in after.model.graph if node.op_type == "Mul")
    assert sign is not None
    assert sign.const_value is not None
    assert sign.const_value.numpy().reshape(-1).tolist() == [1.0, -1.0, 1.0]
    magnitude = np.abs(NEGATIVE).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(values(after)["w"], values(before)["w"] * magnitude, rtol=1e-6)
    assert_same_function(before, after)


@pytest.mark.parametrize("gate", [POSITIVE, NEGATIVE], ids=["positive", "negative"])
def test_any_factor_goes_through_a_mean(gate: Float32Array) -> None:
    body = """
        r = Relu(c)
        g = Mul(r, s)
        p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(g)
    """
    before = gated(body, gate)
    after = folded(before)
    assert "Mul" not in {node.op_type for node in after.model.graph}
    assert_same_function(before, after)


def test_behind_a_pool_it_goes_back_through_pool_and_relu() -> None:
    body = """
        r = Relu(c)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        g = Mul(m, s)
        p = Sigmoid(g)
    """
    before = gated(body, POSITIVE)
    after = folded(before)
    assert "Mul" not in {node.op_type for node in after.model.graph}
    assert_same_function(before, after)
    before = gated(body, NEGATIVE)
    after = folded(before)
    assert "Mul" in {node.op_type for node in after.model.graph}
    assert_same_function(before, after)


def test_a_factor_becomes_one_for_each_pixel_where_channels_are_flattened() -> None:
    before = graph(
        """
        (float[1,3,2,2] input) => (float[1,5] output) {
            r = Relu(input)
            g = Mul(r, s)
            f = Flatten(g)
            output = Gemm<transB=1>(f, w)
        }
        """,
        {"w": weights(5, 12), "s": NEGATIVE},
        ["w"],
    )
    after = folded(before)
    assert written(after) == expected(
        """
        r[1,3,2,2] = Relu(input)
        f[1,12] = Flatten(r)
        output[1,5] = Gemm<transB=1>(f, w[5,12])
        """
    )
    assert_same_function(before, after)


STAYS = {
    "what another node reads before the factor": """
        r = Relu(c)
        g = Mul(r, s)
        h = Sigmoid(r)
        k = Add(g, h)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(k)""",
    "an activation that a factor does not pass": """
        r = Sigmoid(c)
        g = Mul(r, s)
        q = Sigmoid(g)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(q)""",
}


@pytest.mark.parametrize("body", STAYS.values(), ids=STAYS)
def test_it_stays(body: str) -> None:
    before = gated(body, POSITIVE)
    assert written(folded(before)) == written(before)


def test_batch_norm_behind_a_factor_is_folded() -> None:
    body = """
        g = Mul(c, s)
        n = BatchNormalization(g, gamma, beta, mean, var)
        r = Relu(n)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    """
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,2,2] p) {{
            c = Conv<pads=[1,1,1,1]>(input, w, b)
            {body}
        }}
        """,
        {"w": weights(3, 2, 3, 3), "b": weights(3), "s": NEGATIVE, "gamma": weights(3),
         "beta": weights(3), "mean": weights(3), "var": np.abs(weights(3)) + 1},
        ["w", "b"],
    )  # fmt: skip
    after = normalize(before)
    assert [node.op_type for node in after.model.graph] == ["Conv", "Relu", "MaxPool"]
    assert_same_function(before, after)
