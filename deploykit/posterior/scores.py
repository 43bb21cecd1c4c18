"""The statistic that a pruning rule looks at, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from deploykit.errors import ConfigError
from deploykit.posterior.families import family_named
from deploykit.posterior.options import PruneRule
from deploykit.spec.arrays import BoolArray, Float32Array, Float64Array
from deploykit.spec.listing import listed
from deploykit.spec.posterior import LayerPosterior

SMALLEST_VARIANCE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ScoredLayer:
    """A layer under a rule. default: the rule's own threshold; closes: which gates one closes.

    axis: of the weight, along which the scores run; None where each weight has one.
    """

    layer: str
    statistic: str
    axis: int | None
    scores: Float64Array
    default: float | None
    closes: Callable[[Float64Array, float], BoolArray]


def channel_snr(mean: Float32Array, variance: Float32Array, axis: int = 0) -> Float64Array:
    """sqrt(sum mu^2 / sum s^2) over each output channel of [C, ...]; 0 where the mean is zero.

    axis: along which the output channels run, where it is not the first.

    Source: Graves 2011; Blundell et al. 2015, section 5.1, per channel instead of per weight.
    """
    signal = _per_channel(mean.astype(np.float64) ** 2, axis)
    noise = _per_channel(variance.astype(np.float64), axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(signal == 0, 0.0, np.sqrt(signal / noise))


def channel_savage_dickey(
    mean: Float32Array, variance: Float32Array, prior_variance: float, axis: int = 0
) -> Float64Array:
    """sum of log(s_p / s) - mu^2 / (2 s^2) over each output channel of [C, ...].

    The log ratio of posterior to prior density at w = 0: above 0, the data speaks for zero.
    axis: along which the output channels run, where it is not the first.
    Source: Dickey 1971, for two Gaussians, summed over the channel.
    """
    mu = mean.astype(np.float64)
    s2 = np.maximum(variance.astype(np.float64), SMALLEST_VARIANCE)
    return _per_channel(0.5 * np.log(prior_variance / s2) - mu**2 / (2 * s2), axis)


def score_layers(
    rule: PruneRule, layers: Sequence[LayerPosterior], output_layer: str | None
) -> tuple[ScoredLayer, ...]:
    hidden = _hidden(layers, output_layer)
    match rule:
        case PruneRule.FAMILY:
            gated = tuple(scored for layer in layers for scored in _score_gates(layer))
            if not gated:
                names = sorted({layer.family for layer in layers})
                one = len(names) == 1
                raise ConfigError(
                    f"the {'family' if one else 'families'} {listed(names)} "
                    f"{'has' if one else 'have'} no gates; {other_rules(layers, output_layer)}"
                )
            return gated
        case PruneRule.SNR:
            return tuple(_score_snr(layer) for layer in hidden)
        case PruneRule.SAVAGE_DICKEY:
            for layer in hidden:
                if not _tells_prior(layer):
                    raise ConfigError(
                        f"layer '{layer.name}': the checkpoint of a {layer.family} layer does not "
                        "tell its prior, which savage-dickey needs; "
                        f"{other_rules(layers, output_layer)}"
                    )
            return tuple(_score_savage_dickey(layer) for layer in hidden)
        case PruneRule.NONE:
            return ()
        case _:
            assert_never(rule)


def other_rules(layers: Sequence[LayerPosterior], output_layer: str | None) -> str:
    """Which rules these layers permit beside that of their family, and how to see what they cost.

    snr and savage-dickey rank by random weights, the latter against their prior.
    """
    ranked = _hidden(layers, output_layer)
    noisy = any(layer.variance["weight"].any() for layer in ranked)
    if not noisy or any(layer.output_axis is None for layer in ranked):
        return "give --prune-rule none, which removes no channels"
    or_prior = " (or savage-dickey)" if all(_tells_prior(layer) for layer in ranked) else ""
    return (
        "give --prune-rule none, which removes no channels, or see what each threshold costs with "
        f"--prune-rule snr{or_prior} --dry-run --eval-data labelled.npz"
    )


def _hidden(
    layers: Sequence[LayerPosterior], output_layer: str | None
) -> tuple[LayerPosterior, ...]:
    """Without recurrent layers: their states feed each other, so none is a channel to drop."""
    return tuple(layer for layer in layers if layer.name != output_layer and "weight" in layer.mean)


def _tells_prior(layer: LayerPosterior) -> bool:
    return not (
        layer.prior_variance is None or layer.weight_mean is None or layer.weight_variance is None
    )


def _score_gates(layer: LayerPosterior) -> Iterable[ScoredLayer]:
    rule = family_named(layer.family).gate_rule
    if rule is not None and layer.gate_score is not None:
        scores = layer.gate_score.astype(np.float64)
        yield ScoredLayer(
            layer.name, rule.score, layer.gate_axis, scores, rule.threshold, rule.closed
        )


def _score_snr(layer: LayerPosterior) -> ScoredLayer:
    axis = _output_axis(layer)
    scores = channel_snr(layer.mean["weight"], layer.variance["weight"], axis)
    return ScoredLayer(layer.name, "signal-to-noise", axis, scores, None, _below)


def _score_savage_dickey(layer: LayerPosterior) -> ScoredLayer:
    assert layer.prior_variance is not None
    assert layer.weight_mean is not None
    assert layer.weight_variance is not None
    axis = _output_axis(layer)
    scores = channel_savage_dickey(
        layer.weight_mean, layer.weight_variance, layer.prior_variance, axis
    )
    return ScoredLayer(layer.name, "log evidence for zero", axis, scores, 0.0, _above)


def _output_axis(layer: LayerPosterior) -> int:
    if layer.output_axis is None:
        raise ConfigError(
            f"layer '{layer.name}': the output channels of a transposed convolution with groups "
            "lie along no axis of its weight, so they cannot be ranked; give --prune-rule none"
        )
    return layer.output_axis


def _below(scores: Float64Array, threshold: float) -> BoolArray:
    return np.asarray(scores < threshold, dtype=np.bool_)


def _above(scores: Float64Array, threshold: float) -> BoolArray:
    return np.asarray(scores > threshold, dtype=np.bool_)


def _per_channel(values: Float64Array, axis: int) -> Float64Array:
    first = np.moveaxis(values, axis, 0)
    return np.asarray(first.reshape(len(first), -1).sum(axis=1), dtype=np.float64)
