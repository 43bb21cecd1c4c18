"""Operators across an axis: reductions, softmax, and the normalizations that look at the input."""

from __future__ import annotations

import numpy as np

from tests.graph.grammar.growing import Growing, Step, ints

EPSILON = 1e-2
"""Large, so that a norm of a nearly constant row does not blow rounding up."""


def reduction(growing: Growing) -> None:
    """Over space, over channels, or over any axes behind the batch."""
    shape, rank = growing.shape, len(growing.shape)
    if rank < 3:
        return
    kind = growing.pick("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2")
    axes = growing.pick([1], list(range(2, rank)), [rank - 1], [1, rank - 1])
    keeps = growing.count(0, 1)
    if keeps:
        whole = tuple(1 if k in axes else size for k, size in enumerate(shape))
    else:
        whole = tuple(size for k, size in enumerate(shape) if k not in axes)
    if len(whole) < 2:
        return
    named = [axis - rank if growing.chance(0.3) else axis for axis in axes]
    growing.put(kind, whole, ints(*named), keepdims=keeps)


def softmax(growing: Growing) -> None:
    """Along any axis behind the batch."""
    axis = growing.count(1, len(growing.shape) - 1)
    if growing.shape[axis] > 1:
        kind = growing.pick("Softmax", "Softmax", "LogSoftmax")
        growing.put(kind, growing.shape, axis=growing.pick(axis, axis - len(growing.shape)))


def lp_norm(growing: Growing) -> None:
    """Division by the norm along an axis."""
    growing.positive()
    axis = growing.count(1, len(growing.shape) - 1)
    growing.put("LpNormalization", growing.shape, axis=axis, p=growing.pick(1, 2))


def layer_norm(growing: Growing) -> None:
    """Over the last axis or the last two, with or without a bias."""
    shape = growing.shape
    axis = len(shape) - growing.count(1, min(2, len(shape) - 1))
    scale = growing.rng.choice([0.0, 0.5, 1.0, -1.0], size=shape[axis:])
    bias = growing.rng.choice([0.0, 0.5, 1.0], size=shape[axis:])
    parameters = [scale, bias] if growing.chance(0.7) else [scale]
    growing.put("LayerNormalization", shape, *parameters, axis=axis, epsilon=EPSILON)


def instance_norm(growing: Growing) -> None:
    """Each channel's map by itself."""
    if growing.is_image:
        count = growing.shape[1]
        scale = growing.rng.choice([0.0, 0.5, 1.0], size=count)
        parameters = scale, growing.biases(count)
        growing.put("InstanceNormalization", growing.shape, *parameters, epsilon=EPSILON)


def group_norm(growing: Growing) -> None:
    """Reshape, InstanceNormalization, Reshape, then a scale and an offset per channel."""
    if not growing.is_image:
        return
    shape, groups = growing.shape, growing.divisor(growing.shape[1])
    size = int(np.prod(shape)) // groups
    growing.put("Reshape", (1, groups, size), ints(1, groups, growing.pick(size, -1)))
    parameters = np.ones(groups), np.zeros(groups)
    growing.put("InstanceNormalization", growing.shape, *parameters, epsilon=EPSILON)
    growing.put("Reshape", shape, ints(*shape))
    if growing.chance(0.7):
        scale = growing.rng.choice([0.0, 0.5, 1.0], size=(shape[1], 1, 1))
        growing.put("Mul", shape, np.asarray(scale))
        growing.put("Add", shape, growing.biases(shape[1]).reshape(-1, 1, 1))


STEPS: dict[str, Step] = {
    "reduction": reduction,
    "softmax": softmax,
    "lp_norm": lp_norm,
    "layer_norm": layer_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
}
