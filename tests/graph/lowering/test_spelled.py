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
        "small": 0.044715, "wide": (2 / np.pi) ** 0.5, "off": 0.9, "twenty": 20.0, "minus": -1.0,
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
        ("n = Neg (x) e = Exp (n) a = Add (e, one) y = Div (one, a)", "Sigmoid"),
        ("n = Mul (x, minus) e = Exp (n) a = Add (one, e) y = Reciprocal (a)", "Sigmoid"),
        ("e = Exp (x) a = Add (e, one) y = Div (e, a)", "Sigmoid"),
        ("n = Neg (x) e = Exp (n) a = Add (e, one) y = Div (x, a)", "Sigmoid"),
        ("n = Neg (x) e = Exp (n) a = Add (e, one) s = Div (one, a) y = Mul (s, x)", "Sigmoid"),
        ("e = Exp (x) a = Add (e, one) y = Log (a)", "Softplus"),
        ("r = Relu (x) m = Abs (x) n = Neg (m) e = Exp (n) a = Add (e, one) l = Log (a)"
         " y = Add (r, l)", "Softplus"),
        ("s = Softplus (x) g = Greater (x, twenty) y = Where (g, x, s)", "Softplus"),
        ("e = Exp (x) a = Add (e, one) l = Log (a) g = Greater (x, twenty) y = Where (g, x, l)",
         "Softplus"),
        ("k = Mul (x, three) s = Softplus (k) f = Div (s, three) g = Greater (k, twenty)"
         " y = Where (g, x, f)", "Softplus"),
        ("e = Exp (x) a = Add (e, one) l = Log (a) t = Tanh (l) y = Mul (x, t)", "Mish"),
        # The half is a layer's by now.
        ("k = Div (x, root) e = Erf (k) a = Add (e, one) y = Mul (x, a)", "Gelu"),
        ("n = Neg (x) e = Exp (n) a = Add (e, one) y = Div (three, a)", "Sigmoid"),
        ("e = Exp (x) a = Add (e, one) l = Log (a) y = Mul (l, three)", "Softplus"),
        # The tensor itself is a product that nobody else reads.
        ("z = Mul (x, off) s = Softplus (z) t = Tanh (s) y = Mul (t, z)", "Mish"),
    ],
)  # fmt: skip
def test_an_expression_becomes_its_function(text: str, named: str) -> None:
    network = between(text, **NUMBERS)
    lowered = lower(network)
    counts = operators(lowered)
    assert counts[named] == 1
    steps = {"Erf", "Tanh", "Softplus", "Exp", "Log", "Div", "Where", "Greater"} - {named}
    assert not [step for step in steps if counts[step]]
    assert_same_function(network, lowered, atol=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "k = Mul (x, off) e = Erf (k) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
        # Somebody else reads what stands between.
        "s = Softplus (x) t = Tanh (s) m = Mul (x, t) y = Add (m, t)",
        "t = Tanh (x) y = Mul (x, t)",
        "e = Exp (x) a = Add (e, one) y = Div (x, a)",
        "n = Neg (x) e = Exp (n) a = Add (e, half) y = Div (one, a)",
        "e = Exp (x) a = Add (e, three) y = Log (a)",
    ],
)
def test_another_expression_stays(text: str) -> None:
    network = between(text, **NUMBERS)
    counts = operators(lower(network))
    assert not counts["Gelu"] + counts["Mish"] + counts["Sigmoid"]
    assert counts["Softplus"] == text.count("Softplus")
    assert counts["Erf"] + counts["Tanh"] + counts["Exp"] == 1


def test_a_threshold_that_changes_the_function_stays() -> None:
    text = "s = Softplus (x) g = Greater (x, three) y = Where (g, x, s)"
    assert operators(lower(between(text, **NUMBERS)))["Where"] == 1


def test_silu_is_a_product_with_the_sigmoid() -> None:
    text = "n = Neg (x) e = Exp (n) a = Add (e, one) y = Div (x, a)"
    counts = operators(lower(between(text, **NUMBERS)))
    assert counts == {"Conv": 2, "Sigmoid": 1, "Mul": 1}
