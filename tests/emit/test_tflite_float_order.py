"""Orders of axes, against literal tuples and numpy."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deploykit.emit.tflite_float_channels import depth_major, shuffle_groups
from deploykit.emit.tflite_float_order import (
    channels_last,
    natural,
    permutation,
    reshape_orders,
    same_elements,
    stored,
    transposed,
    widened,
    with_last,
    without,
)

NHWC = (0, 2, 3, 1)


def test_orders_of_ranks() -> None:
    assert channels_last(4) == NHWC
    assert channels_last(3) == (0, 2, 1)
    assert channels_last(2) == natural(2) == (0, 1)
    assert stored((1, 3, 8, 6), NHWC) == (1, 8, 6, 3)


def test_axes_taken_away_added_and_moved() -> None:
    assert without(NHWC, {2, 3}) == (0, 1)
    assert without(NHWC, {1}) == (0, 1, 2)
    assert widened((0, 2, 1), 4) == (0, 1, 3, 2)
    assert with_last(natural(4), 1) == NHWC


def test_moving_axes_of_length_one_moves_nothing() -> None:
    assert same_elements((1, 5, 1, 1), NHWC, natural(4))
    assert not same_elements((1, 5, 2, 1), NHWC, natural(4))


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_a_transpose_renames_what_lies_there(order: list[int], perm: list[int]) -> None:
    array = np.arange(24).reshape(1, 2, 3, 4)
    kept = array.transpose(order)
    after = transposed(tuple(order), perm)
    np.testing.assert_array_equal(array.transpose(perm).transpose(after), kept)


@given(st.permutations(range(3)), st.permutations(range(3)))
def test_a_permutation_leads_from_order_to_order(before: list[int], after: list[int]) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    axes = permutation(tuple(before), tuple(after))
    np.testing.assert_array_equal(array.transpose(before).transpose(axes), array.transpose(after))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A shape, an order of it, and a shape with as many elements."""
    factors = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))

    def cut() -> tuple[int, ...]:
        ends = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=3)))
        return tuple(
            prod(factors[a:b]) for a, b in zip([0, *ends], [*ends, len(factors)], strict=True)
        )

    shape, result = cut(), cut()
    return shape, tuple(draw(st.permutations(range(len(shape))))), result


@given(reshapes())
def test_a_reshape_in_the_file_is_the_networks(
    case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> None:
    shape, order, result = case
    reads, gives = reshape_orders(shape, order, result)
    array = np.arange(prod(shape)).reshape(shape)
    in_file = array.transpose(reads).reshape(stored(result, gives))
    np.testing.assert_array_equal(in_file, array.reshape(result).transpose(gives))


def test_a_shuffle_moves_the_two_channel_axes_alone() -> None:
    reads, gives = reshape_orders((1, 8, 5, 6), NHWC, (1, 2, 4, 5, 6))
    assert reads == NHWC
    turned = transposed(gives, (0, 2, 1, 3, 4))
    reads, gives = reshape_orders((1, 4, 2, 5, 6), turned, (1, 8, 5, 6))
    assert (reads, gives) == ((0, 3, 4, 1, 2), NHWC)


def test_heads_come_back_as_tokens() -> None:
    heads_first = transposed(natural(4), (0, 2, 1, 3))
    assert reshape_orders((1, 7, 2, 6), heads_first, (1, 7, 12)) == (natural(4), natural(3))


def test_shuffles_and_depths() -> None:
    assert shuffle_groups(np.array([0, 2, 4, 1, 3, 5]), 6) == 3
    assert shuffle_groups(np.array([0, 3, 1, 4, 2, 5]), 6) == 2
    assert shuffle_groups(np.array([0, 2, 4, 1, 5, 3]), 6) is None
    assert shuffle_groups(np.array([0, 2, 1]), 6) is None
    assert depth_major(8, 2).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
