"""Views of the same elements: rows that go whole, and rows that keep equally many."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from deploykit.graph.channels.reshaping import axis_groups
from deploykit.spec.network import Network
from tests.graph.removing import (
    channels,
    first_layer,
    four_channels,
    pruned_to,
    removed,
    second_layer,
)
from tests.graph.text import graph, values, weights

GROUPS = {
    ((1, 6, 4), (1, 2, 3, 4)): [([0], [0]), ([1], [1, 2]), ([2], [3])],
    ((1, 6, 4), (1, 24)): [([0], [0]), ([1, 2], [1])],
    ((1, 24), (1, 6, 4)): [([0], [0]), ([1], [1, 2])],
    ((4, 6), (6, 4)): [([0, 1], [0, 1])],
    ((2, 3, 5), (6, 5)): [([0, 1], [0]), ([2], [1])],
    ((1, 8, 1, 1), (1, 8)): [([0], [0]), ([1, 2, 3], [1])],
    ((8,), (1, 8, 1)): [([0], [0, 1, 2])],
    ((), (1,)): [([], [0])],
    ((1,), ()): [([0], [])],
}


@pytest.mark.parametrize(("shapes", "groups"), GROUPS.items())
def test_axes_of_equal_product_belong_together(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    groups: list[tuple[list[int], list[int]]],
) -> None:
    assert axis_groups(*shapes) == groups


def to_linear(call: str, entries: int = 36, **constants: npt.ArrayLike) -> Network:
    """Channels live, zero, constant 2, live but unread; `call` makes [1, 36] of them."""
    kernel = weights(2, entries).reshape(2, 4, -1).copy()
    kernel[:, 3] = 0.0
    return graph(
        f"""
        (float[1,1,3,3] input) => (float[1,2] output) {{
            a = Conv(input, w, b)
            x = {call}
            output = Gemm<transB=1>(x, v, c)
        }}
        """,
        {**four_channels(), **constants, "v": kernel.reshape(2, -1), "c": weights(2)},
    )


FLATTENED = {
    "flatten": ("Flatten(a)", "Flatten(a)"),
    "a reshape by sizes": ("Reshape(a, sizes)", "Reshape(a, sizes.cut[2])"),
    "a reshape by the rest": ("Reshape(a, rest)", "Reshape(a, rest[2])"),
}


@pytest.mark.parametrize(("call", "shown"), FLATTENED.values(), ids=FLATTENED)
def test_a_channel_is_all_of_its_positions_in_a_row(call: str, shown: str) -> None:
    network = to_linear(call, sizes=np.array([1, 36]), rest=np.array([0, -1]))
    pruned = pruned_to(
        network,
        f"""
        a[1,1,3,3] = Conv(input, w[1,1,1,1], b[1])
        x[1,9] = {shown}
        output[1,2] = Gemm<transB=1>(x, v[2,9], c[2])
        """,
    )
    before = values(network)
    np.testing.assert_array_equal(values(pruned)["v"], before["v"][:, :9])
    told = before["c"] + 2 * before["v"][:, 18:27].sum(axis=1)
    np.testing.assert_allclose(values(pruned)["c"], told, rtol=1e-5)


def test_one_position_that_is_read_keeps_its_channel() -> None:
    network = to_linear("Flatten(a)")
    kernel = values(network)["v"].copy()
    kernel[0, 30] = 1.0
    network = graph(
        """
        (float[1,1,3,3] input) => (float[1,2] output) {
            a = Conv(input, w, b)
            x = Flatten(a)
            output = Gemm<transB=1>(x, v, c)
        }
        """,
        {**four_channels(), "v": kernel, "c": weights(2)},
    )
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": 2, "x": 18, "output": 2}


@pytest.mark.parametrize(("axis", "left"), [(0, "1,9"), (2, "1,9"), (3, "3,3")])
def test_channels_may_lie_along_the_first_axis_on_the_way(axis: int, left: str) -> None:
    network = graph(
        f"""
        (float[1,1,3,3] input) => (float[1,2] output) {{
            a = Conv(input, w, b)
            rows = Flatten<axis={axis}>(a)
            x = Reshape(rows, row)
            output = Gemm<transB=1>(x, v, c)
        }}
        """,
        {**values(to_linear("Flatten(a)")), "row": np.array([1, -1])},
    )
    pruned_to(
        network,
        f"""
        a[1,1,3,3] = Conv(input, w[1,1,1,1], b[1])
        rows[{left}] = Flatten<axis={axis}>(a)
        x[1,9] = Reshape(rows, row[2])
        output[1,2] = Gemm<transB=1>(x, v[2,9], c[2])
        """,
    )


VIEWS = {
    "squeeze": ("Squeeze(p, two)", "1,4,1", "Squeeze(p, two[1])", "1,1,1"),
    "squeeze from the end": ("Squeeze(p, last)", "1,4", "Squeeze(p, last[2])", "1,1"),
    "reshape": ("Reshape(p, sizes)", "1,4,1", "Reshape(p, sizes.cut[3])", "1,1,1"),
    "reshape by zeros": ("Reshape(p, zeros)", "1,4,1", "Reshape(p, zeros[3])", "1,1,1"),
    "unsqueeze": ("Unsqueeze(p, two)", "1,4,1,1,1", "Unsqueeze(p, two[1])", "1,1,1,1,1"),
}


@pytest.mark.parametrize(("call", "size", "shown", "left"), VIEWS.values(), ids=VIEWS)
def test_axes_of_one_come_and_go(call: str, size: str, shown: str, left: str) -> None:
    axes = size.count(",") - 1
    kernel = weights(2, 4, *(1,) * axes)
    kernel[:, 3] = 0.0
    layer = "Conv(x, v, c)" if axes else "Gemm<transB=1>(x, v, c)"
    ones = ",1" * axes
    network = graph(
        f"""
        (float[1,1,3,3] input) => (float[1,2{ones}] output) {{
            a = Conv(input, w, b)
            p = GlobalAveragePool(a)
            x = {call}
            output = {layer}
        }}
        """,
        {**four_channels(), "two": np.array([2]), "last": np.array([-1, -2]),
         "sizes": np.array([1, 4, 1]), "zeros": np.array([0, -1, 1]), "v": kernel, "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        f"""
        a[1,1,3,3] = Conv(input, w[1,1,1,1], b[1])
        p[1,1,1,1] = GlobalAveragePool(a)
        x[{left}] = {shown}
        output[1,2{ones}] = {layer.replace("v, c", f"v[2,1{ones}], c[2]")}
        """,
    )


def test_channels_go_through_a_transpose_to_the_last_axis_and_back() -> None:
    network = graph(
        """
        (float[1,1,3,3] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            last = Transpose<perm=[0,2,3,1]>(a)
            m = MatMul(last, k)
            s = Add(m, l)
            x = Transpose<perm=[0,3,1,2]>(s)
            output = Conv(x, v, c)
        }
        """,
        {**four_channels(), "k": weights(4, 3) * np.array([[1], [1], [1], [0]]), "l": weights(3),
         "v": second_layer(1, 0, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,3,3] = Conv(input, w[1,1,1,1], b[1])
        last[1,3,3,1] = Transpose<perm=0,2,3,1>(a)
        m[1,3,3,2] = MatMul(last, k[1,2])
        s[1,3,3,2] = Add(m, l[2])
        x[1,2,3,3] = Transpose<perm=0,3,1,2>(s)
        output[1,2,3,3] = Conv(x, v[2,2,1,1], c[2])
        """,
    )


def test_a_map_as_tokens_keeps_its_channels_apart() -> None:
    """[1, C, H, W] -> [1, C, H*W] -> [1, H*W, C], as a vision transformer begins."""
    network = graph(
        """
        (float[1,1,3,3] input) => (float[1,9,2] output) {
            a = Conv(input, w, b)
            flat = Reshape(a, to)
            x = Transpose<perm=[0,2,1]>(flat)
            m = MatMul(x, v)
            output = Add(m, c)
        }
        """,
        {**four_channels(), "to": np.array([0, 4, -1]),
         "v": weights(4, 2) * np.array([[1], [1], [1], [0]]), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,3,3] = Conv(input, w[1,1,1,1], b[1])
        flat[1,1,9] = Reshape(a, to.cut[3])
        x[1,9,1] = Transpose<perm=0,2,1>(flat)
        m[1,9,2] = MatMul(x, v[1,2])
        output[1,9,2] = Add(m, c[2])
        """,
    )


def rows_of(live: list[int], rows: int, width: int) -> Network:
    """A linear whose result is seen as [1, rows, width], its rows summed up, and read."""
    count = rows * width
    weight = np.zeros((count, 4), np.float32)
    weight[live] = weights(count, 4)[live]
    return graph(
        """
        (float[1,4] input) => (float[1,2] output) {
            a = Gemm<transB=1>(input, w, b)
            x = Reshape(a, to)
            y = Reshape(x, back)
            output = Gemm<transB=1>(y, v, c)
        }
        """,
        {"w": weight, "b": np.zeros(count), "to": np.array([1, rows, width]),
         "back": np.array([1, count]), "v": weights(2, count), "c": weights(2)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("live", "left"),
    [
        ([0, 1, 2, 6, 7, 8], (2, 3)),
        ([0, 2, 4, 5, 6, 8], (3, 2)),
        ([0, 1, 2, 4], (2, 3)),
        ([7], (1, 1)),
        ([0, 1, 2, 3], (2, 3)),
    ],
    ids=["a row goes", "two of each", "a short row is filled up", "one is left", "uneven"],
)
def test_rows_go_whole_and_the_others_keep_equally_many(
    live: list[int], left: tuple[int, int]
) -> None:
    """Of three rows of three."""
    rows, width = left
    pruned_to(
        rows_of(live, 3, 3),
        f"""
        a[1,{rows * width}] = Gemm<transB=1>(input, w[{rows * width},4], b[{rows * width}])
        x[1,{rows},{width}] = Reshape(a, to{".cut" if (rows, width) != (3, 3) else ""}[3])
        y[1,{rows * width}] = Reshape(x, back.cut[2])
        output[1,2] = Gemm<transB=1>(y, v[2,{rows * width}], c[2])
        """,
    )


def test_a_reshape_to_a_size_that_is_computed_is_a_border() -> None:
    network = graph(
        """
        (float[1,1,3,3] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            s = Shape(input)
            sizes = Mul(s, k)
            x = Reshape(a, sizes)
            output = Conv(x, v, c)
        }
        """,
        {**four_channels(), "k": np.array([1, 4, 1, 1]), "v": second_layer(1, 1, 1, 0, size=1),
         "c": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 4
    assert "x (Reshape)" in report.borders


def test_a_transpose_that_exchanges_channels_and_tokens_twice_is_none() -> None:
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, w, b)
            t = Transpose<perm=[0,2,1,3]>(a)
            u = Transpose<perm=[0,2,1,3]>(t)
            output = Conv(u, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5], live=[0, 2]), "v": second_layer(1, 1, 0, size=1),
         "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,4,4] = Conv(input, w[1,1,1,1], b[1])
        t[1,4,1,4] = Transpose<perm=0,2,1,3>(a)
        u[1,1,4,4] = Transpose<perm=0,2,1,3>(t)
        output[1,2,4,4] = Conv(u, v[2,1,1,1], c[2])
        """,
    )
