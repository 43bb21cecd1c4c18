"""Every reason for which a channel goes, what the report says of it, and the certificate."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import GraphError, RemovalError
from deploykit.graph.certificate import certificate_inputs, certify
from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import Float32Array, Tensors
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import Network
from deploykit.spec.removal import Reason, RemovedChannel, TensorRemoval
from tests.graph.removing import channels, first_layer, removed, second_layer, two_layers
from tests.graph.text import expected, graph, values, weights, written


def test_a_channel_that_nobody_reads_goes() -> None:
    network = two_layers(first_layer([0.5, 0.5], live=[0, 1]), second_layer(1, 0), pad=1)
    pruned, report = removed(network)
    assert written(pruned) == expected(
        """
        a[1,1,5,5] = Conv(input, w[1,1,1,1], b[1])
        r[1,1,5,5] = Relu(a)
        output[1,2,5,5] = Conv<pads=1,1,1,1>(r, v[2,1,3,3], c[2])
        """
    )
    assert report.tensors == (
        TensorRemoval("a", "a", 2, 1, (RemovedChannel(1, Reason.UNREAD),)),
        TensorRemoval("output", "output", 2, 2, ()),
    )


def test_a_channel_that_relu_cuts_to_zero_goes_under_padding_too() -> None:
    network = two_layers(first_layer([0.5, -2.0], live=[0]), second_layer(1, 1), pad=1)
    pruned, report = removed(network)
    assert channels(pruned) == {"a": 1, "r": 1, "output": 2}
    assert report.tensors[0].removed == (RemovedChannel(1, Reason.ZERO, 0.0),)
    assert report.range_growth == {}


def test_without_padding_a_constant_moves_into_the_bias_with_its_variance() -> None:
    network = two_layers(first_layer([0.5, 2.0], live=[0]), second_layer(1, 1), pad=0)
    pruned, report = removed(network)
    assert report.tensors[0].removed == (RemovedChannel(1, Reason.FOLDED, 2.0),)
    before, after = values(network), values(pruned)
    np.testing.assert_allclose(after["c"], before["c"] + 2 * before["v"][:, 1].sum(axis=(1, 2)))
    told = network.variance["c"] + 4 * network.variance["v"][:, 1].sum(axis=(1, 2))
    np.testing.assert_allclose(pruned.variance["c"], told, rtol=1e-6)
    np.testing.assert_array_equal(pruned.variance["v"], network.variance["v"][:, :1])
    np.testing.assert_array_equal(pruned.variance["w"], network.variance["w"][:1])


def test_under_padding_constants_merge_into_the_largest_with_their_variance() -> None:
    network = two_layers(first_layer([0.5, 1.0, 4.0], live=[0]), second_layer(9, 1, 1), pad=1)
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 2
    assert report.tensors[0].removed == (RemovedChannel(1, Reason.COLLAPSED, 1.0, into=2),)
    assert report.range_growth == {"output": 1.0}
    before, after = values(network), values(pruned)
    np.testing.assert_allclose(after["v"][:, 1], before["v"][:, 2] + before["v"][:, 1] / 4)
    told = network.variance["v"][:, 2] + network.variance["v"][:, 1] / 16
    np.testing.assert_allclose(pruned.variance["v"][:, 1], told, rtol=1e-6)


def kernels(*taps: float) -> Float32Array:
    """[1, I, 3, 3] with one number for all taps of an input channel."""
    return np.repeat(np.array(taps, np.float32), 9).reshape(1, -1, 3, 3)


def test_a_survivor_states_a_larger_constant_where_merging_would_stretch_the_weight_range() -> None:
    """2 W + 2 W = 4 W: the layer before puts out 4 and the kernel W keeps its range."""
    network = two_layers(first_layer([1.0, 2.0, 2.0], live=[0]), kernels(0.1, 1, 1), pad=1)
    pruned, report = removed(network)
    assert report.tensors[0].removed == (RemovedChannel(2, Reason.COLLAPSED, 2.0, into=1),)
    assert report.range_growth == {"output": 1.0}
    np.testing.assert_allclose(values(pruned)["b"], [1.0, 4.0], rtol=2e-6)
    np.testing.assert_allclose(values(pruned)["v"], kernels(0.1, 1), rtol=2e-6)
    np.testing.assert_allclose(pruned.variance["b"], network.variance["b"][:2] * [1, 4], rtol=1e-5)
    told = (network.variance["v"][:, 1] + network.variance["v"][:, 2]) / 4
    np.testing.assert_allclose(pruned.variance["v"][:, 1], told, rtol=1e-5)


def saturated(biases: list[float], kernel: Float32Array) -> Network:
    """Clip to [0, 2]: no survivor can be restated beyond 2."""
    return graph(
        """
        (float[1,1,5,5] input) => (float[1,1,5,5] output) {
            a = Conv(input, w, b)
            r = Clip(a, low, high)
            output = Conv<pads=[1,1,1,1]>(r, v, c)
        }
        """,
        {**first_layer(biases, live=[0]), "low": 0.0, "high": 2.0, "v": kernel, "c": weights(1)},
        ["v"],
    )


def test_several_survivors_share_where_none_can_state_a_larger_constant() -> None:
    """2 (1 + 1 + 1 + 1.5) = 9 is 3 * 2 * 1.5: three survivors, and the range there was."""
    network = saturated([1.0, 2.0, 2.0, 2.0, 2.0], kernels(0.1, 1, 1, 1, 1.5))
    pruned, report = removed(network)
    assert report.tensors[0].removed == (RemovedChannel(4, Reason.COLLAPSED, 2.0, into=1),)
    np.testing.assert_allclose(values(pruned)["v"], kernels(0.1, 1.5, 1.5, 1.5), rtol=1e-6)
    told = network.variance["v"][:, 1:].sum(axis=1, keepdims=True) * 2**2 / (3 * 2) ** 2
    np.testing.assert_allclose(pruned.variance["v"][:, 1:], told.repeat(3, axis=1), rtol=1e-6)


def test_constants_stay_apart_where_every_merge_would_stretch_the_weight_range() -> None:
    network = saturated([1.0, 2.0, 2.0], kernels(0.1, 1, 1))
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 3
    assert report.tensors[0].removed == ()
    assert report.range_growth == {}


def test_a_dead_output_of_the_reader_does_not_keep_constants_apart() -> None:
    """Only its row would be stretched, and the row goes."""
    kernel = second_layer(9, 1, 1)
    kernel[1] = 0.1
    kernel[1, 1:] = 1.0
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,1,5,5] output) {
            a = Conv(input, w, b)
            d = Conv<pads=[1,1,1,1]>(a, v, c)
            output = Conv(d, u, e)
        }
        """,
        {**first_layer([0.5, 4.0, 4.0], live=[0]), "v": kernel, "c": weights(2),
         "u": np.array([1.0, 0.0]).reshape(1, 2, 1, 1), "e": weights(1)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": 2, "d": 1, "output": 1}


def test_a_zero_that_goes_does_not_count_as_weight_range() -> None:
    network = saturated([1.0, 2.0, 2.0, -1.0], kernels(0.1, 1, 1, 100))
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 3
    assert report.tensors[0].removed == (RemovedChannel(3, Reason.ZERO, 0.0),)


def test_a_constant_is_merged_for_a_padded_reader_and_folded_for_the_others_at_once() -> None:
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,2] output) {
            a = Conv(input, w, b)
            r = Relu(a)
            p = Conv<pads=[1,1,1,1]>(r, v, c)
            q = Conv(r, u, e)
            s = Add(p, q)
            t = GlobalAveragePool(s)
            tf = Flatten(t)
            f = Flatten(r)
            g = Gemm<transB=1>(f, x, y)
            output = Add(tf, g)
        }
        """,
        {**first_layer([0.5, 1.0, 4.0, -1.0], live=[0]), "v": second_layer(9, 1, 1, 1),
         "c": weights(2), "u": second_layer(1, 1, 1, 1, size=1), "e": weights(2),
         "x": weights(2, 64), "y": weights(2)},
        ["v", "u", "x"],
    )  # fmt: skip
    pruned, report = removed(network)
    assert channels(pruned) == {
        "a": 2, "r": 2, "p": 2, "q": 2, "s": 2, "t": 2, "tf": 2, "f": 32, "g": 2, "output": 2,
    }  # fmt: skip
    assert report.tensors[0].removed == (
        RemovedChannel(1, Reason.COLLAPSED, 1.0, into=2),
        RemovedChannel(3, Reason.ZERO, 0.0),
    )
    for name in ("v", "u", "x"):
        assert pruned.variance[name].shape == values(pruned)[name].shape


def test_a_constant_that_no_live_weight_reads_is_unread_and_not_folded() -> None:
    network = two_layers(first_layer([0.5, 2.0], live=[0]), second_layer(1, 0), pad=0)
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 1
    assert report.tensors[0].removed == (RemovedChannel(1, Reason.UNREAD),)


def behind_a_norm(
    gain: list[float], offset: list[float], padded: Float32Array, before: Float32Array
) -> Network:
    """conv -> batch norm -> padded conv, and a 1 x 1 conv that reads before the norm; their sum."""
    return graph(
        """
        (float[1,1,5,5] input) => (float[1,2,5,5] output) {
            a = Conv(input, w, b)
            n = BatchNormalization(a, g, t, m, s)
            p = Conv<pads=[1,1,1,1]>(n, v, c)
            q = Conv(a, u, e)
            output = Add(p, q)
        }
        """,
        {**first_layer([0.5, 1.0, 4.0], live=[0, 1, 2]), "g": np.array(gain),
         "t": np.array(offset), "m": weights(3), "s": np.ones(3), "v": padded, "c": weights(2),
         "u": before, "e": weights(2)},
    )  # fmt: skip


def test_what_stays_may_vary_before_a_batch_norm_that_makes_it_constant() -> None:
    """gamma = 0: the channel is constant behind the norm, and its layer still has to compute it."""
    reader, before = second_layer(9, 1, 1), second_layer(1, 0, 0, size=1)
    pruned, report = removed(behind_a_norm([1, 0, 0], [0.5, 4, 1], reader, before))
    assert channels(pruned) == {"a": 2, "n": 2, "p": 2, "q": 2, "output": 2}
    assert report.tensors[0].removed == (RemovedChannel(2, Reason.COLLAPSED, 1.0, into=1),)


def test_constants_merge_into_one_that_stays_anyway_even_if_it_is_smaller() -> None:
    """Channel 1 is constant behind the norm, and stays since the 1 x 1 reader sees it vary."""
    reader, before = second_layer(9, 1, 0.01), second_layer(1, 1, 0, size=1)
    pruned, report = removed(behind_a_norm([1, 0, 0], [0.5, 1, 4], reader, before))
    assert channels(pruned)["a"] == 2
    assert report.tensors[0].removed == (RemovedChannel(2, Reason.COLLAPSED, 4.0, into=1),)


def test_a_constant_that_another_reader_sees_vary_stays() -> None:
    network = graph(
        """
        (float[1,1,5,5] input) => (float[1,1,5,5] output) {
            a = Conv(input, w, b)
            z = Mul(a, gate)
            p = Conv<pads=[1,1,1,1]>(z, v, c)
            q = Conv(a, u, c2)
            output = Add(p, q)
        }
        """,
        {**first_layer([0.5, 1.0], live=[0, 1]), "gate": np.array([1, 0]).reshape(2, 1, 1),
         "v": second_layer(1, 1, outputs=1), "c": weights(1),
         "u": second_layer(0, 1, outputs=1, size=1), "c2": weights(1)},
    )  # fmt: skip
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 2


def test_a_constant_row_folds_the_variance_of_what_it_read() -> None:
    """Row 1 of the second layer reads only the constant: it is one, and its bias says how sure."""
    kernel = second_layer(1, 1)
    kernel[1, 0] = 0.0
    network = two_layers(first_layer([0.5, 2.0], live=[0]), kernel, pad=0)
    pruned, _ = removed(network)
    told = network.variance["c"] + 4 * network.variance["v"][:, 1].sum(axis=(1, 2))
    np.testing.assert_allclose(pruned.variance["c"], told, rtol=1e-6)
    assert np.all(pruned.variance["v"][1] == 0)


def test_the_report_counts_parameters_and_macs() -> None:
    network = two_layers(first_layer([0.5, -2.0], live=[0]), second_layer(1, 1), pad=1)
    _, report = removed(network)
    assert (report.parameters_before, report.parameters_after) == (4 + 38, 2 + 20)
    assert (report.macs_before, report.macs_after) == (25 * 2 + 25 * 36, 25 + 25 * 18)


def test_the_given_network_is_left_as_it_was() -> None:
    network = two_layers(first_layer([0.5, -2.0], live=[0]), second_layer(1, 1), pad=1)
    text, held = written(network), values(network)
    removed(network)
    assert written(network) == text
    for name, array in values(network).items():
        np.testing.assert_array_equal(array, held[name])


class Lying:
    """An evaluator whose second network differs by a given relative amount, for one input kind."""

    def __init__(self, kind: int, difference: float) -> None:
        self.calls, self.kind, self.difference = 0, kind, difference

    def __call__(self, network: Network, inputs: GraphInputs) -> Tensors:
        call, self.calls = self.calls, self.calls + 1
        honest = dict(evaluate(network, inputs))
        if call == 2 * self.kind + 1:
            honest["output"] = honest["output"] + self.difference * np.abs(honest["output"]).max()
        return honest


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("difference", [1e-3, float("nan"), float("inf")])
def test_a_difference_in_any_kind_of_input_is_an_error(kind: int, difference: float) -> None:
    network = two_layers(first_layer([0.5, -2.0], live=[0]), second_layer(1, 1), pad=1)
    with pytest.raises(RemovalError, match=r"changed the network by .* --prune-rule none"):
        remove_dead_channels(network, Lying(kind, difference))


def test_the_certificate_says_how_large_the_difference_was_and_where() -> None:
    network = two_layers(first_layer([0.5, -2.0], live=[0]), second_layer(1, 1), pad=1)
    model = network.model.clone()
    model.graph.name = "another"
    pruned = Network(model, network.variance)
    certificate = certify(network, pruned, pruned, Lying(3, 1e-3), lambda _, whole: whole)
    assert certificate.relative["border"] == pytest.approx(1e-3)
    assert {certificate.relative[kind] for kind in ("random", "zero", "extreme")} == {0.0}
    assert certificate.max_relative == certificate.relative["border"]
    kinds = certificate_inputs(network).values()
    assert certificate.samples == sum(len(inputs["input"]) for inputs in kinds)


def test_a_graph_of_which_nothing_went_is_evaluated_once() -> None:
    network = two_layers(first_layer([0.5, -2.0], live=[0]), second_layer(1, 1), pad=1)
    counted: list[Network] = []

    def counting(network: Network, inputs: GraphInputs) -> Tensors:
        counted.append(network)
        return evaluate(network, inputs)

    certificate = certify(network, network, network, counting, lambda _, whole: whole)
    assert len(counted) == len(certificate.relative)
    assert certificate.max_relative == certificate.rounded == 0.0


@pytest.mark.parametrize("shape", ["1,2,5,6", "1,2,7"])
def test_border_inputs_are_zero_inside_a_frame(shape: str) -> None:
    port = f"float[{shape}]"
    network = graph(f"({port} input) => ({port} output) {{ output = Relu(input) }}", {})
    border = certificate_inputs(network)["border"]["input"]
    inside = border[(slice(None), slice(None), *(slice(1, -1),) * (border.ndim - 2))]
    assert inside.size > 0
    assert np.all(inside == 0)
    assert np.count_nonzero(border) == border.size - inside.size


def test_a_symbolic_input_shape_cannot_be_certified() -> None:
    network = graph("(float[N,2] input) => (float[N,2] output) { output = Relu(input) }", {})
    with pytest.raises(GraphError, match="static shape"):
        remove_dead_channels(network, evaluate)
