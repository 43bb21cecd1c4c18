"""Denominators that several regions read are computed in each, and nothing else is."""

from __future__ import annotations

import pytest

from deploykit.quantize.denominators import separate_denominators
from deploykit.quantize.structure import build_structure
from tests.graph.lowering.test_lowering import assert_same_function
from tests.quantize.graphs import CONV1
from tests.quantize.test_membership import network_of

ONCE = f"k = Div (c, a) p = Conv <{CONV1}> (k, v, b)"
TWICE = f"{ONCE} l = Div (p, a) q = Conv <{CONV1}> (l, v, b) z = Add (p, q)"


@pytest.mark.parametrize(
    ("text", "islands"),
    [
        (f"e = Exp (c) a = Add (e, one) {TWICE}", [["Exp", "Add", "Div"]] * 2),
        # A layer divides it, another reads it as it is.
        (f"e = Exp (c) a = Add (e, one) {ONCE} z = Add (p, a)", [["Exp", "Add", "Div"]]),
        # Of a tensor that reads two, the rest alone.
        (f"e = Mul (c, c) a = Add (e, one) {TWICE}", [["Add", "Div"]] * 2),
    ],
)
def test_each_region_has_its_own(text: str, islands: list[list[str]]) -> None:
    network = network_of(text)
    separated = separate_denominators(network)
    found = [
        [node.op_type for node in layer.nodes]
        for layer in build_structure(separated)
        if layer.region is not None
    ]
    assert found == islands
    assert_same_function(network, separated)


@pytest.mark.parametrize(
    "text",
    [
        "e = Exp (c) a = Add (e, one) z = Div (c, a)",
        # One region reads it twice.
        "e = Exp (c) a = Add (e, one) k = Div (one, a) l = Div (c, a) z = MatMul (k, l)",
        # A dividend.
        f"e = Exp (c) k = Div (e, c) p = Conv <{CONV1}> (k, v, b) z = Add (e, p)",
        # The convolution takes the Relu in.
        f"a = Relu (c) {TWICE.replace('(c, a)', '(a, a)')}",
    ],
)
def test_what_is_in_place_stays(text: str) -> None:
    network = network_of(text)
    assert separate_denominators(network) is network
