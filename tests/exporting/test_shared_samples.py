"""Which samples of two sets are the same, against comparing every pair number by number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deploykit.exporting.shared_samples import in_both
from deploykit.spec.arrays import AnyArray

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3, 6, 5))
HALVED = (PIXELS[:20], PIXELS[20:])


def unit(pixels: AnyArray) -> AnyArray:
    return pixels.astype(np.float32) / np.float32(255)


OTHER_ARITHMETIC: dict[str, Callable[[AnyArray], AnyArray]] = {
    "the same": unit,
    "a product": lambda pixels: pixels.astype(np.float32) * np.float32(1 / 255),
    "float64": lambda pixels: (pixels / 255).astype(np.float32),
    "float16": lambda pixels: unit(pixels).astype(np.float16).astype(np.float32),
    "negative zeros": lambda pixels: np.where(pixels == 0, -0.0, unit(pixels)).astype(np.float32),
}


@pytest.mark.parametrize("how", OTHER_ARITHMETIC)
def test_the_same_images_through_other_arithmetic(how: str) -> None:
    again = OTHER_ARITHMETIC[how](PIXELS[::-2])
    assert in_both(again, unit(PIXELS)) == 20
    assert in_both(unit(PIXELS), again) == 20


def test_other_images_are_others() -> None:
    assert in_both(unit(HALVED[0]), unit(HALVED[1])) == 0
    near = PIXELS.copy()
    near[:, 1, 2, 3] ^= 1  # one step of one pixel
    assert in_both(unit(near), unit(PIXELS)) == 0


def test_normalised_images_are_recognised_too() -> None:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    shaped = [values.reshape(3, 1, 1) for values in (mean, std)]
    first = ((PIXELS / 255 - shaped[0]) / shaped[1]).astype(np.float32)
    second = (unit(PIXELS) - shaped[0].astype(np.float32)) * (1 / shaped[1]).astype(np.float32)
    assert not np.array_equal(first, second)
    assert in_both(first, second[5:]) == 35


def test_a_position_that_never_moves_has_float32_s_rounding() -> None:
    first = np.concatenate([np.full((40, 1), 101325.3), unit(PIXELS).reshape(40, -1)], 1)
    second = first.copy()
    second[:, 0] = np.nextafter(np.float32(101325.3), np.float32(np.inf))
    assert in_both(first.astype(np.float32), second.astype(np.float32)) == 40
    second[:, 0] += 1
    assert in_both(first.astype(np.float32), second.astype(np.float32)) == 0


def test_token_ids_have_to_be_equal() -> None:
    ids = np.random.default_rng(1).integers(0, 30_000, (50, 8))
    assert in_both(ids, ids[10:20]) == 10
    assert in_both(ids + 1, ids) == 0


def test_of_several_inputs_all_have_to_be_the_same() -> None:
    first = {"b": unit(PIXELS), "a": np.arange(40).reshape(40, 1)}
    second = {"a": np.arange(40).reshape(40, 1), "b": unit(PIXELS)}
    assert in_both(first, second) == 40
    second["a"] = second["a"][::-1]
    assert in_both(first, second) == 0


def test_few_numbers_that_are_near_by_chance_are_others() -> None:
    points = np.random.default_rng(0).standard_normal((2, 3000, 2)).astype(np.float32)
    assert in_both(points[0], points[1]) == 0
    assert in_both(points[0] * np.float32(1.0000001), points[0]) == 3000


def test_repeated_samples_count_each() -> None:
    assert in_both(unit(PIXELS[[0, 0, 1]]), unit(PIXELS[:1])) == 2


@pytest.mark.parametrize("seed", range(20))
def test_it_counts_what_comparing_all_pairs_counts(seed: int) -> None:
    generator = np.random.default_rng(seed)
    width = int(generator.integers(1, 40))
    second = generator.integers(0, 3, (30, width)).astype(np.float32)
    first = second[generator.integers(0, 30, 20)]
    first = first + generator.choice([0, 1e-4, 0.1], first.shape, p=[0.9, 0.09, 0.01])
    first = first.astype(np.float32)
    both = np.concatenate([first, second]).astype(np.float64)
    spread = np.ptp(both, axis=0)
    many = (spread > 0).sum() >= 16
    tolerance = spread / 2 ** (10 if many else 20) + np.abs(both).max(axis=0) / 2**20
    same = np.abs(first[:, None].astype(np.float64) - second[None]) <= tolerance
    assert in_both(first, second) == int(same.all(axis=2).any(axis=1).sum())
