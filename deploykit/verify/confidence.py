"""Confidence of a network's outputs beside the labels, with and without a temperature."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.confidence import Predictive, metrics, scores_of, softmax


def class_scores(outputs: AnyArray) -> Float64Array | None:
    """Logits [N, K] of outputs [N, K] or [N, K, 1, 1]; None of whole numbers, and of one class."""
    if outputs.dtype.kind != "f" or outputs.ndim < 2 or outputs.shape[1] < 2:
        return None
    if outputs.size != len(outputs) * outputs.shape[1]:
        return None
    return scores_of(outputs.reshape(len(outputs), -1))


def confidence_by_stage(
    outputs: Mapping[str, AnyArray], labels: AnyArray, temperature: float = 1.0
) -> dict[str, Predictive]:
    """By stage the metrics of softmax(T z), of outputs z or softmax(z).

    temperature: by which the outputs are divided, to see what they were without.

    Raises DataError where a label is no class.
    """
    found = {}
    for stage, values in outputs.items():
        scores = class_scores(values)
        if scores is not None:
            found[stage] = metrics(softmax(scores * temperature), labels)
    return found
