"""Moments of random gates against tables, slow loops and Monte Carlo, and the published rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deploykit.posterior import hard_concrete, normal_distribution, truncated_log_normal
from deploykit.posterior.families import family_named
from deploykit.posterior.published_log_normal import published_moments
from deploykit.posterior.structured_bayesian_pruning import SBP_GATES, errs
from deploykit.posterior.truncated_log_normal import moments
from deploykit.spec.arrays import Float32Array, Float64Array
from tests.posterior.gate_layers import SBPLayer


def array(*values: float) -> Float64Array:
    return np.array(values, np.float64)


def test_log_of_the_normal_distribution_function() -> None:
    # Abramowitz and Stegun 1964, tables 26.1 and 26.2: P(0) = 1/2, Q(1), Q(3), and -log10 Q(x).
    assert normal_distribution.log_ndtr(array(0.0))[0] == pytest.approx(math.log(0.5))
    q = np.exp(normal_distribution.log_ndtr(array(-1.0, -3.0)))
    np.testing.assert_allclose(q, [0.158655253931457, 0.00134989803163009], rtol=1e-12)
    decades = -normal_distribution.log_ndtr(array(-5.0, -10.0, -50.0, -500.0)) / math.log(10)
    np.testing.assert_allclose(decades, [6.54265, 23.11805, 544.96634, 54289.90830], atol=1e-5)
    x = np.concatenate([np.linspace(-60, 40, 5001), -np.logspace(2, 8, 100)])
    expected = torch.special.log_ndtr(torch.tensor(x)).numpy()
    np.testing.assert_allclose(normal_distribution.log_ndtr(x), expected, rtol=1e-12)


def test_scaled_complementary_error_function() -> None:
    x = np.logspace(-6, 8, 3001)
    expected = torch.special.erfcx(torch.tensor(x)).numpy()
    np.testing.assert_allclose(normal_distribution.erfcx(x), expected, rtol=1e-13)


def integrated(mu: float, sigma: float) -> tuple[float, float]:
    """E[theta] and SNR by the midpoint rule over log theta, where the density is not negligible."""
    mode = min(max(mu, -20.0), 0.0)
    reach = min(14 * sigma, 50 * sigma**2 / mu if mu > 0 else math.inf)
    low, high = max(-20.0, mode - reach), min(0.0, mode + reach)
    at = low + (high - low) * (np.arange(400_000) + 0.5) / 400_000
    exponent = -0.5 * ((at - mu) / sigma) ** 2
    density = np.exp(exponent - exponent.max())
    theta = np.exp(at)
    mean = float((density * theta).sum() / density.sum())
    variance = float((density * (theta - mean) ** 2).sum() / density.sum())
    return mean, mean / math.sqrt(variance)


@pytest.mark.parametrize(
    ("mu", "log_sigma"),
    [
        (-0.1, -5.0), (0.0, -5.0), (0.0, 0.0), (-3.0, 0.0), (2.0, -1.0), (0.5, -4.0), (5.0, -3.0),
        (-20.0, 2.0), (-19.9, -4.0), (-1.0, 5.0), (5.0, 5.0), (-10.0, 1.0),
    ],
)  # fmt: skip
def test_truncated_log_normal_equals_the_integral(mu: float, log_sigma: float) -> None:
    sigma = math.exp(log_sigma)
    found = moments(array(mu), array(sigma))
    mean, snr = integrated(mu, sigma)
    assert found.mean[0] == pytest.approx(mean, rel=1e-6)
    assert found.snr[0] == pytest.approx(snr, rel=1e-4)
    assert found.variance[0] == pytest.approx((mean / snr) ** 2, rel=1e-3)


def test_extremes_of_the_clamps_are_finite() -> None:
    grid = np.array(np.meshgrid([-20.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 5.0], [-20.0, -8.0, 0.0, 5.0]))
    mu, sigma = grid[0].reshape(-1), np.exp(grid[1].reshape(-1))
    found = moments(mu, sigma)
    for values in (found.mean, found.variance, found.snr):
        assert np.isfinite(values).all()
    assert (found.mean > 0).all()
    assert (found.mean <= 1 + 1e-12).all()
    assert (found.variance > 0).all()


def sbp_tensors(mu: float, log_sigma: float) -> dict[str, Float32Array]:
    return {"mu": np.array([mu], np.float32), "log_sigma": np.array([log_sigma], np.float32)}


def test_gate_with_little_noise_is_kept_where_the_published_arithmetic_prunes_it() -> None:
    tensors = sbp_tensors(-0.1, -5.0)
    posterior = SBP_GATES.posterior("gate", tensors)
    rule = SBP_GATES.gate_rule
    assert rule is not None
    assert rule.threshold == 1.0
    assert posterior.gate_score is not None
    assert posterior.mean["weight"][0] == pytest.approx(0.905, abs=5e-4)
    assert posterior.gate_score[0] == pytest.approx(148, abs=0.5)
    assert not rule.closed(posterior.gate_score, 1.0).any()
    published = published_moments(array(-0.1), array(math.exp(-5.0)))
    assert (published.mean[0], published.snr[0]) == (0.0, 0.0)
    assert SBP_GATES.traps[0].met(tensors)
    assert SBP_GATES.evaluated is not None
    assert SBP_GATES.evaluated("gate", tensors).mean["weight"][0] == 0.0


def test_published_arithmetic_agrees_where_float32_suffices() -> None:
    for mu, log_sigma in ((-3.0, 0.0), (-0.5, -2.0), (0.0, -5.0), (-15.0, 1.0)):
        assert not errs(sbp_tensors(mu, log_sigma))
    # 1 + erf is rounded to zero: an infinite mean, so that nothing is multiplied with a number.
    assert not np.isfinite(published_moments(array(0.5), array(math.exp(-5.0))).mean).all()
    assert errs(sbp_tensors(0.5, -5.0))


def test_published_arithmetic_is_that_of_the_restated_layer() -> None:
    generator = np.random.default_rng(0)
    layer = SBPLayer(400).eval()
    with torch.no_grad():
        layer.mu.copy_(torch.tensor(-generator.uniform(0, 3, 400)))
        layer.log_sigma.copy_(torch.tensor(generator.uniform(-6, 2, 400)))
        expected = layer.gates().numpy()
        mu, sigma = layer.mu.double().numpy(), layer.log_sigma.double().exp().numpy()
    found = published_moments(mu, sigma)
    actual = found.mean * (found.snr > 1)
    assert (expected == 0).sum() > 50
    far = np.abs(found.snr - 1) > 1e-2
    np.testing.assert_allclose(actual[far], expected[far], rtol=1e-3, atol=1e-5)


def test_truncated_log_normal_draws() -> None:
    mu, sigma = array(-0.1, -3.0, 2.0, -20.0), np.exp(array(-2.0, 0.0, -1.0, 1.0))
    generator = np.random.default_rng(0)
    draws = np.stack([truncated_log_normal.draw(mu, sigma, generator) for _ in range(20_000)])
    expected = moments(mu, sigma)
    error = np.sqrt(expected.variance / len(draws))
    assert (np.abs(draws.mean(0) - expected.mean) < 5 * error).all()
    np.testing.assert_allclose(draws[:, :3].var(0), expected.variance[:3], rtol=0.1)


def test_hard_concrete_gate_closes_at_minus_log_11() -> None:
    assert pytest.approx(-2.398, abs=5e-4) == hard_concrete.CLOSED_AT
    at = array(-40.0, -2.4, -2.397, 0.0, 2.397, 2.4, 40.0)
    gate = hard_concrete.evaluated_gate(at)
    assert gate[[0, 1]].tolist() == [0.0, 0.0]
    assert gate[[5, 6]].tolist() == [1.0, 1.0]
    assert gate[3] == pytest.approx(0.5)
    assert 0 < gate[2] < 1e-3
    rule = family_named("L0 (AMLab)").gate_rule
    assert rule is not None
    assert rule.threshold is not None
    assert rule.closed(at, rule.threshold).tolist() == (gate == 0).tolist()


def test_hard_concrete_variance_and_draws() -> None:
    at = array(-30.0, -4.0, -1.0, 0.0, 0.7, 3.0, 30.0)
    generator = np.random.default_rng(0)
    draws = np.stack([hard_concrete.draw(at, generator) for _ in range(40_000)])
    np.testing.assert_allclose(hard_concrete.variance(at), draws.var(0), atol=3e-3)
    # P(z = 0) = sigmoid(-a + 2/3 log(1/11)): equation 12 of the paper.
    expected = 1 / (1 + np.exp(at - 2 / 3 * math.log(1 / 11)))
    np.testing.assert_allclose((draws == 0).mean(0), expected, atol=0.01)
