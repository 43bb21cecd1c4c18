"""Which gates or output channels close, decided from the posterior before anything is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deploykit.errors import ConfigError
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.scores import ScoredLayer, score_layers
from deploykit.spec.arrays import BoolArray, Float32Array
from deploykit.spec.posterior import LayerPosterior, LayerPruning

WAYS_TO_THRESHOLD = (
    "--dry-run --eval-data labelled.npz shows what each one costs; then give --threshold T or "
    "[threshold] in export.toml, or --prune-rule none"
)


def decide_pruning(
    spec: PruneSpec, layers: Sequence[LayerPosterior], output_layer: str | None
) -> tuple[LayerPruning, ...]:
    """The gates that the rule closes, layer by layer.

    output_layer: whose rows are the network's outputs; snr and savage-dickey leave it alone.
    """
    if spec.rule is PruneRule.NONE:
        if spec.threshold is not None:
            raise ConfigError(
                "a threshold and --prune-rule none contradict each other; drop one of them"
            )
        return ()
    if not layers:
        raise ConfigError(
            f"the checkpoint holds no posterior, so --prune-rule {spec.rule.value} has nothing "
            "to go by; give --prune-rule none"
        )
    scored = score_layers(spec.rule, layers, output_layer)
    if not scored and any("weight" not in layer.mean for layer in layers):
        raise ConfigError(
            "no layer but recurrent ones and the output layer has a posterior, and --prune-rule "
            f"{spec.rule.value} prunes neither; give --prune-rule none"
        )
    if not scored:
        raise ConfigError(
            f"'{output_layer}' is the only layer with a posterior and gives the network's outputs, "
            f"which --prune-rule {spec.rule.value} never prunes; give --prune-rule none"
        )
    thresholds = _thresholds(spec, scored, output_layer)
    return tuple(_decide(spec.rule, layer, thresholds[layer.layer]) for layer in scored)


def apply_pruning(layer: LayerPosterior, pruning: LayerPruning) -> LayerPosterior:
    """The layer with closed slices of mean and variance exactly zero.

    A closed gate zeroes all that it multiplies. A closed output channel zeroes its weights only:
    its bias stays, a constant that channel removal carries on.
    """
    zeroed = layer.gated if pruning.rule == PruneRule.FAMILY.value else ("weight",)

    def close(parameters: Mapping[str, Float32Array]) -> Mapping[str, Float32Array]:
        closed = {key: value.copy() for key, value in parameters.items()}
        for key in zeroed:
            axis = pruning.axis if key == "weight" else 0
            before: list[slice | BoolArray] = [slice(None)] * (axis or 0)
            closed[key][(*before, pruning.closed)] = 0.0
        return closed

    return replace(layer, mean=close(layer.mean), variance=close(layer.variance))


def _thresholds(
    spec: PruneSpec, layers: Sequence[ScoredLayer], output_layer: str | None
) -> Mapping[str, float]:
    given = spec.threshold
    names = ", ".join(layer.layer for layer in layers)
    if isinstance(given, Mapping):
        unknown = sorted(given.keys() - {layer.layer for layer in layers})
        if output_layer in unknown:
            raise ConfigError(
                f"threshold for '{output_layer}': it is the output layer, which --prune-rule "
                f"{spec.rule.value} never prunes; leave it out. Layers: {names}"
            )
        if unknown:
            raise ConfigError(
                f"threshold for unknown layer {', '.join(map(repr, unknown))}; layers that "
                f"--prune-rule {spec.rule.value} can prune: {names}"
            )
    chosen: dict[str, float] = {}
    for layer in layers:
        one = given.get(layer.layer) if isinstance(given, Mapping) else given
        value = layer.default if one is None else one
        if value is None and isinstance(given, Mapping):
            raise ConfigError(
                f"layer '{layer.layer}' has no threshold of its own and its {layer.statistic} has "
                f"no published default; give one for each of {names}"
            )
        if value is None:
            raise ConfigError(
                f"layer '{layer.layer}': no default threshold on its {layer.statistic} is "
                f"published; {WAYS_TO_THRESHOLD}"
            )
        if not math.isfinite(value):
            raise ConfigError(f"layer '{layer.layer}': threshold {value} is no finite number")
        chosen[layer.layer] = float(value)
    return chosen


def _decide(rule: PruneRule, layer: ScoredLayer, threshold: float) -> LayerPruning:
    closed = layer.closes(layer.scores, threshold)
    if closed.all():
        low, high = float(layer.scores.min()), float(layer.scores.max())
        raise ConfigError(
            f"layer '{layer.layer}': threshold {threshold:g} closes all {closed.size} gates, whose "
            f"{layer.statistic} runs from {low:.4g} to {high:.4g}; choose a threshold between "
            "these two"
        )
    return LayerPruning(layer.layer, rule.value, threshold, layer.axis, closed)
