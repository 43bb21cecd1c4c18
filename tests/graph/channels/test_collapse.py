"""Constants that merge under padding: what survivors state, and what blocks that."""

from __future__ import annotations

import numpy as np

from deploykit.graph.options import RemovalOptions
from deploykit.graph.removal import cut_channels
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.removal import Reason, RemovedChannel
from tests.graph.removing import channels, first_layer, removed
from tests.graph.text import assert_same_function, graph, values, weights


def kernels(*taps: float, outputs: int = 1) -> Float32Array:
    """[O, I, 3, 3] with one number for all taps of an input channel."""
    return np.repeat(np.array([taps] * outputs, np.float32), 9).reshape(outputs, -1, 3, 3)


TWO_READERS = """
    (float[1,1,5,5] input) => (float[1,1,5,5] output) {{
        a = Conv(input, w, b)
        {other}
        p = Conv<pads=[1,1,1,1]>(a, v, c)
        q = Conv(x, u, e)
        output = Add(p, q)
    }}"""


def beside(other: str, biases: list[float]) -> Network:
    """Padded p reads 0.1, 1, 1 of live, c, c; q reads what `other` makes of it."""
    return graph(
        TWO_READERS.format(other=other),
        {**first_layer(biases, live=[0]), "one": 1.0, "v": kernels(0.1, 1, 1), "c": weights(1),
         "u": np.ones((1, 3, 1, 1)), "e": weights(1)},
    )  # fmt: skip


def test_a_larger_constant_is_stated_and_every_other_reader_divides_by_as_much() -> None:
    network = beside("x = Relu(a)", [0.5, 0.5, 0.5])
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 2
    np.testing.assert_allclose(values(pruned)["b"], [0.5, 1.0], rtol=1e-5)
    np.testing.assert_allclose(values(pruned)["v"], kernels(0.1, 1), rtol=1e-5)
    np.testing.assert_allclose(values(pruned)["u"].reshape(-1), [1.0, 0.5], rtol=1e-5)
    folded = values(pruned)["e"] - values(network)["e"]
    np.testing.assert_allclose(folded, [0.5], rtol=1e-5)


def test_no_constant_is_restated_to_one_that_becomes_zero_on_the_way() -> None:
    """relu(1 - 0.5) is 0.5, relu(1 - 1) would be 0, and nothing can be divided by that."""
    network = beside("y = Sub(one, a)\n        x = Relu(y)", [0.5, 0.5, 0.5])
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 3
    assert np.isfinite(report.certificate.max_relative)


def test_no_constant_is_restated_beyond_float32() -> None:
    """exp(60) is a constant, exp(120) none."""
    network = beside("x = Exp(a)", [0.0, 60.0, 60.0])
    made = cut_channels(network, RemovalOptions())
    for name, array in values(made.exact).items():
        assert np.isfinite(array).all(), name


def test_a_constant_that_the_graph_puts_out_is_not_restated() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,1,5,5] output, float[1,3,5,5] a) {
            a = Conv(input, w, b)
            output = Conv<pads=[1,1,1,1]>(a, v, c)
        }
        """,
        {**first_layer([1.0, 2.0, 2.0], live=[0]), "v": kernels(0.1, 1, 1), "c": weights(1)},
    )
    pruned, _ = removed(network)
    np.testing.assert_array_equal(values(pruned)["b"], values(network)["b"])


def test_every_reader_of_a_tensor_has_its_say() -> None:
    """The first would merge without growing, the second not, and both read the same survivors."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,1,5,5] output) {
            a = Conv(input, w, b)
            r = Clip(a, low, high)
            p = Conv<pads=[1,1,1,1]>(r, v, c)
            q = Conv<pads=[1,1,1,1]>(r, u, e)
            output = Add(p, q)
        }
        """,
        {**first_layer([1.0, 2.0, 2.0], live=[0]), "low": 0.0, "high": 2.0,
         "v": kernels(9, 1, 1), "c": weights(1), "u": kernels(0.1, 1, 1), "e": weights(1)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 3
    tolerant = graph(
        """
        (float[1,1,5,5] input) => (float[1,1,5,5] output) {
            a = Conv(input, w, b)
            r = Clip(a, low, high)
            p = Conv<pads=[1,1,1,1]>(r, v, c)
            q = Conv<pads=[1,1,1,1]>(r, u, e)
            output = Add(p, q)
        }
        """,
        {**first_layer([1.0, 2.0, 2.0], live=[0]), "low": 0.0, "high": 2.0,
         "v": kernels(9, 1, 1), "c": weights(1), "u": kernels(5, 1, 2), "e": weights(1)},
    )  # fmt: skip
    pruned, report = removed(tolerant)
    assert report.tensors[0].removed == (RemovedChannel(2, Reason.COLLAPSED, 2.0, into=1),)
    np.testing.assert_allclose(values(pruned)["v"], kernels(9, 2), rtol=1e-6)
    np.testing.assert_allclose(values(pruned)["u"], kernels(5, 3), rtol=1e-6)


def test_signs_may_differ() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,1,5,5] output) {
            a = Conv(input, w, b)
            output = Conv<pads=[1,1,1,1]>(a, v, c)
        }
        """,
        {**first_layer([1.0, -4.0, 2.0], live=[0]), "v": kernels(0.5, 1, 1), "c": weights(1)},
    )
    pruned, report = removed(network)
    assert report.tensors[0].removed == (RemovedChannel(2, Reason.COLLAPSED, 2.0, into=1),)
    np.testing.assert_allclose(values(pruned)["v"], kernels(0.5, 0.5), rtol=1e-6)


def test_many_constants_that_cannot_be_restated_are_settled_quickly() -> None:
    """A few hundred candidates: numbers of survivors are not all tried one by one."""
    rng = np.random.default_rng(0)
    count = 400
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,8,5,5] output) {
            a = Conv(input, w, b)
            s = Sigmoid(a)
            output = Conv<pads=[1,1,1,1]>(s, v, c)
        }
        """,
        {"w": np.zeros((count, 1, 1, 1)), "b": rng.normal(size=count),
         "v": weights(8, count, 3, 3), "c": weights(8)},
    )  # fmt: skip
    made = cut_channels(network, RemovalOptions())
    assert_same_function(network, made.pruned, atol=1e-5)


def test_constants_of_a_tensor_that_is_only_absorbed_do_not_merge() -> None:
    network = beside("x = Relu(a)", [0.5, 0.5, 0.5])
    assert removed(network)[1].range_growth == {"p": 1.0}
