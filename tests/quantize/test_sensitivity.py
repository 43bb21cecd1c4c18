"""What rounding costs, by the posterior and by the network's own output."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from deploykit.errors import QuantizationError
from deploykit.quantize.allocation import front
from deploykit.quantize.answers import classes, divergence, probabilities, relative_error, right
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.informative import SCALES, draw_test, spread_ratio
from deploykit.quantize.measuring import Asked, Measured, measured_choices, with_all_moments
from deploykit.quantize.nodes import parameter
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import calibrate, plan_quantization
from deploykit.quantize.rounded_layers import (
    RoundedLayers,
    real_weight,
    rounded_network,
    with_initializers,
)
from deploykit.quantize.sensitivity import by_moments, by_posterior, free_groups
from deploykit.quantize.settling import Runners
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.allocation import ALLOCATED_BITS, Measure, SensitivityChoice
from deploykit.spec.arrays import AnyArray
from deploykit.spec.given import Given, WeightGrid
from deploykit.spec.network import Network
from deploykit.spec.plan import Rounding
from deploykit.spec.progress import ignore
from deploykit.spec.quantized import int_range
from deploykit.spec.samples import Samples
from tests.quantize.graphs import CONV1, CONV3, float_network, seeded
from tests.quantize.test_bits import tied_network

SAMPLES = Samples(seeded(16, 3, 8, 8, seed=9))
RUNNERS = Runners(ort.evaluate, ReferenceRunner(), ())
WEIGHTED = ("stem", "depthwise", "project", "output")


def small_network() -> Network:
    """A window, a depthwise and a 1x1 convolution, and a linear."""
    return float_network(
        f"""
        small (float[1, 3, 8, 8] input) => (float[1, 5] output) {{
            stem = Conv <{CONV3}> (input, w0, b0)
            clipped = Relu (stem)
            depthwise = Conv <{CONV3}, group=8> (clipped, w1, b1)
            project = Conv <{CONV1}> (depthwise, w2, b2)
            mean = GlobalAveragePool (project)
            flat = Flatten <axis=1> (mean)
            output = Gemm <transB=1> (flat, w3, b3)
        }}
        """,
        w0=seeded(8, 3, 3, 3, seed=1), b0=seeded(8, seed=2),
        w1=seeded(8, 1, 3, 3, seed=3), b1=seeded(8, seed=4),
        w2=seeded(12, 8, 1, 1, seed=5), b2=seeded(12, seed=6),
        w3=seeded(5, 12, seed=7), b3=seeded(5, seed=8),
    )  # fmt: skip


def spread(network: Network, deviation: float, factor: float = 4.0) -> Network:
    """The same network, every weight and bias with a standard deviation of so much of its rms.

    factor: between the largest and the smallest deviation.
    """
    rng = np.random.default_rng(0)

    def variance_of(values: AnyArray) -> AnyArray:
        varied = factor ** rng.uniform(-1.0, 1.0, values.shape)
        return np.asarray(deviation**2 * np.square(values).mean() * varied, np.float32)

    variance = {
        str(name): variance_of(held.const_value.numpy())
        for name, held in network.model.graph.initializers.items()
        if held.const_value is not None and held.const_value.numpy().dtype == np.float32
    }
    return replace(network, variance=variance)


def rounded_layers(
    network: Network,
    options: QuantizationOptions = QuantizationOptions(),  # noqa: B008  frozen
) -> RoundedLayers:
    return RoundedLayers(calibrate(network, SAMPLES, with_all_moments(options), RUNNERS), options)


def measured(
    network: Network,
    sensitivity: SensitivityChoice = SensitivityChoice.AUTO,
    bits: WeightBits = WeightBits(8),  # noqa: B008  frozen
    labelled: Samples | None = None,
) -> Measured:
    options = QuantizationOptions(bits=bits)
    return measured_choices(
        rounded_layers(network, options),
        Asked(sensitivity, ALLOCATED_BITS, ("onnx", "tflite")),
        labelled, network, ort.evaluate, ignore,
    )  # fmt: skip


def test_the_posterior_counts_squares_over_the_spread() -> None:
    network = spread(small_network(), 0.1)
    rounded = rounded_layers(network)
    groups = free_groups(rounded.calibrated, WeightBits(8))
    assert tuple(group[0].name for group in groups) == WEIGHTED
    found = by_posterior(rounded, groups)
    for (layer,), bits in [(groups[0], 2), (groups[1], 4), (groups[3], 8)]:
        plan = rounded.at(layer, bits).weight
        assert plan is not None
        _, highest = int_range(bits)
        variance = network.variance[str(layer.nodes[0].inputs[1].name)]  # type: ignore[union-attr]
        nats = 0.0
        for index, weight in np.ndenumerate(parameter(layer.nodes[0], 1)):
            scale = float(plan.scale[index[0]])
            integer = min(max(round(weight / scale), -highest), highest)
            nats += (integer * scale - weight) ** 2 / (2 * float(variance[index]))
        assert found[layer.name][bits] == pytest.approx(nats, rel=1e-5)
    for by_bits in found.values():
        assert all(by_bits[2] > by_bits[b] > by_bits[8] for b in (3, 4, 5, 6))


def test_zeros_without_a_posterior_are_told_to_have_none() -> None:
    network = small_network()
    arrays = {
        str(name): np.zeros_like(held.const_value.numpy())
        for name, held in network.model.graph.initializers.items()
        if held.const_value is not None
    }
    variance = {name: array for name, array in arrays.items() if array.dtype == np.float32}
    dead = replace(with_initializers(network, arrays), variance=variance)
    found = measured(dead)
    assert found.measure is Measure.MOMENTS and found.evidence is not None
    assert found.evidence.lacking == WEIGHTED
    assert "no variance is known" in found.evidence.why
    with pytest.raises(QuantizationError, match="--sensitivity posterior: no variance is known"):
        measured(dead, SensitivityChoice.POSTERIOR)


def test_moments_are_the_change_of_the_output_with_one_layer_rounded() -> None:
    network = small_network()
    rounded = rounded_layers(network)
    groups = free_groups(rounded.calibrated, WeightBits(8))
    found = by_moments(
        rounded, groups, SAMPLES.inputs, ort.evaluate, lambda real: relative_error, ignore
    )
    real = ort.evaluate(network, SAMPLES.inputs)["output"]

    def changed(place: int, bits: int) -> float:
        (layer,) = groups[place]
        other = rounded_network(rounded.calibrated, [(layer, rounded.at(layer, bits))])
        error = ort.evaluate(other, SAMPLES.inputs)["output"] - real
        return float(np.square(error.astype(np.float64)).mean() / real.astype(np.float64).var())

    for place, name in enumerate(WEIGHTED):
        for bits in (2, 4):
            assert found[name][bits] == pytest.approx(changed(place, bits), rel=1e-3)
        # Finer steps are scaled from 4 bits, not measured: the order of magnitude is enough.
        for bits in (6, 8):
            assert 0.1 < found[name][bits] / changed(place, bits) < 10
        assert found[name][2] > found[name][4] > found[name][8]


def test_plans_of_rounded_layers_are_those_that_planning_makes() -> None:
    bits = {"stem": 8, "depthwise": 6, "project": 2, "output": 3}
    for rounding in Rounding:
        options = QuantizationOptions(rounding=rounding)
        found = rounded_layers(small_network(), options).plan(bits, RUNNERS)
        asked = replace(options, bits=WeightBits(8, bits))
        wanted = plan_quantization(small_network(), SAMPLES, asked, RUNNERS)
        assert str(found) == str(wanted)
        for one, other in zip(found.layers, wanted.layers, strict=True):
            if one.weight is not None and other.weight is not None:
                np.testing.assert_array_equal(one.weight.values, other.weight.values)
                np.testing.assert_array_equal(one.weight.scale, other.weight.scale)
                np.testing.assert_array_equal(one.bias, other.bias)


def test_a_posterior_of_the_size_of_rounding_guides_the_bits() -> None:
    found = measured(spread(small_network(), 0.004))
    assert found.measure is Measure.POSTERIOR
    evidence = found.evidence
    assert evidence is not None and evidence.informative and evidence.test is not None
    assert evidence.test.judged_by == "answers"
    assert evidence.noise is not None
    assert any(1 / 8 <= ratio <= 8 for ratio in evidence.noise.values())


@pytest.mark.parametrize(
    ("deviation", "told"),
    [
        (100.0, r"with draws of 0\.125 of the posterior's spread the share of answers that stay"),
        (
            1e-6,
            r"rounding errors are not of the size of the posterior's spread: [\d.e+]+ at 2 bits",
        ),
    ],
)
def test_a_posterior_that_says_nothing_leaves_it_to_moments(deviation: float, told: str) -> None:
    network = spread(small_network(), deviation)
    found = measured(network)
    assert found.measure is Measure.MOMENTS
    assert found.evidence is not None and not found.evidence.informative
    assert re.search(told, found.evidence.why)
    asked = measured(network, SensitivityChoice.POSTERIOR)
    assert asked.measure is Measure.POSTERIOR
    assert asked.evidence is not None and not asked.evidence.informative


def test_a_spread_that_training_left_as_it_was_leaves_it_to_moments() -> None:
    found = measured(spread(small_network(), 0.004, factor=1.0))
    assert found.measure is Measure.MOMENTS
    assert found.evidence is not None
    assert found.evidence.why.startswith("its spread is nearly one number")
    assert found.evidence.test is None


def test_the_spread_s_quartiles_are_those_of_weights() -> None:
    network = small_network()
    deviations = np.arange(1.0, 101.0)  # quartiles 25.75 and 75.25
    variance = {
        "w": np.square(deviations).reshape(10, 10),
        "b": np.full(10, 1e6),
        "z": np.zeros((2, 2)),
    }
    assert spread_ratio(replace(network, variance=variance)) == pytest.approx(75.25 / 25.75)
    assert spread_ratio(replace(network, variance={})) == 1.0


def test_layers_without_a_variance_leave_it_to_moments_unless_their_bits_are_given() -> None:
    network = spread(small_network(), 0.004)
    variance = {name: held for name, held in network.variance.items() if name != "w2"}
    partly = replace(network, variance=variance)
    found = measured(partly)
    assert found.measure is Measure.MOMENTS
    assert found.evidence is not None
    assert found.evidence.lacking == ("project",)
    with pytest.raises(QuantizationError, match="no variance is known for the weights of project"):
        measured(partly, SensitivityChoice.POSTERIOR)
    named = measured(partly, bits=WeightBits(8, {"project": 4}))
    assert named.measure is Measure.POSTERIOR
    (project,) = (one for one in named.choices if one.name == "project")
    assert project.fixed == "as asked"
    assert dict(project.file_bytes) == {4: 8 * 12}  # model.onnx has no carrier for so few
    dead = {**network.variance, "w2": np.zeros((12, 8, 1, 1), np.float32)}
    assert measured(replace(network, variance=dead)).measure is Measure.MOMENTS


def test_layers_that_share_their_weights_are_one_choice() -> None:
    found = measured(tied_network(), SensitivityChoice.MOMENTS)
    (shared,) = found.choices
    assert shared.layers == ("first", "output")
    assert shared.weights == 81
    fixed = measured(tied_network(), SensitivityChoice.MOMENTS, WeightBits(8, {"output": 4}))
    assert fixed.choices[0].fixed == "as asked"


def test_trained_integers_stay_and_count() -> None:
    codes = np.random.default_rng(1).integers(-7, 8, (12, 8, 1, 1)).astype(np.float32)
    network = with_initializers(small_network(), {"w2": codes * np.float32(0.01)})
    grid = WeightGrid(4, np.array([0.01], np.float32))
    network = replace(network, given=Given({"w2": grid}, {}))
    found = measured(network, SensitivityChoice.MOMENTS)
    (project,) = (one for one in found.choices if one.name == "project")
    assert project.fixed == "as given"
    assert list(project.file_bytes) == [4]
    allocations = front(found.choices, [one.file_bytes for one in found.choices])
    plan = rounded_layers(network).plan(allocations.bits(0), RUNNERS)
    (held,) = (layer.weight for layer in plan.layers if layer.name == "project")
    assert held is not None
    np.testing.assert_array_equal(held.values, codes)


def test_draws_are_judged_on_labels_where_there_are_some() -> None:
    network = spread(small_network(), 2.0)
    labels = ort.evaluate(network, SAMPLES.inputs)["output"].argmax(axis=1)
    found = draw_test(network, replace(SAMPLES, labels=labels), ort.evaluate)
    assert (found.judged_by, found.mean, found.samples) == ("accuracy", 1.0, 16)
    tried = list(found.by_scale)
    assert tried == list(SCALES[: len(tried)])
    assert all(share < 0.99 for share in list(found.by_scale.values())[:-1])
    assert len(tried) > 1


def logits(*rows: list[float]) -> AnyArray:
    return np.array(rows, np.float32)


def test_answers_are_compared_as_their_definitions_say() -> None:
    real = {"y": logits([0.0, 0.0], [np.log(3.0), 0.0])}
    found = {"y": logits([1.0, 1.0], [0.0, 0.0])}
    kl = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert divergence(real, found) == pytest.approx(kl / 2)
    assert divergence(real, real) == 0.0
    assert relative_error({"y": logits([0.0, 2.0])}, {"y": logits([0.0, 1.0])}) == 0.5
    assert relative_error({"y": np.array([1, 2, 3])}, {"y": np.array([1, 2, 4])}) == (
        pytest.approx(1 / 3)
    )
    np.testing.assert_allclose(probabilities(logits([0.25, 0.75])), [[0.25, 0.75]])
    assert classes(real)
    assert not classes({"y": logits([1.0])})
    assert not classes({**real, "z": real["y"]})
    assert right(found, np.array([0, 1])) == 0.5
    assert right({"y": np.array([3, 1])}, np.array([3, 2])) == 0.5


def test_real_weights_are_the_integers_steps() -> None:
    rounded = rounded_layers(small_network())
    (layer,) = free_groups(rounded.calibrated, WeightBits(8))[0]
    plan = rounded.at(layer, 4)
    assert plan.weight is not None
    expected = plan.weight.values[5, 2, 1, 2] * float(plan.weight.scale[5])
    assert real_weight(plan)[5, 2, 1, 2] == pytest.approx(expected)
