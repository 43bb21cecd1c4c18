"""Confidence and temperature of a bundle, as rows of its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

FITTED = {
    "labels": "by NLL on {samples:,} labelled samples",
    "monte-carlo": "by KL from the draws' average on {samples:,} samples",
    "given": "as given",
}

WRITTEN = {"pruned": "model.float.onnx", "model.onnx": "model.onnx", "model.tflite": "model.tflite"}
"""By stage the file of the bundle that holds it."""


def confidence_rows(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(What, told): the temperature, and NLL and ECE of the bundle's files, without and with it."""
    temperature, confidence = manifest.get("temperature"), manifest.get("confidence")
    if temperature is not None:
        fitted = FITTED[temperature["fitted_on"]].format(**temperature)
        yield "temperature", f"{temperature['value']:.4f}, {fitted}; {_integers(temperature)}"
    if confidence is None:
        return
    without = confidence["stages"] if temperature is None else temperature["before"]
    phrases = []
    for stages, found in _alike({one: without[one] for one in WRITTEN if one in without}):
        after = None if temperature is None else confidence["stages"][stages[-1]]
        nll, ece = (
            f"{found[key]:.3f}" + ("" if after is None else f" → {after[key]:.3f}")
            for key in ("nll", "ece")
        )
        phrases.append(f"{', '.join(WRITTEN[one] for one in stages)} NLL {nll} nats, ECE {ece}")
    yield f"confidence ({confidence['samples']:,})", "; ".join(phrases)


def _integers(temperature: Mapping[str, Any]) -> str:
    changed, compared = temperature["integers_changed"], temperature["integers_compared"]
    moved, channels = temperature["multipliers_moved"], temperature["channels"]
    if not moved:
        return "every integer as without"
    return (
        f"{changed:,} of {compared:,} output integers other than without ({moved} of {channels} "
        "multipliers are a float32 step off)"
    )


def _alike(stages: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    """Stages with equal metrics together, in order."""
    found: list[tuple[list[str], Any]] = []
    for stage, metrics in stages.items():
        same = next((names for names, known in found if known == metrics), None)
        if same is None:
            found.append(([stage], metrics))
        else:
            same.append(stage)
    return found
