"""Constant operands: one number per channel or none, and what is cut from them."""

from __future__ import annotations

import numpy as np

from deploykit.graph.channels.operands import aligned, combine, reduced, take

NAN = float("nan")


def test_an_operand_gets_the_axes_that_it_lacks() -> None:
    assert aligned(np.zeros((3, 1)), 4).shape == (1, 1, 3, 1)
    assert aligned(np.zeros(()), 2).shape == (1, 1)


def test_what_differs_over_positions_is_no_constant() -> None:
    values = np.array([[1.0, 1.0], [2.0, 3.0], [NAN, NAN]])
    np.testing.assert_array_equal(reduced(values, (3, 1)), [[1.0], [NAN], [NAN]])
    np.testing.assert_array_equal(reduced(values, (1, 1)), [[NAN]])
    np.testing.assert_array_equal(reduced(np.array([[5.0]]), (1, 3)), [[5.0, 5.0, 5.0]])


def test_a_function_is_applied_where_operands_meet() -> None:
    constants = np.array([1.0, NAN, 3.0]).reshape(1, 3, 1, 1)
    operand = np.array([10.0, 20.0, 30.0]).reshape(3, 1, 1)
    found = combine(np.add, (1, 3, 1, 1), constants, operand)
    np.testing.assert_array_equal(found.reshape(-1), [11.0, NAN, 33.0])


def test_an_operand_that_varies_over_positions_leaves_no_constant_but_in_a_product_with_zero() -> (
    None
):
    constants = np.array([0.0, 2.0]).reshape(1, 2, 1)
    operand = np.array([1.0, 5.0]).reshape(1, 1, 2)
    found = combine(np.multiply, (1, 2, 1), constants, operand)
    np.testing.assert_array_equal(found.reshape(-1), [0.0, NAN])


def test_an_operand_keeps_what_its_tensor_keeps() -> None:
    labels = np.arange(4).reshape(1, 4, 1, 1)
    arranged = np.array([1, 3]).reshape(1, 2, 1, 1)
    per_channel = np.array([10.0, 11.0, 12.0, 13.0])
    assert take(per_channel.reshape(4, 1, 1), labels, arranged).tolist() == [[[11.0]], [[13.0]]]
    assert take(per_channel.reshape(1, 4, 1, 1), labels, arranged).shape == (1, 2, 1, 1)
    maps = np.arange(24.0).reshape(4, 2, 3)
    np.testing.assert_array_equal(take(maps, labels, arranged), maps[[1, 3]])


def test_an_operand_for_all_channels_stays() -> None:
    labels, arranged = np.arange(4).reshape(1, 4, 1), np.array([[[2]]])
    for operand in (np.array(7.0), np.array([1.0, 2.0]), np.ones((1, 1, 1))):
        assert take(operand, labels, arranged) is operand


def test_an_operand_of_two_cut_axes_is_cut_along_both() -> None:
    labels = np.arange(6).reshape(1, 2, 3)
    arranged = np.array([3, 5]).reshape(1, 1, 2)
    operand = np.arange(6.0).reshape(2, 3)
    assert take(operand, labels, arranged).tolist() == [[3.0, 5.0]]
    assert take(operand[:, :1], labels, arranged).tolist() == [[3.0, 3.0]]
