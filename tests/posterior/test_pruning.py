"""Pruning rules, thresholds and the zeros they leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from deploykit.errors import ConfigError
from deploykit.posterior.group_normal_jeffreys import layer_posterior
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.pruning import apply_pruning, decide_pruning
from deploykit.posterior.scores import channel_savage_dickey, channel_snr
from deploykit.spec.posterior import LayerPosterior
from tests.posterior.checkpoints import gnj_tensors


def layers() -> tuple[LayerPosterior, ...]:
    return (
        layer_posterior("conv", gnj_tensors((4, 2, 3, 3), 4)),
        layer_posterior("fc", gnj_tensors((3, 5), 5, seed=1)),
    )


def scored(layer: LayerPosterior, scores: Sequence[float]) -> LayerPosterior:
    return replace(layer, gate_score=np.array(scores, np.float32))


def gated() -> tuple[LayerPosterior, ...]:
    conv, fc = layers()
    return scored(conv, [-5, -3, -1, -4]), scored(fc, [-5, -2, -9, -2.5, -7])


def float32(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_snr_literals() -> None:
    mean = float32(3, 4, 0, 0, 1, 0, 0, 0).reshape(4, 2, 1)
    variance = float32(16, 9, 1, 1, 0, 0, 0, 0).reshape(4, 2, 1)
    assert channel_snr(mean, variance).tolist() == [1.0, 0.0, math.inf, 0.0]


def test_savage_dickey_literals() -> None:
    mean = float32(0, 0, 1, 0, 2, 2).reshape(3, 2)
    variance = float32(1, 1, 0.25, 0.25, 1, 1).reshape(3, 2)
    expected = [0.0, 2 * math.log(2) - 2, -4.0]
    np.testing.assert_allclose(channel_savage_dickey(mean, variance, 1.0), expected)


def test_savage_dickey_is_the_log_ratio_of_densities_at_zero() -> None:
    mu, s2, prior = 0.3, 0.2, 2.0
    posterior_density = math.exp(-(mu**2) / (2 * s2)) / math.sqrt(2 * math.pi * s2)
    prior_density = 1 / math.sqrt(2 * math.pi * prior)
    score = channel_savage_dickey(float32(mu).reshape(1, 1), float32(s2).reshape(1, 1), prior)
    np.testing.assert_allclose(score, math.log(posterior_density / prior_density), rtol=1e-6)


def test_savage_dickey_without_any_variance() -> None:
    score = channel_savage_dickey(float32(1, 0).reshape(2, 1), np.zeros((2, 1), np.float32), 1.0)
    assert score[0] < -1e30
    assert score[1] > 40


def test_family_rule_with_one_threshold() -> None:
    conv, fc = decide_pruning(PruneSpec(PruneRule.FAMILY, -3.0), gated(), "fc")
    assert (conv.layer, conv.rule, conv.threshold, conv.axis) == ("conv", "family", -3.0, 0)
    assert conv.closed.tolist() == [False, True, True, False]
    assert (fc.axis, fc.closed.tolist()) == (1, [False, True, False, True, False])


def test_family_rule_with_a_threshold_per_layer() -> None:
    spec = PruneSpec(PruneRule.FAMILY, {"conv": -4.0, "fc": -1.0})
    conv, fc = decide_pruning(spec, gated(), None)
    assert conv.closed.tolist() == [False, True, True, True]
    assert not fc.closed.any()


def test_snr_rule_spares_the_output_layer() -> None:
    (conv,) = decide_pruning(PruneSpec(PruneRule.SNR, 0.7), layers(), "fc")
    first = layers()[0]
    scores = channel_snr(first.mean["weight"], first.variance["weight"])
    assert (conv.layer, conv.axis) == ("conv", 0)
    assert conv.closed.tolist() == (scores < 0.7).tolist()
    assert 0 < conv.closed.sum() < 4


def test_savage_dickey_rule_has_a_default_threshold() -> None:
    conv, fc = layers()
    mean = np.zeros_like(fc.mean["weight"])
    mean[0] = 3.0
    fc = replace(fc, weight_mean=mean, weight_variance=np.full_like(mean, 0.1))
    (decision,) = decide_pruning(PruneSpec(PruneRule.SAVAGE_DICKEY), (conv, fc), "conv")
    assert (decision.layer, decision.threshold, decision.axis) == ("fc", 0.0, 0)
    assert decision.closed.tolist() == [False, True, True]


def test_none_closes_nothing() -> None:
    assert decide_pruning(PruneSpec(PruneRule.NONE), layers(), None) == ()
    assert decide_pruning(PruneSpec(PruneRule.NONE), (), None) == ()


@pytest.mark.parametrize("rule", [PruneRule.FAMILY, PruneRule.SNR])
def test_a_threshold_is_asked_for(rule: PruneRule) -> None:
    sentence = (
        r"layer 'conv': no default threshold on its .* is published; "
        r"--dry-run --eval-data labelled.npz shows what each one costs; then give --threshold T"
    )
    with pytest.raises(ConfigError, match=sentence):
        decide_pruning(PruneSpec(rule), layers(), None)


MISTAKES = [
    (PruneSpec(PruneRule.FAMILY, {"conv": -3.0, "fc": -3.0, "fc9": -3.0}),
     r"unknown layer 'fc9'; layers that --prune-rule family can prune: conv, fc"),
    (PruneSpec(PruneRule.FAMILY, {"conv": -3.0}),
     r"layer 'fc' has no threshold of its own .*; give one for each of conv, fc"),
    (PruneSpec(PruneRule.SNR, {"conv": 0.5, "fc": 0.5}),
     r"threshold for 'fc': it is the output layer, which --prune-rule snr never prunes"),
    (PruneSpec(PruneRule.FAMILY, math.nan), r"layer 'conv': threshold nan is no finite number"),
    (PruneSpec(PruneRule.NONE, -3.0), r"contradict each other"),
    (PruneSpec(PruneRule.FAMILY, -5.0),
     r"layer 'conv': threshold -5 closes all 4 gates, whose log alpha runs from -5 to -1"),
    (PruneSpec(PruneRule.SNR, 1e6), r"layer 'conv': threshold 1e\+06 closes all 4 .*to-noise"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "sentence"), MISTAKES)
def test_mistakes_are_refused(spec: PruneSpec, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        decide_pruning(spec, gated(), "fc")


@pytest.mark.parametrize("rule", [PruneRule.FAMILY, PruneRule.SNR, PruneRule.SAVAGE_DICKEY])
def test_no_posterior_to_go_by(rule: PruneRule) -> None:
    with pytest.raises(ConfigError, match=f"no posterior, so --prune-rule {rule.value} has"):
        decide_pruning(PruneSpec(rule, 1.0), (), None)


def test_only_the_output_layer_has_a_posterior() -> None:
    with pytest.raises(ConfigError, match="'fc' is the only layer with a posterior and gives"):
        decide_pruning(PruneSpec(PruneRule.SNR, 1.0), layers()[1:], "fc")


def test_savage_dickey_without_a_prior() -> None:
    conv, fc = layers()
    with pytest.raises(ConfigError, match=r"layer 'conv': .*does not tell its prior"):
        decide_pruning(
            PruneSpec(PruneRule.SAVAGE_DICKEY), (replace(conv, prior_variance=None), fc), None
        )


def test_family_rule_without_gates() -> None:
    ungated = [replace(layer, gate_score=None, gate_axis=None) for layer in layers()]
    told = r"the family {} has no gates; give --prune-rule none, .* {} --dry-run --eval-data"
    family = ungated[0].family
    both = r"--prune-rule snr \(or savage-dickey\)"
    with pytest.raises(ConfigError, match=told.format(family, both)):
        decide_pruning(PruneSpec(PruneRule.FAMILY, 1.0), ungated, None)
    without_prior = [replace(layer, prior_variance=None) for layer in ungated]
    with pytest.raises(ConfigError, match=told.format(family, "--prune-rule snr")):
        decide_pruning(PruneSpec(PruneRule.FAMILY, 1.0), without_prior, None)


def test_layers_that_no_rule_ranks_are_offered_none_alone() -> None:
    still = [
        replace(
            layer,
            gate_score=None,
            gate_axis=None,
            variance={key: np.zeros_like(value) for key, value in layer.variance.items()},
        )
        for layer in layers()
    ]
    with pytest.raises(ConfigError, match=r"give --prune-rule none, which removes no channels$"):
        decide_pruning(PruneSpec(PruneRule.FAMILY), still, None)


def test_families_without_gates_are_named_in_the_plural() -> None:
    conv, fc = (replace(layer, gate_score=None, gate_axis=None) for layer in layers())
    with pytest.raises(ConfigError, match="the families IVON, Laplace have no gates; give"):
        decide_pruning(
            PruneSpec(PruneRule.FAMILY),
            (replace(conv, family="Laplace"), replace(fc, family="IVON")),
            None,
        )


def test_closed_gates_become_exact_zeros() -> None:
    before_conv, before_fc = gated()
    decisions = decide_pruning(PruneSpec(PruneRule.FAMILY, -3.0), gated(), None)
    conv, fc = map(apply_pruning, gated(), decisions)
    for part in ("mean", "variance"):
        weight, bias = getattr(conv, part)["weight"], getattr(conv, part)["bias"]
        assert not weight[[1, 2]].any()
        assert not bias[[1, 2]].any()
        np.testing.assert_array_equal(weight[[0, 3]], getattr(before_conv, part)["weight"][[0, 3]])
        weight, bias = getattr(fc, part)["weight"], getattr(fc, part)["bias"]
        assert not weight[:, [1, 3]].any()
        np.testing.assert_array_equal(bias, getattr(before_fc, part)["bias"])
        kept = getattr(before_fc, part)["weight"][:, [0, 2, 4]]
        np.testing.assert_array_equal(weight[:, [0, 2, 4]], kept)
    assert before_conv.mean["weight"].all()


def test_snr_leaves_the_bias() -> None:
    before = layers()[0]
    (decision,) = decide_pruning(PruneSpec(PruneRule.SNR, 0.7), layers(), "fc")
    after = apply_pruning(before, decision)
    assert not after.mean["weight"][decision.closed].any()
    assert not after.variance["weight"][decision.closed].any()
    np.testing.assert_array_equal(after.mean["bias"], before.mean["bias"])
    np.testing.assert_array_equal(after.variance["bias"], before.variance["bias"])
