"""The integer semantics against slow loops in exact arithmetic, and literal edge cases."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.errors import DataError, QuantizationError
from deploykit.reference import binary, convolve, integer
from deploykit.reference.accumulate import accumulate_linear, convolution_sums
from deploykit.reference.integer import ReferenceRunner
from deploykit.spec.arrays import Int8Array
from deploykit.spec.operators import (
    Add,
    Clamp,
    Conv,
    Flatten,
    GlobalAveragePool,
    IntegerWeight,
    Linear,
    MaxPool,
    Operator,
    Window,
)
from deploykit.spec.quantized import ActivationTensor, Port, Quantization, QuantizedNetwork
from tests.suite.building import Builder
from tests.suite.cases import CASES, Case

UNIT = Quantization(1.0, 0)


def single(operator: Operator, **tensors: ActivationTensor) -> QuantizedNetwork:
    inputs = tuple(Port(name, name) for name in tensors if name != "y")
    return QuantizedNetwork(tensors, (operator,), inputs, (Port("out", "y"),))


def tensor(
    name: str, shape: tuple[int, ...], quantization: Quantization = UNIT
) -> ActivationTensor:
    return ActivationTensor(name, shape, quantization)


def half_even(value: Fraction) -> int:
    return round(value)


def slow_conv(operator: Conv, network: QuantizedNetwork, values: Int8Array) -> Int8Array:
    """Seven loops in Python integers; the multiplier and its product rounded to float32."""
    source = network.tensors[operator.input].quantization
    into = network.tensors[operator.output]
    weight, window = operator.weight.values, operator.window
    outputs, per_group = weight.shape[:2]
    result = np.zeros((len(values), *into.shape[1:]), np.int8)
    for n, o, row, column in product(*map(range, result.shape)):
        total = int(operator.bias[o])
        first = (o // (outputs // operator.groups)) * per_group
        for i, kr, kc in product(range(per_group), *map(range, window.kernel)):
            r = row * window.strides[0] + kr * window.dilations[0] - window.pads[0]
            c = column * window.strides[1] + kc * window.dilations[1] - window.pads[1]
            if 0 <= r < values.shape[2] and 0 <= c < values.shape[3]:
                centred = int(values[n, first + i, r, c]) - source.zero_point
                total += centred * int(weight[o, i, kr, kc])
        scale = (
            np.float32(source.scale)
            * operator.weight.scale[o]
            / np.float32(into.quantization.scale)
        )
        scaled = np.float32(total) * scale
        quantized = half_even(Fraction(float(scaled))) + into.quantization.zero_point
        result[n, o, row, column] = min(127, max(-128, quantized))
    return result


CONVOLUTIONS = [case for case in CASES if case.name.startswith("conv-") and case.shape[0] <= 8]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: case.name)
def test_conv_equals_the_slow_loop(case: Case) -> None:
    network = case.network()
    values = case.inputs()["input"][:1]
    (operator,) = network.operators
    assert isinstance(operator, Conv)
    found = integer.run(network, {"input": values})[operator.output]
    np.testing.assert_array_equal(found, slow_conv(operator, network, values))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_convolution_equals_the_slow_loop(data: st.DataObject) -> None:
    def few(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    groups = few(1, 3)
    window = Window(
        (few(1, 3), few(1, 3)),
        (few(1, 3), few(1, 3)),
        (few(0, 2), few(0, 2), few(0, 2), few(0, 2)),
        (few(1, 2), few(1, 2)),
    )
    build = Builder(np.random.default_rng(few(0, 1 << 30)), (1, groups * few(1, 3), 6, 5))
    build.conv(build.input, groups * few(1, 3), window, groups)
    network = build.network("x1")
    (operator,) = network.operators
    assert isinstance(operator, Conv)
    values = build.rng.integers(-128, 128, (2, *network.tensors["x0"].shape[1:])).astype(np.int8)
    found = integer.run(network, {"input": values})["x1"]
    np.testing.assert_array_equal(found, slow_conv(operator, network, values))


def dense(
    weight: list[list[int]], bias: list[int], scale: float, into: Quantization = UNIT
) -> Linear:
    values = np.array(weight, np.int8)
    scales = np.full(len(values), scale, np.float32)
    return Linear("l", "x", "y", IntegerWeight("w", values, scales), np.array(bias, np.int32))


def run_dense(
    operator: Linear, rows: list[list[int]], source: Quantization, into: Quantization
) -> list[list[int]]:
    outputs, inputs = operator.weight.values.shape
    network = single(
        operator, x=tensor("x", (1, inputs), source), y=tensor("y", (1, outputs), into)
    )
    found = integer.run(network, {"x": np.array(rows, np.int8)})["y"]
    return [[int(value) for value in row] for row in found]


def test_ties_go_to_even() -> None:
    rows = [[1], [3], [5], [-1], [-3], [-5]]
    found = run_dense(dense([[1]], [0], 0.5), rows, UNIT, UNIT)
    assert found == [[0], [2], [2], [0], [-2], [-2]]


def test_ties_are_broken_before_the_zero_point_is_added() -> None:
    odd = Quantization(1.0, 1)
    assert run_dense(dense([[1]], [0], 0.5), [[1], [3]], UNIT, odd) == [[1], [3]]


def test_outputs_saturate_at_both_ends() -> None:
    found = run_dense(dense([[127], [-127]], [0, 0], 1.0), [[127], [-128]], UNIT, UNIT)
    assert found == [[127, -128], [-128, 127]]


def test_the_bias_is_in_steps_of_the_accumulator() -> None:
    assert run_dense(dense([[0]], [5], 0.5), [[9]], Quantization(2.0, 7), UNIT) == [[5]]


def test_a_zero_weight_gives_the_zero_point() -> None:
    assert run_dense(dense([[0]], [0], 0.1), [[9]], UNIT, Quantization(0.5, -128)) == [[-128]]


@pytest.mark.parametrize("rows", [1, 7])
def test_sums_beyond_float32_are_exact(rows: int) -> None:
    width = 4096
    values = np.full((rows, width), 127, np.int8)
    values[:, 0] = 126
    weight = np.full((1, width), 127, np.int8)
    # 127 * 127 * 4096 - 127 = 66,064,257 is odd and above 2**24; the bias leaves 1 of it.
    bias = np.array([1 - (127 * 127 * width - 127)], np.int32)
    operator = Linear("l", "x", "y", IntegerWeight("w", weight, np.ones(1, np.float32)), bias)
    network = single(operator, x=tensor("x", (1, width)), y=tensor("y", (1, 1)))
    assert integer.run(network, {"x": values})["y"].tolist() == [[1]] * rows


def test_an_accumulator_that_leaves_int32_is_refused() -> None:
    operator = dense([[127]], [2**31 - 1], 1.0)
    with pytest.raises(QuantizationError, match=r"l: an accumulator leaves int32"):
        run_dense(operator, [[127]], UNIT, UNIT)


def test_a_batch_in_chunks_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = (case for case in CASES if case.name == "residual-downsample")
    network = case.network()
    whole = integer.run(network, case.inputs())
    monkeypatch.setattr(convolve, "CHUNK_ELEMENTS", 1)
    for name, values in integer.run(network, case.inputs()).items():
        np.testing.assert_array_equal(values, whole[name])


@pytest.mark.parametrize(
    ("left", "right", "into", "pair", "expected"),
    [
        (UNIT, UNIT, UNIT, (100, 27), 127),
        (UNIT, UNIT, UNIT, (100, 28), 127),
        (UNIT, UNIT, UNIT, (-100, -100), -128),
        (Quantization(0.5, 0), Quantization(0.5, 0), UNIT, (1, 0), 1),
        (Quantization(0.5, 0), Quantization(0.5, 0), UNIT, (-1, 0), 0),
        (Quantization(0.5, 10), Quantization(1.0, -3), Quantization(1.0, 5), (20, 0), 13),
    ],
)
def test_add(
    left: Quantization,
    right: Quantization,
    into: Quantization,
    pair: tuple[int, int],
    expected: int,
) -> None:
    a, b = (np.array([[value]], np.int8) for value in pair)
    assert binary.add(a, left, b, right, into).tolist() == [[expected]]


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(*[st.floats(0.005, 0.2) for _ in range(3)]),
    st.tuples(*[st.integers(-128, 127) for _ in range(3)]),
)
def test_add_is_the_rounded_real_sum_but_for_near_ties(
    scales: tuple[float, float, float], zero_points: tuple[int, int, int]
) -> None:
    left, right, into = (
        Quantization(float(np.float32(scale)), zero)
        for scale, zero in zip(scales, zero_points, strict=True)
    )
    every = np.arange(-128, 128, dtype=np.int8)
    a, b = np.repeat(every, 256), np.tile(every, 256)
    real = (
        (a.astype(float) - left.zero_point) * left.scale
        + (b.astype(float) - right.zero_point) * right.scale
    ) / into.scale
    found = binary.add(a, left, b, right, into).astype(float)
    inside = (found > -128) & (found < 127)
    # Each ratio is rounded to 2**-k, so 255 steps of either side are off by at most 255 / 2**(k+1).
    k = 20 - math.floor(math.log2(max(left.scale, right.scale) / into.scale))
    off = 0.5 + 255 * 2.0**-k + 1e-4
    assert np.abs(found - into.zero_point - real)[inside].max(initial=0) <= off


def test_a_sum_that_no_fixed_point_holds_is_refused() -> None:
    zero = np.zeros((1, 1), np.int8)
    with pytest.raises(QuantizationError, match="factor of 256"):
        binary.add(zero, Quantization(1e9, 0), zero, UNIT, UNIT)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0, 0, 1], 0), ([0, 0, 1, 1], 0), ([1, 1, 2, 2], 2), ([-1, 0, 0, -1], 0)],
)
def test_global_average_pool_rounds_ties_to_even(values: list[int], expected: int) -> None:
    images = np.array(values, np.int8).reshape(1, 1, 2, 2)
    assert integer.global_average_pool(images, UNIT, UNIT).tolist() == [[[[expected]]]]


def test_global_average_pool_subtracts_the_zero_point_of_every_position() -> None:
    images = np.full((1, 1, 3, 3), 20, np.int8)
    found = integer.global_average_pool(images, Quantization(0.5, 10), Quantization(1.0, -7))
    assert found.tolist() == [[[[-2]]]]


def test_padding_never_wins_a_max_pool() -> None:
    operator = MaxPool("p", "x", "y", Window((3, 3), (1, 1), (1, 1, 1, 1)))
    network = single(operator, x=tensor("x", (1, 1, 2, 2)), y=tensor("y", (1, 1, 2, 2)))
    values = np.array([[[[-128, -127], [-126, -125]]]], np.int8)
    assert integer.run(network, {"x": values})["y"].tolist() == [[[[-125, -125], [-125, -125]]]]


def test_flatten_is_channel_major() -> None:
    values = np.arange(12, dtype=np.int8).reshape(1, 3, 2, 2)
    network = single(Flatten("f", "x", "y"), x=tensor("x", (1, 3, 2, 2)), y=tensor("y", (1, 12)))
    assert integer.run(network, {"x": values})["y"].tolist() == [list(range(12))]


def test_clamp() -> None:
    network = single(Clamp("c", "x", "y", -5, 6), x=tensor("x", (1, 4)), y=tensor("y", (1, 4)))
    values = np.array([[-128, -5, 6, 127]], np.int8)
    assert integer.run(network, {"x": values})["y"].tolist() == [[-5, -5, 6, 6]]


def test_every_activation_is_returned_inputs_included() -> None:
    (case,) = (case for case in CASES if case.name == "lenet")
    network = case.network()
    tensors = ReferenceRunner()(network, case.inputs())
    assert set(tensors) == set(network.tensors)
    for name, values in tensors.items():
        assert values.dtype == np.int8
        assert values.shape == (case.samples, *network.tensors[name].shape[1:])


def test_one_operator_on_given_integers() -> None:
    operator = Add("a", "x", "z", "y")
    network = single(operator, x=tensor("x", (1, 2)), z=tensor("z", (1, 2)), y=tensor("y", (1, 2)))
    tensors = {"x": np.array([[1, 2]], np.int8), "z": np.array([[3, 4]], np.int8)}
    assert integer.run_operator(operator, network, tensors).tolist() == [[4, 6]]


def test_the_average_of_one_position_is_a_requantization() -> None:
    operator = GlobalAveragePool("g", "x", "y")
    network = single(operator, x=tensor("x", (1, 2, 1, 1)), y=tensor("y", (1, 2, 1, 1)))
    values = np.array([[[[5]], [[-9]]]], np.int8)
    np.testing.assert_array_equal(integer.run(network, {"x": values})["y"], values)


def test_wrong_inputs_are_refused_with_what_was_expected() -> None:
    operator = Clamp("c", "x", "y", -5, 6)
    network = single(operator, x=tensor("x", (1, 4)), y=tensor("y", (1, 4)))
    with pytest.raises(DataError, match=r"x: expected int8 \[N, 4\], got float32 \[1, 4\]"):
        integer.run(network, {"x": np.zeros((1, 4), np.float32)})
    with pytest.raises(DataError, match="input 'x'"):
        integer.run(replace(network, inputs=(Port("x", "x"),)), {})


@pytest.mark.parametrize(("channels", "groups"), [(600, 1), (1200, 1), (640, 2)])
def test_convolutions_beyond_float32_are_exact(channels: int, groups: int) -> None:
    rng = np.random.default_rng(channels)
    inputs = rng.choice(np.array([-128, 127], np.int8), (2, channels, 3, 4))
    values = rng.integers(90, 128, (4, channels // groups, 2, 2)).astype(np.int8)
    weight = IntegerWeight("w", values, np.ones(4, np.float32))
    bias = rng.integers(-(2**20), 2**20, 4).astype(np.int32)
    operator = Conv("c", "x", "y", weight, bias, Window((2, 2)), groups)
    found = convolution_sums(operator, Quantization(1.0, -128))(inputs)
    centred = inputs.astype(np.int64) + 128
    patches = np.lib.stride_tricks.sliding_window_view(centred, (2, 2), axis=(2, 3))
    grouped = patches.reshape(2, groups, channels // groups, 2, 3, 2, 2)
    kernels = values.astype(np.int64).reshape(groups, 4 // groups, channels // groups, 2, 2)
    expected = np.einsum("ngchwij,gocij->ngohw", grouped, kernels).reshape(2, 4, 2, 3)
    np.testing.assert_array_equal(found, expected + bias[:, None, None])
    assert np.abs(expected).max() > 2**24


def test_the_smallest_weight_counts_with_its_magnitude() -> None:
    """Read as a number of int8 its magnitude is negative, and float32 would seem to do."""
    values = np.full((2, 600), -128, np.int8)
    weight = IntegerWeight("w", values, np.ones(2, np.float32))
    operator = Linear("l", "x", "y", weight, np.array([1, 2], np.int32))
    inputs = np.full((1, 600), 127, np.int8)
    found = accumulate_linear(operator, inputs, Quantization(1.0, -128))
    assert found.tolist() == [[-600 * 255 * 128 + 1, -600 * 255 * 128 + 2]]
