"""Atoms, against a loop that follows every join."""

from __future__ import annotations

import numpy as np

from deploykit.graph.channels.labels import Atoms, full_axis, other_axes_are_one


def test_every_entry_is_an_atom_of_its_own_until_it_is_joined() -> None:
    atoms = Atoms()
    left, right = atoms.fresh((1, 3, 1, 1)), atoms.fresh((1, 3, 1, 1))
    assert left.reshape(-1).tolist() == [0, 1, 2]
    assert right.reshape(-1).tolist() == [3, 4, 5]
    atoms.join(left[:, :2], right[:, 1:])
    ids, count = atoms.resolve()
    assert ids[left].reshape(-1).tolist() == [0, 1, 2]
    assert ids[right].reshape(-1).tolist() == [3, 0, 1]
    assert count == 4


def test_one_atom_joined_with_many_makes_them_one() -> None:
    atoms = Atoms()
    whole, channels = atoms.fresh((1, 1)), atoms.fresh((1, 4))
    atoms.join(whole, channels)
    ids, count = atoms.resolve()
    assert count == 1
    assert set(ids.tolist()) == {0}


def test_nothing_given_out_is_nothing() -> None:
    ids, count = Atoms().resolve()
    assert (ids.size, count) == (0, 0)


def test_random_joins_are_the_components_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        atoms = Atoms()
        given = atoms.fresh((60,))
        component = list(range(60))
        for left, right in rng.integers(0, 60, (40, 2)):
            atoms.join(given[left : left + 1], given[right : right + 1])
            old, new = component[right], component[left]
            component = [new if found == old else found for found in component]
        ids, count = atoms.resolve()
        assert count == len(set(component))
        pairs = {(found, int(ids[index])) for index, found in enumerate(component)}
        assert len(pairs) == count


def test_a_long_chain_given_out_backwards_is_one() -> None:
    atoms = Atoms()
    given = atoms.fresh((3000,))
    atoms.join(given[:-1][::-1], given[1:][::-1])
    assert atoms.resolve()[1] == 1


def test_an_axis_is_written_out() -> None:
    assert full_axis(np.array([[7]]), 1, 3).tolist() == [[7, 7, 7]]
    assert full_axis(np.array([[7, 8]]), 1, 2).tolist() == [[7, 8]]


def test_labels_along_one_axis_alone() -> None:
    assert other_axes_are_one(np.zeros((1, 3, 1), int), 1)
    assert other_axes_are_one(np.zeros((1, 1, 1), int), 1)
    assert not other_axes_are_one(np.zeros((1, 3, 2), int), 1)
    assert not other_axes_are_one(np.zeros((1, 1, 2), int), 1)
