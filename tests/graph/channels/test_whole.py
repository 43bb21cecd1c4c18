"""Operators that compute across an axis: what is cut along it counts as a whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from deploykit.spec.network import Network
from deploykit.spec.removal import Reason, RemovedChannel
from tests.graph.removing import channels, four_channels, pruned_to, reading_three, removed
from tests.graph.text import graph, values, weights


def tokens(call: str, live: list[int], **constants: npt.ArrayLike) -> Network:
    """Five tokens of four channels, `call`, and a linear that reads channels 0 and 1 of them."""
    weight = np.zeros((3, 4), np.float32)
    weight[:, live] = weights(3, 4)[:, live]
    return graph(
        f"""
        (float[1,5,3] input) => (float[1,5,2] output) {{
            a = MatMul(input, w)
            x = {call}
            output = MatMul(x, v)
        }}
        """,
        {"w": weight, **constants, "v": weights(4, 2) * np.array([[1], [1], [0], [0]])},
        ["s"] if "s" in constants else [],
        opset=23,
    )


ACROSS = {
    "LayerNormalization(a, s)": {"s": np.ones(4)},
    "LayerNormalization(a, s, t)": {"s": np.ones(4), "t": np.ones(4)},
    "RMSNormalization(a, s)": {"s": np.ones(4)},
    "Softmax(a)": {},
    "LogSoftmax<axis=2>(a)": {},
    "LpNormalization(a)": {},
}


@pytest.mark.parametrize(("call", "constants"), ACROSS.items())
def test_zeros_and_unread_channels_count_where_the_row_is_read(
    call: str, constants: dict[str, npt.ArrayLike]
) -> None:
    """Channel 1 is zero and part of every mean and sum; 2 and 3 are not read behind."""
    if call.startswith("LpNorm"):
        constants = {}
    network = tokens(call, [0, 2, 3], **constants)
    pruned, report = removed(network)
    assert values(pruned)["w"].shape == (3, 4)
    assert report.borders == ()


@pytest.mark.parametrize(("call", "constants"), ACROSS.items())
def test_the_row_goes_as_a_whole_where_nobody_reads_it(
    call: str, constants: dict[str, npt.ArrayLike]
) -> None:
    network = tokens(call, [0, 1, 2, 3], **constants)
    held = values(network)
    unread = graph(
        f"""
        (float[1,5,3] input) => (float[1,5,2] output) {{
            a = MatMul(input, w)
            x = {call}
            y = MatMul(x, v)
            z = MatMul(input, u)
            output = Add(y, z)
        }}
        """,
        {**held, "v": np.zeros((4, 2)), "u": weights(3, 2)},
        opset=23,
    )
    pruned, _ = removed(unread)
    assert [node.op_type for node in pruned.model.graph] == ["MatMul"]


ALONG_TOKENS = {
    "Softmax<axis=1>(a)": 0.2,
    "LogSoftmax<axis=1>(a)": float(np.log(0.2)),
}


@pytest.mark.parametrize(("call", "told"), ALONG_TOKENS.items())
def test_along_another_axis_a_constant_is_an_equal_share(call: str, told: float) -> None:
    """Five tokens share: the zero channel becomes 1/5, which is no zero."""
    network = graph(
        f"""
        (float[1,5,3] input) => (float[1,5,2] output) {{
            a = MatMul(input, w)
            x = {call}
            y = MatMul(x, v)
            output = Add(y, c)
        }}
        """,
        {"w": weights(3, 3) * np.array([1, 0, 1]), "v": weights(3, 2) * np.array([[1], [1], [0]]),
         "c": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert values(pruned)["w"].shape == (3, 1)
    shared, unread = report.tensors[0].removed
    assert (shared.channel, shared.reason) == (1, Reason.FOLDED)
    assert shared.constant == pytest.approx(told)
    assert unread == RemovedChannel(2, Reason.UNREAD)


def test_a_norm_over_tokens_cuts_its_channels_and_nothing_of_its_parameters() -> None:
    network = graph(
        """
        (float[1,3,5] input) => (float[1,2,5] output) {
            a = Conv(input, w, b)
            x = LayerNormalization(a, s, t)
            output = Conv(x, v, c)
        }
        """,
        {"w": weights(4, 3, 1), "b": weights(4), "s": weights(5), "t": weights(5),
         "v": reading_three().reshape(2, 4, 1), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,3,5] = Conv(input, w[3,3,1], b[3])
        x[1,3,5] = LayerNormalization(a, s[5], t[5])
        output[1,2,5] = Conv(x, v[2,3,1], c[2])
        """,
    )


def reduced(call: str, keepdims: int) -> Network:
    tail = "x" if keepdims else "y"
    back = "" if keepdims else "y = Unsqueeze(x, back)"
    return graph(
        f"""
        (float[1,1,4,4] input) => (float[1,2,1,1] output) {{
            a = Conv(input, w, b)
            x = {call}
            {back}
            output = Conv({tail}, v, c)
        }}
        """,
        {**four_channels(), "axes": np.array([2, -1]), "back": np.array([2, 3]),
         "v": reading_three(), "c": weights(2)},
    )  # fmt: skip


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    ("operator", "left"),
    [("ReduceMean", 1), ("ReduceMax", 1), ("ReduceMin", 1), ("ReduceSum", 2), ("ReduceL2", 2)],
)
def test_reduced_maps_keep_their_channels_apart(operator: str, left: int, keepdims: int) -> None:
    """Mean, maximum and minimum of twos are two; their sum is followed for zeros only."""
    network = reduced(f"{operator}<keepdims={keepdims}>(a, axes)", keepdims)
    ones = ",1,1" if keepdims else ""
    rest = "" if keepdims else f"\ny[1,{left},1,1] = Unsqueeze(x, back[2])"
    pruned_to(
        network,
        f"a[1,{left},4,4] = Conv(input, w[{left},1,1,1], b[{left}])\n"
        f"x[1,{left}{ones}] = {operator}<keepdims={keepdims}>(a, axes[2]){rest}\n"
        f"output[1,2,1,1] = Conv({'x' if keepdims else 'y'}, v[2,{left},1,1], c[2])",
    )


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax"])
def test_a_reduction_over_channels_needs_them_all_and_makes_a_new_one(operator: str) -> None:
    """A spatial gate as in CBAM: the zero channel is part of the mean and of the maximum."""
    network = graph(
        f"""
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {{
            a = Conv(input, w, b)
            m = {operator}(a, axis)
            g = Conv<pads=[1,1,1,1]>(m, k, l)
            gate = Sigmoid(g)
            x = Mul(a, gate)
            output = Conv(x, v, c)
        }}
        """,
        {**four_channels(), "axis": np.array([1]), "k": weights(1, 1, 3, 3), "l": weights(1),
         "v": reading_three(), "c": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 4
    assert report.borders == ()


def test_a_reduction_over_channels_that_is_not_read_needs_none_of_them() -> None:
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, w, b)
            m = ReduceMean(a, axis)
            x = Concat<axis=1>(a, m)
            output = Conv(x, v, c)
        }
        """,
        {**four_channels(), "axis": np.array([1]), "c": weights(2),
         "v": np.concatenate([reading_three(), np.zeros((2, 1, 1, 1), np.float32)], axis=1)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,4,4] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,4,4] = Concat<axis=1>(a)
        output[1,2,4,4] = Conv(x, v[2,1,1,1], c[2])
        """,
    )


def test_a_reduction_over_no_axes_is_a_border() -> None:
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, w, b)
            x = ReduceMean<noop_with_empty_axes=1>(a)
            output = Conv(x, v, c)
        }
        """,
        {**four_channels(), "v": reading_three(), "c": weights(2)},
    )
    assert removed(network)[1].borders == ("x (ReduceMean)",)


def test_the_mean_of_everything_has_no_axes() -> None:
    """A number added to every channel, which needs all of the tensor it is the mean of."""
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, w, b)
            m = ReduceMean<keepdims=0>(a)
            d = Conv(input, w2, b2)
            s = Add(d, m)
            output = Conv(s, v, c)
        }
        """,
        {**four_channels(), "w2": weights(4, 1, 1, 1), "b2": weights(4), "v": reading_three(),
         "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,4,4,4] = Conv(input, w[4,1,1,1], b[4])
        m[] = ReduceMean<keepdims=0>(a)
        d[1,3,4,4] = Conv(input, w2[3,1,1,1], b2[3])
        s[1,3,4,4] = Add(d, m)
        output[1,2,4,4] = Conv(s, v[2,3,1,1], c[2])
        """,
    )


def test_a_number_that_nobody_reads_goes_with_what_it_is_the_mean_of() -> None:
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, w, b)
            m = ReduceMean<keepdims=0>(a)
            s = Mul(m, zero)
            d = Conv(input, w2, b2)
            t = Add(d, s)
            output = Conv(t, v, c)
        }
        """,
        {**four_channels(), "zero": 0.0, "w2": weights(4, 1, 1, 1), "b2": weights(4),
         "v": reading_three(), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        d[1,3,4,4] = Conv(input, w2[3,1,1,1], b2[3])
        output[1,2,4,4] = Conv(d, v[2,3,1,1], c[2])
        """,
    )
