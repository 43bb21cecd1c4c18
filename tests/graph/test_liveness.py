"""What is constant and what is read, operator by operator, on graphs small enough to see it."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest

from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.removal import Reason, RemovedChannel
from tests.graph.removing import channels, first_layer, found, removed, second_layer, two_layers
from tests.graph.text import expected, graph, values, weights, written

RESIDUAL = """
    (float[1,1,5,5] input) => (float[1,2,5,5] output) {
        a = Conv(input, w, b)
        r = Relu(a)
        d = Conv<pads=[1,1,1,1]>(r, v, c)
        s = Add(d, r)
        output = Conv<pads=[1,1,1,1]>(s, u, e)
    }"""


def residual(branch: Float32Array, branch_bias: list[float]) -> Network:
    return graph(
        RESIDUAL,
        {**first_layer([0.5, 1.0, 2.0], live=[0]), "v": branch, "c": np.array(branch_bias),
         "u": second_layer(9, 1, 1), "e": weights(2)},
    )  # fmt: skip


def test_a_residual_sum_is_constant_only_where_both_branches_are() -> None:
    branch = second_layer(1, 1, 1, outputs=3)
    branch[2] = 0.0
    pruned, report = removed(residual(branch, [0.0, 0.0, 3.0]))
    assert channels(pruned) == {"a": 3, "r": 3, "d": 3, "s": 3, "output": 2}
    branch[1] = 0.0
    pruned, report = removed(residual(branch, [0.0, 0.0, 3.0]))
    assert channels(pruned) == {"a": 2, "r": 2, "d": 2, "s": 2, "output": 2}
    (gone,) = report.tensors[0].removed
    assert (gone.channel, gone.reason, gone.into) == (1, Reason.COLLAPSED, 2)


def test_a_dead_branch_goes_with_its_sum() -> None:
    pruned, _ = removed(residual(np.zeros((3, 3, 3, 3), np.float32), [0.0, 0.0, 0.0]))
    assert written(pruned) == expected(
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        r[1,2,5,5] = Relu(a)
        output[1,2,5,5] = Conv<pads=1,1,1,1>(r, u[2,2,3,3], e[2])
        """
    )


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div"])
def test_a_tensor_may_be_combined_with_itself(operator: str) -> None:
    reader = weights(2, 3, 3, 3)
    reader[:, 1] = 0.0
    network = graph(
        f"""
        (float[1,2,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            e = Exp(a)
            s = {operator}(e, e)
            output = Conv<pads=[1,1,1,1]>(s, u, c)
        }}
        """,
        {"w": weights(3, 2, 1, 1), "b": weights(3), "u": reader, "c": weights(2)},
    )
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": 2, "e": 2, "s": 2, "output": 2}


def test_a_constant_branch_leaves_its_constants() -> None:
    pruned, _ = removed(residual(np.zeros((3, 3, 3, 3), np.float32), [0.0, 4.0, 2.0]))
    assert written(pruned) == expected(
        """
        a[1,2,5,5] = Conv(input, w[2,1,1,1], b[2])
        r[1,2,5,5] = Relu(a)
        s[1,2,5,5] = Add(d.constant[1,2,1,1], r)
        output[1,2,5,5] = Conv<pads=1,1,1,1>(s, u[2,2,3,3], e[2])
        """
    )
    assert values(pruned)["d.constant"].reshape(-1).tolist() == [0.0, 4.0]


def test_a_product_with_a_branch_that_is_zero_is_zero() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            gate = Conv(input, k, l)
            m = Mul(a, gate)
            output = Conv<pads=[1,1,1,1]>(m, v, c)
        }
        """,
        {**first_layer([0.5, 1.0], live=[0, 1]), "k": np.array([1, 0]).reshape(2, 1, 1, 1),
         "l": np.zeros(2), "v": second_layer(1, 1), "c": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": 1, "gate": 1, "m": 1, "output": 2}


def test_a_depthwise_kernel_of_zero_leaves_its_bias() -> None:
    kernel = weights(3, 1, 3, 3)
    kernel[1:] = 0.0
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<pads=[1,1,1,1], group=3>(a, k, l)
            r = Relu(d)
            output = Conv(r, v, c)
        }
        """,
        {**first_layer([0.5, 1.0, 4.0], live=[0, 1, 2]), "k": kernel,
         "l": np.array([0.0, -1.0, 2.0]), "v": second_layer(1, 1, 1, size=1), "c": weights(2)},
        ["k"],
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 1, "d": 1, "r": 1, "output": 2}
    assert [removal.tensor for removal in report.tensors] == ["a", "d", "output"]
    for removal in report.tensors[:2]:
        assert removal.removed == (
            RemovedChannel(1, Reason.ZERO, 0.0),
            RemovedChannel(2, Reason.FOLDED, 2.0),
        )
    assert pruned.variance["k"].shape == (1, 1, 3, 3)


def test_a_constant_through_a_padded_depthwise_is_none() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<pads=[1,1,1,1], group=2>(a, k, l)
            output = Conv(d, v, c)
        }
        """,
        {**first_layer([0.5, 2.0], live=[0]), "k": weights(2, 1, 3, 3), "l": weights(2),
         "v": second_layer(1, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": 2, "d": 2, "output": 2}


CONSTANT_STAYS_ITSELF = [
    "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>",
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>",
    "AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>",
    "AveragePool<kernel_shape=[3,3], count_include_pad=1>",
]
CONSTANT_CHANGES = [
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>",
    'AveragePool<kernel_shape=[3,3], auto_pad="SAME_UPPER", count_include_pad=1>',
]


def pooled(pool: str) -> Network:
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2] output) {{
            a = Conv(input, w, b)
            p = {pool}(a)
            q = Conv(p, v, c)
            g = GlobalAveragePool(q)
            output = Flatten(g)
        }}
        """,
        {**first_layer([0.5, -2.0], live=[0]), "v": second_layer(1, 1, size=1), "c": weights(2)},
    )


@pytest.mark.parametrize("pool", CONSTANT_STAYS_ITSELF)
def test_a_negative_constant_goes_through_a_pool(pool: str) -> None:
    pruned, report = removed(pooled(pool))
    assert channels(pruned)["a"] == 1
    assert report.tensors[0].removed == (RemovedChannel(1, Reason.FOLDED, -2.0),)


@pytest.mark.parametrize("pool", CONSTANT_CHANGES)
def test_no_constant_goes_through_a_pool_that_counts_padded_zeros(pool: str) -> None:
    pruned, report = removed(pooled(pool))
    assert channels(pruned)["a"] == 2
    assert report.borders == ()


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("sizes", ["5,5", "5"])
def test_implied_padding_is_padding(automatic: str, sizes: str) -> None:
    axes = sizes.count(",") + 1
    network = graph(
        f"""
        (float[1,1,{sizes}] input) => (float[1,2,{sizes}] output) {{
            a = Conv(input, w, b)
            d = Conv<auto_pad="{automatic}", group=3>(a, k, l)
            s = Add(a, d)
            output = Conv<auto_pad="{automatic}">(s, v, c)
        }}
        """,
        {"w": np.zeros((3, 1, *(1,) * axes)), "b": np.array([1.0, 2.0, 3.0]),
         "k": weights(3, 1, *(3,) * axes), "l": weights(3), "v": weights(2, 3, *(3,) * axes),
         "c": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 3


BORDERS = ["LRN<size=3>(a)", "Selu(a)", "Where(chosen, a, a)"]


@pytest.mark.parametrize("border", BORDERS)
def test_an_operator_without_a_row_stops_removal_and_is_named(border: str) -> None:
    network = graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            x = {border}
            y = Conv(x, u, d)
            output = Conv(y, v, c)
        }}
        """,
        {**first_layer([0.5, 2.0], live=[0]),
         "u": second_layer(1, 1, outputs=3, size=1), "d": weights(3), "chosen": np.array([True]),
         "v": second_layer(1, 0, 1, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 2, "x": 2, "y": 2, "output": 2}
    assert report.borders == (f"x ({re.split('[<(]', border)[0]})",)


def test_a_reshaped_output_keeps_all_of_its_linear() -> None:
    network = graph(
        """
        (float[1,4] input) => (float[1,2,2,1] output) {
            h = Gemm<transB=1>(input, w, b)
            r = Relu(h)
            g = Gemm<transB=1>(r, v, c)
            output = Reshape(g, to)
        }
        """,
        {"w": np.array([[1.0] * 4, [0.0] * 4, [0.0] * 4]), "b": np.array([0.0, 3.0, -1.0]),
         "v": weights(4, 3), "c": weights(4), "to": np.array([1, 2, 2, 1])},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned) == {"h": 1, "r": 1, "g": 4, "output": 2}
    assert report.borders == ()


def test_a_tensor_that_a_subgraph_reads_stays_whole() -> None:
    network = two_layers(first_layer([0.5, -2.0], live=[0]), second_layer(1, 1), pad=1)
    inner = ir.node("Relu", [network.model.graph[0].outputs[0]])
    branch = ir.Graph([], inner.outputs, nodes=[inner], name="branch")
    chosen = ir.node("If", [network.model.graph.inputs[0]], {"then_branch": branch})
    network.model.graph.append(chosen)
    analysis = found(network)
    assert analysis.kept[analysis.structure.labels["a"]].reshape(-1).tolist() == [True, True]


@pytest.mark.parametrize("last", ["Relu(d)", "Add(d, a)"])
def test_graph_outputs_keep_their_channels_and_name(last: str) -> None:
    network = graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {{
            a = Conv(input, w, b)
            d = Conv<pads=[1,1,1,1]>(a, v, c)
            output = {last}
        }}
        """,
        {**first_layer([-1.0, -2.0], live=[0]), "v": np.zeros((2, 2, 3, 3)),
         "c": np.array([-1.0, 2.0])},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned)["output"] == 2
    assert str(pruned.model.graph.outputs[0].name) == "output"


def test_the_input_keeps_its_channels_whoever_reads_them() -> None:
    network = graph(
        """
        (float[1,3,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, v, c)
            d = Conv(input, u, e)
            output = Add(a, d)
        }
        """,
        {"v": second_layer(1, 0, 0, size=1), "c": weights(2), "u": second_layer(0, 0, 1, size=1),
         "e": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert values(pruned)["v"].shape == (2, 3, 1, 1)


def test_where_all_channels_are_dead_one_stays_and_reads_nothing() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            d = Conv(a, v, c)
            r = Relu(d)
            output = Conv<pads=[1,1,1,1]>(r, u, e)
        }
        """,
        {**first_layer([0.5, 1.0], live=[0, 1]), "v": second_layer(0, 0, outputs=3),
         "c": np.array([-1.0, -2.0, 0.0]), "u": second_layer(1, 1, 1), "e": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 1, "d": 1, "r": 1, "output": 2}
    assert report.parameters_after < report.parameters_before


def test_the_channel_that_stays_in_a_dead_tensor_is_one_that_is_constant() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv(a, v, c)
            output = Conv(d, u, e)
        }
        """,
        {**first_layer([0.5, 1.0, 2.0], live=[0, 1, 2]),
         "v": np.stack([second_layer(1, 1, 1, outputs=1, size=1)[0], np.zeros((3, 1, 1))]),
         "c": np.zeros(2), "u": np.zeros((2, 2, 1, 1)), "e": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": 1, "d": 1, "output": 2}


def test_a_constant_beyond_float32_counts_as_varying() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            m = Mul(a, large)
            n = Mul(m, small)
            output = Conv(n, v, c)
        }
        """,
        {**first_layer([0.5, 1e30], live=[0]), "large": 1e30, "small": 1e-30,
         "v": second_layer(1, 1e-30, size=1), "c": weights(2)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 2


CLIPS = {
    "both bounds": ("Clip(a, low, high)", 1.5),
    "no lower bound": ("Clip(a, , high)", 1.5),
    "no upper bound": ("Clip(a, low)", 2.0),
    "no bounds": ("Clip(a)", 2.0),
}


@pytest.mark.parametrize(("call", "constant"), CLIPS.values(), ids=CLIPS)
def test_a_constant_is_clipped_by_the_bounds_there_are(call: str, constant: float) -> None:
    network = graph(
        f"""
        (float[1,1,5,5] input) => (float[1,2,3,3] output) {{
            a = Conv(input, w, b)
            r = {call}
            output = Conv(r, v, c)
        }}
        """,
        {**first_layer([0.5, 2.0], live=[0]), "low": 0.0, "high": 1.5, "v": second_layer(1, 1),
         "c": weights(2)},
    )  # fmt: skip
    _, report = removed(network)
    assert report.tensors[0].removed == (RemovedChannel(1, Reason.FOLDED, constant),)


@pytest.mark.parametrize(
    "between", ["LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Relu"]
)
@pytest.mark.parametrize("bias", [-1000.0, -0.5, 0.5])
def test_a_constant_goes_through_every_activation(between: str, bias: float) -> None:
    network = two_layers(first_layer([0.5, bias], live=[0]), second_layer(1, 1), 0, between)
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 1


def test_an_activation_closes_what_padding_made_of_a_constant() -> None:
    """Channel 0: 1 - 1 or less at every border of any size, closed. 1: not. 2: 5 + 1 or more."""
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<group=4, pads=[1,1,1,1]>(a, k, t)
            x = Clip(d, low, high)
            output = Conv(x, v, c)
        }
        """,
        {
            **first_layer([1.0, 1.0, 1.0, 0.0], live=[3]),
            "k": np.ones((4, 1, 3, 3)) * np.array([-1.0, 1.0, 1.0, 1.0]).reshape(4, 1, 1, 1),
            "t": np.array([1.0, -5.0, 5.0, 0.0]),
            "low": np.array(0.0),
            "high": np.array(6.0),
            "v": weights(2, 4, 1, 1),
            "c": weights(2),
        },
    )
    analysis = found(network)
    np.testing.assert_equal(
        analysis.constants["x"].reshape(-1), np.array([0.0, np.nan, 6.0, np.nan])
    )
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 2, "d": 2, "x": 2, "output": 2}
    assert {(gone.channel, gone.reason) for gone in report.tensors[0].removed} == {
        (0, Reason.ZERO),
        (2, Reason.FOLDED),
    }
