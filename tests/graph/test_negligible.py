"""Channels that rounding hides become exact zeros; whatever a reader can see stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import GraphError
from deploykit.graph.passes.negligible import MAX_OF_FLOAT32_ERROR, zero_negligible
from deploykit.reference.float import evaluate
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, Tensors
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.negligible import Hiding, Negligible, Outcome
from deploykit.spec.network import Network
from tests.graph.text import graph, values, weights

ROUNDOFF = 2.0**-24
FLOAT32 = partial(evaluate, dtype=np.float32)
TINY = 1e-12


def zeroed(network: Network, inputs: AnyArray | None = None) -> tuple[Network, Negligible]:
    """The pass on ones or the given inputs; and that it leaves its own argument alone."""
    before = {name: array.copy() for name, array in values(network).items()}
    result = zero_negligible(network, evaluate, _inputs(network, inputs), FLOAT32)
    for name, array in values(network).items():
        np.testing.assert_array_equal(array, before[name])
    return result


def _inputs(network: Network, inputs: AnyArray | None) -> AnyArray:
    shape = network.model.graph.inputs[0].shape
    assert shape is not None
    sizes = [size for size in shape if isinstance(size, int)]
    return np.ones(sizes) if inputs is None else inputs


def found(report: Negligible) -> list[tuple[str, int, Hiding]]:
    return [(entry.tensor, entry.channel, entry.hiding) for entry in report.channels]


def two_linears(first: npt.ArrayLike, second: npt.ArrayLike, bias: float = 0.0) -> Network:
    """Two 1x1 convolutions on one channel of ones: a = first * 1, output = second @ a + bias."""
    w = np.asarray(first, np.float32).reshape(-1, 1, 1, 1)
    v = np.atleast_2d(np.asarray(second, np.float32))
    return graph(
        f"""
        (float[1,1,2,2] input) => (float[1,{len(v)},2,2] output) {{
            a = Conv(input, w, b)
            output = Conv(a, v, c)
        }}
        """,
        {
            "w": w,
            "b": np.zeros(len(w)),
            "v": v[:, :, None, None],
            "c": np.full(len(v), bias),
        },
        ["w", "b", "v", "c"],
    )


@pytest.mark.parametrize(("factor", "goes"), [(0.99, True), (1.01, False)])
def test_the_limit_is_a_share_of_one_rounding_of_the_sum(factor: float, goes: bool) -> None:
    """Inputs of 1 may be 2, by the safety factor: 2 eps <= u (3 + eps + bias) / 4 channels."""
    limit = ROUNDOFF * (3 + 5) / 4 / 2
    before = two_linears([1, 1, 1, 1], [1, 1, 1, factor * limit], bias=5.0)
    after, report = zeroed(before)
    assert found(report) == ([("a", 3, Hiding.UNREAD)] if goes else [])
    assert report.outcome is (Outcome.ZEROED if goes else Outcome.NOTHING)
    kernel = values(after)["v"][0, :, 0, 0]
    assert (kernel[3] == 0) == goes
    np.testing.assert_array_equal(kernel[:3], [1, 1, 1])
    if goes:
        (reader,) = report.channels[0].readers
        assert reader.bound == pytest.approx(factor / 4, rel=1e-6)
        assert reader.largest_weight == pytest.approx(factor * limit, rel=1e-6)
        assert report.measured == pytest.approx(factor * limit / 8, rel=1e-3)
        assert report.measured <= report.bound


def test_many_that_are_hidden_one_by_one_but_not_together_stay() -> None:
    """Seven of half a rounding each would move the sum by more than three roundings."""
    half = ROUNDOFF / 4
    _, report = zeroed(two_linears([1] * 8, [1] + [half] * 7))
    assert report.outcome is Outcome.NOTHING


def test_many_that_are_hidden_together_all_go() -> None:
    share = 0.9 * ROUNDOFF / 8 / 2
    after, report = zeroed(two_linears([1] * 8, [1] + [share] * 7))
    assert [channel for _, channel, _ in found(report)] == list(range(1, 8))
    assert not values(after)["v"][0, 1:].any()
    assert sum(entry.readers[0].bound for entry in report.channels) <= 1.0


def test_one_output_that_sees_it_keeps_it() -> None:
    _, report = zeroed(two_linears([1, 1], [[1, TINY], [TINY, TINY]]))
    assert report.outcome is Outcome.NOTHING


def test_one_reader_that_sees_it_keeps_it() -> None:
    def network(loud: float) -> Network:
        return graph(
            """
            (float[1,1,4,4] input) => (float[1,2,4,4] output) {
                a = Conv(input, w, b)
                one = Conv(a, v, c)
                two = Conv(a, u, c)
                output = Add(one, two)
            }
            """,
            {
                "w": np.ones((2, 1, 1, 1)),
                "b": np.zeros(2),
                "v": np.array([[1, TINY], [2, TINY]])[:, :, None, None],
                "u": np.array([[1, loud], [3, TINY]])[:, :, None, None],
                "c": np.zeros(2),
            },
        )

    assert zeroed(network(1e-3))[1].outcome is Outcome.NOTHING
    after, report = zeroed(network(1e-12))
    assert found(report) == [("a", 1, Hiding.UNREAD)]
    assert [reader.reader for reader in report.channels[0].readers] == ["one", "two"]
    assert not values(after)["v"][:, 1].any() and not values(after)["u"][:, 1].any()


def test_a_row_that_hardly_varies_becomes_the_middle_of_its_range() -> None:
    shifted = graph(
        """
        (float[1,1,2,2] input) => (float[1,1,2,2] output) {
            a = Conv(input, w, b)
            output = Conv(a, v)
        }
        """,
        {
            "w": np.array([1, TINY]).reshape(2, 1, 1, 1),
            "b": np.array([0, 0.75]),
            "v": np.ones((1, 2, 1, 1)),
        },
        ["w", "b", "v"],
    )
    after, report = zeroed(shifted)
    assert found(report) == [("a", 1, Hiding.CONSTANT)]
    assert report.channels[0].constant == 0.75
    assert report.channels[0].largest_weight == pytest.approx(1e-12, rel=1e-6)
    assert not values(after)["w"][1].any() and values(after)["w"][0].all()
    np.testing.assert_array_equal(values(after)["b"], np.array([0, 0.75], np.float32))
    np.testing.assert_array_equal(values(after)["v"], values(shifted)["v"])


def test_variances_go_with_the_values_and_those_of_biases_stay() -> None:
    before = two_linears([1, 1, TINY], [1, TINY, 1], bias=1.0)
    after, report = zeroed(before)
    assert report.outcome is Outcome.ZEROED
    assert {(channel, hiding) for _, channel, hiding in found(report)} == {
        (1, Hiding.UNREAD),
        (2, Hiding.UNREAD),
    }
    assert not after.variance["v"][:, 1:].any()
    assert after.variance["v"][:, 0] == before.variance["v"][:, 0]
    for name in ("w", "b", "c"):
        np.testing.assert_array_equal(after.variance[name], before.variance[name])


def test_variances_of_a_constant_row_go() -> None:
    before = two_layer_bias()
    after, report = zeroed(before)
    assert [entry.hiding for entry in report.channels] == [Hiding.CONSTANT]
    assert not after.variance["w"][1].any() and after.variance["w"][0].all()
    np.testing.assert_array_equal(after.variance["b"], before.variance["b"])


def two_layer_bias() -> Network:
    return graph(
        """
        (float[1,1,2,2] input) => (float[1,1,2,2] output) {
            a = Conv(input, w, b)
            r = Relu(a)
            output = Conv(r, v)
        }
        """,
        {
            "w": np.array([1, TINY]).reshape(2, 1, 1, 1),
            "b": np.array([0.5, 2.0]),
            "v": np.ones((1, 2, 1, 1)),
        },
        ["w", "b", "v"],
    )


def separable(expand: float, bias: float, depthwise: float, project: float) -> Network:
    """expand -> ReLU6 -> padded depthwise -> ReLU6 -> project; channel 1 has the given sizes."""
    kernel = np.ones((2, 1, 3, 3)) / 9
    kernel[1] *= depthwise
    return graph(
        """
        (float[1,2,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            r = Clip(a, low, high)
            d = Conv<group=2, pads=[1,1,1,1]>(r, k, e)
            s = Clip(d, low, high)
            output = Conv(s, v, c)
        }
        """,
        {
            "w": np.array([[1, 0.5], [expand, expand]])[:, :, None, None],
            "b": np.array([0, bias]),
            "low": np.array(0.0, np.float32),
            "high": np.array(6.0, np.float32),
            "k": kernel,
            "e": np.array([0, 0.25]),
            "v": np.array([[1, project], [2, project]])[:, :, None, None],
            "c": np.zeros(2),
        },
        ["w", "b", "k", "e", "v"],
    )


SEPARABLE = {
    "a row below zero, under the ReLU": (separable(1e-9, -1.0, 1.0, 1.0), Hiding.CONSTANT),
    "a row and a kernel, constant": (separable(1.0, 0.5, 1e-12, 1.0), Hiding.CONSTANT),
    "a column": (separable(1.0, 0.5, 1.0, 1e-12), Hiding.UNREAD),
    "a constant that padding makes vary": (separable(1e-12, 0.5, 1.0, 1.0), None),
    "nothing": (separable(1.0, 0.5, 1.0, 1.0), None),
}


@pytest.mark.parametrize(("network", "hiding"), SEPARABLE.values(), ids=SEPARABLE)
def test_through_relu6_and_a_padded_depthwise(network: Network, hiding: Hiding | None) -> None:
    inputs = np.random.default_rng(0).uniform(-1, 1, (3, 2, 5, 5))
    after, report = zeroed(network, inputs)
    assert found(report) == ([] if hiding is None else [("a", 1, hiding), ("d", 1, hiding)])
    held = values(after)
    assert (not held["w"][1].any() and not held["k"][1].any()) == (hiding is Hiding.CONSTANT)
    assert (not held["v"][:, 1].any()) == (hiding is Hiding.UNREAD)
    assert held["w"][0].all() and held["k"][0].all() and held["v"][:, 0].all()
    if hiding is Hiding.CONSTANT:
        before, now = evaluate(network, inputs)["s"][:, 1], evaluate(after, inputs)["s"][:, 1]
        assert np.ptp(now) == 0.0
        assert np.abs(before - now).max() <= ROUNDOFF


def residual(skip: float, branch: float, inner: float, outer: float) -> Network:
    """y = a + conv(relu(a)); the sizes are those of channel 1: rows, then both readers' columns."""
    return graph(
        """
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, w, b)
            r = Relu(a)
            f = Conv(r, v, c)
            y = Add(a, f)
            output = Conv(y, u, d)
        }
        """,
        {
            "w": np.array([1, skip]).reshape(2, 1, 1, 1),
            "b": np.array([0.5, 0.25]),
            "v": np.array([[1, inner], [branch, branch * inner]])[:, :, None, None],
            "c": np.array([0.5, 0.25]),
            "u": np.array([[1, outer], [2, outer]])[:, :, None, None],
            "d": np.zeros(2),
        },
    )


BOTH = [("a", 1), ("f", 1)]
RESIDUAL = {
    "both branches hardly vary": (residual(1e-12, 1e-12, 1.0, 1.0), Hiding.CONSTANT),
    "both readers hide it": (residual(1.0, 1.0, 1e-12, 1e-12), Hiding.UNREAD),
    "one branch varies": (residual(1.0, 1e-12, 1.0, 1.0), None),
    "one reader sees it": (residual(1.0, 1.0, 1e-12, 1.0), None),
}


@pytest.mark.parametrize(("network", "hiding"), RESIDUAL.values(), ids=RESIDUAL)
def test_a_residual_sum_goes_whole_or_not_at_all(network: Network, hiding: Hiding | None) -> None:
    after, report = zeroed(network)
    expected = [] if hiding is None else [(tensor, channel, hiding) for tensor, channel in BOTH]
    assert found(report) == expected
    if hiding is Hiding.CONSTANT:
        assert (
            np.ptp(evaluate(after, np.random.default_rng(0).normal(size=(1, 1, 4, 4)))["y"][:, 1])
            == 0
        )


STAYS: dict[str, tuple[str, Mapping[str, npt.ArrayLike]]] = {
    "of the graph's input": (
        """
        (float[1,2,2,2] input) => (float[1,1,2,2] output) {
            output = Conv(input, v)
        }""",
        {"v": np.array([1, TINY]).reshape(1, 2, 1, 1)},
    ),
    "of the graph's output": (
        """
        (float[1,1,2,2] input) => (float[1,2,2,2] output) {
            output = Conv(input, w, b)
        }""",
        {"w": np.array([1, TINY]).reshape(2, 1, 1, 1), "b": np.ones(2)},
    ),
    "that an operator without a rule reads": (
        """
        (float[1,1,2,2] input) => (float[1,1,2,2] output) {
            a = Conv(input, w, b)
            m = Softmax<axis=1>(a)
            output = Conv(a, v)
            other = Conv(m, v)
        }""",
        {
            "w": np.ones((2, 1, 1, 1)),
            "b": np.zeros(2),
            "v": np.array([1, TINY]).reshape(1, 2, 1, 1),
        },
    ),
    "whose weight another node shares": (
        """
        (float[1,2,2,2] input) => (float[1,2,2,2] output) {
            a = Conv(input, w)
            output = Conv(a, w)
        }""",
        {"w": np.array([[1, TINY], [1, TINY]])[:, :, None, None]},
    ),
    "that is read beside a mean of it": (
        """
        (float[1,1,2,2] input) => (float[1,1,2,2] output) {
            a = Conv(input, w, b)
            g = GlobalAveragePool(a)
            s = Conv(g, loud)
            t = Conv(a, v)
            output = Mul(s, t)
        }""",
        {
            "w": np.ones((2, 1, 1, 1)),
            "b": np.zeros(2),
            "v": np.array([1, TINY]).reshape(1, 2, 1, 1),
            "loud": np.ones((1, 2, 1, 1)),
        },
    ),
}


@pytest.mark.parametrize(("text", "constants"), STAYS.values(), ids=STAYS)
def test_a_channel_stays(text: str, constants: Mapping[str, npt.ArrayLike]) -> None:
    assert zeroed(graph(text, constants))[1].outcome is Outcome.NOTHING


def test_a_channel_that_the_samples_leave_silent_is_not_taken_for_dead() -> None:
    """On negative inputs the ReLU shows zeros only; positive ones would wake the channel."""
    network = graph(
        """
        (float[1,1,2,2] input) => (float[1,1,2,2] output) {
            a = Conv(input, w, b)
            r = Relu(a)
            output = Conv(r, v)
        }
        """,
        {
            "w": np.array([1, -1]).reshape(2, 1, 1, 1),
            "b": np.zeros(2),
            "v": np.ones((1, 2, 1, 1)),
        },
    )
    _, report = zeroed(network, -np.ones((2, 1, 2, 2)))
    assert report.outcome is Outcome.NOTHING


def test_a_squeeze_and_excite_block_goes_with_its_gate() -> None:
    def network(row: float) -> Network:
        return graph(
            """
            (float[1,1,4,4] input) => (float[1,2,4,4] output) {
                a = Conv(input, w, b)
                g = GlobalAveragePool(a)
                q = Conv(g, squeeze, sb)
                r = Relu(q)
                e = Conv(r, excite, eb)
                h = HardSigmoid<alpha=0.166666667, beta=0.5>(e)
                m = Mul(a, h)
                output = Conv(m, v)
            }
            """,
            {
                "w": np.ones((3, 1, 1, 1)),
                "b": np.zeros(3),
                "squeeze": np.array([[1, 1, row]]).reshape(1, 3, 1, 1),
                "sb": np.zeros(1),
                "excite": np.ones((3, 1, 1, 1)),
                "eb": np.zeros(3),
                "v": np.array([[1, 1, TINY], [1, 2, TINY]])[:, :, None, None],
            },
        )

    assert found(zeroed(network(1e-12))[1]) == [
        ("a", 2, Hiding.UNREAD),
        ("e", 2, Hiding.UNREAD),
    ]
    assert zeroed(network(1.0))[1].outcome is Outcome.NOTHING


def test_a_linear_that_reads_flattened_channels_hides_all_positions_or_none() -> None:
    def network(loudest: float) -> Network:
        kernel = np.ones((2, 3, 4))
        kernel[:, 1] = TINY
        kernel[1, 1, 3] = loudest
        return graph(
            """
            (float[1,1,2,2] input) => (float[1,2] output) {
                a = Conv(input, w, b)
                f = Flatten(a)
                output = Gemm<transB=1>(f, v, c)
            }
            """,
            {
                "w": np.ones((3, 1, 1, 1)),
                "b": np.zeros(3),
                "v": kernel.reshape(2, 12),
                "c": np.zeros(2),
            },
        )

    after, report = zeroed(network(1e-12))
    assert found(report) == [("a", 1, Hiding.UNREAD)]
    assert not values(after)["v"][:, 4:8].any() and values(after)["v"][:, :4].all()
    assert zeroed(network(1e-3))[1].outcome is Outcome.NOTHING


def test_a_concatenation_keeps_its_branches_apart() -> None:
    network = graph(
        """
        (float[1,1,2,2] input) => (float[1,1,2,2] output) {
            a = Conv(input, w)
            b = Conv(input, w2)
            y = Concat<axis=1>(a, b)
            output = Conv(y, v)
        }
        """,
        {
            "w": np.ones((2, 1, 1, 1)),
            "w2": np.ones((2, 1, 1, 1)),
            "v": np.array([1, 1, TINY, 1]).reshape(1, 4, 1, 1),
        },
    )
    assert found(zeroed(network)[1]) == [("b", 0, Hiding.UNREAD)]


def test_channels_on_the_last_axis_of_a_sequence() -> None:
    """A transformer's MLP: MatMul, Add, Tanh, MatMul on [N, T, C]."""
    first, second = weights(3, 4), weights(4, 3, seed=1)
    second[2] = TINY
    network = graph(
        """
        (float[1,5,3] input) => (float[1,5,3] output) {
            a = MatMul(input, w)
            h = Add(a, b)
            t = Tanh(h)
            o = MatMul(t, v)
            output = Add(o, c)
        }
        """,
        {"w": first, "b": np.ones(4), "v": second, "c": np.zeros(3)},
        ["w", "v"],
    )
    inputs = np.random.default_rng(0).normal(size=(2, 5, 3))
    after, report = zeroed(network, inputs)
    assert found(report) == [("a", 2, Hiding.UNREAD)]
    assert not values(after)["v"][2].any() and not after.variance["v"][2].any()


def test_what_only_a_hidden_channel_reads_is_free_too() -> None:
    """Channel 1 of a feeds row 1 of r alone, which nobody reads to speak of."""
    network = graph(
        """
        (float[1,1,2,2] input) => (float[1,1,2,2] output) {
            a = Conv(input, w)
            r = Conv(a, v)
            output = Conv(r, u)
        }
        """,
        {
            "w": np.ones((2, 1, 1, 1)),
            "v": np.array([[1, TINY], [1, 1]])[:, :, None, None],
            "u": np.array([1, TINY]).reshape(1, 2, 1, 1),
        },
    )
    after, report = zeroed(network)
    assert found(report) == [("a", 1, Hiding.UNREAD), ("r", 1, Hiding.UNREAD)]
    assert zeroed(after)[1].outcome is Outcome.NOTHING


def test_exact_zeros_are_left_to_removal() -> None:
    assert zeroed(two_linears([1, 0], [1, 1]))[1].outcome is Outcome.NOTHING
    assert zeroed(two_linears([1, 1], [1, 0]))[1].outcome is Outcome.NOTHING


def test_a_change_beyond_the_networks_own_error_is_given_back_and_reported() -> None:
    """2^20 - 2^20 + 1 + eps: a runtime that sums in float64 shows what float32 would hide."""
    size = 2.0**20
    hidden = ROUNDOFF * 2 * size / 4 / 4
    network = two_linears([1, 1, 1, 1], [size, -size, 1, hidden])
    after, report = zero_negligible(network, evaluate, np.ones((1, 1, 2, 2)), evaluate)
    assert after is network
    assert report.outcome is Outcome.GIVEN_BACK
    assert found(report) == [("a", 3, Hiding.UNREAD)]
    assert report.float32_error == 0.0
    assert report.allowed == MAX_OF_FLOAT32_ERROR * ROUNDOFF
    assert report.measured == pytest.approx(hidden, rel=0.02)
    assert report.allowed < report.measured <= report.bound


def _decayed(draw: st.DrawFn, shape: tuple[int, ...], axis: int) -> Float32Array:
    """Random weights of which some rows or columns have shrunk by up to 12 decades."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    decades = rng.choice([0, 0, 0, 3, 6, 7, 8, 9, 12], size=shape[axis])
    scale = np.ones(len(shape), dtype=np.intp)
    scale[axis] = -1
    kernel = rng.normal(size=shape) * 10.0 ** -decades.reshape(scale)
    return kernel.astype(np.float32)


@st.composite
def inverted_residuals(draw: st.DrawFn) -> Network:
    """Two blocks expand - activation - depthwise - activation - project, with a sum around one."""
    count, inner = draw(st.integers(2, 4)), draw(st.integers(2, 6))
    kind = draw(st.sampled_from(["Relu", "Tanh", "HardSwish", "LeakyRelu"]))
    constants: dict[str, npt.ArrayLike] = {}
    lines = ["x0 = Conv(input, stem)"]
    constants["stem"] = _decayed(draw, (count, 2, 1, 1), 0)
    for block in range(2):
        constants |= {
            f"w{block}": _decayed(draw, (inner, count, 1, 1), 0),
            f"b{block}": draw(st.sampled_from([0.0, -0.5, 1.0])) + weights(inner, seed=block),
            f"k{block}": _decayed(draw, (inner, 1, 3, 3), 0),
            f"e{block}": weights(inner, seed=7 + block),
            f"v{block}": _decayed(draw, (count, inner, 1, 1), 1),
        }
        lines += [
            f"a{block} = Conv(x{block}, w{block}, b{block})",
            f"r{block} = {kind}(a{block})",
            f"d{block} = Conv<group={inner}, pads=[1,1,1,1]>(r{block}, k{block}, e{block})",
            f"s{block} = {kind}(d{block})",
            f"p{block} = Conv(s{block}, v{block})",
            f"x{block + 1} = Add(p{block}, x{block})" if block else f"x1 = Relu(p{block})",
        ]
    constants["head"] = _decayed(draw, (3, count), 1)
    body = "\n".join([*lines, "g = GlobalAveragePool(x2)", "f = Flatten(g)"])
    body += "\noutput = Gemm<transB=1>(f, head)"
    text = f"(float[1,2,5,5] input) => (float[1,3] output) {{\n{body}\n}}"
    return graph(text, constants, ["stem", "w0", "k0", "v1", "head"])


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(inverted_residuals(), st.integers(0, 2**32 - 1))
def test_float32_differs_by_no_more_than_the_bound_and_rounding(
    network: Network, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(-1, 1, size=(8, 2, 5, 5))
    after, report = zeroed(network, inputs)
    if report.outcome is Outcome.ZEROED:
        assert report.bound <= report.rounding_bound
        assert report.measured <= min(report.bound + 1e-15, report.allowed)
    others = rng.uniform(-1, 1, size=(8, 2, 5, 5))
    truth = evaluate(network, inputs)["output"]
    limit = report.bound * float(np.abs(truth).max())
    for probe in (inputs, others):
        moved = _in_float32(after, probe) - _in_float32(network, probe)
        rounding = _rounding(network, probe) + _rounding(after, probe)
        assert np.all(np.abs(moved) <= limit + rounding + 1e-15 * np.abs(truth).max())
    again, second = zeroed(after, inputs)
    if report.outcome is not Outcome.GIVEN_BACK:
        assert second.outcome is Outcome.NOTHING
        assert again is after


def _in_float32(network: Network, inputs: AnyArray) -> Float64Array:
    return ort.evaluate(network, inputs.astype(np.float32))["output"].astype(np.float64)


def _rounding(network: Network, inputs: AnyArray) -> Float64Array:
    exact = evaluate(network, inputs.astype(np.float32).astype(np.float64))["output"]
    return np.abs(_in_float32(network, inputs) - exact)


def test_two_graph_inputs_by_name() -> None:
    network = graph(
        """
        (float[1,1,2,2] left, float[1,1,2,2] right) => (float[1,1,2,2] output) {
            a = Conv(left, w)
            b = Conv(right, w2)
            y = Add(a, b)
            output = Conv(y, v)
        }
        """,
        {
            "w": np.ones((2, 1, 1, 1)),
            "w2": np.ones((2, 1, 1, 1)),
            "v": np.array([1, TINY]).reshape(1, 2, 1, 1),
        },
    )
    image = np.ones((1, 1, 2, 2), np.float32)
    inputs = {"left": image, "right": image}
    _, report = zero_negligible(network, ort.evaluate, inputs, ort.evaluate)
    assert found(report) == [("a", 1, Hiding.UNREAD), ("b", 1, Hiding.UNREAD)]


def test_an_evaluator_of_outputs_alone_is_refused() -> None:
    def outputs_alone(network: Network, inputs: GraphInputs) -> Tensors:
        return {"output": evaluate(network, inputs)["output"]}

    with pytest.raises(GraphError, match="the evaluator returns no a, which output reads"):
        zero_negligible(two_linears([1], [1]), outputs_alone, np.ones((1, 1, 2, 2)), FLOAT32)
