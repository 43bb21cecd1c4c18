"""The command that an export of a checkpoint starts with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.posterior.options import BatchNormMode
from deploykit.posterior.recognise import RecognisedLayer
from deploykit.spec.posterior import Checkpoint, LayerPosterior

Posteriors = Mapping[str, LayerPosterior]
"""Of the layers, by name."""
DATA = "--data calibration.npz --eval-data labelled.npz"


@dataclass(frozen=True)
class Given:
    """What the command line of `inspect` already says, as words of an export's."""

    model: str | None = None
    input_shape: str | None = None
    weights: str | None = None
    layer_map: Path | None = None


def suggested_command(
    checkpoint: Checkpoint,
    layers: Sequence[RecognisedLayer],
    posteriors: Posteriors,
    threshold: float | None,
    given: Given,
) -> str:
    """With the file's own path, and a placeholder where only its owner knows.

    A family whose threshold nobody published begins with --dry-run, which shows what each costs.
    """
    words = [f"deploykit export {shlex.quote(str(checkpoint.path))}"]
    words.append(
        f"--model {shlex.quote(given.model)}" if given.model else "--model FILE.py:FACTORY"
    )
    words.append(given.input_shape or f"--input-shape {_input_shape(checkpoint, posteriors).sizes}")
    if given.weights is not None:
        words.append(f"--weights {shlex.quote(given.weights)}")
    if given.layer_map is not None:
        words.append(f"--layer-map {shlex.quote(str(given.layer_map))}")
    pruning = _pruning(layers, posteriors, threshold)
    return " ".join((*words, DATA, *_batchnorm(checkpoint, layers), *pruning))


def after_it(
    checkpoint: Checkpoint,
    layers: Sequence[RecognisedLayer],
    posteriors: Posteriors,
    threshold: float | None,
    given: Given,
) -> str:
    """What to fill in of the suggested command and to do behind it, "" for nothing."""
    shape = _input_shape(checkpoint, posteriors)
    told = [shape.note] if shape.note and given.input_shape is None else []
    return "; ".join((*told, *_pruned_too(layers, posteriors, threshold)))


def _pruned_too(
    layers: Sequence[RecognisedLayer], posteriors: Posteriors, threshold: float | None
) -> tuple[str, ...]:
    rules = [layer.family.gate_rule for layer in layers]
    if not layers or threshold is not None or _ungated(posteriors):
        return ()
    if all(rule is None for rule in rules):
        priors = all(one.prior_variance is not None for one in posteriors.values())
        ranked = "snr or savage-dickey" if priors else "snr"
        return (
            f"to remove channels too: --prune-rule {ranked} ranks them, and --dry-run shows what "
            "each threshold costs",
        )
    if _without_threshold(layers):
        return ("it shows what each threshold costs; then --threshold T --out bundle in its place",)
    return ()


def _batchnorm(checkpoint: Checkpoint, layers: Sequence[RecognisedLayer]) -> list[str]:
    """What the families ask for, where the file holds running statistics."""
    asked = {layer.family.batchnorm for layer in layers} - {BatchNormMode.KEEP}
    held = any(key.endswith("running_mean") for key in checkpoint.tensors)
    return [f"--batchnorm {mode.value}" for mode in sorted(asked, key=str)] if held else []


def _pruning(
    layers: Sequence[RecognisedLayer], posteriors: Posteriors, threshold: float | None
) -> tuple[str, ...]:
    if all(layer.family.gate_rule is None for layer in layers) or _ungated(posteriors):
        return "--out bundle", "--prune-rule none"
    if threshold is not None:
        return "--out bundle", f"--threshold {threshold:g}"
    return ("--dry-run",) if _without_threshold(layers) else ("--out bundle",)


def _ungated(posteriors: Posteriors) -> bool:
    """Whether training chose bits, and no channels."""
    return all(one.precision is not None and one.gate_score is None for one in posteriors.values())


def _without_threshold(layers: Sequence[RecognisedLayer]) -> bool:
    rules = [layer.family.gate_rule for layer in layers]
    return any(rule is not None and rule.threshold is None for rule in rules)


@dataclass(frozen=True)
class _Shape:
    """sizes: of an input, as far as a file tells them. note: what it tells beside."""

    sizes: str
    note: str = ""


def _input_shape(checkpoint: Checkpoint, posteriors: Posteriors) -> _Shape:
    """By the first matrix or kernel in the file, whose second axis is taken for the inputs.

    In front of a matrix a network may flatten an input of any shape.
    """
    means = {name: one.mean for name, one in posteriors.items()}
    for key, array in checkpoint.tensors.items():
        own = next((means[name] for name in _above(key) if name in means), None)
        held = {key.rpartition(".")[2]: array} if own is None else own
        for name, value in held.items():
            match value.ndim:
                case 2 if name == "weight_ih_l0":
                    return _Shape(f"1,LENGTH,{value.shape[1]}")
                case 2:
                    reads = f"the first linear layer reads {value.shape[1]} numbers"
                    return _Shape("1,SIZES", f"{reads}; give the shape of your data")
                case 3:
                    return _Shape(f"1,{value.shape[1]},LENGTH")
                case 4:
                    return _Shape(f"1,{value.shape[1]},HEIGHT,WIDTH")
    return _Shape("1,SIZES")


def _above(key: str) -> list[str]:
    """_above("a.ih.mu") -> ["a.ih", "a", ""]"""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in reversed(range(len(parts)))]
