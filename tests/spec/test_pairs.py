"""Sums of paired weights against a loop over the products in the kernels' order."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.spec.arrays import AnyArray
from deploykit.spec.pairs import LARGEST_PAIR, adds_in_16_bits, pair_sums


def by_loop(kernel: AnyArray) -> float:
    """kernel: [I, kh, kw] of one output channel."""
    inputs, rows, columns = kernel.shape
    places = product(range(rows), range(columns), range(inputs))
    ordered = [float(kernel[i, row, column]) for row, column, i in places]
    best = 0.0
    for first, second in zip(ordered[::2], [*ordered[1::2], 0.0], strict=False):
        positive = max(first, 0.0) + max(second, 0.0)
        negative = max(-first, 0.0) + max(-second, 0.0)
        best = max(best, positive, negative)
    return best


@given(
    seed=st.integers(0, 1000), outputs=st.integers(1, 4), inputs=st.integers(2, 5),
    rows=st.integers(1, 3), columns=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_sums_equal_a_loop(seed: int, outputs: int, inputs: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (outputs, inputs, rows, columns)).astype(np.int8)
    assert pair_sums(weight, 1).tolist() == [by_loop(kernel) for kernel in weight]


def test_a_linear_pairs_its_features_in_order() -> None:
    weight = np.array([[100, 20, 90, -90, 127], [-60, -70, 1, 100, 100]], np.int8)
    assert pair_sums(weight, 1).tolist() == [127, 130]


def test_a_depthwise_convolution_has_no_pairs_one_with_a_multiplier_has() -> None:
    weight = np.full((4, 1, 3, 3), 127, np.int8)
    assert pair_sums(weight, 4).tolist() == [0] * 4
    assert pair_sums(weight, 2).tolist() == [254] * 4


def test_products_of_the_largest_pair_fit_int16_and_of_the_next_do_not() -> None:
    assert 255 * LARGEST_PAIR <= 2**15 - 1 < 255 * (LARGEST_PAIR + 1)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx2", "fma"}, True),
        ({"avx2", "avx512f", "avx512bw"}, True),
        ({"avx2", "avx512f", "avx512_vnni"}, False),
        ({"avx2", "avx_vnni"}, False),
        ({"avx", "sse4_1"}, False),
        ({"asimd", "asimddp"}, False),
    ],
)
def test_processors_by_their_flags(flags: set[str], expected: bool) -> None:
    assert adds_in_16_bits(frozenset(flags)) is expected
