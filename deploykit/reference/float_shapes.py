"""Operators of the float evaluator that move values, and the ones that mix samples if they may."""

from __future__ import annotations

import numpy as np

from deploykit.reference.float_node import FloatNode, Inputs, given, integer_list, optional
from deploykit.spec.arrays import AnyArray


class MixesSamplesError(Exception):
    """An operator treats the batch axis like any other, so a larger batch must go in parts."""


def flatten(node: FloatNode, inputs: Inputs) -> AnyArray:
    """[d0, ...] -> [d0 * ... * d(axis-1), the rest]."""
    values = given(node, inputs, 0)
    axis = node.integer("axis", 1)
    axis += values.ndim if axis < 0 else 0
    _keep_batch(node, axis > 0)
    return values.reshape(int(np.prod(values.shape[:axis])), -1)


def reshape(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Target 0 keeps an axis, -1 takes what is left; a first target of the batch follows N."""
    values = given(node, inputs, 0)
    target = list(integer_list(node, inputs, 1, "shape") or ())
    if node.integer("allowzero", 0) == 0:
        target = [values.shape[i] if length == 0 else length for i, length in enumerate(target)]
    if node.samples is not None and values.ndim and values.shape[0] == node.samples:
        _keep_batch(node, bool(target) and target[0] in (node.batch, node.samples, -1))
        target[0] = node.samples
    return values.reshape(target)


def transpose(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Axes in the order of perm; reversed without one."""
    values = given(node, inputs, 0)
    perm = node.integers("perm", range(values.ndim)[::-1]) or ()
    _keep_batch(node, not perm or perm[0] == 0 or not _has_batch(node, values))
    return values.transpose(perm)


def squeeze(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Drops axes of length 1."""
    values = given(node, inputs, 0)
    axes = integer_list(node, inputs, 1, "axes")
    if axes is None:
        axes = tuple(axis for axis, length in enumerate(values.shape) if length == 1)
        _keep_batch(node, node.batch != 1)
    _keep_batch(node, all(axis % values.ndim for axis in axes) or not _has_batch(node, values))
    return np.squeeze(values, axis=axes)


def unsqueeze(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Adds axes of length 1, counted in the result."""
    values = given(node, inputs, 0)
    axes = integer_list(node, inputs, 1, "axes") or ()
    rank = values.ndim + len(axes)
    _keep_batch(node, all(axis % rank for axis in axes) or not _has_batch(node, values))
    return np.expand_dims(values, axes)


def concat(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Joined along axis; a constant of the static batch is repeated for a larger one."""
    parts = [given(node, inputs, index) for index in range(len(inputs))]
    axis = node.integer("axis", 0) % parts[0].ndim
    if node.samples is not None and any(_has_batch(node, part) for part in parts):
        _keep_batch(node, axis > 0 and all(part.shape[0] in (1, node.samples) for part in parts))
        parts = [np.broadcast_to(part, (node.samples, *part.shape[1:])) for part in parts]
    return np.concatenate(parts, axis=axis)


def pad(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Constant, reflecting or edge padding; pads are all begins, then all ends."""
    values = given(node, inputs, 0)
    widths = integer_list(node, inputs, 1, "pads") or ()
    axes = integer_list(node, inputs, 3, "axes") or tuple(range(values.ndim))
    both = [(0, 0)] * values.ndim
    for index, axis in enumerate(axes):
        both[axis] = (widths[index], widths[index + len(axes)])
    mode = node.text("mode", "constant")
    if any(width < 0 for pair in both for width in pair) or mode not in PAD_MODES:
        raise node.refuse(f"its mode is {mode} with widths {both}")
    if mode != "constant":
        return np.pad(values, both, mode=PAD_MODES[mode])  # type: ignore[call-overload,no-any-return]
    fill = optional(inputs, 2)
    constant = node.number("value", 0.0) if fill is None else float(fill.reshape(()))
    return np.pad(values, both, constant_values=constant)


PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge"}


def reduce_mean(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Mean over axes; over all of them without any."""
    values = given(node, inputs, 0)
    axes = integer_list(node, inputs, 1, "axes")
    if not axes:
        if node.integer("noop_with_empty_axes", 0):
            return values
        axes = tuple(range(values.ndim))
    _keep_batch(node, all(axis % values.ndim for axis in axes) or not _has_batch(node, values))
    kept = node.integer("keepdims", 1) == 1
    return np.asarray(values.mean(axis=axes, keepdims=kept))


def softmax(node: FloatNode, inputs: Inputs) -> AnyArray:
    """exp(x) / sum exp(x) along axis; before opset 13 along all axes from `axis` on."""
    values = given(node, inputs, 0)
    axis = node.integer("axis", -1 if node.opset >= 13 else 1) % values.ndim
    axes = (axis,) if node.opset >= 13 else tuple(range(axis, values.ndim))
    _keep_batch(node, 0 not in axes or not _has_batch(node, values))
    powers = np.exp(values - values.max(axis=axes, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axes, keepdims=True))


def _has_batch(node: FloatNode, values: AnyArray) -> bool:
    return node.samples is not None and values.ndim > 0 and values.shape[0] == node.samples


def _keep_batch(node: FloatNode, keeps: bool) -> None:
    """Gives up the larger batch where an operator would mix its samples."""
    if node.samples is not None and not keeps:
        raise MixesSamplesError
