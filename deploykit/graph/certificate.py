"""The proof by evaluation that a pruned graph computes what the masked one did."""

from __future__ import annotations

import numpy as np

from deploykit.errors import GraphError
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import FloatEvaluator, Network, static_shape
from deploykit.spec.removal import Certificate

EXTREME = 1e3


def certify(masked: Network, pruned: Network, evaluate: FloatEvaluator) -> Certificate:
    """Evaluate both on random, zero, extreme and border-heavy inputs and compare the outputs.

    The difference is relative to the largest |output| of the masked network over one input kind.
    """
    relative: dict[str, float] = {}
    absolute, count = 0.0, 0
    output = str(masked.model.graph.outputs[0].name)
    for kind, inputs in certificate_inputs(masked).items():
        before = np.asarray(evaluate(masked, inputs)[output], dtype=np.float64)
        after = np.asarray(evaluate(pruned, inputs)[output], dtype=np.float64)
        difference = _largest_difference(before, after)
        largest = float(np.abs(before).max())
        relative[kind] = difference / largest if largest > 0 else difference
        absolute = float(np.maximum(absolute, difference))
        count += len(inputs)
    return Certificate(count, absolute, float(np.max(list(relative.values()))), relative)


def _largest_difference(before: Float64Array, after: Float64Array) -> float:
    """Infinite where shapes differ; NaN where either holds one: that proves nothing."""
    if before.shape != after.shape:
        return float("inf")
    return float(np.abs(before - after).max())


def certificate_inputs(network: Network) -> dict[str, Float64Array]:
    """Inputs by kind, each [N, ...] for the graph's input shape; seeded, so equal every time.

    border: zero but for a frame one pixel wide, where padding is what a kernel sees beside it.
    """
    shape = static_shape(network.model.graph.inputs[0])
    if shape is None:
        raise GraphError("the graph's input has no static shape; export it with a fixed shape")
    generator = np.random.default_rng(0)
    one = shape[1:]
    border = generator.normal(size=(1, *one))
    if len(one) > 1:
        inside = (slice(1, -1),) * (len(one) - 1)
        border[:, :, *inside] = 0.0
    signs = generator.choice([-EXTREME, EXTREME], size=one)
    return {
        "random": generator.normal(size=(2, *one)),
        "zero": np.zeros((1, *one)),
        "extreme": np.stack([signs, np.full(one, EXTREME), np.full(one, -EXTREME)]),
        "border": border,
    }
