"""The hard concrete gate: a stretched binary concrete variable, clipped to [0, 1].

u ~ U(0, 1); s = sigmoid((log u - log(1 - u) + a) / T), T = 2/3; z = clip(1.2 s - 0.1, 0, 1)
at evaluation              z = clip(1.2 sigmoid(a) - 0.1, 0, 1)
so that z = 0 at a <= -log 11 and z = 1 at a >= log 11. a is the location log alpha.
Source: Louizos, Welling and Kingma 2018, equations 10 to 13.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from deploykit.spec.arrays import Float64Array

LOW, HIGH = -0.1, 1.1
TEMPERATURE = 2 / 3
CLOSED_AT = -math.log(11)
"""log((0 - LOW) / (HIGH - 0)): at and below, evaluation multiplies by zero."""

FURTHEST, KNOTS, LEVELS = 20.0, 2001, 1000
"""Beyond |a| = 20 the gate is 0 or 1 in all but 1e-8 of the draws."""


def evaluated_gate(location: Float64Array) -> Float64Array:
    """z at evaluation, in the shape of the location."""
    return np.clip((HIGH - LOW) * _sigmoid(location) + LOW, 0.0, 1.0)


def variance(location: Float64Array) -> Float64Array:
    """Var[z], to 1e-4: midpoint rule over u, read off a table by location."""
    knots, values = _variance_table()
    return np.interp(location, knots, values)


def draw(location: Float64Array, generator: np.random.Generator) -> Float64Array:
    """One draw of every gate."""
    return _gate(location, generator.uniform(1e-12, 1.0 - 1e-12, location.shape))


@cache
def _variance_table() -> tuple[Float64Array, Float64Array]:
    knots = np.linspace(-FURTHEST, FURTHEST, KNOTS)
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    values = _gate(knots[:, None], levels[None, :]).var(axis=1)
    return knots, np.asarray(values)


def _gate(location: Float64Array, uniform: Float64Array) -> Float64Array:
    logit = np.log(uniform) - np.log1p(-uniform)
    return np.clip((HIGH - LOW) * _sigmoid((logit + location) / TEMPERATURE) + LOW, 0.0, 1.0)


def _sigmoid(values: Float64Array) -> Float64Array:
    """1 / (1 + e^-x) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))
