"""Metrics of class probabilities against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deploykit.spec.confidence import metrics, probabilities, scores_of, softmax

VALUES = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
LABELS = np.array([0, 0, 0, 1])


def test_the_brier_score_sums_over_classes() -> None:
    by_sample = [0.5, 2 * 0.1**2, 2 * 0.8**2, 2 * 0.7**2]
    assert metrics(VALUES, LABELS).brier == pytest.approx(sum(by_sample) / 4)


def test_certain_and_wrong_has_the_largest_brier_score() -> None:
    assert metrics(np.eye(2), np.array([1, 0])).brier == 2.0
    assert metrics(np.eye(2), np.array([0, 1])).brier == 0.0


def test_few_samples_have_a_bin_each_in_the_adaptive_error() -> None:
    """Confidences 0.5 right, 0.9 right, 0.8 wrong, 0.7 wrong."""
    assert metrics(VALUES, LABELS).adaptive_ece == pytest.approx((0.5 + 0.1 + 0.8 + 0.7) / 4)


def test_bins_of_equal_count_join_what_equal_widths_part() -> None:
    """30 samples, two by two: each pair holds a right and a wrong one around 0.75.

    Bins of equal width part 0.70 from 0.80, those of equal count do not, being in order.
    """
    confidence = np.tile([0.7, 0.8], 15)
    values = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.tile([0, 1], 15)
    found = metrics(values, labels)
    # 15 of 0.7 all right, 15 of 0.8 all wrong.
    assert found.ece == pytest.approx((15 * 0.3 + 15 * 0.8) / 30)
    # In order: seven bins of two 0.7, one of each kind, seven of two 0.8.
    assert found.adaptive_ece == pytest.approx((14 * 0.3 + abs(0.3 - 0.8) + 14 * 0.8) / 30)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    """0.6 = 9/15 closes a bin: it and 0.59, right and wrong, average before the absolute value."""
    values = np.array([[0.6, 0.4], [0.59, 0.41]])
    assert metrics(values, np.array([0, 1])).ece == pytest.approx(abs(0.4 - 0.59) / 2)


def test_scores_of_probabilities_are_their_logarithms() -> None:
    logits = np.array([[1.0, -2.0, 0.5], [300.0, 0.0, -300.0]])
    np.testing.assert_array_equal(scores_of(logits), logits)
    given = softmax(logits)
    np.testing.assert_allclose(probabilities(scores_of(given)), given, atol=1e-15)
    assert np.isfinite(scores_of(given)).all()
    assert math.isclose(float(softmax(logits).sum()), 2.0)
