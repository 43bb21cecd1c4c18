"""What is left of a graph after the cut: branches that are constant, and outputs of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from deploykit.graph.options import DeadOutputs, RemovalOptions
from deploykit.graph.removal import cut_channels, remove_dead_channels
from deploykit.reference.float import evaluate
from deploykit.spec.network import Network
from tests.graph.removing import (
    assert_equal_in_runtime,
    channels,
    first_layer,
    pruned_to,
    removed,
    second_layer,
)
from tests.graph.text import expected, graph, values, weights, written


def branch(call: str, biases: list[float], tail: str = "output = Conv(s, v, c)") -> Network:
    """A live layer and one that is constant, met in `call`."""
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            d = Conv<pads=[1,1,1,1]>(input, k, l)
            s = {call}
            {tail}
        }}
        """,
        {**first_layer([0.5, 0.5], live=[0, 1]), "k": np.zeros((2, 1, 3, 3)), "l": np.array(biases),
         "half": 0.5, "v": second_layer(1, 1, size=1), "c": weights(2)},
        ["b"],
    )  # fmt: skip


NEUTRAL = {
    "Add(a, d)": [0.0, 0.0],
    "Add(d, a)": [0.0, 0.0],
    "Sub(a, d)": [0.0, 0.0],
    "Mul(d, a)": [1.0, 1.0],
    "Div(a, d)": [1.0, 1.0],
}


@pytest.mark.parametrize(("call", "biases"), NEUTRAL.items())
def test_a_branch_that_does_nothing_goes_with_its_node(call: str, biases: list[float]) -> None:
    pruned_to(
        branch(call, biases),
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        output[1,2,5,5] = Conv(a, v[2,2,1,1], c[2])
        """,
    )


@pytest.mark.parametrize("call", ["Add(a, d)", "Add(d, a)"])
def test_a_constant_branch_goes_into_the_bias_of_the_other(call: str) -> None:
    network = branch(call, [3.0, -1.0])
    pruned = pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        output[1,2,5,5] = Conv(a, v[2,2,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(values(pruned)["b"], [3.5, -0.5])
    np.testing.assert_array_equal(pruned.variance["b"], network.variance["b"])


@pytest.mark.parametrize("call", ["Sub(d, a)", "Mul(a, d)", "Div(d, a)", "Max(a, d)"])
def test_any_other_constant_branch_is_held_as_numbers(call: str) -> None:
    tail = "t = Div(d, s)\n            output = Conv(t, v, c)"
    network = branch(
        "Clip(a, half)" if "Div" in call else call, [3.0, 2.0], *[tail] * ("Div" in call)
    )
    pruned, _ = removed(network)
    assert values(pruned)["d.constant"].reshape(-1).tolist() == [3.0, 2.0]
    assert "k" not in values(pruned)


def test_nothing_less_something_is_not_something() -> None:
    network = branch("Sub(d, a)", [0.0, 0.0])
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        s[1,2,5,5] = Sub(d.constant[1,2,1,1], a)
        output[1,2,5,5] = Conv(s, v[2,2,1,1], c[2])
        """,
    )


def test_a_branch_is_not_added_to_a_layer_that_somebody_else_reads() -> None:
    network = branch("Add(a, d)", [3.0, -1.0], "t = Mul(s, a)\n            output = Conv(t, v, c)")
    pruned, _ = removed(network)
    np.testing.assert_array_equal(values(pruned)["b"], values(network)["b"])
    assert values(pruned)["d.constant"].shape == (1, 2, 1, 1)


def several(text: str, constants: dict[str, npt.ArrayLike], outputs: str) -> Network:
    return graph(
        f"(float[1,1,5,5] input) => ({outputs}) {{ {text} }}",
        {**first_layer([0.5, 0.5, 0.5], live=[0, 1, 2]), **constants},
    )


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_two_outputs_of_which_one_is_the_other_stay_two(bias: float) -> None:
    network = several(
        "first = Conv(input, w, b) z = Conv(input, k, l) second = Add(first, z)",
        {"k": np.zeros((3, 1, 1, 1)), "l": np.full(3, bias)},
        "float[1,3,5,5] first, float[1,3,5,5] second",
    )
    pruned, _ = removed(network)
    assert [str(value.name) for value in pruned.model.graph.outputs] == ["first", "second"]
    assert "k" not in values(pruned)
    assert_equal_in_runtime(network, pruned)


def test_what_any_of_several_outputs_needs_stays() -> None:
    """The first reads channel 0, the second channel 1, nobody channel 2."""
    network = several(
        "a = Conv(input, w, b) first = Conv(a, v, c) second = Conv(a, u, e)",
        {"v": second_layer(1, 0, 0, size=1), "c": weights(2), "u": second_layer(0, 1, 0, size=1),
         "e": weights(2)},
        "float[1,2,5,5] first, float[1,2,5,5] second",
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        first[1,2,5,5] = Conv(a, v[2,2,1,1], c[2])
        second[1,2,5,5] = Conv(a, u[2,2,1,1], e[2])
        """,
    )


def test_a_constant_of_the_graph_may_be_an_output() -> None:
    network = graph(
        """
        (float[1,4] input) => (float[1,3] output, float[2] held) {
            a = Gemm<transB=1>(input, w, b)
            output = Gemm<transB=1>(a, v, c)
        }
        """,
        {"w": weights(3, 4) * np.array([[1], [0], [1]]), "b": np.zeros(3), "v": weights(3, 3),
         "c": weights(3), "held": np.array([1.0, 0.0])},
    )  # fmt: skip
    made = cut_channels(network, RemovalOptions())
    assert written(made.pruned) == expected(
        """
        a[1,2] = Gemm<transB=1>(input, w[2,4], b[2])
        output[1,3] = Gemm<transB=1>(a, v[3,2], c[3])
        """
    )
    assert values(made.pruned)["held"].tolist() == [1.0, 0.0]


def test_a_vector_that_is_constant_is_no_bias_of_a_row() -> None:
    """[3] added to [1, 3]."""
    network = graph(
        """
        (float[1,4] input) => (float[1,3] output) {
            a = Gemm<transB=1>(input, w, b)
            d = Gemm<transB=1>(input, k, l)
            s = Squeeze(d, first)
            t = Add(a, s)
            output = Gemm<transB=1>(t, v, c)
        }
        """,
        {"w": weights(3, 4), "b": weights(3), "k": np.zeros((3, 4)), "l": np.array([1.0, 2.0, 3.0]),
         "first": np.array([0]), "v": weights(3, 3), "c": weights(3)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        a[1,3] = Gemm<transB=1>(input, w[3,4], b[3])
        t[1,3] = Add(a, s.constant[3])
        output[1,3] = Gemm<transB=1>(t, v[3,3], c[3])
        """,
    )


DROPPED = {
    "a zero and a two of three go": ([0.5, 0.0, 2.0], [0], 1),
    "of constants alone one is left": ([0.0, 1.0, 2.0], [], 1),
    "all live": ([0.5, 0.5, 0.5], [0, 1, 2], 3),
}


@pytest.mark.parametrize(("biases", "live", "left"), DROPPED.values(), ids=DROPPED)
def test_dead_outputs_are_dropped_where_asked(
    biases: list[float], live: list[int], left: int
) -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,3,5,5] output) {
            a = Conv(input, w, b)
            output = Relu(a)
        }
        """,
        first_layer(biases, live=live),
    )
    options = RemovalOptions(dead_outputs=DeadOutputs.DROP)
    pruned, report = remove_dead_channels(network, evaluate, options)
    assert channels(pruned) == {"a": left, "output": left}
    assert report.certificate.max_relative == 0.0
    assert_legal_shape(pruned)
    kept, _ = removed(network)
    assert channels(kept) == {"a": 3, "output": 3}


def assert_legal_shape(network: Network) -> None:
    """The declared output is what the graph computes."""
    (output,) = network.model.graph.outputs
    shape = tuple(output.shape or ())
    found = evaluate(network, np.zeros((1, 1, 5, 5)))["output"]
    assert found.shape == shape


def test_what_a_branch_of_an_if_captures_stays_whole_and_everything_else_goes() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5], live=[0, 2]), "k": second_layer(1, 1, 1, outputs=3, size=1),
         "l": np.zeros(3), "v": second_layer(1, 0, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    inner = ir.node("Relu", [network.model.graph[1].outputs[0]])
    then = ir.Graph([], inner.outputs, nodes=[inner], name="then")
    network.model.graph.append(
        ir.node("If", [network.model.graph.inputs[0]], {"then_branch": then})
    )
    made = cut_channels(network, RemovalOptions())
    assert values(made.pruned)["w"].shape == (2, 1, 1, 1)
    assert values(made.pruned)["k"].shape == (3, 2, 1, 1)
