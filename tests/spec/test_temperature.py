"""The temperature that logits were drawn at is found again."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import DataError
from deploykit.spec.arrays import Float64Array
from deploykit.spec.confidence import metrics, softmax
from deploykit.spec.quantized import Tail
from deploykit.spec.temperature import fitted_temperature, one_hot, tempered


def logits(count: int = 20_000, classes: int = 5, seed: int = 0) -> Float64Array:
    return 3 * np.random.default_rng(seed).standard_normal((count, classes))


@pytest.mark.parametrize("temperature", [0.2, 0.9, 1.0, 1.7, 6.0])
def test_soft_targets_give_their_own_temperature(temperature: float) -> None:
    z = logits(200)
    assert fitted_temperature(z, softmax(z / temperature)) == pytest.approx(temperature, rel=1e-9)


def test_probabilities_are_as_good_as_logits() -> None:
    z = logits(200)
    assert fitted_temperature(softmax(z), softmax(z / 1.7)) == pytest.approx(1.7, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_labels_drawn_at_a_temperature_give_it_and_calibrate(temperature: float) -> None:
    z = logits()
    cumulated = softmax(z / temperature).cumsum(axis=1)
    drawn = np.random.default_rng(1).uniform(size=(len(z), 1))
    labels = (drawn > cumulated).sum(axis=1).clip(max=4)
    found = fitted_temperature(z, one_hot(labels, 5))
    assert found == pytest.approx(temperature, rel=0.08)
    best = metrics(softmax(z / found), labels).nll
    assert best <= min(metrics(softmax(z / t), labels).nll for t in (found * 0.97, found * 1.03))
    assert metrics(softmax(z / found), labels).ece < 0.02


def test_answers_that_are_all_right_fix_no_temperature() -> None:
    z = logits(50)
    with pytest.raises(DataError, match=r"under 0\.03125.*agree with.*every.* 50 samples"):
        fitted_temperature(z, one_hot(z.argmax(axis=1), 5))


def test_labels_of_something_else_fix_none_either() -> None:
    z = logits(50)
    with pytest.raises(DataError, match=r"over 32: the outputs tell \(almost\) nothing"):
        fitted_temperature(z, one_hot(z.argmin(axis=1), 5))


def test_labels_beyond_the_classes() -> None:
    with pytest.raises(DataError, match="labels run from 0 to 5 and the network has 5 classes"):
        one_hot(np.array([0, 5]), 5)


def test_a_tail_is_computed_again_from_the_divided_logits() -> None:
    z = logits(20).astype(np.float32)
    np.testing.assert_allclose(tempered(z, 1.5, None), z / 1.5, rtol=1e-6)
    for tail in Tail:
        expected = tail((z / 1.5).astype(np.float32))
        np.testing.assert_allclose(tempered(tail(z), 1.5, tail), expected, atol=2e-6)
