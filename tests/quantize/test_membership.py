"""Which nodes with an integer form belong to a float island."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.quantize.structure import build_structure
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.quantize.graphs import CONV1, CONV3, float_network, seeded

HELD: dict[str, AnyArray] = {
    "w": seeded(4, 3, 3, 3), "b": seeded(4), "v": seeded(4, 4, 1, 1),
    "one": np.ones((1, 1, 1, 1), np.float32), "axes": np.array([1]),
    "mask": np.triu(np.full((6, 6), -np.inf, np.float32), 1),
}  # fmt: skip


def network_of(text: str) -> Network:
    """`text` between a convolution `c` and one of `z`."""
    return float_network(
        f"g (float[1,3,6,6] x) => (float[1,4,6,6] y) "
        f"{{ c = Conv <{CONV3}> (x, w, b) {text} y = Conv <{CONV1}> (z, v, b) }}",
        **HELD,
    )


def layers_of(text: str) -> list[tuple[str, ...]]:
    """The operators of each layer that `text` becomes."""
    inner = build_structure(network_of(text))[1:-1]
    return [tuple(node.op_type for node in layer.nodes) for layer in inner]


@pytest.mark.parametrize(
    ("text", "island"),
    [
        # between
        ("s = MatMul (c, c) m = Mul (s, one) a = Add (m, one) z = Softmax (a)",
         ("MatMul", "Mul", "Add", "Softmax")),
        ("s = MatMul (c, c) m = Tanh (s) a = Add (m, s) z = Softmax (a)",
         ("MatMul", "Tanh", "Add", "Softmax")),
        # denominator
        ("e = Exp (c) a = Add (e, one) z = Div (c, a)", ("Exp", "Add", "Div")),
        ("e = Mul (c, c) a = Add (e, one) z = Sqrt (a)", ("Mul", "Add", "Sqrt")),
        ("e = Mul (c, c) r = ReduceMean <keepdims=1> (e, axes) a = Add (r, one) q = Sqrt (a)"
         " z = Div (c, q)", ("Mul", "ReduceMean", "Add", "Sqrt", "Div")),
        ("e = Exp (c) a = Add (e, one) z = Log (a)", ("Exp", "Add", "Log")),
        # scores
        ("m = Mul (c, one) a = Add (m, mask) z = Softmax (a)", ("Mul", "Add", "Softmax")),
        ("a = Add (c, mask) z = Softmax (a)", ("Add", "Softmax")),
        # A mask that the network computes.
        ("s = MatMul (c, c) m = Mul (c, one) a = Add (s, m) z = Softmax (a)",
         ("MatMul", "Mul", "Add", "Softmax")),
    ],
)  # fmt: skip
def test_what_rounding_would_harm_is_inside(text: str, island: tuple[str, ...]) -> None:
    assert layers_of(text) == [island]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The dividend of a quotient.
        ("e = Exp (c) z = Div (e, c)", [("Exp",), ("Div",)]),
        # Another layer reads it too.
        ("e = Exp (c) a = Sqrt (e) z = Add (a, e)", [("Exp",), ("Sqrt",), ("Add",)]),
        # No sum or product on the way into a softmax.
        ("e = Tanh (c) z = Softmax (e)", [("Tanh",), ("Softmax",)]),
        # A table that TFLite has no float form of.
        ("e = Softsign (c) z = Sqrt (e)", [("Softsign",), ("Sqrt",)]),
        # Behind the island.
        ("s = Softmax (c) z = Mul (s, one)", [("Softmax",), ("Mul",)]),
        # A rearrangement of integers computes nothing.
        (
            "t = Transpose <perm=[0,1,3,2]> (c) a = Add (t, t) z = MatMul (a, a)",
            [("Transpose",), ("Add",), ("MatMul",)],
        ),
        # The layer before takes the Relu in.
        ("r = Relu (c) z = Sqrt (r)", [("Sqrt",)]),
    ],
)
def test_anything_else_stays_outside(text: str, expected: list[tuple[str, ...]]) -> None:
    assert layers_of(text) == expected
