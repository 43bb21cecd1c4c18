"""Statistics against known answers, and the interval against how often it holds the truth."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.bench.summary import bootstrap_interval, median_absolute_deviation, summarize


def test_median_absolute_deviation() -> None:
    assert median_absolute_deviation([1, 1, 2, 2, 4, 6, 9]) == 1.0
    assert median_absolute_deviation([5.0]) == 0.0


def test_summary_of_known_samples() -> None:
    rounds = [[1_000_000, 2_000_000, 3_000_000], [4_000_000, 4_000_000, 10_000_000]]
    latency = summarize(rounds, seed=0)
    assert latency.median_ms == 3.0
    assert latency.p90_ms == 7.0
    assert latency.mad_ms == 1.0
    assert latency.samples == 6
    assert latency.interval_ms is None
    assert latency.p99_ms is None


@pytest.mark.parametrize(("each", "told"), [(99, False), (100, True)])
def test_p99_from_1000_samples(each: int, told: bool) -> None:
    rounds = [list(range(1_000_000, 1_000_000 + each)) for _ in range(10)]
    assert (summarize(rounds, seed=0).p99_ms is not None) == told


def test_no_outlier_is_dropped() -> None:
    calm = [[1_000_000] * 9 + [1_000_000]] * 6
    hit = [[1_000_000] * 8 + [900_000_000] * 2] * 6
    assert summarize(calm, seed=0).p90_ms == 1.0
    assert summarize(hit, seed=0).p90_ms == 900.0


def test_interval_needs_six_rounds() -> None:
    assert bootstrap_interval([1.0] * 5, seed=0) is None
    assert bootstrap_interval([1.0] * 6, seed=0) == (1.0, 1.0)


def test_interval_of_six_rounds_is_their_range() -> None:
    assert bootstrap_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0], seed=0) == (1.0, 6.0)


def test_interval_is_reproducible() -> None:
    rounds = [1.0, 1.3, 1.1, 1.2, 1.9, 1.0, 1.4, 1.1]
    assert bootstrap_interval(rounds, seed=7) == bootstrap_interval(rounds, seed=7)


@pytest.mark.parametrize("count", [6, 10])
def test_interval_covers_the_truth(count: int) -> None:
    """Nominal 95 %; skewed samples; 200 trials, whose own standard error is 1.5 points."""
    generator = np.random.default_rng(1)
    truth = 1.0  # median of exp(normal(0, sigma))
    held = 0
    for trial in range(200):
        low_high = bootstrap_interval(generator.lognormal(0.0, 0.1, count).tolist(), seed=trial)
        assert low_high is not None
        held += low_high[0] <= truth <= low_high[1]
    assert 0.91 <= held / 200 <= 1.0
