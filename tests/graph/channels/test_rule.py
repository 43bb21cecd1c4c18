"""Arrangements: what stays of a tensor, as a rectangle."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.channels.rule import CannotArrangeError, arrange, coordinates, place


def kept(*stays: int, count: int = 12) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros(count, dtype=bool)
    mask[list(stays)] = True
    return mask


def test_along_one_axis_what_stays_moves_up() -> None:
    labels = np.array([4, 5, 6, 7]).reshape(1, 4, 1)
    found = arrange(labels, kept(5, 7))
    assert found.shape == (1, 2, 1)
    assert found.reshape(-1).tolist() == [1, 3]


def test_nothing_that_stays_is_an_empty_arrangement() -> None:
    assert arrange(np.arange(4).reshape(1, 4), kept()).size == 0
    assert arrange(np.arange(4).reshape(2, 2), kept()).size == 0
    assert arrange(np.array([[5]]), kept(4)).size == 0


def test_a_tensor_that_is_not_cut_stays_as_it_is() -> None:
    assert arrange(np.array([[5]]), kept(5)).tolist() == [[0]]


def test_along_two_axes_whole_rows_go_and_the_others_keep_equally_many() -> None:
    labels = np.arange(12).reshape(3, 4)
    assert arrange(labels, kept(0, 2, 9, 10)).tolist() == [[0, 2], [9, 10]]


def test_rows_that_keep_unequally_many_are_no_rectangle() -> None:
    with pytest.raises(CannotArrangeError):
        arrange(np.arange(12).reshape(3, 4), kept(0, 2, 9))


def test_coordinates_and_places_are_inverse() -> None:
    labels = np.arange(24).reshape(2, 3, 4)
    arrangement = np.array([5, 17]).reshape(2, 1, 1)
    where = coordinates(arrangement, labels)
    assert [axis.reshape(-1).tolist() for axis in where] == [[0, 1], [1, 1], [1, 1]]
    assert place(where, labels).tolist() == arrangement.tolist()
