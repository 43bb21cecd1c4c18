"""What a checkpoint says about itself; of a vector only where a network laid it out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.posterior.families import DETERMINISTIC
from deploykit.posterior.family import TwinKind
from deploykit.posterior.recognise import (
    Recognised,
    RecognisedLayer,
    layer_keys,
    lone_numbers,
    recognise,
    split_key,
)
from deploykit.posterior.suggestion import Given, after_it, suggested_command
from deploykit.spec.arrays import Float32Array, FloatArray
from deploykit.spec.posterior import Checkpoint, LayerPosterior, Precision

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class LayerSummary:
    """One layer of the checkpoint.

    shapes: of the tensors in the file, by name relative to the layer.
    score: what the gates are ranked by ("log alpha"); score_quantiles and snr_quantiles stand at
        QUANTILES, snr being |mean| / standard deviation per weight of the folded layer.
    dead_share: of the gates, at the threshold that was given or that the family publishes.
    bits: of an integer grid that is as fine as the variance asks, see `posterior_bits`.
    weight_bits, activation_bits: that training chose, where it chose any; `bits` is None there.
    """

    name: str
    family: str
    shapes: Mapping[str, tuple[int, ...]]
    gates: int | None = None
    score: str | None = None
    score_quantiles: tuple[float, ...] | None = None
    snr_quantiles: tuple[float, ...] | None = None
    prior_variance: float | None = None
    dead_share: float | None = None
    bits: int | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None


@dataclass(frozen=True)
class CheckpointSummary:
    """All layers, what was unwrapped, the traps met by layer, and a command to go on with.

    beside: other entries of the file that hold a network. unread: entries that need code.
    next_step: what follows the command. parameters: numbers read.
    """

    path: Path
    unwrapped: tuple[str, ...]
    layers: tuple[LayerSummary, ...]
    parameters: int
    traps: tuple[str, ...]
    suggested_command: str
    beside: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    next_step: str = ""


def inspect_checkpoint(
    checkpoint: Checkpoint,
    threshold: float | None = None,
    given: Given = Given(),  # noqa: B008  frozen
) -> CheckpointSummary:
    """Families, gates and signal-to-noise per layer, in the order of the file.

    given: what the suggested command need not ask for.
    """
    recognised = recognise(checkpoint)
    layers = recognised.layers
    posteriors = {layer.name: layer.posterior() for layer in layers}
    summaries = {
        layer.name: _summarise(layer, posteriors[layer.name], threshold) for layer in layers
    }
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, array in recognised.plain.items():
        name, parameter = split_key(key)
        shapes.setdefault(name, {})[parameter] = array.shape
    for name, own in shapes.items():
        summaries.setdefault(name, LayerSummary(name, _plain_family(checkpoint), own))
    order = dict.fromkeys(name for name, _ in layer_keys(recognised, checkpoint).values())
    return CheckpointSummary(
        path=checkpoint.path,
        unwrapped=checkpoint.unwrapped,
        beside=checkpoint.beside,
        layers=tuple(summaries[name] for name in order if name in summaries),
        parameters=_numbers(checkpoint),
        traps=(*_flat(checkpoint), *_traps(layers), *_lone(checkpoint, recognised)),
        suggested_command=suggested_command(checkpoint, layers, posteriors, threshold, given),
        unread=checkpoint.unread,
        next_step=after_it(checkpoint, layers, posteriors, threshold, given),
    )


def posterior_bits(mean: FloatArray, variance: FloatArray) -> int:
    """Of an integer grid whose step is as fine as the variance asks, the sign among them.

    Per weight t = ceil(-log2(2 s^2)) - 1 fractional bits, 0 to 23; the layer has the mean of them,
    rounded up; bits = 1 + ceil(log2(max |mu| / 2^-t)), at least 1.
    Source: Louizos, Ullrich and Welling 2017, section 4.2, and its reference code, for t.
    """
    with np.errstate(divide="ignore"):
        needed = np.ceil(-np.log2(2 * variance.astype(np.float64))) - 1
        fraction = math.ceil(float(np.clip(needed, 0, 23).mean()))
        largest = float(np.abs(mean).max()) * 2.0**fraction
    return 1 + max(0, math.ceil(math.log2(largest))) if largest > 0 else 1


def _numbers(checkpoint: Checkpoint) -> int:
    """Those of a flat posterior among them."""
    named = sum(int(array.size) for array in checkpoint.tensors.values())
    if checkpoint.flat is None:
        return named
    vectors = (checkpoint.flat.mean, checkpoint.flat.variance)
    return named + sum(int(vector.size) for vector in vectors if vector is not None)


def _plain_family(checkpoint: Checkpoint) -> str:
    """Of a layer without a posterior of its own, which a vector may hold."""
    flat = checkpoint.flat
    return DETERMINISTIC if flat is None or flat.last_layer else f"in the vector of {flat.format}"


def _flat(checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.flat is not None:
        covers = "the last layer's" if checkpoint.flat.last_layer else "all"
        if checkpoint.flat.unknown is not None:
            yield (
                f"{checkpoint.flat.format}: one vector of {checkpoint.flat.size:,} means for "
                f"{covers} parameters, without variances: {checkpoint.flat.unknown}; it exports "
                "with --prune-rule none"
            )
        else:
            yield (
                f"{checkpoint.flat.format}: one vector of {checkpoint.flat.size:,} variances "
                f"for {covers} parameters; --model FILE.py:FACTORY shows it by layer"
            )
        yield from (f"{checkpoint.flat.format}: {note}" for note in checkpoint.flat.notes)


def _traps(layers: Iterable[RecognisedLayer]) -> Iterator[str]:
    for layer in layers:
        for trap in layer.family.traps:
            if trap.met(layer.tensors):
                yield f"{layer.name}: {trap.sentence}"


def _lone(checkpoint: Checkpoint, recognised: Recognised) -> Iterator[str]:
    if checkpoint.plain is not None:
        return
    for key in lone_numbers(recognised):
        yield (
            f"{key}: a number of no layer, taken as it is; --model FILE.py:FACTORY shows whether "
            "the network holds it so"
        )


def _summarise(
    layer: RecognisedLayer, posterior: LayerPosterior, threshold: float | None
) -> LayerSummary:
    rule = layer.family.gate_rule
    scores = posterior.gate_score
    limit = rule.threshold if rule is not None and threshold is None else threshold
    told = _trained_bits(posterior.precision) if posterior.precision else _spread(layer, posterior)
    return LayerSummary(
        name=layer.name,
        family=layer.family.name,
        shapes={key: array.shape for key, array in layer.tensors.items()},
        gates=None if scores is None else int(scores.size),
        score=None if rule is None else rule.score,
        score_quantiles=None if scores is None else _quantiles(scores),
        prior_variance=posterior.prior_variance,
        dead_share=None
        if rule is None or scores is None or limit is None
        else float(rule.closed(scores, limit).mean()),
        **told,
    )


def _trained_bits(precision: Precision) -> dict[str, Any]:
    activation = precision.activation
    return {
        "weight_bits": precision.weight_bits,
        "activation_bits": None if activation is None else activation.bits,
    }


def _spread(layer: RecognisedLayer, posterior: LayerPosterior) -> dict[str, Any]:
    """Of random weights: signal-to-noise, and the bits that the variance asks for."""
    mean, variance = (_weights(part) for part in (posterior.mean, posterior.variance))
    if not variance.any():
        return {}
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.nan_to_num(np.abs(mean) / np.sqrt(variance), nan=0.0, posinf=np.inf)
    gates_alone = layer.family.twin is TwinKind.CHANNEL_SCALE
    return {
        "snr_quantiles": _quantiles(snr),
        "bits": None if gates_alone else posterior_bits(mean, variance),
    }


def _weights(parameters: Mapping[str, Float32Array]) -> Float32Array:
    """All weights of a layer in one row; a recurrent layer has two matrices."""
    return np.concatenate([array.ravel() for key, array in parameters.items() if "bias" not in key])


def _quantiles(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, QUANTILES, method="nearest"))
