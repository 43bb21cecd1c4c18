"""What a checkpoint says about itself, without a network at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploykit.posterior.families import DETERMINISTIC
from deploykit.posterior.recognise import RecognisedLayer, recognise, split_key
from deploykit.spec.arrays import Float32Array, FloatArray
from deploykit.spec.posterior import Checkpoint

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class LayerSummary:
    """One layer of the checkpoint.

    shapes: of the tensors in the file, by name relative to the layer.
    score: what the gates are ranked by ("log alpha"); score_quantiles and snr_quantiles stand at
        QUANTILES, snr being |mean| / standard deviation per weight of the folded layer.
    dead_share: of the gates, at the threshold that was given or that the family publishes.
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


@dataclass(frozen=True)
class CheckpointSummary:
    """All layers, what was unwrapped, the traps met by layer, and a command to go on with.

    beside: other entries of the file that hold a network.
    """

    path: Path
    unwrapped: tuple[str, ...]
    layers: tuple[LayerSummary, ...]
    parameters: int
    traps: tuple[str, ...]
    suggested_command: str
    beside: tuple[str, ...] = ()


def inspect_checkpoint(checkpoint: Checkpoint, threshold: float | None = None) -> CheckpointSummary:
    """Families, gates and signal-to-noise per layer, in the order of the file."""
    recognised = recognise(checkpoint)
    summaries = {layer.name: _summarise(layer, threshold) for layer in recognised.layers}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, array in recognised.plain.items():
        name, parameter = split_key(key)
        shapes.setdefault(name, {})[parameter] = array.shape
    for name, own in shapes.items():
        summaries.setdefault(name, LayerSummary(name, DETERMINISTIC, own))
    order = {split_key(key)[0]: None for key in checkpoint.tensors}
    return CheckpointSummary(
        path=checkpoint.path,
        unwrapped=checkpoint.unwrapped,
        beside=checkpoint.beside,
        layers=tuple(summaries[name] for name in order if name in summaries),
        parameters=sum(int(array.size) for array in checkpoint.tensors.values()),
        traps=(*_flat(checkpoint), *_traps(recognised.layers)),
        suggested_command=_suggestion(checkpoint, recognised.layers, threshold),
    )


def _flat(checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.flat is not None:
        covers = "the last layer's" if checkpoint.flat.last_layer else "all"
        yield (
            f"{checkpoint.flat.format}: one vector of {checkpoint.flat.variance.size:,} variances "
            f"for {covers} parameters, laid out when export has the network"
        )


def _traps(layers: Iterable[RecognisedLayer]) -> Iterator[str]:
    for layer in layers:
        for trap in layer.family.traps:
            if trap.met(layer.tensors):
                yield f"{layer.name}: {trap.sentence}"


def _summarise(layer: RecognisedLayer, threshold: float | None) -> LayerSummary:
    posterior = layer.posterior()
    rule = layer.family.gate_rule
    scores = posterior.gate_score
    limit = rule.threshold if rule is not None and threshold is None else threshold
    mean, variance = (_weights(part) for part in (posterior.mean, posterior.variance))
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.nan_to_num(np.abs(mean) / np.sqrt(variance), nan=0.0, posinf=np.inf)
    return LayerSummary(
        name=layer.name,
        family=layer.family.name,
        shapes={key: array.shape for key, array in layer.tensors.items()},
        gates=None if scores is None else int(scores.size),
        score=None if rule is None else rule.score,
        score_quantiles=None if scores is None else _quantiles(scores),
        snr_quantiles=_quantiles(snr),
        prior_variance=posterior.prior_variance,
        dead_share=None
        if rule is None or scores is None or limit is None
        else float(rule.closed(scores, limit).mean()),
    )


def _weights(parameters: Mapping[str, Float32Array]) -> Float32Array:
    """All weights of a layer in one row; a recurrent layer has two matrices."""
    return np.concatenate([array.ravel() for key, array in parameters.items() if "bias" not in key])


def _quantiles(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, QUANTILES, method="nearest"))


def _suggestion(
    checkpoint: Checkpoint, layers: tuple[RecognisedLayer, ...], threshold: float | None
) -> str:
    rules = [layer.family.gate_rule for layer in layers]
    if not layers:
        pruning = "--prune-rule none"
    elif all(rule is None for rule in rules):
        pruning = "--prune-rule snr --threshold T"
    elif threshold is not None:
        pruning = f"--threshold {threshold:g}"
    elif any(rule is not None and rule.threshold is None for rule in rules):
        pruning = "--threshold T"
    else:
        pruning = ""
    words = (
        f"deploykit export {checkpoint.path} --model FILE.py:FACTORY --input-shape 1,C,H,W",
        f"--data calibration.npz --out BUNDLE {pruning}",
    )
    return " ".join(words).strip()
