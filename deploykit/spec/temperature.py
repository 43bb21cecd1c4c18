"""Temperature of a softmax: p = softmax(z / T), which moves confidence and no answer."""

from __future__ import annotations

import math

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, FloatArray
from deploykit.spec.confidence import SMALLEST_PROBABILITY, require_labels, scores_of, softmax
from deploykit.spec.quantized import Tail

COLDEST, HOTTEST = 1 / 32, 32.0
HALVINGS = 60
"""Of the interval of log T, which then is finer than float64 tells."""


def fitted_temperature(outputs: FloatArray, targets: FloatArray) -> float:
    """T that minimises the cross-entropy -mean sum_k p_n[k] ln softmax(z_n / T)[k].

    outputs: [N, K], logits z or their softmax. targets: [N, K], the p_n: of labels 1 at the label,
    so that it is the NLL; of a Monte-Carlo predictive its probabilities, so that it is the KL
    divergence from it up to a constant.

    In b = 1 / T the cross-entropy is convex; its slope, mean of E_softmax(b z)[z] - sum_k p[k] z[k],
    grows with b and is searched for its zero. Source: Guo et al. 2017, section 4.2.

    Raises DataError where the best T is outside of [COLDEST, HOTTEST]: the targets fix none.
    """  # noqa: E501
    scores = scores_of(outputs)
    scores = scores - scores.max(axis=1, keepdims=True)
    wanted = float((targets * scores).sum(axis=1).mean())

    def slope(temperature: float) -> float:
        expected = (softmax(scores / temperature) * scores).sum(axis=1)
        return float(expected.mean()) - wanted

    if slope(COLDEST) <= 0:
        raise DataError(
            f"the best temperature is under {COLDEST:g}: the outputs agree with (almost) every "
            f"target of {len(scores)} samples, so that these fix none; fit it on more samples, and "
            "none that training saw"
        )
    if slope(HOTTEST) >= 0:
        raise DataError(
            f"the best temperature is over {HOTTEST:g}: the outputs tell (almost) nothing of the "
            f"targets of {len(scores)} samples; do labels, their order and preprocessing belong "
            "to this network?"
        )
    low, high = math.log(COLDEST), math.log(HOTTEST)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) < 0 else (middle, high)
    return math.exp((low + high) / 2)


def one_hot(labels: AnyArray, classes: int) -> Float64Array:
    """[N, K], 1 at the label.

    Raises DataError where a label is no class.
    """
    require_labels(labels, len(labels), classes)
    return np.eye(classes)[labels]


def tempered(outputs: AnyArray, temperature: float, tail: Tail | None) -> Float32Array:
    """What a network gives whose logits are divided by T, from what it gave without.

    outputs: logits, or what `tail` made of them; both are the same up to a constant that no softmax
    sees.
    """
    scores = outputs.astype(np.float64)
    if tail is Tail.SOFTMAX:
        scores = np.log(np.maximum(scores, SMALLEST_PROBABILITY))
    scaled = (scores / temperature).astype(np.float32)
    return scaled if tail is None else tail(scaled)
