"""Activation functions of the float evaluator.

Source: ONNX operator specification.
"""

from __future__ import annotations

import numpy as np

from deploykit.reference.float_node import FloatNode, Inputs, given
from deploykit.spec.arrays import AnyArray
from deploykit.spec.error_function import erf

SELU_ALPHA = 1.67326319217681884765625
SELU_GAMMA = 1.05070102214813232421875


def sigmoid(values: AnyArray) -> AnyArray:
    """1 / (1 + exp(-x)), through tanh so that no exponential overflows."""
    result: AnyArray = np.multiply(values, 0.5)
    np.tanh(result, out=result)
    result *= 0.5
    result += 0.5
    return result


def hard_sigmoid(values: AnyArray, node: FloatNode) -> AnyArray:
    """max(0, min(1, alpha * x + beta))."""
    scaled = node.number("alpha", 0.2) * values + node.number("beta", 0.5)
    return np.asarray(np.clip(scaled, 0.0, 1.0))


def hard_swish(values: AnyArray, node: FloatNode) -> AnyArray:
    """x * max(0, min(1, x / 6 + 1 / 2))."""
    del node
    return np.asarray(values * np.clip(values / 6 + 0.5, 0.0, 1.0))


def leaky_relu(values: AnyArray, node: FloatNode) -> AnyArray:
    """x, or alpha * x where x < 0."""
    return np.where(values < 0, node.number("alpha", 0.01) * values, values)


def prelu(node: FloatNode, inputs: Inputs) -> AnyArray:
    """x, or slope * x where x < 0; the slope broadcasts to x."""
    values, slope = given(node, inputs, 0), given(node, inputs, 1)
    return np.where(values < 0, slope * values, values)


def thresholded_relu(values: AnyArray, node: FloatNode) -> AnyArray:
    """x where x > alpha, else 0."""
    return np.where(values > node.number("alpha", 1.0), values, 0.0)


def elu(values: AnyArray, node: FloatNode) -> AnyArray:
    """x, or alpha * (exp(x) - 1) where x < 0."""
    return _with_tail(values, node.number("alpha", 1.0) * np.expm1(np.minimum(values, 0)))


def selu(values: AnyArray, node: FloatNode) -> AnyArray:
    """gamma * x, or gamma * alpha * (exp(x) - 1) where x < 0."""
    tail = node.number("alpha", SELU_ALPHA) * np.expm1(np.minimum(values, 0))
    return np.asarray(node.number("gamma", SELU_GAMMA) * _with_tail(values, tail))


def celu(values: AnyArray, node: FloatNode) -> AnyArray:
    """x, or alpha * (exp(x / alpha) - 1) where x < 0."""
    alpha = node.number("alpha", 1.0)
    return _with_tail(values, alpha * np.expm1(np.minimum(values, 0) / alpha))


def softplus(values: AnyArray) -> AnyArray:
    """ln(1 + exp(x)), as max(x, 0) + ln(1 + exp(-|x|))."""
    return np.asarray(np.maximum(values, 0) + np.log1p(np.exp(-np.abs(values))))


def mish(values: AnyArray, node: FloatNode) -> AnyArray:
    """x * tanh(softplus(x))."""
    del node
    return np.asarray(values * np.tanh(softplus(values)))


def swish(values: AnyArray, node: FloatNode) -> AnyArray:
    """x * sigmoid(alpha * x)."""
    return np.asarray(values * sigmoid(node.number("alpha", 1.0) * values))


def gelu(values: AnyArray, node: FloatNode) -> AnyArray:
    """x / 2 * (1 + erf(x / sqrt 2)), or with tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)) for erf."""
    match node.text("approximate", "none"):
        case "none":
            inner = erf(values * np.sqrt(0.5).item())
        case "tanh":
            inner = np.tanh(np.sqrt(2 / np.pi).item() * (values + 0.044715 * values**3))
        case other:
            raise node.refuse(f"its approximation is {other!r}")
    return np.asarray(0.5 * values * (1.0 + inner))


def _with_tail(values: AnyArray, negative: AnyArray) -> AnyArray:
    return np.where(values < 0, negative, values)
