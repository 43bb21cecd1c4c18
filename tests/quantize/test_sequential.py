"""Layer after layer: means and moved weights against loops, and the gain behind several layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.quantize.apply import apply_plan
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.blocking import Blocking, blocking_of
from deploykit.quantize.evidence import Evidence, OutputMeans
from deploykit.quantize.moments import InputMoments
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.patches import sample_patches, tap_means
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.sequential import HOLD, moved_weight
from deploykit.quantize.settling import Runners
from deploykit.quantize.structure import build_structure
from deploykit.quantize.weighted import weighted_plan
from deploykit.reference import integer
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.correction import output_means
from deploykit.spec.network import Network
from deploykit.spec.operators import Window
from deploykit.spec.plan import QuantPlan, Rounding
from deploykit.spec.quantized import Quantization, int_range
from deploykit.spec.samples import Samples
from tests.quantize.graphs import CONV1, CONV3, float_network, residual_network, seeded

RUNNERS = Runners(ort.OutputEvaluator(), ReferenceRunner(), [])
WINDOWS = [
    (Window((3, 3), (1, 1), (1, 1, 1, 1)), (6, 5)),
    (Window((3, 3), (2, 2), (0, 0, 1, 1)), (3, 2)),
    (Window((5, 3), (2, 1), (3, 1, 2, 1)), (4, 5)),
    (Window((3, 3), (1, 1), (2, 2, 2, 2), (2, 2)), (6, 5)),
    (Window((1, 1), (2, 2), (0, 0, 0, 0)), (3, 3)),
]


@pytest.mark.parametrize(("window", "output"), WINDOWS)
def test_tap_means_are_those_of_all_patches(window: Window, output: tuple[int, int]) -> None:
    values = seeded(3, 2, 6, 5)
    every = sample_patches(values, window, output, 10**6, 0)
    assert len(every) == 3 * output[0] * output[1]
    np.testing.assert_allclose(
        tap_means(values, window, output), every.mean(axis=0, dtype=np.float64), atol=1e-7
    )


def test_tap_means_of_a_linear_are_its_features() -> None:
    values = seeded(7, 4)
    assert tap_means(values, None, ()).shape == (4, 1)
    np.testing.assert_allclose(tap_means(values, None, ())[:, 0], values.mean(0), atol=1e-7)


def test_output_means_of_a_grouped_convolution_are_a_loops() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-7, 8, (6, 2, 3, 3)).astype(np.int8)
    scale, read = rng.random(6).astype(np.float32), rng.random((4, 9))
    for o, mean in enumerate(output_means(values, scale, read)):
        inputs = read[2 * (o // 3) : 2 * (o // 3) + 2].reshape(2, 3, 3)
        assert mean == pytest.approx(float(scale[o]) * float((values[o] * inputs).sum()))


def test_the_moved_weight_is_the_least_squares_solution_held_to_the_weight() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 5))
    rounded = real + 0.3 * rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    weight = rng.normal(size=(3, 5))
    moments = rounded.T @ rounded / 400
    lost = rounded.T @ (real - rounded) / 400
    found = moved_weight(
        weight, Blocking(1, 1), moments[None].astype(np.float32), lost[None].astype(np.float32)
    )
    slack = np.sqrt(HOLD * (np.diag(moments) + np.diag(moments).mean()))
    tall = np.concatenate([rounded / 20, np.diag(slack)])
    wanted = np.concatenate([real @ weight.T / 20, slack[:, None] * weight.T])
    expected = np.linalg.lstsq(tall, wanted, rcond=None)[0].T
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_inputs_that_never_vary_move_nothing() -> None:
    weight = np.ones((4, 1, 3, 3))
    silent = np.zeros((4, 9, 9), np.float32)
    moved = moved_weight(weight, blocking_of(weight, 4), silent, silent)
    np.testing.assert_array_equal(moved, weight)


def deep_network() -> Network:
    """Six convolutions, depthwise ones among them, of 8 channels."""
    lines, arrays, before = [], {}, "input"
    for index in range(6):
        group = 8 if index % 2 else 1
        body = CONV3 if group == 8 else CONV1
        into = "output" if index == 5 else f"c{index}"
        lines.append(f"{into} = Conv <{body}, group={group}> ({before}, w{index}, b{index})")
        shape = (8, 1, 3, 3) if group == 8 else (8, 8, 1, 1)
        arrays[f"w{index}"] = seeded(*shape, seed=index) / 2
        arrays[f"b{index}"] = seeded(8, seed=20 + index) / 4
        before = into
        if index < 5:
            lines.append(f"r{index} = Relu ({into})")
            before = f"r{index}"
    text = "g (float[1,8,8,8] input) => (float[1,8,8,8] output) {{ {} }}".format(" ".join(lines))
    return float_network(text, **arrays)


def images(count: int, seed: int) -> AnyArray:
    return seeded(count, 8, 1, 1, seed=seed) + seeded(count, 8, 8, 8, seed=seed) / 4


def planned(network: Network, inputs: AnyArray, rounding: Rounding, bits: int = 8) -> QuantPlan:
    options = QuantizationOptions(bits=WeightBits(bits), rounding=rounding)
    return plan_quantization(network, Samples(inputs), options, RUNNERS)


def error(network: Network, plan: QuantPlan, inputs: AnyArray) -> float:
    """Mean square of the outputs' difference on other inputs, of the outputs' own."""
    integers = apply_plan(network, plan)
    port = integers.inputs[0]
    fed = {port.name: integers.tensors[port.tensor].quantization.quantize(inputs)}
    found = integer.run(integers, fed)[integers.outputs[0].tensor]
    real = integers.tensors[integers.outputs[0].tensor].quantization.dequantize(found)
    expected = ort.evaluate(network, inputs)["output"]
    return float(((real - expected) ** 2).mean() / (expected**2).mean())


def test_in_sequence_four_bits_err_less_behind_several_layers() -> None:
    network, other = deep_network(), images(100, seed=9)
    errors = {
        rounding: error(network, planned(network, images(60, seed=3), rounding, 4), other)
        for rounding in (Rounding.COMPENSATED, Rounding.SEQUENTIAL)
    }
    assert errors[Rounding.SEQUENTIAL] < 0.8 * errors[Rounding.COMPENSATED]


def test_weights_stay_within_their_rounding_of_the_float_ones() -> None:
    network = residual_network()
    plan = planned(network, seeded(20, 3, 8, 8), Rounding.SEQUENTIAL, 4)
    held = {name: value.const_value for name, value in network.model.graph.initializers.items()}
    for layer in plan.layers:
        if layer.weight is None:
            continue
        stored = held[layer.weight.name]
        assert stored is not None and layer.output_shift is not None and layer.input_means is None
        weight = stored.numpy().astype(np.float64)
        scale = layer.weight.scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
        steps = np.clip(weight / scale, -7, 7)
        assert np.abs(steps - layer.weight.values).max() <= Rounding.SEQUENTIAL.steps + 1e-6


def test_the_plan_is_the_same_twice() -> None:
    network, inputs = residual_network(), seeded(10, 3, 8, 8)
    first, second = (planned(network, inputs, Rounding.SEQUENTIAL, 4) for _ in range(2))
    for one, other in zip(first.layers, second.layers, strict=True):
        if one.weight is not None and other.weight is not None:
            np.testing.assert_array_equal(one.weight.values, other.weight.values)
            np.testing.assert_array_equal(one.bias, other.bias)
    assert replace(first, layers=()) == replace(second, layers=())


def test_a_layer_may_read_one_tensor_twice() -> None:
    network = float_network(
        f"""
        g (float[1,2,3,3] input) => (float[1,2,3,3] output) {{
            c = Conv <{CONV1}> (input, w, b)
            square = Mul (c, c)
            output = Conv <{CONV1}> (square, w2, b)
        }}
        """,
        w=seeded(2, 2, 1, 1), w2=seeded(2, 2, 1, 1, seed=1), b=seeded(2, seed=2),
    )  # fmt: skip
    plan = planned(network, seeded(20, 2, 3, 3), Rounding.SEQUENTIAL)
    assert [layer.operator for layer in plan.layers] == ["Conv", "Mul", "Conv"]
    assert plan.layers[2].output_shift is not None


@pytest.mark.parametrize("shrunk", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("bits", [8, 4])
def test_integers_stay_near_the_weight_wherever_the_target_lies(bits: int, shrunk: float) -> None:
    weight = seeded(4, 30)
    network = float_network(
        "g (float[1,30] input) => (float[1,4] output) { output = Gemm <transB=1> (input, w, b) }",
        w=weight, b=seeded(4, seed=1),
    )  # fmt: skip
    (layer,) = build_structure(network)
    moments = InputMoments(Blocking(1, 1), np.eye(30, dtype=np.float32)[None], 100)
    means = OutputMeans(np.zeros(4), np.zeros((30, 1)))
    evidence = Evidence(moments, shrunk * weight.astype(np.float64), means)
    options = QuantizationOptions(rounding=Rounding.SEQUENTIAL)
    chosen = dict.fromkeys(("input", "output"), Quantization(0.05, 0))
    plan = weighted_plan(network, layer, (layer,), chosen, evidence, options, None, bits)
    assert plan.weight is not None
    _, highest = int_range(bits)
    steps = np.clip(weight / plan.weight.scale[:, None], -highest, highest)
    assert np.abs(steps - plan.weight.values).max() <= Rounding.SEQUENTIAL.steps + 1e-4
    assert bits < 8 or np.abs(weight / plan.weight.scale[:, None]).max() <= 127 + 1e-4


@pytest.mark.parametrize("size", [1e19, 1e-19])
def test_inputs_whose_squares_leave_float32_round_as_others_do(size: float) -> None:
    network, inputs = residual_network(), seeded(10, 3, 8, 8)
    plan = planned(network, (inputs * size).astype(np.float32), Rounding.SEQUENTIAL, 4)
    held = {name: value.const_value for name, value in network.model.graph.initializers.items()}
    for layer in plan.layers:
        if layer.weight is not None and held[layer.weight.name] is not None:
            weight = held[layer.weight.name].numpy().astype(np.float64)  # type: ignore[union-attr]
            scale = layer.weight.scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
            steps = np.clip(weight / scale, -7, 7)
            assert np.abs(steps - layer.weight.values).max() <= Rounding.SEQUENTIAL.steps + 1e-6
