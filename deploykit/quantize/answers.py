"""How far a changed network's answer is from the float network's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deploykit.spec.arrays import AnyArray, Float64Array, Tensors

SMALLEST = 1e-12
"""Of a probability, so that its logarithm is finite."""

Distance = Callable[[Tensors, Tensors], float]
"""(outputs of the float network, of the changed one) by name -> 0 where they are equal."""


def divergence(real: Tensors, found: Tensors) -> float:
    """Mean over samples of KL(p || q) in nats, p and q the class probabilities [N, K]; of a sum.

    To second order the change of logits d costs d' (diag(p) - p p') d / 2: what moves all logits
    alike, or a class that nobody chooses, costs nothing.
    """
    total = 0.0
    for name, values in real.items():
        p, q = probabilities(values), np.maximum(probabilities(found[name]), SMALLEST)
        total += float((p * (np.log(np.maximum(p, SMALLEST)) - np.log(q))).sum(axis=1).mean())
    return max(total, 0.0)


def relative_error(real: Tensors, found: Tensors) -> float:
    """Mean squared change of each output over its variance, summed; whole numbers that differ."""
    total = 0.0
    for name, values in real.items():
        if values.dtype.kind in "iub":
            total += float((values != found[name]).mean())
            continue
        wide = values.astype(np.float64)
        spread = float(wide.var()) or float(np.square(wide).mean()) or 1.0
        total += float(np.square(found[name] - wide).mean()) / spread
    return total


def probabilities(outputs: AnyArray) -> Float64Array:
    """softmax of [N, K]; probabilities stay as they are, and logarithms of such come out right."""
    values = outputs.astype(np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=1e-4):
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def classes(outputs: Tensors) -> bool:
    """Whether the only output is [N, K] real numbers, K at least 2, as classifiers give them."""
    (first, *others) = outputs.values()
    return not others and first.dtype.kind == "f" and first.ndim == 2 and first.shape[1] > 1


def right(outputs: Tensors, labels: AnyArray) -> float:
    """Share of samples whose largest output is the label; of whole numbers, whose answer is."""
    (values,) = outputs.values()
    if values.dtype.kind in "iu":
        return float((values.reshape(len(values), -1) == labels[:, None]).all(axis=1).mean())
    return float((values.reshape(len(values), -1).argmax(axis=1) == labels).mean())
