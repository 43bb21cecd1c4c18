"""Activation functions as ONNX defines them, in float64; those with attributes take the node."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_float, attribute_string
from deploykit.spec.arrays import Float64Array


def sigmoid(x: Float64Array) -> Float64Array:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), dtype=np.float64)


def hard_swish(x: Float64Array) -> Float64Array:
    """x * clip(x / 6 + 1/2, 0, 1)."""
    return np.asarray(x * np.clip(x / 6.0 + 0.5, 0.0, 1.0), dtype=np.float64)


def softplus(x: Float64Array) -> Float64Array:
    """log(1 + exp(x)), without overflow."""
    return np.logaddexp(0.0, x)


def erf(x: Float64Array) -> Float64Array:
    """The error function."""
    flat = [math.erf(value) for value in x.reshape(-1).tolist()]
    return np.array(flat, dtype=np.float64).reshape(x.shape)


def leaky_relu(node: ir.Node, x: Float64Array) -> Float64Array:
    """x, or alpha * x below zero."""
    return np.where(x < 0, attribute_float(node, "alpha", 0.01) * x, x)


def thresholded_relu(node: ir.Node, x: Float64Array) -> Float64Array:
    """x above alpha, else 0; what is unknown (NaN) stays so."""
    return np.where(x <= attribute_float(node, "alpha", 1.0), 0.0, x)


def hard_sigmoid(node: ir.Node, x: Float64Array) -> Float64Array:
    """clip(alpha * x + beta, 0, 1)."""
    alpha, beta = attribute_float(node, "alpha", 0.2), attribute_float(node, "beta", 0.5)
    return np.clip(alpha * x + beta, 0.0, 1.0)


def elu(node: ir.Node, x: Float64Array) -> Float64Array:
    """x, or alpha * (exp(x) - 1) below zero."""
    alpha = attribute_float(node, "alpha", 1.0)
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x)


def celu(node: ir.Node, x: Float64Array) -> Float64Array:
    """x, or alpha * (exp(x / alpha) - 1) below zero."""
    alpha = attribute_float(node, "alpha", 1.0)
    return np.maximum(x, 0.0) + np.minimum(alpha * np.expm1(np.minimum(x / alpha, 0.0)), 0.0)


def gelu(node: ir.Node, x: Float64Array) -> Float64Array:
    """x * Phi(x), or its form with tanh."""
    if attribute_string(node, "approximate", "none") == "tanh":
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))
