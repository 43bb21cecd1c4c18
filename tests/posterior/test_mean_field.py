"""Moments, draws, copies, priors and traps of mean-field Gaussians, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from deploykit.errors import CheckpointError
from deploykit.posterior import bayesian_torch, torchbnn
from deploykit.posterior.bayesian_cnn import BAYESIAN_CNN
from deploykit.posterior.blitz import BLITZ
from deploykit.posterior.family import Family
from deploykit.posterior.mean_field import SILENT
from deploykit.posterior.torch_uncertainty import TORCH_UNCERTAINTY
from deploykit.spec.arrays import AnyArray, Tensors

SPREADS: dict[str, Callable[[float], float]] = {
    "rho": lambda spread: math.log(1 + math.exp(spread)),
    "log_sigma": math.exp,
    "sigma": lambda spread: spread,
}


def random(*shape: int, seed: int = 0) -> AnyArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tensors_of(
    family: Family, weight: tuple[int, ...], bias: tuple[int, ...]
) -> dict[str, AnyArray]:
    """Random tensors under every key of the family that is no noise, prior or integer's scale."""
    found: dict[str, AnyArray] = {}
    for number, key in enumerate(sorted(family.keys)):
        part = bias if "bias" in key else weight
        if "prior_dist" in key:
            share = [1.0, 0.0] if key.endswith("pi") else [0.1, 0.4]
            found[key] = (
                np.zeros(2, np.float32) if key.endswith("mus") else np.array(share, np.float32)
            )
        elif not any(word in key for word in ("eps", "prior", "quant_dict", "_quant.", "zero")):
            found[key] = random(*part, seed=number)
    if family is BLITZ:
        found |= {key: random(*weight) for key in ("weight_sampler.eps_w",)}
        found |= {key: random(*bias) for key in ("bias_sampler.eps_w",)}
    return found


ROWS = [
    (BAYESIAN_CNN, "W_mu", "W_rho", "rho"),
    (bayesian_torch.CONVOLUTION, "mu_kernel", "rho_kernel", "rho"),
    (bayesian_torch.LINEAR, "mu_weight", "rho_weight", "rho"),
    (bayesian_torch.QUANTIZED, "quantized_mu_weight", "quantized_sigma_weight", "sigma"),
    (BLITZ, "weight_sampler.mu", "weight_sampler.rho", "rho"),
    (TORCH_UNCERTAINTY, "weight_sampler.mu", "weight_sampler.rho", "rho"),
    (torchbnn.WEIGHTED, "weight_mu", "weight_log_sigma", "log_sigma"),
]


@pytest.mark.parametrize(("family", "mean", "spread", "kind"), ROWS)
def test_moments_one_number_at_a_time(family: Family, mean: str, spread: str, kind: str) -> None:
    tensors = tensors_of(family, (4, 2, 3), (1, 4))
    posterior = family.posterior("layer", tensors)
    assert posterior.family == family.name
    for key in ("weight", "bias"):
        bias = key == "bias"
        means = tensors[mean.replace("weight", "bias").replace("kernel", "bias") if bias else mean]
        name = spread.replace("weight", "bias").replace("kernel", "bias") if bias else spread
        if family is BAYESIAN_CNN and bias:
            means, name = tensors["bias_mu"], "bias_rho"
        expected = [SPREADS[kind](float(value)) ** 2 for value in tensors[name].flat]
        np.testing.assert_array_equal(posterior.mean[key].ravel(), means.ravel())
        np.testing.assert_allclose(posterior.variance[key].ravel(), expected, rtol=1e-5)
    assert posterior.mean["bias"].shape == (4,)
    np.testing.assert_array_equal(posterior.weight_mean, posterior.mean["weight"])


@pytest.mark.parametrize("family", [row[0] for row in ROWS], ids=lambda family: family.name)
def test_draws_have_the_moments(family: Family) -> None:
    tensors = tensors_of(family, (3, 2), (3,))
    posterior = family.posterior("layer", tensors)
    generator = np.random.default_rng(0)
    draws = [family.sample(tensors, generator) for _ in range(4_000)]
    for key in ("weight", "bias"):
        values = np.stack([one[key] for one in draws]).astype(np.float64)
        error = np.sqrt(posterior.variance[key] / len(draws))
        assert (np.abs(values.mean(0) - posterior.mean[key]) < 5 * error).all()
        np.testing.assert_allclose(values.var(0), posterior.variance[key], rtol=0.15)


def test_silenced_tensors_have_no_spread_and_the_forward_s_copies() -> None:
    tensors = tensors_of(BLITZ, (3, 2), (3,))
    assert BLITZ.silenced is not None
    quiet = BLITZ.silenced(tensors)
    assert quiet.keys() == tensors.keys()
    for part in ("weight", "bias"):
        np.testing.assert_array_equal(quiet[f"{part}_mu"], tensors[f"{part}_sampler.mu"])
        assert (quiet[f"{part}_rho"] == SILENT).all()
        assert (quiet[f"{part}_sampler.rho"] == SILENT).all()
    assert bayesian_torch.QUANTIZED.silenced is None


def test_a_mean_without_a_sigma_is_a_number() -> None:
    tensors = tensors_of(bayesian_torch.QUANTIZED, (3, 2), (3,))
    del tensors["quantized_sigma_bias"]
    posterior = bayesian_torch.QUANTIZED.posterior("layer", tensors)
    assert posterior.mean["bias"].any()
    assert not posterior.variance["bias"].any()


def test_the_prior_of_torch_uncertainty() -> None:
    tensors = tensors_of(TORCH_UNCERTAINTY, (3, 2), (3,))
    assert TORCH_UNCERTAINTY.posterior("", tensors).prior_variance == pytest.approx(0.01)
    tensors["weight_prior_dist.pi"] = np.array([0.75, 0.25], np.float32)
    density = 0.75 / 0.1 + 0.25 / 0.4
    found = TORCH_UNCERTAINTY.posterior("", tensors).prior_variance
    assert found == pytest.approx(density**-2)
    tensors["weight_prior_dist.mus"] = np.array([0.0, 1.0], np.float32)
    assert TORCH_UNCERTAINTY.posterior("", tensors).prior_variance is None


def test_the_prior_of_an_old_bayesian_torch_file() -> None:
    tensors = tensors_of(bayesian_torch.LINEAR, (3, 2), (3,))
    assert bayesian_torch.LINEAR.posterior("", tensors).prior_variance is None
    tensors["prior_weight_mu"] = np.zeros((3, 2), np.float32)
    tensors["prior_weight_sigma"] = np.full((3, 2), 0.5, np.float32)
    assert bayesian_torch.LINEAR.posterior("", tensors).prior_variance == 0.25
    tensors["prior_weight_sigma"][0, 0] = 1.0
    assert bayesian_torch.LINEAR.posterior("", tensors).prior_variance is None


MISTAKES: list[tuple[dict[str, tuple[int, ...]], str]] = [
    ({"W_rho": (3, 3)}, r"layer 'fc': W_rho has shape \(3, 3\) and W_mu \(3, 2\); .* two layers"),
    ({"bias_mu": (4,), "bias_rho": (4,)}, r"bias_mu has 4 numbers where .* asks for 3"),
    ({"W_mu": (3, 2, 1, 1, 1), "W_rho": (3, 2, 1, 1, 1)}, "a convolution over three axes or more"),
]


@pytest.mark.parametrize(("shapes", "sentence"), MISTAKES)
def test_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], sentence: str) -> None:
    tensors = tensors_of(BAYESIAN_CNN, (3, 2), (3,))
    tensors |= {key: random(*shape) for key, shape in shapes.items()}
    with pytest.raises(CheckpointError, match=sentence):
        BAYESIAN_CNN.posterior("fc", tensors)


def test_a_log_sigma_that_overflows() -> None:
    tensors = tensors_of(torchbnn.WEIGHTED, (3, 2), (3,))
    tensors["weight_log_sigma"] = np.full((3, 2), 400.0, np.float32)
    with pytest.raises(CheckpointError, match="variance overflows float32"):
        torchbnn.WEIGHTED.posterior("fc", tensors)


def met(family: Family, tensors: Tensors, word: str) -> bool:
    (trap,) = [trap for trap in family.traps if word in trap.sentence]
    return trap.met(tensors)


def test_moped_s_constant_ratio_is_told() -> None:
    tensors = tensors_of(bayesian_torch.LINEAR, (20, 30), (20,))
    assert not met(bayesian_torch.LINEAR, tensors, "MOPED")
    sigma = 0.1 * np.abs(tensors["mu_weight"]) + 1e-20
    tensors["rho_weight"] = np.log(np.expm1(sigma.astype(np.float64)) + 1e-20)
    assert met(bayesian_torch.LINEAR, tensors, "MOPED")


def test_other_traps() -> None:
    linear = tensors_of(bayesian_torch.LINEAR, (3, 2), (3,))
    assert met(bayesian_torch.LINEAR, linear, "mean over each tensor")
    assert not met(bayesian_torch.LINEAR, linear | {"eps_weight": random(3, 2)}, "mean over each")
    kernel = tensors_of(bayesian_torch.CONVOLUTION, (3, 2, 3, 3), (3,))
    pointwise = tensors_of(bayesian_torch.CONVOLUTION, (3, 2, 1, 1), (3,))
    assert met(bayesian_torch.CONVOLUTION, kernel, "padding_mode")
    assert not met(bayesian_torch.CONVOLUTION, pointwise, "padding_mode")
    plain = tensors_of(torchbnn.WEIGHTED, (3, 2), (3,))
    assert not met(torchbnn.WEIGHTED, plain, "freeze()")
    assert met(torchbnn.WEIGHTED, plain | {"weight_eps": random(3, 2)}, "freeze()")
    assert not met(torchbnn.WEIGHTED, plain, "every log sigma")
    same = plain | {"weight_log_sigma": np.full((3, 2), -2.3, np.float32)}
    assert met(torchbnn.WEIGHTED, same, "every log sigma")
    stale = tensors_of(BLITZ, (3, 2), (3,))
    assert met(BLITZ, stale, "stale")
    assert BLITZ.silenced is not None
    assert not met(BLITZ, BLITZ.silenced(stale), "stale")
    assert met(TORCH_UNCERTAINTY, tensors_of(TORCH_UNCERTAINTY, (3, 2), (3,)), "holds rho")
