"""Tensors taken apart and put together along the channels and along other axes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from deploykit.graph import removal
from deploykit.graph.passes.canonical import canonicalize
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.spec.network import Network
from tests.graph.removing import (
    channels,
    first_layer,
    four_channels,
    pruned_to,
    reading_three,
    removed,
    second_layer,
)
from tests.graph.text import assert_same_function, expected, graph, values, weights, written

SIX = first_layer([0.5, 0.0, 0.5, 0.5, 0.0, 0.5], live=[0, 2, 3, 5])


@pytest.fixture(autouse=True)
def as_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests look at the cut itself: ordering channels would do away with its Gathers."""
    monkeypatch.setattr(removal, "order_channels", Rewritten)


def concat(first: list[float], second: list[float], reads: list[float], pad: int = 0) -> Network:
    """Two layers of constants (0.5 stands for a live channel), one behind the other."""
    size = 5 if pad else 3
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,{size},{size}] output) {{
            a = Conv(input, w, b)
            d = Conv(input, w2, b2)
            x = Concat<axis=1>(a, d)
            output = Conv<pads=[{pad},{pad},{pad},{pad}]>(x, v, c)
        }}
        """,
        {**first_layer(first, live=[k for k, b in enumerate(first) if b == 0.5]),
         **{f"{name}2": array for name, array in
            first_layer(second, live=[k for k, b in enumerate(second) if b == 0.5]).items()},
         "v": second_layer(*reads), "c": weights(2)},
    )  # fmt: skip


def test_every_part_of_a_concatenation_is_cut_by_itself() -> None:
    network = concat([0.5, 0.0, 0.5], [0.0, 0.5, 3.0], [1, 1, 0, 1, 1, 1])
    pruned = pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        d[1,1,5,5] = Conv(input, w2[1,1,1,1], b2[1])
        x[1,2,5,5] = Concat<axis=1>(a, d)
        output[1,2,3,3] = Conv(x, v[2,2,3,3], c[2])
        """,
    )
    np.testing.assert_array_equal(values(pruned)["v"], values(network)["v"][:, [0, 4]])


def test_a_part_of_which_nothing_stays_goes() -> None:
    pruned_to(
        concat([0.5, 0.0, 0.5], [0.0, 0.0], [1, 1, 1, 1, 1]),
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        x[1,2,5,5] = Concat<axis=1>(a)
        output[1,2,3,3] = Conv(x, v[2,2,3,3], c[2])
        """,
    )


def test_constants_merge_across_the_parts() -> None:
    network = concat([0.5, 1.0], [4.0, 0.5], [9, 1, 1, 9], pad=1)
    pruned = pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        d[1,2,5,5] = Conv(input, w2[2,1,1,1], b2[2])
        x[1,3,5,5] = Concat<axis=1>(a, d)
        output[1,2,5,5] = Conv<pads=1,1,1,1>(x, v[2,3,3,3], c[2])
        """,
    )
    before = values(network)["v"]
    np.testing.assert_allclose(
        values(pruned)["v"][:, 1], before[:, 2] + before[:, 1] / 4, rtol=1e-6
    )


def test_a_tensor_twice_is_cut_once_where_neither_copy_is_read() -> None:
    """Channel 1 is read in the second copy only, channel 2 in none."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            x = Concat<axis=1>(a, a)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5] * 3, live=[0, 1, 2]), "v": second_layer(1, 0, 0, 1, 1, 0, size=1),
         "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        x[1,4,5,5] = Concat<axis=1>(a, a)
        output[1,2,5,5] = Conv(x, v[2,4,1,1], c[2])
        """,
    )


def test_a_constant_part_is_channels_of_its_own() -> None:
    """Zeros, fives, and a ramp, which is no constant; of the ramps one is not read."""
    part = np.zeros((1, 4, 5, 5))
    part[:, 1] = 5.0
    part[:, 2:] = np.arange(25.0).reshape(5, 5)
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            x = Concat<axis=1>(a, k)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5, 0.0], live=[0]), "k": part,
         "v": second_layer(1, 1, 1, 1, 1, 0, size=1), "c": weights(2)},
        ["k"],
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        x[1,2,5,5] = Concat<axis=1>(a, k[1,1,5,5])
        output[1,2,5,5] = Conv(x, v[2,2,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(pruned.variance["k"], network.variance["k"][:, 2:3])
    told = values(network)["c"] + 5 * values(network)["v"][:, 3, 0, 0]
    np.testing.assert_allclose(values(pruned)["c"], told, rtol=1e-6)


def test_a_part_that_is_not_cut_keeps_its_place() -> None:
    """A signal of two channels, of which nothing is known channel by channel, behind a layer."""
    network = graph(
        """
        (float[1,2,5] input) => (float[1,2,5] output) {
            a = Conv(input, w, b)
            x = Concat<axis=1>(a, input)
            output = Conv(x, v, c)
        }
        """,
        {"w": weights(3, 2, 1) * np.array([1, 0, 1]).reshape(3, 1, 1), "b": np.zeros(3),
         "v": weights(2, 5, 1) * np.array([1, 1, 0, 0, 1]).reshape(5, 1), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,5] = Conv(input, w[1,2,1], b[1])
        x[1,3,5] = Concat<axis=1>(a, input)
        output[1,2,5] = Conv(x, v[2,3,1], c[2])
        """,
    )


def test_a_stack_along_another_axis_is_constant_where_all_of_it_is_alike() -> None:
    """Side by side: zero on zero goes, 2 on 2 folds, 2 on 3 is no constant."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,10] output) {
            a = Conv(input, w, b)
            d = Conv(input, w2, b2)
            x = Concat<axis=3>(a, d)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 2.0, 2.0], live=[0]), "w2": np.zeros((4, 1, 1, 1)),
         "b2": np.array([0.5, 0.0, 2.0, 3.0]), "v": second_layer(1, 1, 1, 1, size=1),
         "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        d[1,2,5,5] = Conv(input, w2[2,1,1,1], b2[2])
        x[1,2,5,10] = Concat<axis=3>(a, d)
        output[1,2,5,10] = Conv(x, v[2,2,1,1], c[2])
        """,
    )


def test_a_class_token_is_cut_with_the_tokens_it_stands_before() -> None:
    network = graph(
        """
        (float[1,3,4] input) => (float[1,4,2] output) {
            a = MatMul(input, w)
            x = Concat<axis=1>(token, a)
            output = MatMul(x, v)
        }
        """,
        {"w": weights(4, 3) * np.array([1, 0, 1]), "token": np.array([[[1.0, 0.0, 2.0]]]),
         "v": weights(3, 2)},
        ["token"],
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,3,2] = MatMul(input, w[4,2])
        x[1,4,2] = Concat<axis=1>(token[1,1,2], a)
        output[1,4,2] = MatMul(x, v[2,2])
        """,
    )
    assert values(pruned)["token"].tolist() == [[[1.0, 2.0]]]
    assert pruned.variance["token"].shape == (1, 1, 2)


def split(text: str, constants: dict[str, npt.ArrayLike]) -> Network:
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            {text}
        }}
        """,
        {**SIX, **constants, "c": weights(2), "f": weights(2)},
    )


TWO_HALVES = """
            p = Conv(x, v, c)
            q = Conv(y, u, f)
            output = Add(p, q)"""


@pytest.mark.parametrize(
    ("call", "sizes"),
    [("Split<axis=1>(a, sizes)", [2, 4]), ("Split<axis=1, num_outputs=2>(a)", [3, 3])],
)
def test_a_split_is_given_its_new_sizes(call: str, sizes: list[int]) -> None:
    """Channels 1 and 4 are zero: one is in each part."""
    network = split(
        f"x, y = {call}" + TWO_HALVES,
        {"sizes": np.array(sizes), "v": second_layer(*[1] * sizes[0], size=1),
         "u": second_layer(*[1] * sizes[1], size=1)},
    )  # fmt: skip
    left, right = (size - 1 for size in sizes)
    pruned = pruned_to(
        network,
        f"""
        a[1,4,5,5] = Conv(input, w[4,1,1,1], b[4])
        x[1,{left},5,5], y[1,{right},5,5] = Split<axis=1>(a, x.split[2])
        p[1,2,5,5] = Conv(x, v[2,{left},1,1], c[2])
        q[1,2,5,5] = Conv(y, u[2,{right},1,1], f[2])
        output[1,2,5,5] = Add(p, q)
        """,
    )
    assert values(pruned)["x.split"].tolist() == [left, right]


def test_a_split_of_which_one_part_goes_is_one_no_more() -> None:
    """Part y is not read with a weight: what is left is the whole of what stays."""
    network = split(
        "x, y = Split<axis=1, num_outputs=2>(a)" + TWO_HALVES,
        {"v": second_layer(1, 1, 1, size=1), "u": second_layer(0, 0, 0, size=1)},
    )
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 2
    assert "Split" not in written(pruned)


def test_a_split_along_another_axis_keeps_its_channels() -> None:
    network = graph(
        """
        (float[1,1,5,6] input) => (float[1,2,5,3] output) {
            a = Conv(input, w, b)
            x, y = Split<axis=3, num_outputs=2>(a)
            s = Add(x, y)
            output = Conv(s, v, c)
        }
        """,
        {**four_channels(), "v": reading_three(), "c": weights(2)},
    )
    pruned_to(
        network,
        """
        a[1,1,5,6] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,5,3], y[1,1,5,3] = Split<axis=3 num_outputs=2>(a)
        s[1,1,5,3] = Add(x, y)
        output[1,2,5,3] = Conv(s, v[2,1,1,1], c[2])
        """,
    )


SLICES = {
    "a run": ([1], [5], [1], [1], [1, 2, 3, 4]),
    "from the end": ([-4], [9999], [1], [1], [2, 3, 4, 5]),
    "every second": ([0], [6], [1], [2], [0, 2, 4]),
    "backwards": ([-1], [-(2**31)], [-3], [-1], [5, 4, 3, 2, 1, 0]),
}


@pytest.mark.parametrize(("start", "end", "axis", "step", "taken"), SLICES.values(), ids=SLICES)
def test_a_slice_of_channels_takes_those_that_stay(
    start: list[int], end: list[int], axis: list[int], step: list[int], taken: list[int]
) -> None:
    network = split(
        "x = Slice(a, start, end, axis, step)\n            output = Conv(x, v, c)",
        {"start": np.array(start), "end": np.array(end), "axis": np.array(axis),
         "step": np.array(step), "v": second_layer(*[1] * len(taken), size=1)},
    )  # fmt: skip
    pruned, report = removed(network)
    live = [k for k in taken if k not in {1, 4}]
    assert channels(pruned) == {"a": len(live), "x": len(live), "output": 2}
    assert report.borders == ()
    chosen = [taken.index(k) for k in live]
    np.testing.assert_array_equal(values(pruned)["v"], values(network)["v"][:, chosen])


def test_a_slice_of_several_axes_keeps_the_channels_that_it_leaves_whole() -> None:
    """As exporters write it: every axis is named; the channels' bounds are those of all."""
    network = graph(
        """
        (float[1,1,6,6] input) => (float[1,2,3,2] output) {
            a = Conv(input, w, b)
            x = Slice(a, start, end, axes, step)
            output = Conv(x, v, c)
        }
        """,
        {**four_channels(), "v": reading_three(), "c": weights(2), "start": np.array([0, 0, 0, 1]),
         "end": np.array([1, 9999, 6, 5]), "axes": np.array([0, 1, 2, 3]),
         "step": np.array([1, 1, 2, 2])},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,6,6] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,3,2] = Slice(a, start[4], end[4], axes[4], step[4])
        output[1,2,3,2] = Conv(x, v[2,1,1,1], c[2])
        """,
    )


def test_a_slice_of_the_channels_and_of_another_axis_is_a_border() -> None:
    network = graph(
        """
        (float[1,6,4] input) => (float[1,3,2] output) {
            a = MatMul(input, w)
            x = Slice(a, start, end, axes)
            output = MatMul(x, v)
        }
        """,
        {"w": weights(4, 4) * np.array([1, 0, 1, 1]), "v": weights(2, 2), "start": np.array([0, 0]),
         "end": np.array([2, 3]), "axes": np.array([2, 1])},
    )  # fmt: skip
    pruned, report = removed(network)
    assert values(pruned)["w"].shape == (4, 4)
    assert report.borders == ("x (Slice)",)


GATHERS = {
    "a permutation": [5, 0, 1, 2, 4, 3],
    "some": [5, 1, 0],
    "one twice": [0, 2, 2, 1],
    "from the end": [-1, -2, 0],
}


@pytest.mark.parametrize("index", GATHERS.values(), ids=GATHERS)
def test_a_gather_by_constants_takes_those_that_stay(index: list[int]) -> None:
    network = split(
        "x = Gather<axis=1>(a, index)\n            output = Conv(x, v, c)",
        {"index": np.array(index), "v": second_layer(*[1] * len(index), size=1)},
    )
    pruned, report = removed(network)
    live = [k for k, entry in enumerate(index) if entry % 6 not in {1, 4}]
    distinct = {index[k] % 6 for k in live}
    assert channels(pruned) == {"a": len(distinct), "x": len(live), "output": 2}
    np.testing.assert_array_equal(values(pruned)["v"], values(network)["v"][:, live])
    assert report.borders == ()


def test_a_gather_of_one_token_drops_its_axis_and_keeps_the_channels() -> None:
    network = graph(
        """
        (float[1,3,4] input) => (float[1,2] output) {
            a = MatMul(input, w)
            x = Gather<axis=1>(a, first)
            output = Gemm<transB=1>(x, v, c)
        }
        """,
        {"w": weights(4, 3) * np.array([1, 0, 1]), "first": np.array(0), "v": weights(2, 3),
         "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,3,2] = MatMul(input, w[4,2])
        x[1,2] = Gather<axis=1>(a, first[])
        output[1,2] = Gemm<transB=1>(x, v[2,2], c[2])
        """,
    )


def test_a_gather_of_one_channel_frees_the_others() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,3,5] output) {
            a = Conv(input, w, b)
            x = Gather<axis=1>(a, third)
            y = Unsqueeze(x, one)
            output = Conv(y, v, c)
        }
        """,
        {**first_layer([0.5] * 4, live=[0, 1, 2, 3]), "third": np.array(2), "one": np.array([1]),
         "v": weights(2, 1, 3, 1), "c": weights(2)},
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        x[1,5,5] = Gather<axis=1>(a, x.1[])
        y[1,1,5,5] = Unsqueeze(x, one[1])
        output[1,2,3,5] = Conv(y, v[2,1,3,1], c[2])
        """,
    )
    assert values(pruned)["x.1"] == 0


def test_a_channel_shuffle_takes_groups_that_keep_unequally_many() -> None:
    """Channels 1 and 4 of two groups of three go, then 2 of the first: no group is filled up."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            rows = Reshape(a, split)
            turned = Transpose<perm=[0,2,1,3,4]>(rows)
            x = Reshape(turned, joined)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.0, 0.5, 0.0, 0.5], live=[0, 3, 5]),
         "split": np.array([1, 2, 3, 5, 5]), "joined": np.array([1, 6, 5, 5]),
         "v": second_layer(1, 1, 1, 1, 1, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    shuffled = apply_pass("canonicalize", canonicalize, network)
    assert written(shuffled) == expected(
        """
        a[1,6,5,5] = Conv(input, w[6,1,1,1], b[6])
        x[1,6,5,5] = Gather<axis=1>(a, x.order[6])
        output[1,2,5,5] = Conv(x, v[2,6,1,1], c[2])
        """
    )
    assert_same_function(network, shuffled)
    assert values(shuffled)["x.order"].tolist() == [0, 3, 1, 4, 2, 5]
    pruned = pruned_to(
        shuffled,
        """
        a[1,3,5,5] = Conv(input, w[3,1,1,1], b[3])
        x[1,3,5,5] = Gather<axis=1>(a, x.1[3])
        output[1,2,5,5] = Conv(x, v[2,3,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(values(pruned)["v"], values(network)["v"][:, [0, 1, 5]])


def padded(call: str, shape: str, **constants: npt.ArrayLike) -> Network:
    count = int(shape.split(",")[1])
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,{shape.split(",", 2)[2]}] output) {{
            a = Conv(input, w, b)
            x = {call}
            output = Conv(x, v, c)
        }}
        """,
        {**four_channels(), **constants, "v": second_layer(*[1] * count, size=1), "c": weights(2)},
    )


def test_channels_that_a_pad_adds_are_constant_and_go() -> None:
    """As the identity shortcut of a residual network that gets wider."""
    network = padded("Pad(a, widths)", "1,7,5,5", widths=np.array([0, 1, 0, 0, 0, 2, 0, 0]))
    pruned = pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        x[1,2,5,5] = Pad(a, x.1[8])
        output[1,2,5,5] = Conv(x, v[2,2,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(values(pruned)["v"], values(network)["v"][:, [1, 4]])


def test_channels_that_a_pad_adds_stay_where_a_sum_needs_their_place() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            x = Pad(a, widths, , axis)
            d = Conv(input, w2, b2)
            s = Add(x, d)
            output = Conv(s, v, c)
        }
        """,
        {**first_layer([0.5, 0.0], live=[0]), "widths": np.array([0, 3]), "axis": np.array([1]),
         "w2": np.array([1.0, 0, 0, 1, 1]).reshape(5, 1, 1, 1), "b2": np.zeros(5),
         "v": second_layer(1, 1, 1, 1, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        x[1,3,5,5] = Pad(a, x.1[2], -, axis[1])
        d[1,3,5,5] = Conv(input, w2[3,1,1,1], b2[3])
        s[1,3,5,5] = Add(x, d)
        output[1,2,5,5] = Conv(s, v[2,3,1,1], c[2])
        """,
    )
    assert values(pruned)["x.1"].tolist() == [0, 2]


FRAMES = {
    "zeros keep a zero alone": ("Pad(a, widths)", 2),
    "twos keep a two alone": ("Pad(a, widths, two)", 3),
    "repeated pixels keep every constant": ('Pad<mode="edge">(a, widths)', 2),
    "reflected pixels keep every constant": ('Pad<mode="reflect">(a, widths)', 2),
}
"""How many stay of live, zero, constant 2, live."""


@pytest.mark.parametrize(("call", "left"), FRAMES.values(), ids=FRAMES)
def test_a_frame_keeps_a_constant_that_equals_it(call: str, left: int) -> None:
    network = padded(call, "1,4,7,7", widths=np.array([0, 0, 1, 1, 0, 0, 1, 1]), two=2.0)
    pruned, report = removed(network)
    assert channels(pruned)["a"] == left + (call == "Pad(a, widths)")
    assert report.borders == ()


def test_tokens_are_padded_and_their_channels_go_all_the_same() -> None:
    network = graph(
        """
        (float[1,3,4] input) => (float[1,5,2] output) {
            a = MatMul(input, w)
            x = Pad(a, widths)
            output = MatMul(x, v)
        }
        """,
        {"w": weights(4, 3) * np.array([1, 0, 1]), "widths": np.array([0, 0, 0, 0, 2, 0]),
         "v": weights(3, 2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,3,2] = MatMul(input, w[4,2])
        x[1,5,2] = Pad(a, widths[6])
        output[1,5,2] = MatMul(x, v[2,2])
        """,
    )


def test_a_pad_along_channels_in_the_last_axis_is_a_border() -> None:
    network = graph(
        """
        (float[1,3,4] input) => (float[1,3,2] output) {
            a = MatMul(input, w)
            x = Pad(a, widths)
            output = MatMul(x, v)
        }
        """,
        {"w": weights(4, 3) * np.array([1, 0, 1]), "widths": np.array([0, 0, 0, 0, 0, 1]),
         "v": weights(4, 2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert values(pruned)["w"].shape == (4, 3)
    assert report.borders == ("x (Pad)",)


def test_a_pad_that_takes_away_is_a_border() -> None:
    network = padded("Pad(a, widths)", "1,4,3,3", widths=np.array([0, 0, -1, -1, 0, 0, -1, -1]))
    _, report = removed(network)
    assert report.borders == ("x (Pad)",)
