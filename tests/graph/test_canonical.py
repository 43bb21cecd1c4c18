"""One spelling per operator: each synonym, and what must be left alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from deploykit.graph.passes.canonical import canonicalize
from deploykit.graph.tracking import apply_pass
from deploykit.spec.network import Network
from tests.graph.text import assert_same_function, expected, graph, values, weights, written


def canonical(network: Network) -> Network:
    return apply_pass("canonicalize", canonicalize, network)


LINEARS = {
    "a product and a sum": "a = MatMul(input, w)\noutput = Add(a, b)",
    "a sum the other way round": "a = MatMul(input, w)\noutput = Add(b, a)",
    "weights that are not transposed": "output = Gemm(input, w, b)",
    "factors": "output = Gemm<alpha=0.5, beta=3.0>(input, w, b)",
    "no bias": "output = Gemm(input, w)",
    "a product alone": "output = MatMul(input, w)",
    "one bias for all": "output = Gemm(input, w, one)",
}


@pytest.mark.parametrize("body", LINEARS.values(), ids=LINEARS)
def test_linears_are_spelled_alike(body: str) -> None:
    before = graph(
        f"(float[1,4] input) => (float[1,3] output) {{ {body} }}",
        {"w": weights(4, 3), "b": weights(1, 3), "one": np.array([2.0])},
        ["w", "b", "one"],
    )
    after = canonical(before)
    bias = [name for name in after.model.graph.initializers if name != "w"]
    assert written(after) == f"output[1,3] = Gemm<transB=1>(input, w[3,4], {bias[0]}[3])"
    assert_same_function(before, after)
    factor = 0.5 if "alpha" in body else 1.0
    carried = before.variance["w"].T * factor**2
    np.testing.assert_allclose(after.variance["w"], carried, rtol=1e-6)
    assert after.variance.get(bias[0], np.zeros(3)).shape == (3,)


PADS = {
    "one axis from the end": ([1, 2], [-1], [0, 0, 0, 1, 0, 0, 0, 2]),
    "two in another order": ([3, 1, 0, 2], [3, 2], [0, 0, 1, 3, 0, 0, 2, 0]),
    "below zero": ([-1, 1], [2], [0, 0, -1, 0, 0, 0, 1, 0]),
}


@pytest.mark.parametrize("value", ["", ", v"], ids=["zeros", "a value"])
@pytest.mark.parametrize(("widths", "axes", "whole"), PADS.values(), ids=PADS)
def test_a_pad_names_every_axis(
    widths: list[int], axes: list[int], whole: list[int], value: str
) -> None:
    given = value or ", "
    before = graph(
        f"(float[1,2,4,5] input) => (float[1,2,h,w] output) "
        f"{{ a = Relu(input) output = Pad(a, p{given}, axes) }}",
        {"p": np.array(widths), "axes": np.array(axes), "v": np.array(1.5, np.float32)},
    )
    after = canonical(before)
    (pad,) = (node for node in after.model.graph if node.op_type == "Pad")
    assert len(pad.inputs) == (3 if value else 2)
    held = pad.inputs[1]
    assert held is not None
    assert held.const_value is not None
    assert held.const_value.numpy().tolist() == whole
    assert_same_function(before, after)


LINEARS_THAT_STAY = {
    "a product over a sequence": ("(float[2,3,4] input)", "MatMul(input, w)"),
    "a transposed input": ("(float[4,2] input)", "Gemm<transA=1>(input, w)"),
}


@pytest.mark.parametrize(("port", "call"), LINEARS_THAT_STAY.values(), ids=LINEARS_THAT_STAY)
def test_other_products_are_left_alone(port: str, call: str) -> None:
    rank = "float[2,3,4]" if "3,4" in port else "float[2,4]"
    before = graph(
        f"{port} => ({rank} output) {{ output = {call} }}",
        {"w": weights(4, 4)},
        ["w"],
    )
    after = canonical(before)
    assert written(after) == written(before)
    np.testing.assert_array_equal(values(after)["w"], values(before)["w"])


@pytest.mark.parametrize("added", ["input", "each", "column"])
@pytest.mark.parametrize("scales", ["", ", alpha=0.5, beta=2.0"])
def test_what_is_no_bias_is_added_behind_a_gemm(scales: str, added: str) -> None:
    before = graph(
        f"(float[2,4] input) => (float[2,4] output) "
        f"{{ a = Relu(input) output = Gemm<transB=1{scales}>(a, w, {added}) }}",
        {"w": weights(4, 4), "each": weights(2, 4), "column": weights(2, 1)},
        ["w"],
    )
    after = canonical(before)
    middle = ["Mul"] if scales else []
    assert [node.op_type for node in after.model.graph] == ["Relu", "Gemm", *middle, "Add"]
    assert_same_function(before, after)
    factor = 0.5 if scales else 1.0
    np.testing.assert_allclose(after.variance["w"], before.variance["w"] * factor**2, rtol=1e-6)


def test_a_sum_that_adds_an_axis_is_no_bias() -> None:
    before = graph(
        """
        (float[1,4] input) => (float[1,1,3] output) {
            a = MatMul(input, w)
            output = Add(a, b)
        }
        """,
        {"w": weights(4, 3), "b": weights(1, 1, 3)},
    )
    after = canonical(before)
    assert [node.op_type for node in after.model.graph] == ["Gemm", "Add"]
    assert_same_function(before, after)


def test_a_shared_weight_is_copied_with_its_variance() -> None:
    before = graph(
        """
        (float[1,2,4,4] input) => (float[1,2,4,4] output) {
            a = Conv<pads=[1,1,1,1]>(input, "0.weight", "0.bias")
            output = Conv<pads=[1,1,1,1]>(a, "0.weight", "0.bias")
        }
        """,
        {"0.weight": weights(2, 2, 3, 3), "0.bias": weights(2)},
        ["0.weight"],
    )
    after = canonical(before)
    assert written(after) == expected(
        """
        a[1,2,4,4] = Conv<pads=1,1,1,1>(input, 0.weight[2,2,3,3], 0.bias[2])
        output[1,2,4,4] = Conv<pads=1,1,1,1>(a, 0.weight.copy[2,2,3,3], 0.bias.copy[2])
        """
    )
    for name in ("0.weight", "0.weight.copy"):
        np.testing.assert_array_equal(after.variance[name], before.variance["0.weight"])
    assert_same_function(before, after)


def test_a_weight_that_is_also_an_output_is_copied_for_its_layer() -> None:
    before = graph(
        """
        (float[1,4] input) => (float[1,3] output, float[4,3] w) {
            output = MatMul(input, w)
        }
        """,
        {"w": weights(4, 3)},
    )
    after = canonical(before)
    np.testing.assert_array_equal(values(after)["w"], values(before)["w"])
    assert [str(value.name) for value in after.model.graph.outputs] == ["output", "w"]


@pytest.mark.parametrize(
    ("call", "constants"),
    [
        ("Reshape(a, to)", {"to": np.array([1, 18])}),
        ("Reshape(a, to)", {"to": np.array([0, -1])}),
        ("Flatten(a)", {}),
    ],
)
def test_reshapes_to_a_row_are_a_flatten(call: str, constants: dict[str, npt.ArrayLike]) -> None:
    before = graph(
        f"""
        (float[1,2,3,3] input) => (float[1,18] output) {{
            a = Relu(input)
            output = {call}
        }}
        """,
        constants,
    )
    after = canonical(before)
    assert written(after).replace("<axis=1>", "") == expected(
        """
        a[1,2,3,3] = Relu(input)
        output[1,18] = Flatten(a)
        """
    )
    assert_same_function(before, after)


def test_pooling_spelled_as_a_mean_and_a_squeeze() -> None:
    before = graph(
        """
        (float[1,2,3,3] input) => (float[1,2] output, float[1,2,1,1] kept, float[1,2] squeezed) {
            output = ReduceMean<keepdims=0>(input, axes)
            kept = ReduceMean(input, axes)
            squeezed = Squeeze(kept, axes)
        }
        """,
        {"axes": np.array([-1, 2])},
    )
    after = canonical(before)
    assert written(after) == expected(
        """
        output.pool[1,2,1,1] = GlobalAveragePool(input)
        output[1,2] = Flatten<axis=1>(output.pool)
        kept[1,2,1,1] = GlobalAveragePool(input)
        squeezed[1,2] = Flatten<axis=1>(kept)
        """
    )
    assert_same_function(before, after)


@pytest.mark.parametrize("call", ["Identity(a)", "Dropout(a)", "Reshape(a, same)"])
def test_what_does_nothing_goes_and_the_output_keeps_its_name(call: str) -> None:
    before = graph(
        f"""
        (float[1,4] input) => (float[1,4] output) {{
            a = Relu(input)
            output = {call}
        }}
        """,
        {"same": np.array([1, 4])},
    )
    after = canonical(before)
    assert written(after) == "output[1,4] = Relu(input)"
    assert_same_function(before, after)


@pytest.mark.parametrize("call", ["Identity(input)", "Dropout(input)", "Reshape(input, same)"])
def test_a_graph_that_only_hands_its_input_on_stays(call: str) -> None:
    before = graph(
        f"(float[1,4] input) => (float[1,4] output) {{ output = {call} }}",
        {"same": np.array([1, 4])},
    )
    assert written(canonical(before)) == written(before)


@pytest.mark.parametrize("size", ["7,8", "7"])
@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_windows_are_written_out(automatic: str, size: str) -> None:
    axes = size.count(",") + 1
    before = graph(
        f"""
        (float[1,2,{size}] input) => (float[1,3,{",".join("?" * axes)}] output) {{
            a = Conv<auto_pad="{automatic}", strides=[{",".join("2" * axes)}]>(input, w)
            output = MaxPool<auto_pad="{automatic}", kernel_shape=[{",".join("2" * axes)}]>(a)
        }}
        """,
        {"w": weights(3, 2, *(3, 4)[:axes])},
    )
    after = canonical(before)
    for node in after.model.graph:
        assert "auto_pad" not in node.attributes
        assert {"pads", "strides", "dilations", "kernel_shape"} <= set(node.attributes)
    assert_same_function(before, after)


def test_layers_are_named_after_their_weights_and_their_new_biases_too() -> None:
    before = graph(
        """
        (float[1,2,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, "features.0.weight", zeros)
            r = Relu(a)
            output = Conv(r, "features.1.weight", "learned")
        }
        """,
        {"features.0.weight": weights(2, 2, 1, 1), "features.1.weight": weights(2, 2, 1, 1),
         "zeros": np.zeros(2), "learned": weights(2)},
        ["learned"],
    )  # fmt: skip
    after = canonical(before)
    assert [node.name for node in after.model.graph] == ["features.0", "r", "features.1"]
    assert set(after.model.graph.initializers) == {
        "features.0.weight",
        "features.0.bias",
        "features.1.weight",
        "learned",
    }
    assert_same_function(before, after)


def test_a_bias_does_not_take_the_name_of_a_tensor() -> None:
    before = graph(
        """
        (float[1,2,4,4] input) => (float[1,2,4,4] output) {
            "a.bias" = Relu(input)
            output = Conv("a.bias", "a.weight", zeros)
        }
        """,
        {"a.weight": weights(2, 2, 1, 1), "zeros": np.zeros(2)},
    )
    assert_same_function(before, canonical(before))


SHUFFLES = {
    "two groups of three": ([1, 2, 3, 4, 4], [0, 2, 1, 3, 4], [0, 3, 1, 4, 2, 5]),
    "three groups of two": ([1, 3, 2, 16], [0, 2, 1, 3], [0, 2, 4, 1, 3, 5]),
    "nothing moves": ([1, 2, 3, 4, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]),
}


def shuffle(split: list[int], perm: list[int]) -> Network:
    return graph(
        f"""
        (float[1,6,4,4] input) => (float[1,6,4,4] output) {{
            rows = Reshape(input, split)
            turned = Transpose<perm={perm}>(rows)
            output = Reshape(turned, joined)
        }}
        """.replace(", ", ","),
        {"split": np.array(split), "joined": np.array([1, 6, 4, 4])},
    )


@pytest.mark.parametrize(("split", "perm", "order"), SHUFFLES.values(), ids=SHUFFLES)
def test_a_channel_shuffle_is_a_gather(split: list[int], perm: list[int], order: list[int]) -> None:
    before = shuffle(split, perm)
    after = canonical(before)
    assert written(after) == "output[1,6,4,4] = Gather<axis=1>(input, output.order[6])"
    assert values(after)["output.order"].tolist() == order
    assert_same_function(before, after)


@pytest.mark.parametrize(
    ("split", "perm"),
    [([1, 6, 2, 2, 4], [0, 1, 3, 2, 4]), ([1, 2, 3, 4, 4], [0, 2, 1, 4, 3])],
    ids=["moves pixels", "turns the maps too"],
)
def test_what_moves_more_than_channels_is_no_shuffle(split: list[int], perm: list[int]) -> None:
    before = shuffle(split, perm)
    assert [node.op_type for node in canonical(before).model.graph] == [
        "Reshape",
        "Transpose",
        "Reshape",
    ]


def test_a_shuffle_of_which_somebody_reads_a_step_stays() -> None:
    before = graph(
        """
        (float[1,6,4,4] input) => (float[1,6,4,4] output, float[1,3,2,4,4] turned) {
            rows = Reshape(input, split)
            turned = Transpose<perm=[0,2,1,3,4]>(rows)
            output = Reshape(turned, joined)
        }
        """,
        {"split": np.array([1, 2, 3, 4, 4]), "joined": np.array([1, 6, 4, 4])},
    )
    assert len(list(canonical(before).model.graph)) == 3


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_gets_a_bias_of_zero(groups: int) -> None:
    before = graph(
        f"""
        (float[1,4,3,3] input) => (float[1,{3 * groups},4,4] output) {{
            output = ConvTranspose<group={groups}>(input, "up.weight")
        }}
        """,
        {"up.weight": weights(4, 3, 2, 2)},
    )
    after = canonical(before)
    assert values(after)["up.bias"].tolist() == [0.0] * 3 * groups
    assert_same_function(before, after)
