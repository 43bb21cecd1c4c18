"""onnxsim may tidy the graph, never the weights; the whole sequence keeps variances in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deploykit.graph.capture import capture
from deploykit.graph.normalize import normalize
from deploykit.graph.passes.canonical import canonicalize
from deploykit.graph.passes.simplify import simplify
from deploykit.graph.tracking import apply_pass
from deploykit.spec.network import Network
from tests.graph.text import (
    assert_same_function,
    expected,
    graph,
    probes,
    values,
    weights,
    written,
)


def two_zero_biases(*with_variance: str) -> Network:
    return graph(
        """
        (float[1,2,4,4] input) => (float[1,2,4,4] output) {
            a = Conv<pads=[1,1,1,1]>(input, w, "a.bias")
            r = Relu(a)
            c = Conv<pads=[1,1,1,1]>(r, v, "b.bias")
            output = Add(c, a)
        }
        """,
        {"w": weights(2, 2, 3, 3), "v": weights(2, 2, 3, 3, seed=1), "a.bias": np.zeros(2),
         "b.bias": np.zeros(2)},
        with_variance,
    )  # fmt: skip


@pytest.mark.parametrize("named", [(), ("a.bias",), ("b.bias",), ("a.bias", "b.bias")])
def test_initializers_of_equal_content_stay_two_with_their_own_variances(
    named: tuple[str, ...],
) -> None:
    before = two_zero_biases("w", *named)
    after = apply_pass("simplify", simplify, before)
    assert written(after) == written(before)
    canonical = apply_pass("canonicalize", canonicalize, after)
    assert set(canonical.variance) == {"w", *named}
    for name in named:
        np.testing.assert_array_equal(canonical.variance[name], before.variance[name])


def test_identities_and_dead_code_go_and_shapes_are_inferred() -> None:
    before = graph(
        """
        (float[1,2,4,4] input) => (float[1,2,1,1] output) {
            a = Conv<pads=[1,1,1,1]>(input, w)
            b = Identity(a)
            c = Relu(b)
            unread = Sigmoid(b)
            output = GlobalAveragePool(c)
        }
        """,
        {"w": weights(2, 2, 3, 3)},
        ["w"],
    )
    for value in before.model.graph[0].outputs:
        value.shape = None
    after = apply_pass("simplify", simplify, before)
    assert written(after) == expected(
        """
        a[1,2,4,4] = Conv<pads=1,1,1,1>(input, w[2,2,3,3])
        c[1,2,4,4] = Relu(a)
        output[1,2,1,1] = GlobalAveragePool(c)
        """
    )
    assert_same_function(before, after)


def test_a_weight_that_onnxsim_would_take_away_stays_and_shapes_are_inferred() -> None:
    before = graph(
        """
        (float[1,2,4,4] input) => (float[1,2,4,4] output) {
            g = Mul(w, z)
            a = Conv<pads=[1,1,1,1]>(input, g)
            output = Relu(a)
        }
        """,
        {"w": weights(2, 2, 3, 3), "z": 3.0},
        ["w"],
    )
    before.model.graph[1].outputs[0].shape = None
    after = apply_pass("simplify", simplify, before)
    assert written(after) == expected(
        """
        g[2,2,3,3] = Mul(w[2,2,3,3], z[])
        a[1,2,4,4] = Conv<pads=1,1,1,1>(input, g)
        output[1,2,4,4] = Relu(a)
        """
    )


def convolution_with_norm() -> torch.nn.Module:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.BatchNorm2d(3))
    norm = network[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -3.0, 0.5]))
        norm.running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))  # type: ignore[union-attr]
    return network.eval()


def test_batch_norm_is_folded_by_us_with_the_variance_and_not_by_the_exporter() -> None:
    module = convolution_with_norm()
    weight = module.get_parameter("0.weight").detach().numpy().copy()
    given = np.full(weight.shape, 0.5, np.float32)
    captured = capture(module, {"0.weight": given}, np.zeros((1, 2, 5, 5), np.float32))
    np.testing.assert_array_equal(values(captured)["0.weight"], weight)
    after = normalize(captured)
    assert written(after) == expected(
        """
        output[1,3,5,5] = Conv<pads=1,1,1,1>(input, 0.weight[3,2,3,3], 0.bias[3])
        """
    )
    gain = np.array([2.0, -3.0, 0.5]) / np.sqrt(np.array([4.0, 0.25, 1.0]) + 1e-5)
    scaled = weight * gain.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(values(after)["0.weight"], scaled, rtol=1e-6)
    for o in range(3):
        np.testing.assert_allclose(after.variance["0.weight"][o], 0.5 * gain[o] ** 2, rtol=1e-6)
    assert_same_function(captured, after)


def test_the_normalized_graph_computes_what_the_module_does() -> None:
    from deploykit.reference.float import evaluate

    module = convolution_with_norm()
    after = normalize(capture(module, {}, np.zeros((1, 2, 5, 5), np.float32)))
    for inputs in probes(after):
        with torch.no_grad():
            told = module.double()(torch.from_numpy(inputs)).numpy()
        np.testing.assert_allclose(evaluate(after, inputs)["output"], told, rtol=1e-5, atol=1e-5)
