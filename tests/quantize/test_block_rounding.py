"""Weights with a scale for each block of inputs."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.quantize.block_rounding import block_integers, block_scales
from deploykit.quantize.blocking import Blocking
from deploykit.quantize.compensation import output_error
from deploykit.quantize.moments import InputMoments
from deploykit.spec.plan import WeightRange
from deploykit.spec.weight_only import by_input, held_by_both, products


def moments(inputs: int) -> InputMoments:
    """Of correlated inputs."""
    mixed = np.random.default_rng(1).normal(size=(4 * inputs, inputs // 2))
    rows = mixed @ np.random.default_rng(2).normal(size=(inputs // 2, inputs))
    blocks = (rows.T @ rows / len(rows) + np.eye(inputs))[None].astype(np.float32)
    return InputMoments(Blocking(1, 1), blocks, len(rows))


def test_scales_are_numbers_of_float16_and_bfloat16() -> None:
    drawn = np.exp(np.random.default_rng(0).uniform(-9, 9, 1000)).astype(np.float32)
    held = held_by_both(drawn)
    assert np.array_equal(held.astype(np.float16).astype(np.float32), held)
    assert not (held.view(np.uint32) & 0xFFFF).any()  # bfloat16 is a float32's upper half
    assert (held >= drawn).all() and (held <= np.maximum(drawn * 1.0079, 2.0**-14)).all()


def test_a_block_of_zeros_or_denormals_breaks_nothing() -> None:
    weight = np.random.default_rng(0).normal(size=(2, 64))
    weight[0, :32], weight[1, 32:] = 0.0, 1e-42
    scale = block_scales(weight, 4, 32, WeightRange.LEAST_ERROR)
    assert scale.shape == (2, 2) and np.isfinite(scale).all() and (scale > 0).all()
    values = block_integers(weight, scale, 4, None)
    assert not values[0, :32].any() and not values[1, 32:].any()
    assert (
        np.abs(products(block_integers(weight, scale, 4, moments(64)), scale)[1, 32:]).max() < 1e-4
    )


@pytest.mark.parametrize("chosen", list(WeightRange))
def test_moves_lower_the_output_s_error(chosen: WeightRange) -> None:
    weight, known = np.random.default_rng(3).normal(size=(16, 128)), moments(128)
    scale = block_scales(weight, 4, 32, chosen)
    found = block_integers(weight, scale, 4, known)
    nearest = block_integers(weight, scale, 4, None)
    wide = by_input(scale, 128).astype(np.float64)
    assert np.array_equal(nearest, np.clip(np.rint(weight / wide), -7, 7))
    assert np.abs(np.clip(weight / wide, -7, 7) - found).max() < 1
    errors = [
        output_error((products(values, scale) - weight)[None], known.trusted())[0]
        for values in (found, nearest)
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-6)).all() and errors[0].sum() < 0.9 * errors[1].sum()


def test_clipping_lowers_the_weights_error() -> None:
    weight = np.random.default_rng(4).laplace(size=(8, 64))
    by_range = {}
    for chosen in WeightRange:
        scale = block_scales(weight, 4, 32, chosen)
        values = block_integers(weight, scale, 4, None)
        by_range[chosen] = float(((products(values, scale) - weight) ** 2).sum())
    assert by_range[WeightRange.LEAST_ERROR] < by_range[WeightRange.LARGEST]
