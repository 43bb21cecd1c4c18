"""Convolutions against slow loops, on sizes that reach every way of blocking."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from deploykit.reference import convolve as module
from deploykit.reference.convolve import convolve, convolve_transposed
from deploykit.reference.sliding import Sliding
from deploykit.spec.arrays import FloatArray

CASES = {
    "dense": ((3, 4, 7, 6), (6, 4, 3, 2), 1, Sliding((3, 2), (2, 1), (1, 2), (1, 0), (0, 2))),
    "pointwise": ((3, 4, 7, 6), (6, 4, 1, 1), 1, Sliding((1, 1), (1, 2), (1, 1), (0, 0), (0, 0))),
    "grouped": ((3, 4, 7, 6), (6, 2, 3, 3), 2, Sliding((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))),
    "depthwise": ((3, 4, 7, 6), (8, 1, 3, 3), 4, Sliding((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))),
    "one channel": ((3, 1, 7, 6), (8, 1, 3, 3), 1, Sliding((3, 3), (1, 1), (2, 1), (0, 1), (2, 0))),
    "1-D": ((2, 4, 9), (6, 2, 3), 2, Sliding((3,), (2,), (2,), (1,), (2,))),
    "3-D": (
        (2, 2, 4, 5, 3),
        (4, 2, 2, 3, 1),
        1,
        Sliding((2, 3, 1), (1, 2, 1), (1, 1, 1), (1, 0, 1), (0, 2, 0)),
    ),
}


def whole_numbers(shape: tuple[int, ...], seed: int) -> FloatArray:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float64)


def slow(images: FloatArray, weight: FloatArray, sliding: Sliding, groups: int) -> FloatArray:
    """One product at a time."""
    padded = sliding.pad(images, 0.0)
    sizes = sliding.sizes(images.shape[2:])
    sums = np.zeros((len(images), len(weight), *sizes))
    outputs, channels = len(weight) // groups, weight.shape[1]
    for n, o, c in product(range(len(images)), range(len(weight)), range(channels)):
        for spot in product(*map(range, sizes)):
            for tap in product(*map(range, sliding.kernel)):
                place = tuple(
                    at * stride + step * dilation
                    for at, stride, step, dilation in zip(
                        spot, sliding.strides, tap, sliding.dilations, strict=True
                    )
                )
                read = padded[(n, o // outputs * channels + c, *place)]
                sums[(n, o, *spot)] += read * weight[(o, c, *tap)]
    return sums


@pytest.mark.parametrize("limit", [1, 100, None], ids=["least", "small", "default"])
@pytest.mark.parametrize("name", CASES)
def test_it_equals_a_slow_loop(
    name: str, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, kernel, groups, sliding = CASES[name]
    images, weight = whole_numbers(shape, 1), whole_numbers(kernel, 2)
    for constant in ("BLOCK_ELEMENTS", "MERGED_ELEMENTS", "FEW_POSITIONS", "PLANE_ELEMENTS"):
        if limit is not None:
            monkeypatch.setattr(module, constant, limit)
    found = convolve(images, weight, sliding, groups)
    np.testing.assert_array_equal(found, slow(images, weight, sliding, groups))


@pytest.mark.parametrize("name", CASES)
def test_the_transposed_one_is_its_adjoint(name: str) -> None:
    shape, kernel, groups, sliding = CASES[name]
    images, weight = whole_numbers(shape, 1), whole_numbers(kernel, 2)
    sums = convolve(images, weight, sliding, groups)
    other = whole_numbers(sums.shape, 3)
    back = convolve_transposed(other, weight, sliding, groups, shape[2:])
    assert np.sum(sums * other) == np.sum(images * back)


def test_no_samples_give_no_sums() -> None:
    _, kernel, groups, sliding = CASES["dense"]
    found = convolve(np.zeros((0, 4, 7, 6)), whole_numbers(kernel, 2), sliding, groups)
    assert found.shape == (0, 6, 3, 6)
