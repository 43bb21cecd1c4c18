"""Matrix products and attention of the float evaluator.

Source: ONNX operator specification.
"""

from __future__ import annotations

import numpy as np

from deploykit.reference.float_node import FloatNode, Inputs, every, given, optional
from deploykit.spec.arrays import AnyArray

QUERY_KEY_OUTPUT = 3
"""Index of Attention's optional output of query-key products."""


def gemm(node: FloatNode, inputs: Inputs) -> AnyArray:
    """alpha * A' @ B' + beta * C, ' a transpose where asked."""
    left, right, addend = given(node, inputs, 0), given(node, inputs, 1), optional(inputs, 2)
    if node.integer("transA", 0):
        left = left.T
    product = left @ (right.T if node.integer("transB", 0) else right)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    result = product if alpha == 1.0 else alpha * product
    return np.asarray(result if addend is None else result + beta * addend)


def einsum(node: FloatNode, inputs: Inputs) -> AnyArray:
    """Einstein summation, through matrix products where it is one."""
    equation = node.text("equation", "")
    return np.asarray(np.einsum(equation, *every(node, inputs), optimize="greedy"))


def attention(node: FloatNode, inputs: Inputs) -> tuple[AnyArray, ...]:
    """softmax(scale * Q @ K' + mask) @ V per head, and the keys and values with the past ones.

    Q [B, H, L, D] or [B, L, H * D]; K, V with as many heads or a divisor of them. scale is
    1 / sqrt(D) unless written; softcap c bounds the logits to c * tanh(x / c).
    """
    if len(node.node.outputs) > QUERY_KEY_OUTPUT and node.node.outputs[QUERY_KEY_OUTPUT].name:
        raise node.refuse("it returns its query-key products")
    if optional(inputs, 6) is not None:
        raise node.refuse("it has sequence lengths")
    packed = given(node, inputs, 0).ndim == 3
    query = _heads(given(node, inputs, 0), node.integer("q_num_heads", 0))
    key = _heads(given(node, inputs, 1), node.integer("kv_num_heads", 0))
    value = _heads(given(node, inputs, 2), node.integer("kv_num_heads", 0))
    past_key, past_value = optional(inputs, 4), optional(inputs, 5)
    past = 0 if past_key is None else past_key.shape[2]
    if past_key is not None and past_value is not None:
        key = np.concatenate([past_key, key], axis=2)
        value = np.concatenate([past_value, value], axis=2)
    repeats = query.shape[1] // key.shape[1]
    scale = node.number("scale", 1.0 / np.sqrt(query.shape[3]).item())
    logits = scale * query @ np.repeat(key, repeats, axis=1).swapaxes(2, 3)
    logits = _masked(node, logits, optional(inputs, 3), past)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    result = weights @ np.repeat(value, repeats, axis=1)
    if packed:
        result = result.swapaxes(1, 2).reshape(*given(node, inputs, 0).shape[:2], -1)
    return np.asarray(result), key, value


def _heads(values: AnyArray, heads: int) -> AnyArray:
    """[B, L, H * D] as [B, H, L, D]; [B, H, L, D] as it is."""
    if values.ndim == 4:
        return values
    return values.reshape(*values.shape[:2], heads, -1).swapaxes(1, 2)


def _masked(node: FloatNode, logits: AnyArray, mask: AnyArray | None, past: int) -> AnyArray:
    cap = node.number("softcap", 0.0)
    if cap:
        logits = cap * np.tanh(logits / cap)
    if node.integer("is_causal", 0):
        seen = np.tri(logits.shape[2], logits.shape[3], past, dtype=np.bool_)
        logits = np.where(seen, logits, -np.inf)
    if mask is None:
        return logits
    if mask.dtype == np.bool_:
        return np.where(mask, logits, -np.inf)
    return np.asarray(logits + mask)
