"""The family's moments against a slow loop and against Monte Carlo."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deploykit.errors import CheckpointError
from deploykit.posterior.family import Closes, GateRule
from deploykit.posterior.group_normal_jeffreys import (
    GROUP_NORMAL_JEFFREYS,
    layer_posterior,
    log_alpha,
    sample_layer,
)
from deploykit.spec.arrays import Tensors
from tests.posterior.checkpoints import gnj_tensors

# Each shape with its number of gates; (4, 2, 3, 4) has a kernel as wide as its outputs are many.
SHAPES = [((3, 5), 5), ((4, 4), 4), ((4, 2, 3), 4), ((4, 2, 3, 4), 4), ((6, 1, 3, 3), 6)]


def slow_moments(tensors: Tensors) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Mean and variance of every product, one number at a time."""
    weight = tensors["weight_mu"]
    linear = weight.ndim == 2
    result = {
        "mean": np.zeros(weight.shape),
        "variance": np.zeros(weight.shape),
        "bias": np.zeros(weight.shape[0]),
        "bias_variance": np.zeros(weight.shape[0]),
    }
    for index in np.ndindex(*weight.shape):
        gate = index[1] if linear else index[0]
        z, z2 = float(tensors["z_mu"][gate]), math.exp(float(tensors["z_logvar"][gate]))
        w, w2 = float(weight[index]), math.exp(float(tensors["weight_logvar"][index]))
        result["mean"][index] = z * w
        result["variance"][index] = z * z * w2 + z2 * w * w + z2 * w2
    for output in range(weight.shape[0]):
        b, b2 = float(tensors["bias_mu"][output]), math.exp(float(tensors["bias_logvar"][output]))
        if linear:
            result["bias"][output], result["bias_variance"][output] = b, b2
            continue
        z, z2 = float(tensors["z_mu"][output]), math.exp(float(tensors["z_logvar"][output]))
        result["bias"][output] = z * b
        result["bias_variance"][output] = z * z * b2 + z2 * b * b + z2 * b2
    return result


@pytest.mark.parametrize(("shape", "gates"), SHAPES)
def test_moments_equal_the_slow_loop(shape: tuple[int, ...], gates: int) -> None:
    tensors = gnj_tensors(shape, gates)
    posterior = layer_posterior("layer", tensors)
    slow = slow_moments(tensors)
    np.testing.assert_allclose(posterior.mean["weight"], slow["mean"], rtol=1e-6)
    np.testing.assert_allclose(posterior.variance["weight"], slow["variance"], rtol=1e-6)
    np.testing.assert_allclose(posterior.mean["bias"], slow["bias"], rtol=1e-6)
    np.testing.assert_allclose(posterior.variance["bias"], slow["bias_variance"], rtol=1e-6)
    assert posterior.gate_axis == (1 if len(shape) == 2 else 0)
    assert posterior.gated == (("weight",) if len(shape) == 2 else ("weight", "bias"))
    assert posterior.prior_variance == 1.0
    assert posterior.weight_variance is not None
    np.testing.assert_array_equal(posterior.weight_mean, tensors["weight_mu"])
    np.testing.assert_allclose(posterior.weight_variance, np.exp(tensors["weight_logvar"]), 1e-6)


@pytest.mark.parametrize(("shape", "gates"), [((3, 5), 5), ((4, 2, 2, 4), 4)])
def test_samples_have_the_posterior_moments(shape: tuple[int, ...], gates: int) -> None:
    tensors = gnj_tensors(shape, gates)
    posterior = layer_posterior("layer", tensors)
    generator = np.random.default_rng(1)
    draws = [sample_layer(tensors, generator) for _ in range(8_000)]
    for key in ("weight", "bias"):
        drawn = np.stack([draw[key] for draw in draws]).astype(np.float64)
        deviation = np.sqrt(posterior.variance[key])
        standard_error = deviation / math.sqrt(len(draws))
        assert (np.abs(drawn.mean(0) - posterior.mean[key]) < 5 * standard_error).all()
        np.testing.assert_allclose(drawn.var(0), posterior.variance[key], rtol=0.25)


def test_a_convolution_draws_one_gate_for_a_whole_channel() -> None:
    tensors = dict(gnj_tensors((2, 3, 1, 1), 2))
    tensors["weight_logvar"] = np.full((2, 3, 1, 1), -40.0, np.float32)
    drawn = sample_layer(tensors, np.random.default_rng(0))["weight"] / tensors["weight_mu"]
    np.testing.assert_allclose(drawn[:, 1:], np.repeat(drawn[:, :1], 2, 1), rtol=1e-4)


def test_layer_without_bias() -> None:
    tensors = {k: v for k, v in gnj_tensors((3, 5), 5).items() if not k.startswith("bias")}
    assert set(layer_posterior("fc", tensors).mean) == {"weight"}
    assert set(sample_layer(tensors, np.random.default_rng(0))) == {"weight"}


def test_log_alpha_literals() -> None:
    scores = log_alpha(np.array([1.0, math.exp(1.0), 0.0]), np.array([-3.0, 0.0, 0.0]))
    np.testing.assert_allclose(scores, [-3.0, -2.0, 8 * math.log(10)], atol=1e-7)


def test_gate_at_the_threshold_is_closed() -> None:
    rule = GROUP_NORMAL_JEFFREYS.gate_rule
    assert rule is not None
    assert rule.threshold is None
    assert rule.closed(np.array([-4.0, -3.0, -2.0]), -3.0).tolist() == [False, True, True]
    below = GateRule("snr", Closes.AT_OR_BELOW, 1.0, "a test")
    assert below.closed(np.array([0.5, 1.0, 1.5]), 1.0).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("shape", "gates", "sentence"),
    [
        ((3, 5), 3, r"layer 'fc': z_mu has shape \(3,\) where weight_mu .* asks for \(5,\)"),
        ((4, 2, 3, 5), 5, r"z_mu has shape \(5,\) where .* asks for \(4,\)"),
        ((4, 2, 3, 3, 3), 4, "belongs to no linear layer, Conv1d or Conv2d"),
    ],
)
def test_shapes_that_do_not_fit(shape: tuple[int, ...], gates: int, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        layer_posterior("fc", gnj_tensors(shape, gates))


def test_other_tensors_of_the_wrong_shape() -> None:
    tensors = dict(gnj_tensors((3, 5), 5))
    tensors["bias_mu"] = np.zeros(2, np.float32)
    with pytest.raises(CheckpointError, match=r"bias_mu has shape \(2,\)"):
        layer_posterior("fc", tensors)


def test_variance_that_overflows() -> None:
    tensors = dict(gnj_tensors((3, 5), 5))
    tensors["weight_logvar"] = np.full((3, 5), 1000.0, np.float32)
    with pytest.raises(CheckpointError, match="layer 'fc': a log-variance is so large"):
        layer_posterior("fc", tensors)


def traps_met(tensors: Tensors) -> list[bool]:
    return [trap.met(tensors) for trap in GROUP_NORMAL_JEFFREYS.traps]


def test_traps() -> None:
    untrained = dict(gnj_tensors((3, 5), 5))
    untrained["z_mu"], untrained["z_logvar"] = np.ones(5), np.full(5, -9.0)
    assert traps_met(gnj_tensors((3, 5), 5)) == [False, False, False]
    assert traps_met(gnj_tensors((4, 2, 3, 3), 4)) == [False, True, False]
    assert traps_met(gnj_tensors((4, 2, 3, 4), 4)) == [True, True, False]
    assert traps_met(untrained) == [False, False, True]
