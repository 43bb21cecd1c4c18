"""A layer's masks, ranges and errors against ONNX Runtime, for every layout of a weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from deploykit.graph.ranges.layers import Layer, layer_of
from deploykit.graph.ranges.span import Span
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Float64Array, IntArray
from deploykit.spec.network import Network
from tests.graph.text import graph, weights


@dataclass(frozen=True)
class Case:
    """One layer: operator with attributes, shapes of input, weight and output, and its axis."""

    operator: str
    image: tuple[int, ...]
    weight: tuple[int, ...]
    output: tuple[int, ...]
    axis: int = 1
    biased: bool = True


CASES = {
    "Conv": Case("Conv<pads=[1,1,1,1]>", (1, 4, 5, 5), (6, 4, 3, 3), (1, 6, 5, 5)),
    "Conv in groups": Case("Conv<group=2>", (1, 4, 5, 5), (6, 2, 3, 3), (1, 6, 3, 3)),
    "depthwise": Case("Conv<group=3>", (1, 3, 5, 5), (6, 1, 3, 3), (1, 6, 3, 3)),
    "Conv of a sequence": Case("Conv", (1, 4, 7), (2, 4, 3), (1, 2, 5)),
    "ConvTranspose": Case("ConvTranspose<strides=[2,2]>", (1, 4, 3, 3), (4, 6, 2, 2), (1, 6, 6, 6)),
    "ConvTranspose in groups": Case(
        "ConvTranspose<group=2>", (1, 4, 3, 3), (4, 3, 2, 2), (1, 6, 4, 4)
    ),
    "Gemm": Case("Gemm", (1, 4), (4, 3), (1, 3)),
    "Gemm transposed": Case("Gemm<transB=1>", (1, 4), (3, 4), (1, 3)),
    "MatMul": Case("MatMul", (1, 5, 4), (4, 3), (1, 5, 3), axis=2, biased=False),
}


def network_of(case: Case, weight: AnyArray) -> Network:
    image, output = (",".join(map(str, shape)) for shape in (case.image, case.output))
    bias = ", b" if case.biased else ""
    return graph(
        f"(float[{image}] input) => (float[{output}] output) "
        f"{{ output = {case.operator}(input, w{bias}) }}",
        {"w": weight, **({"b": weights(case.output[case.axis], seed=5)} if case.biased else {})},
    )


def layer_in(network: Network) -> Layer:
    layer = layer_of(network.model.graph[0])
    assert layer is not None
    return layer


def computed(network: Network, image: AnyArray) -> AnyArray:
    return ort.evaluate(network, image.astype(np.float32))["output"]


NONE: IntArray = np.array([], dtype=np.intp)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mask_of_inputs_cuts_off_just_those_channels(case: Case) -> None:
    weight = weights(*case.weight)
    layer = layer_in(network_of(case, weight))
    image = weights(*case.image, seed=2)
    for channel in range(layer.inputs):
        mask = layer.mask(NONE, np.array([channel]))
        silent = image.copy()
        silent[(slice(None),) * case.axis + (channel,)] = 0.0
        np.testing.assert_allclose(
            computed(network_of(case, np.where(mask, 0, weight)), image),
            computed(network_of(case, weight), silent),
            atol=1e-5,
        )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mask_of_outputs_leaves_just_their_biases(case: Case) -> None:
    weight = weights(*case.weight)
    layer = layer_in(network_of(case, weight))
    image = weights(*case.image, seed=2)
    whole = np.moveaxis(computed(network_of(case, weight), image), case.axis, 0)
    for channel in range(layer.outputs):
        mask = layer.mask(np.array([channel]), NONE)
        left = computed(network_of(case, np.where(mask, 0, weight)), image)
        left = np.moveaxis(left, case.axis, 0)
        assert np.all(left[channel] == np.float32(layer.offset[channel]))
        others = np.arange(layer.outputs) != channel
        np.testing.assert_allclose(left[others], whole[others], atol=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ranges_and_errors_hold_and_corners_reach_them(case: Case) -> None:
    network = network_of(case, weights(*case.weight))
    layer = layer_in(network)
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.normal(size=(2, layer.inputs)), axis=0)
    error = rng.uniform(0, 0.1, size=(layer.inputs, 1))
    span = layer.span(Span(low, high, error))
    shape = [1] * len(case.image)
    shape[case.axis] = -1
    lowest, highest = (np.full(layer.outputs, sign * np.inf) for sign in (1, -1))
    for _ in range(300):
        chosen = rng.random(case.image) < rng.choice([0.1, 0.5, 0.9])
        image = np.where(chosen, low.reshape(shape), high.reshape(shape))
        moved = image + rng.choice([-1, 1], size=case.image) * error.reshape(shape)
        result = by_channel(computed(network, image), case)
        change = np.abs(by_channel(computed(network, moved), case) - result)
        assert np.all(result >= span.low[:, None] - 1e-5)
        assert np.all(result <= span.high[:, None] + 1e-5)
        assert np.all(change <= span.error + 1e-5)
        lowest = np.minimum(lowest, result.min(axis=1))
        highest = np.maximum(highest, result.max(axis=1))
    assert np.all(highest - lowest >= 0.25 * (span.high - span.low))


def by_channel(output: AnyArray, case: Case) -> Float64Array:
    moved = np.moveaxis(output, case.axis, 0).astype(np.float64)
    return moved.reshape(len(moved), -1)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_absolute_sum_is_what_absolute_weights_compute(case: Case) -> None:
    """On an image that is the magnitude everywhere, away from the border."""
    weight = np.abs(weights(*case.weight))
    network = network_of(case, weight)
    layer = layer_in(network)
    magnitude = np.random.default_rng(0).uniform(size=layer.inputs)
    shape = [1] * len(case.image)
    shape[case.axis] = -1
    image = np.broadcast_to(magnitude.reshape(shape), case.image)
    most = by_channel(computed(network, image), case).max(axis=1) - layer.offset
    total = layer.absolute_sum(magnitude) - np.abs(layer.offset)
    if "strides" in case.operator:
        assert np.all(most <= total + 1e-5)
    else:
        np.testing.assert_allclose(most, total, rtol=1e-5)


NOT_LAYERS = {
    "a product of two tensors": "output = MatMul(input, input)",
    "a scaled Gemm": "output = Gemm<alpha=2.0>(input, w)",
    "a transposed Gemm": "output = Gemm<transA=1>(input, w)",
    "a constant times a tensor": "output = MatMul(w, input)",
}


@pytest.mark.parametrize("text", NOT_LAYERS.values(), ids=NOT_LAYERS)
def test_not_a_layer(text: str) -> None:
    network = graph(f"(float[3,3] input) => (float[3,3] output) {{ {text} }}", {"w": weights(3, 3)})
    assert layer_of(network.model.graph[0]) is None
