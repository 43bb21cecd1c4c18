"""Grids by value: what is on them, what left them, and what scaling does to them."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.spec.arrays import Float32Array, Float64Array
from deploykit.spec.given import ActivationGrid, WeightGrid, integers_on
from deploykit.spec.quantized import Quantization

SCALE = np.float32(0.0123)


def on_grid(codes: list[list[int]], scale: Float32Array | np.float32 = SCALE) -> Float32Array:
    return (np.array(codes, np.float32) * scale).astype(np.float32)


def grid(bits: int, *scales: float) -> WeightGrid:
    return WeightGrid(bits, np.array(scales or [SCALE], np.float32))


@pytest.mark.parametrize(("bits", "largest"), [(2, 1), (4, 7), (8, 127)])
def test_every_integer_of_the_grid_is_found(bits: int, largest: int) -> None:
    codes = [list(range(-largest, largest + 1))]
    found = integers_on(on_grid(codes), grid(bits))
    assert found is not None
    assert found.values.tolist() == codes
    np.testing.assert_array_equal(found.values * found.scale[:, None], on_grid(codes))


@pytest.mark.parametrize(("bits", "codes"), [(2, [[2, 0]]), (4, [[-9, 1]]), (8, [[128, 3]])])
def test_integers_beyond_the_bits_are_off_it(bits: int, codes: list[list[int]]) -> None:
    assert integers_on(on_grid(codes), grid(bits)) is None


def test_values_between_two_integers_are_off_it() -> None:
    weight = on_grid([[1, 3], [0, 2]])
    weight[1, 0] = 0.001 * SCALE
    assert integers_on(weight, grid(4)) is None


def test_rows_keep_their_scales_when_channels_go_or_change_places() -> None:
    scales = np.array([0.5, 0.03, 0.2], np.float32)
    weight = on_grid([[7, -3, 1], [5, 2, -7], [1, 0, 6]], scales[:, None])
    whole = integers_on(weight, grid(4, *scales))
    assert whole is not None
    assert whole.values.tolist() == [[7, -3, 1], [5, 2, -7], [1, 0, 6]]
    cut = integers_on(weight[[2, 0]][:, [0, 2]], grid(4, *scales))
    assert cut is not None
    assert cut.scale.tolist() == [scales[2], scales[0]]
    assert cut.values.tolist() == [[1, 6], [7, 1]]


def test_a_factor_by_output_goes_into_the_scale() -> None:
    codes = [[3, -7], [1, 5]]
    factor = np.array([[-0.37], [2.9]], np.float64)
    scaled = grid(4).scaled(factor)
    assert scaled is not None
    found = integers_on((on_grid(codes) * factor).astype(np.float32), scaled)
    assert found is not None
    assert found.values.tolist() == [[-3, 7], [1, 5]]
    one = grid(4).scaled(np.asarray(0.25))
    assert one is not None
    assert one.scale.tolist() == [SCALE / 4]


@pytest.mark.parametrize("factor", [np.array([[0.5, 2.0]]), np.array([[0.0], [1.0]])])
def test_a_factor_by_input_or_of_zero_leaves_no_grid(factor: Float64Array) -> None:
    assert grid(4).scaled(factor) is None


def test_an_unsigned_tensor_saturates_as_a_relu() -> None:
    held = ActivationGrid.unsigned(0.1, 8)
    assert held.quantization == Quantization(0.1, -128)
    assert held.fills
    assert held.ends == pytest.approx((0.0, 25.5))


@pytest.mark.parametrize(
    ("held", "low", "high"),
    [
        (ActivationGrid.unsigned(0.1, 4), -128, -113),
        (ActivationGrid.unsigned(0.1, 2), -128, -125),
        (ActivationGrid.symmetric(0.1, 8), -127, 127),
        (ActivationGrid.symmetric(0.1, 2), -1, 1),
    ],
)
def test_what_does_not_fill_int8_has_bounds(held: ActivationGrid, low: int, high: int) -> None:
    assert (held.low, held.high) == (low, high)
    assert not held.fills
    values = np.array([-9.0, 9.0, 0.14, 0.16], np.float32)
    expected = np.clip(np.rint(values / np.float32(0.1)), *(np.array(held.ends) / 0.1).round())
    np.testing.assert_allclose(held.nearest(values), expected * 0.1, atol=1e-6)
