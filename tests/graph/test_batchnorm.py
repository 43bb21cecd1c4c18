"""Batch norm goes into the layer before it, values and variances together, or stays whole."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.passes.batchnorm import fold_batchnorm
from deploykit.graph.tracking import apply_pass
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.network import Network
from tests.graph.text import assert_same_function, expected, graph, values, weights, written

STATISTICS: dict[str, AnyArray] = {
    "bn.weight": np.array([1.5, -2.0, 0.0], np.float32),
    "bn.bias": np.array([0.5, 0.25, -1.0], np.float32),
    "bn.mean": np.array([0.1, -0.2, 3.0], np.float32),
    "bn.var": np.array([0.5, 4.0, 1.0], np.float32),
}
NORMALIZE = 'BatchNormalization({}, "bn.weight", "bn.bias", "bn.mean", "bn.var")'


def folded(network: Network) -> Network:
    return apply_pass("fold_batchnorm", fold_batchnorm, network)


def conv_then_norm(weight: Float32Array, bias: Float32Array) -> Network:
    return graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {{
            a = Conv<pads=[1,1,1,1]>(input, "conv.weight", "conv.bias")
            n = {NORMALIZE.format("a")}
            output = Relu(n)
        }}
        """,
        {"conv.weight": weight, "conv.bias": bias, **STATISTICS},
        ("conv.weight", "conv.bias", "bn.weight"),
    )


def test_it_folds_into_a_convolution() -> None:
    before = conv_then_norm(weights(3, 2, 3, 3), weights(3))
    after = folded(before)
    assert written(after) == expected(
        """
        a[1,3,4,4] = Conv<pads=1,1,1,1>(input, conv.weight[3,2,3,3], conv.bias[3])
        output[1,3,4,4] = Relu(a)
        """
    )
    assert_same_function(before, after)


def test_values_and_variances_equal_a_slow_loop() -> None:
    before = conv_then_norm(weights(3, 2, 3, 3), weights(3))
    after = folded(before)
    old, new = values(before), values(after)
    for o in range(3):
        gain = old["bn.weight"][o] / np.sqrt(old["bn.var"][o] + 1e-5)
        offset = (old["conv.bias"][o] - old["bn.mean"][o]) * gain + old["bn.bias"][o]
        assert new["conv.bias"][o] == pytest.approx(offset, rel=1e-6)
        for index in np.ndindex(2, 3, 3):
            at = (o, *index)
            assert new["conv.weight"][at] == pytest.approx(old["conv.weight"][at] * gain, rel=1e-6)
            variance = before.variance["conv.weight"][at] * gain**2
            assert after.variance["conv.weight"][at] == pytest.approx(variance, rel=1e-6)
        assert after.variance["conv.bias"][o] == pytest.approx(
            before.variance["conv.bias"][o] * gain**2, rel=1e-6
        )
    assert set(after.variance) == {"conv.weight", "conv.bias"}


def test_the_folded_variance_is_that_of_folded_draws() -> None:
    mean = conv_then_norm(weights(3, 2, 3, 3), weights(3))
    told = folded(mean).variance
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(300):
        drawn = {
            name: values(mean)[name] + np.sqrt(mean.variance[name]) * weights_like(mean, name, rng)
            for name in ("conv.weight", "conv.bias")
        }
        draws.append(values(folded(conv_then_norm(drawn["conv.weight"], drawn["conv.bias"]))))
    for name in ("conv.weight", "conv.bias"):
        seen = np.var([draw[name] for draw in draws], axis=0)
        alive = told[name] > 0
        assert np.mean(seen[alive] / told[name][alive]) == pytest.approx(1.0, abs=0.15)
        assert np.all(seen[~alive] == 0)


def weights_like(network: Network, name: str, rng: np.random.Generator) -> Float32Array:
    return rng.normal(size=network.variance[name].shape).astype(np.float32)


def test_a_layer_without_bias_gets_one_named_after_it() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {{
            a = Conv<pads=[1,1,1,1]>(input, "0.weight")
            output = {NORMALIZE.format("a")}
        }}
        """,
        {"0.weight": weights(3, 2, 3, 3), **STATISTICS},
        ["0.weight"],
    )
    after = folded(before)
    assert written(after) == expected(
        """
        output[1,3,4,4] = Conv<pads=1,1,1,1>(input, 0.weight[3,2,3,3], 0.bias[3])
        """
    )
    assert_same_function(before, after)


@pytest.mark.parametrize("transposed", [0, 1])
def test_it_folds_into_a_linear(transposed: int) -> None:
    before = graph(
        f"""
        (float[1,4] input) => (float[1,3] output) {{
            a = Gemm<transB={transposed}>(input, "fc.weight", "fc.bias")
            output = {NORMALIZE.format("a")}
        }}
        """,
        {"fc.weight": weights(3, 4) if transposed else weights(4, 3), "fc.bias": weights(3),
         **STATISTICS},
        ["fc.weight"],
    )  # fmt: skip
    after = folded(before)
    assert [node.op_type for node in after.model.graph] == ["Gemm"]
    assert_same_function(before, after)


STAYS = {
    "before a convolution": f"""
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {{
            n = {NORMALIZE.format("input")}
            r = Relu(n)
            output = Conv(r, w)
        }}""",
    "whose input another node reads": f"""
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {{
            a = Conv(input, w)
            n = {NORMALIZE.format("a")}
            output = Add(n, a)
        }}""",
    "whose layer shares its weight": f"""
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {{
            b = Conv(input, w)
            a = Conv(b, w)
            output = {NORMALIZE.format("a")}
        }}""",
    "that normalizes by the batch": f"""
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {{
            a = Conv(input, w)
            output, m, v = {NORMALIZE.replace("({}", "<training_mode=1>({}").format("a")}
        }}""",
}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_it_stays(text: str) -> None:
    before = graph(text, {"w": weights(3, 3, 1, 1), **STATISTICS}, ["w"])
    after = folded(before)
    assert written(after) == written(before)
    np.testing.assert_array_equal(after.variance["w"], before.variance["w"])


def test_statistics_that_are_computed_at_run_time_stay() -> None:
    before = graph(
        """
        (float[1,3,4,4] input) => (float[1,3,4,4] output) {
            a = Conv(input, w)
            m = ReduceMean<keepdims=0>(a, axes)
            output = BatchNormalization(a, "bn.weight", "bn.bias", m, "bn.var")
        }
        """,
        {"w": weights(3, 3, 1, 1), "axes": np.array([0, 2, 3]), **STATISTICS},
    )
    assert written(folded(before)) == written(before)
