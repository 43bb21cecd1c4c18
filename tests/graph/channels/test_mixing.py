"""Layers with a weight: which channels they read, absorb and merge, and what is cut of them."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.removal import Reason, RemovedChannel
from tests.graph.removing import (
    channels,
    first_layer,
    four_channels,
    pruned_to,
    reading_three,
    removed,
    second_layer,
)
from tests.graph.text import graph, values, weights


def into(call: str, kernel: Float32Array, size: str, outputs: int = 2) -> Network:
    """Channels live, zero, constant 2, live but unread, and a layer that reads them."""
    return graph(
        f"""
        (float[1,1,7,7] input) => (float[1,{outputs},{size}] output) {{
            a = Conv(input, w, b)
            output = {call}
        }}
        """,
        {**four_channels(), "v": kernel, "c": weights(outputs)},
        ["w", "b", "v", "c"],
    )


UNPADDED = {
    "Conv(a, v, c)": "5,5",
    "Conv<strides=[2,2]>(a, v, c)": "3,3",
    "Conv<dilations=[2,2]>(a, v, c)": "3,3",
    'Conv<auto_pad="VALID">(a, v, c)': "5,5",
}


@pytest.mark.parametrize(("call", "size"), UNPADDED.items())
def test_without_padding_a_constant_goes_into_the_bias(call: str, size: str) -> None:
    network = into(call, reading_three(3), size)
    shown = (
        call.replace("[", "")
        .replace("]", "")
        .replace('"', "")
        .replace("a, v, c", "a, v[2,1,3,3], c[2]")
    )
    pruned = pruned_to(
        network,
        f"""
        a[1,1,7,7] = Conv(input, w[1,1,1,1], b[1])
        output[1,2,{size}] = {shown}
        """,
    )
    before = values(network)
    told = before["c"] + 2 * before["v"][:, 2].sum(axis=(1, 2))
    np.testing.assert_allclose(values(pruned)["c"], told, rtol=1e-6)
    spread = network.variance["c"] + 4 * network.variance["v"][:, 2].sum(axis=(1, 2))
    np.testing.assert_allclose(pruned.variance["c"], spread, rtol=1e-6)


PADDED = {
    "Conv<pads=[1,1,1,1]>(a, v, c)": "7,7",
    "Conv<pads=[0,0,1,0]>(a, v, c)": "6,5",
    "Conv<pads=[1,1,1,1], strides=[2,2]>(a, v, c)": "4,4",
    "Conv<pads=[2,2,2,2], dilations=[2,2]>(a, v, c)": "7,7",
    'Conv<auto_pad="SAME_UPPER">(a, v, c)': "7,7",
    "ConvTranspose(a, t, c)": "9,9",
    "ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(a, t, c)": "14,14",
}


@pytest.mark.parametrize(("call", "size"), PADDED.items())
def test_under_padding_a_constant_stays_and_a_zero_goes(call: str, size: str) -> None:
    network = into(call, reading_three(3), size)
    if "ConvTranspose" in call:
        network = graph(
            f"""
            (float[1,1,7,7] input) => (float[1,2,{size}] output) {{
                a = Conv(input, w, b)
                output = {call}
            }}
            """,
            {**four_channels(), "t": reading_three(3).swapaxes(0, 1), "c": weights(2)},
            ["w", "b", "t", "c"],
        )
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 2, "output": 2}
    assert report.tensors[0].removed == (
        RemovedChannel(1, Reason.ZERO, 0.0),
        RemovedChannel(3, Reason.UNREAD),
    )
    name = "t" if "ConvTranspose" in call else "v"
    kept = [0, 2]
    before = values(network)[name]
    told = before[kept] if name == "t" else before[:, kept]
    np.testing.assert_array_equal(values(pruned)[name], told)
    assert pruned.variance[name].shape == told.shape


def grouped(
    kernel: Float32Array, groups: int, pad: int, biases: list[float], live: list[int]
) -> Network:
    outputs = len(kernel)
    size = 3 + 2 * pad
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,{size},{size}] output) {{
            a = Conv(input, w, b)
            d = Conv<group={groups}, pads=[{pad},{pad},{pad},{pad}]>(a, k, l)
            output = Conv(d, v, c)
        }}
        """,
        {**first_layer(biases, live=live), "k": kernel, "l": weights(outputs),
         "v": second_layer(*[1] * outputs, size=1), "c": weights(2)},
        ["k", "l", "v"],
    )  # fmt: skip


def test_a_group_of_which_all_is_dead_goes_whole() -> None:
    network = grouped(weights(6, 2, 3, 3), 3, 1, [0.5, 0.5, 0, 0, 0.5, 0.5], [0, 1, 4, 5])
    pruned = pruned_to(
        network,
        """
        a[1,4,5,5] = Conv(input, w[4,1,1,1], b[4])
        d[1,4,5,5] = Conv<group=2 pads=1,1,1,1>(a, k[4,2,3,3], l[4])
        output[1,2,5,5] = Conv(d, v[2,4,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(values(pruned)["k"], values(network)["k"][[0, 1, 4, 5]])
    np.testing.assert_array_equal(pruned.variance["k"], network.variance["k"][[0, 1, 4, 5]])


def test_groups_keep_equally_many_inputs() -> None:
    """One input of group 0 is dead, none of group 1; then one of each."""
    uneven = grouped(weights(4, 2, 3, 3), 2, 1, [0.5, 0.0, 0.5, 0.5], [0, 2, 3])
    pruned_to(
        uneven,
        """
        a[1,4,5,5] = Conv(input, w[4,1,1,1], b[4])
        d[1,4,5,5] = Conv<group=2 pads=1,1,1,1>(a, k[4,2,3,3], l[4])
        output[1,2,5,5] = Conv(d, v[2,4,1,1], c[2])
        """,
    )
    even = grouped(weights(4, 2, 3, 3), 2, 1, [0.5, 0.0, 0.0, 0.5], [0, 3])
    pruned = pruned_to(
        even,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        d[1,4,5,5] = Conv<group=2 pads=1,1,1,1>(a, k[4,1,3,3], l[4])
        output[1,2,5,5] = Conv(d, v[2,4,1,1], c[2])
        """,
    )
    before = values(even)["k"]
    np.testing.assert_array_equal(values(pruned)["k"][:2], before[:2, :1])
    np.testing.assert_array_equal(values(pruned)["k"][2:], before[2:, 1:])


def test_groups_keep_equally_many_outputs() -> None:
    kernel = second_layer(1, 0, 1, 0, 0, 1, size=1)
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<group=2>(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5] * 4, live=[0, 1, 2, 3]), "k": weights(6, 2, 1, 1), "l": weights(6),
         "v": kernel, "c": weights(2)},
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,4,5,5] = Conv(input, w[4,1,1,1], b[4])
        d[1,4,5,5] = Conv<group=2>(a, k[4,2,1,1], l[4])
        output[1,2,5,5] = Conv(d, v[2,4,1,1], c[2])
        """,
    )
    assert sorted(np.flatnonzero(~values(pruned)["k"].any(axis=(1, 2, 3)))) == [2]


def test_a_constant_of_a_grouped_layer_goes_into_its_bias_and_a_padded_one_stays() -> None:
    biases, live = [0.5, 2.0, 2.0, 0.5], [0, 3]
    network = grouped(weights(4, 2, 3, 3), 2, 0, biases, live)
    pruned = pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        d[1,4,3,3] = Conv<group=2>(a, k[4,1,3,3], l[4])
        output[1,2,3,3] = Conv(d, v[2,4,1,1], c[2])
        """,
    )
    before = values(network)
    gone = np.concatenate([before["k"][:2, 1], before["k"][2:, 0]]).sum(axis=(1, 2))
    np.testing.assert_allclose(values(pruned)["l"], before["l"] + 2 * gone, rtol=1e-5)
    stays, _ = removed(grouped(weights(4, 2, 3, 3), 2, 1, biases, live))
    assert channels(stays)["a"] == 4


def test_a_depthwise_layer_goes_channel_by_channel() -> None:
    """Channel 1 comes in as zero, the kernel of 2 is zero, 3 is not read behind."""
    kernel = weights(4, 1, 3, 3)
    kernel[2] = 0.0
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<group=4, pads=[1,1,1,1]>(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5, 0.5], live=[0, 2, 3]), "k": kernel,
         "l": np.array([0.1, 0.2, 0.3, 0.4]), "v": second_layer(1, 1, 1, 0, size=1),
         "c": weights(2)},
        ["k", "l"],
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        d[1,1,5,5] = Conv<pads=1,1,1,1>(a, k[1,1,3,3], l[1])
        output[1,2,5,5] = Conv(d, v[2,1,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(pruned.variance["k"], network.variance["k"][:1])
    told = values(network)["v"][:, 1:3, 0, 0] @ [0.2, 0.3] + values(network)["c"]
    np.testing.assert_allclose(values(pruned)["c"], told, rtol=1e-5)


def test_a_constant_goes_through_an_unpadded_depthwise_layer() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            d = Conv<group=2>(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 2.0], live=[0]), "k": np.ones((2, 1, 3, 3)), "l": np.array([0.0, 1.0]),
         "v": second_layer(1, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 1, "d": 1, "output": 2}
    assert report.tensors[1].removed == (RemovedChannel(1, Reason.FOLDED, 2.0 * 9 + 1.0),)


def test_a_depthwise_layer_with_a_multiplier_goes_by_groups() -> None:
    """Two outputs per channel; channel 1 is dead, and only one output of 0 is read."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<group=3, pads=[1,1,1,1]>(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5], live=[0, 2]), "k": weights(6, 1, 3, 3), "l": weights(6),
         "v": second_layer(1, 0, 1, 1, 0, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        d[1,2,5,5] = Conv<group=2 pads=1,1,1,1>(a, k[2,1,3,3], l[2])
        output[1,2,5,5] = Conv(d, v[2,2,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(values(pruned)["k"], values(network)["k"][[0, 5]])


def test_a_transposed_depthwise_layer_goes_channel_by_channel() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,10,10] output) {
            a = Conv(input, w, b)
            d = ConvTranspose<group=3, strides=[2,2]>(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5], live=[0, 2]), "k": weights(3, 1, 2, 2), "l": weights(3),
         "v": second_layer(1, 1, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        d[1,2,10,10] = ConvTranspose<group=2 strides=2,2>(a, k[2,1,2,2], l[2])
        output[1,2,10,10] = Conv(d, v[2,2,1,1], c[2])
        """,
    )


def test_a_transposed_layer_with_groups_is_cut_in_its_own_layout() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,6,6] output) {
            a = Conv(input, w, b)
            d = ConvTranspose<group=2>(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.0, 0.5], live=[0, 3]), "k": weights(4, 3, 2, 2),
         "l": weights(6), "v": second_layer(1, 0, 1, 0, 1, 1, size=1), "c": weights(2)},
        ["k"],
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        d[1,4,6,6] = ConvTranspose<group=2>(a, k[2,2,2,2], l[4])
        output[1,2,6,6] = Conv(d, v[2,4,1,1], c[2])
        """,
    )
    before = values(network)["k"]
    np.testing.assert_array_equal(values(pruned)["k"], np.stack([before[0, [0, 2]], before[3, 1:]]))
    spread = network.variance["k"]
    np.testing.assert_array_equal(
        pruned.variance["k"], np.stack([spread[0, [0, 2]], spread[3, 1:]])
    )


def test_a_transposed_layer_is_constant_where_it_reads_nothing() -> None:
    """Its channel 1 reads zeros alone and is its bias."""
    kernel = weights(2, 2, 2, 2)
    kernel[0, 1] = 0.0
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,6,6] output) {
            a = Conv(input, w, b)
            d = ConvTranspose(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 0.0], live=[0]), "k": kernel, "l": np.array([0.5, 3.0]),
         "v": second_layer(1, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    _, report = removed(network)
    assert report.tensors[1].removed == (RemovedChannel(1, Reason.FOLDED, 3.0),)


def test_a_linear_reads_rows_of_its_weight() -> None:
    network = graph(
        """
        (float[1,4] input) => (float[1,3] output) {
            a = Gemm<transB=1>(input, w, b)
            r = Relu(a)
            output = Gemm<transB=1>(r, v, c)
        }
        """,
        {"w": weights(4, 4) * np.array([[1], [0], [0], [1]]), "b": np.array([0.5, -1.0, 2.0, 0.5]),
         "v": weights(3, 4) * np.array([1, 1, 1, 0]), "c": weights(3)},
        ["v", "c"],
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,1] = Gemm<transB=1>(input, w[1,4], b[1])
        r[1,1] = Relu(a)
        output[1,3] = Gemm<transB=1>(r, v[3,1], c[3])
        """,
    )
    told = values(network)["c"] + 2 * values(network)["v"][:, 2]
    np.testing.assert_allclose(values(pruned)["c"], told, rtol=1e-6)
    spread = network.variance["c"] + 4 * network.variance["v"][:, 2]
    np.testing.assert_allclose(pruned.variance["c"], spread, rtol=1e-6)


def tokens(biases: bool) -> Network:
    """A linear over 3 tokens, gelu, another linear; the sums behind them are their biases."""
    first, second = (
        ("h = Add(a, b)", "output = Add(z, c)")
        if biases
        else ("h = Identity(a)", "output = Identity(z)")
    )
    constants = {
        "w": weights(4, 4) * np.array([1, 0, 0, 1]),
        "v": weights(4, 5) * np.array([[1], [1], [1], [0]]),
    }
    if biases:
        constants |= {"b": np.array([0.5, 0.0, 2.0, 0.5], np.float32), "c": weights(5)}
    return graph(
        f"""
        (float[1,3,4] input) => (float[1,3,5] output) {{
            a = MatMul(input, w)
            {first}
            g = Relu(h)
            z = MatMul(g, v)
            {second}
        }}
        """,
        constants,
        list(constants),
    )


def test_a_linear_over_tokens_puts_constants_into_the_sum_behind_it() -> None:
    network = tokens(biases=True)
    pruned = pruned_to(
        network,
        """
        a[1,3,1] = MatMul(input, w[4,1])
        h[1,3,1] = Add(a, b[1])
        g[1,3,1] = Relu(h)
        z[1,3,5] = MatMul(g, v[1,5])
        output[1,3,5] = Add(z, c[5])
        """,
    )
    told = values(network)["c"] + 2 * values(network)["v"][2]
    np.testing.assert_allclose(values(pruned)["c"], told, rtol=1e-6)
    spread = network.variance["c"] + 4 * network.variance["v"][2]
    np.testing.assert_allclose(pruned.variance["c"], spread, rtol=1e-6)


def test_a_linear_over_tokens_without_a_bias_drops_zeros() -> None:
    pruned_to(
        tokens(biases=False),
        """
        a[1,3,1] = MatMul(input, w[4,1])
        h[1,3,1] = Identity(a)
        g[1,3,1] = Relu(h)
        z[1,3,5] = MatMul(g, v[1,5])
        output[1,3,5] = Identity(z)
        """,
    )


def test_a_constant_stays_where_a_product_has_no_bias_to_take_it() -> None:
    network = graph(
        """
        (float[1,3,4] input) => (float[1,3,5] output) {
            a = MatMul(input, w)
            h = Add(a, b)
            output = MatMul(h, v)
        }
        """,
        {"w": weights(4, 3) * np.array([1, 0, 0]), "b": np.array([0.5, 2.0, 4.0]),
         "v": np.ones((3, 5)) * np.array([[9.0], [1.0], [1.0]])},
    )  # fmt: skip
    pruned, report = removed(network)
    np.testing.assert_allclose(values(pruned)["v"], np.ones((2, 5)) * np.array([[9.0], [1.5]]))
    assert report.tensors[0].removed == (RemovedChannel(1, Reason.COLLAPSED, 2.0, into=2),)


def test_a_product_along_an_axis_that_is_not_cut_keeps_its_channels_and_follows_zeros_alone() -> (
    None
):
    """A mixer: 5 x 5 positions as 25 tokens of 4 channels, mixed by a [25, 6] weight."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,6] output) {
            a = Conv(input, w, b)
            t = Reshape(a, to)
            m = MatMul(t, k)
            output = Conv(m, v, c)
        }
        """,
        {**four_channels(), "to": np.array([1, 4, 25]), "k": weights(25, 6),
         "v": reading_three(1).reshape(2, 4, 1), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        t[1,2,25] = Reshape(a, to.cut[3])
        m[1,2,6] = MatMul(t, k[25,6])
        output[1,2,6] = Conv(m, v[2,2,1], c[2])
        """,
    )


def test_a_layer_whose_weight_somebody_else_reads_is_a_border() -> None:
    network = graph(
        """
        (float[1,2,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv(a, w, c)
            output = Conv(d, v, e)
        }
        """,
        {"w": weights(2, 2, 1, 1), "b": weights(2), "c": weights(2),
         "v": second_layer(1, 0, size=1), "e": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 2, "d": 2, "output": 2}
    assert report.borders == ("a (Conv)", "d (Conv)")


def test_a_weight_that_is_computed_is_a_border() -> None:
    network = graph(
        """
        (float[1,2,5,5] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            p = GlobalAveragePool(a)
            k = Mul(p, v)
            output = Conv(a, k, e)
        }
        """,
        {"w": weights(2, 2, 1, 1), "b": weights(2), "v": weights(2, 2, 3, 3), "e": weights(2)},
    )
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 2
    assert report.borders[-1] == "output (Conv)"


@pytest.mark.parametrize(("pad", "left"), [(0, 1), (1, 2)])
def test_what_reads_a_constant_alone_is_constant_but_at_a_padded_border(
    pad: int, left: int
) -> None:
    """Channel 1 of d reads the 2 of a: 18 times its kernel, fewer at the border."""
    kernel = second_layer(1, 1)
    kernel[1, 0] = 0.0
    size = 3 + 2 * pad
    network = graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,{size},{size}] output) {{
            a = Conv(input, w, b)
            d = Conv<pads=[{pad},{pad},{pad},{pad}]>(a, k, l)
            output = Conv(d, v, c)
        }}
        """,
        {**first_layer([0.5, 2.0], live=[0]), "k": kernel, "l": weights(2),
         "v": second_layer(1, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": left, "d": left, "output": 2}
