"""The confidence benchmark: splits, temperatures and intervals of the difference."""

from __future__ import annotations

import numpy as np
import pytest
from confidence import by_labels, halves, interval, judged, short

from deploykit.spec.confidence import softmax

SPLITS = halves(1001, 3)
SCORES = 3 * np.random.default_rng(0).standard_normal((1001, 4))
DRAWN = np.random.default_rng(1).uniform(size=(1001, 1))
LABELS = (softmax(SCORES / 1.5).cumsum(axis=1) < DRAWN).sum(axis=1).clip(max=3)


def test_halves_share_no_image_and_differ() -> None:
    for split in SPLITS:
        assert sorted([*split.fit, *split.judge]) == list(range(1001))
        assert abs(len(split.fit) - len(split.judge)) == 1
    assert not np.array_equal(SPLITS[0].fit, SPLITS[1].fit)


def test_temperatures_come_from_the_fitting_half_alone() -> None:
    spoilt = LABELS.copy()
    spoilt[SPLITS[0].judge] = 0
    assert by_labels(SCORES, spoilt, SPLITS[:1]) == by_labels(SCORES, LABELS, SPLITS[:1])
    assert by_labels(SCORES, LABELS, SPLITS) == pytest.approx([1.5] * 3, rel=0.2)


def test_figures_are_means_of_the_judged_halves() -> None:
    fitted = by_labels(SCORES, LABELS, SPLITS)
    without, with_it = (judged(SCORES, LABELS, SPLITS, t) for t in ([1.0] * 3, fitted))
    assert with_it.nll < without.nll
    assert with_it.accuracy == without.accuracy
    assert with_it.temperature == pytest.approx(np.mean(fitted))


def test_a_form_does_not_differ_from_itself_and_a_sharper_one_does() -> None:
    ones = [1.0] * 3
    assert interval(SCORES, SCORES, LABELS, SPLITS, ones, 0.0) == (0.0, 0.0)
    sharp, own = (judged(scores, LABELS, SPLITS, ones).ece for scores in (3 * SCORES, SCORES))
    low, high = interval(3 * SCORES, SCORES, LABELS, SPLITS, ones, sharp - own)
    assert 0 < low < sharp - own < high


def test_short() -> None:
    assert (short(0.4791), short(1.0)) == (".479", "1.000")
