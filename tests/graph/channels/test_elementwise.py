"""Activations and arithmetic with a constant: which number a constant becomes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate
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

UNARY = {
    "Abs(a)": (2.0, 2.0, 0.0),
    "Cast<to=1>(a)": (-2.0, 2.0, 0.0),
    "Celu<alpha=0.5>(a)": (-0.49084218055563, 2.0, 0.0),
    "Clip(a)": (-2.0, 2.0, 0.0),
    "Clip(a, half)": (0.5, 2.0, 0.5),
    "Clip(a, , half)": (-2.0, 0.5, 0.0),
    "Elu<alpha=3.0>(a)": (-2.594, 2.0, 0.0),
    "Erf(a)": (-0.99532, 0.99532, 0.0),
    "Exp(a)": (0.13534, 7.38906, 1.0),
    "Gelu(a)": (-0.04550, 1.95450, 0.0),
    'Gelu<approximate="tanh">(a)': (-0.04540, 1.95460, 0.0),
    "HardSigmoid(a)": (0.1, 0.9, 0.5),
    "HardSigmoid<alpha=0.1, beta=0.25>(a)": (0.05, 0.45, 0.25),
    "HardSwish(a)": (-1 / 3, 5 / 3, 0.0),
    "LeakyRelu(a)": (-0.02, 2.0, 0.0),
    "LeakyRelu<alpha=0.5>(a)": (-1.0, 2.0, 0.0),
    "Mish(a)": (-0.25250, 1.94396, 0.0),
    "Neg(a)": (2.0, -2.0, 0.0),
    "Relu(a)": (0.0, 2.0, 0.0),
    "Sigmoid(a)": (0.11920, 0.88080, 0.5),
    "Softplus(a)": (0.12693, 2.12693, 0.69315),
    "Softsign(a)": (-2 / 3, 2 / 3, 0.0),
    "Tanh(a)": (-0.96403, 0.96403, 0.0),
}
"""By call, what -2, 2 and 0 become."""


@pytest.mark.parametrize(("call", "told"), UNARY.items())
def test_a_constant_goes_through_an_activation(call: str, told: tuple[float, float, float]) -> None:
    network = graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,3,3] output) {{
            a = Conv(input, w, b)
            x = {call}
            output = Conv(x, v, c)
        }}
        """,
        {**gentle(first_layer([0.5, -2.0, 2.0, 0.0, 0.5], live=[0, 4])), "half": 0.5,
         "v": second_layer(1, 1, 1, 1, 0), "c": weights(2)},
        opset=22,
    )  # fmt: skip
    pruned = pruned_to(
        network,
        f"""
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        {shown(call)}
        output[1,2,3,3] = Conv(x, v[2,1,3,3], c[2])
        """,
    )
    _, report = removed(network)
    *constants, unread = report.tensors[0].removed
    assert [gone.constant for gone in constants] == pytest.approx(list(told), abs=1e-5)
    reasons = [Reason.FOLDED if number else Reason.ZERO for number in told]
    assert [gone.reason for gone in constants] == reasons
    assert unread == RemovedChannel(4, Reason.UNREAD)
    sums = values(network)["v"][:, 1:4].sum(axis=(2, 3))
    np.testing.assert_allclose(
        values(pruned)["c"], values(network)["c"] + sums @ np.array(told), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_bound_is_a_single_number_of_any_rank(shape: tuple[int, ...]) -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            x = Clip(a, low, high)
            output = Conv(x, v, c)
        }
        """,
        {**gentle(first_layer([0.5, -2.0, 2.0, 0.0, 0.5], live=[0, 4])),
         "low": np.full(shape, -1.0), "high": np.full(shape, 0.5),
         "v": second_layer(1, 1, 1, 1, 0), "c": weights(2)},
        opset=22,
    )  # fmt: skip
    _, report = removed(network)
    *constants, _ = report.tensors[0].removed
    assert [gone.constant for gone in constants] == [-1.0, 0.5, 0.0]


def shown(call: str) -> str:
    """As `written` prints it."""
    text = call.replace(", ,", ", -,").replace("half", "half[]").replace('"', "")
    return "x[1,1,5,5] = " + text.replace(", beta", " beta").replace(
        "=0.1 ", "=0.10000000149011612 "
    )


def through(call: str, size: int = 5, **constants: npt.ArrayLike) -> Network:
    """Channels live, zero, constant 2, live but unread; then `call`; then a 1 x 1 layer."""
    return graph(
        f"""
        (float[1,1,{size},{size}] input) => (float[1,2,{size},{size}] output) {{
            a = Conv(input, w, b)
            x = {call}
            output = Conv(x, v, c)
        }}
        """,
        {**gentle(four_channels()), **constants, "v": reading_three(), "c": weights(2)},
    )


def gentle(layer: Mapping[str, npt.ArrayLike]) -> dict[str, npt.ArrayLike]:
    """A first layer that no exponential of it overflows, whatever comes in."""
    return {"w": np.asarray(layer["w"]) * 0.1, "b": layer["b"]}


COLUMN = np.array([2.0, 5.0, 3.0, 4.0]).reshape(4, 1, 1)
BINARY = {
    "Add(a, k)": (5.0, 5.0),
    "Add(k, a)": (5.0, 5.0),
    "Sub(a, k)": (-5.0, -1.0),
    "Sub(k, a)": (5.0, 1.0),
    "Mul(a, k)": (0.0, 6.0),
    "Div(a, k)": (0.0, 2 / 3),
    "Max(a, k)": (5.0, 3.0),
    "Min(k, a)": (0.0, 2.0),
    "Pow(a, k)": (0.0, 8.0),
    "Pow(k, a)": (1.0, 9.0),
    "PRelu(a, k)": (0.0, 2.0),
}
"""By call with k = 2, 5, 3, 4, what channels 1 and 2, constants 0 and 2, become."""


@pytest.mark.parametrize("full", [False, True], ids=["C,1,1", "1,C,1,1"])
@pytest.mark.parametrize(("call", "told"), BINARY.items())
def test_a_constant_per_channel_changes_constants_and_is_cut(
    call: str, told: tuple[float, float], full: bool
) -> None:
    network = through(call, k=COLUMN[None] if full else COLUMN)
    shape = "1,1,1,1" if full else "1,1,1"
    pruned = pruned_to(
        network,
        f"""
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,5,5] = {call.replace("k", f"k[{shape}]")}
        output[1,2,5,5] = Conv(x, v[2,1,1,1], c[2])
        """,
    )
    assert values(pruned)["k"].reshape(-1).tolist() == [2.0]
    _, report = removed(network)
    assert [gone.constant for gone in report.tensors[0].removed] == pytest.approx([*told, None])


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (1, 1, 1, 1)])
def test_a_constant_for_all_channels_stays(shape: tuple[int, ...]) -> None:
    pruned = pruned_to(
        through("Add(a, k)", k=np.full(shape, 3.0)),
        f"""
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,5,5] = Add(a, k[{",".join(map(str, shape))}])
        output[1,2,5,5] = Conv(x, v[2,1,1,1], c[2])
        """,
    )
    assert values(pruned)["k"] == 3.0


def test_a_constant_map_leaves_only_a_zero_that_it_multiplies() -> None:
    maps = np.arange(1.0, 26.0).reshape(5, 5)
    pruned_to(
        through("Mul(a, k)", k=maps),
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        x[1,2,5,5] = Mul(a, k[5,5])
        output[1,2,5,5] = Conv(x, v[2,2,1,1], c[2])
        """,
    )
    pruned = pruned_to(
        through("Add(a, k)", k=np.stack([maps, maps, maps, maps])),
        """
        a[1,3,5,5] = Conv(input, w[3,1,1,1], b[3])
        x[1,3,5,5] = Add(a, k[3,5,5])
        output[1,2,5,5] = Conv(x, v[2,3,1,1], c[2])
        """,
    )
    assert values(pruned)["k"].shape == (3, 5, 5)


def test_a_zero_factor_makes_a_channel_constant_whatever_comes_in() -> None:
    pruned_to(
        through("Mul(a, k)", k=np.array([0.0, 1.0, 1.0, 1.0]).reshape(4, 1, 1)),
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,5,5] = Mul(a, k[1,1,1])
        output[1,2,5,5] = Conv(x, v[2,1,1,1], c[2])
        """,
    )


def test_the_same_operand_twice_is_each_cut_once() -> None:
    """Not canonical: an operand that two nodes read is nobody's to cut."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            x = Mul(a, k)
            y = Mul(x, k)
            output = Conv(y, v, c)
        }
        """,
        {**four_channels(), "k": COLUMN, "v": reading_three(), "c": weights(2)},
    )
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 4
    assert report.borders == ("x (Mul)", "y (Mul)")


def test_an_operand_that_lengthens_a_tensor_is_not_cut_by_it() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,3,5,5] output) {
            a = Conv(input, w, b)
            output = Add(a, k)
        }
        """,
        {"w": weights(1, 1, 1, 1), "b": weights(1), "k": weights(3, 1, 1)},
    )
    pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        output[1,3,5,5] = Add(a, k[3,1,1])
        """,
    )


def test_a_batch_norm_is_cut_and_its_zero_scale_leaves_the_offset() -> None:
    """Channel 2 varies before the norm, and is 7 behind it."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            x = BatchNormalization(a, g, t, m, s)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5, 0.5], live=[0, 2, 3]), "g": np.array([1.0, 1.0, 0.0, 1.0]),
         "t": np.array([0.0, 3.0, 7.0, 0.0]), "m": np.array([0.0, 0.0, 9.0, 0.0]), "s": np.ones(4),
         "v": reading_three(), "c": weights(2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,5,5] = BatchNormalization(a, g[1], t[1], m[1], s[1])
        output[1,2,5,5] = Conv(x, v[2,1,1,1], c[2])
        """,
    )
    _, report = removed(network)
    assert [gone.constant for gone in report.tensors[0].removed] == [3.0, 7.0, None]


@pytest.mark.parametrize("to", [6, 7, 9])
def test_a_cast_to_what_is_no_float_is_a_border(to: int) -> None:
    """2.7 would become 2."""
    network = graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            i = Cast<to={to}>(a)
            x = Cast<to=1>(i)
            output = Conv(x, v, c)
        }}
        """,
        {**first_layer([0.5, 2.7], live=[0]), "v": second_layer(1, 1, size=1), "c": weights(2)},
    )
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 2
    assert report.borders == ("i (Cast)",)


DIVIDED = {
    "a zero that is divided by": "x = Div(one, q)",
    "a zero that becomes what is divided by": (
        "y = Sub(q, eighth)\nz = Add(y, again)\nx = Div(one, z)"
    ),
    "a root of what a zero becomes": "y = Sub(q, eighth)\nx = Sqrt(y)",
}


@pytest.mark.parametrize("lines", DIVIDED.values(), ids=DIVIDED)
def test_a_channel_that_stays_for_its_group_alone_puts_out_no_zero_where_that_breaks(
    lines: str,
) -> None:
    """Groups keep equally many, so the last channel stays although nobody reads it."""
    kernel = np.array([[1.0, 1.0], [1.0, 0.0]]).reshape(2, 2, 1, 1)
    network = graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            q = Mul(a, a)
            {lines}
            output = Conv<group=2>(x, v, c)
        }}
        """,
        {"w": np.full((4, 1, 1, 1), 1e-4), "b": np.full(4, 0.5), "one": 1.0,
         "eighth": np.full((4, 1, 1), 0.125), "again": np.full((4, 1, 1), 0.125), "v": kernel,
         "c": weights(2)},
    )  # fmt: skip
    pruned, report = remove_dead_channels(network, evaluate)
    assert np.isfinite(report.certificate.max_absolute)
    assert values(pruned)["b"].tolist() == [0.5] * 4
