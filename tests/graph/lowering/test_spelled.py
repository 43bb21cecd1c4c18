"""Spelled-out activations are found in any order, and only where they are the function."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.lowering import lower
from tests.graph.lowering.test_lowering import assert_same_function, between, operators

NUMBERS = {
    name: np.array(value, np.float32)
    for name, value in {
        "half": 0.5, "one": 1.0, "root": 2**0.5, "rest": 0.5**0.5, "three": 3.0,
        "small": 0.044715, "wide": (2 / np.pi) ** 0.5, "off": 0.9,
    }.items()
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("k = Div (x, root) e = Erf (k) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)", "Gelu"),
        ("h = Mul (x, half) k = Mul (x, rest) e = Erf (k) a = Add (one, e) y = Mul (h, a)", "Gelu"),
        ("p = Pow (x, three) s = Mul (p, small) t = Add (x, s) q = Mul (t, wide) e = Tanh (q)"
         " a = Add (e, one) h = Mul (x, half) y = Mul (h, a)", "Gelu"),
        ("s = Softplus (x) t = Tanh (s) y = Mul (x, t)", "Mish"),
        ("s = Softplus (x) t = Tanh (s) y = Mul (t, x)", "Mish"),
        # The tensor itself is a product that nobody else reads.
        ("z = Mul (x, off) s = Softplus (z) t = Tanh (s) y = Mul (t, z)", "Mish"),
    ],
)  # fmt: skip
def test_an_expression_becomes_its_function(text: str, named: str) -> None:
    network = between(text, **NUMBERS)
    lowered = lower(network)
    counts = operators(lowered)
    assert counts[named] == 1
    assert not counts["Erf"] + counts["Tanh"] + counts["Softplus"]
    assert_same_function(network, lowered, atol=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "k = Mul (x, off) e = Erf (k) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
        # Somebody else reads what stands between.
        "s = Softplus (x) t = Tanh (s) m = Mul (x, t) y = Add (m, t)",
        "t = Tanh (x) y = Mul (x, t)",
    ],
)
def test_another_expression_stays(text: str) -> None:
    network = between(text, **NUMBERS)
    counts = operators(lower(network))
    assert not counts["Gelu"] + counts["Mish"]
    assert counts["Erf"] + counts["Tanh"] == 1
