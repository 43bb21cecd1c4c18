"""Choices by constant conditions become arithmetic, and guards that never act go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from deploykit.graph.lowering import lower
from deploykit.graph.lowering.nan_guards import drop_nan_guards
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.graph.lowering.test_lowering import assert_same_function, between, operators
from tests.quantize.graphs import float_network

LOGIC = frozenset(("Greater", "Less", "And", "Not"))
MASK = np.arange(36).reshape(6, 6) % 3 > 0
HELD: Mapping[str, AnyArray] = {
    "m": MASK,
    "zero": np.array(0, np.float32),
    "low": np.array(-1e4, np.float32),
    "each": np.linspace(-1, 1, 36, dtype=np.float32).reshape(6, 6),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = Where (m, x, zero)", {"Mul": 1}),
        ("y = Where (m, zero, x)", {"Mul": 1}),
        ("y = Where (m, x, low)", {"Mul": 1, "Add": 1}),
        ("y = Where (m, each, x)", {"Mul": 1, "Add": 1}),
        ("r = Relu (x) y = Where (m, x, r)", {"Mul": 2, "Add": 1}),
    ],
)
def test_a_choice_becomes_products_and_a_sum(text: str, expected: dict[str, int]) -> None:
    network = between(text, **HELD)
    lowered = lower(network)
    counts = operators(lowered)
    assert not counts["Where"]
    assert {name: counts[name] for name in expected} == expected
    assert_same_function(network, lowered, atol=1e-6)


@pytest.mark.parametrize("text", ["Where (all, x, zero)", "Where (none, zero, x)"])
def test_a_choice_that_is_always_one_is_that(text: str) -> None:
    network = between(
        f"r = Relu (x) y = {text.replace('x', 'r')}",
        **HELD, all=np.ones((6, 1), np.bool_), none=np.zeros((1, 1), np.bool_),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 2, "Relu": 1}
    assert_same_function(network, lowered, atol=1e-6)


def test_a_condition_that_two_read_is_there_twice() -> None:
    network = between(
        "r = Relu (x) g = Greater (x, zero) l = Less (x, one) o = And (g, l) a = Where (o, x, r)"
        " n = Not (o) e = Where (n, r, zero) y = Add (a, e)",
        **HELD, one=np.array(1, np.float32),
    )  # fmt: skip
    lowered = lower(network)
    counts = operators(lowered)
    assert [counts[name] for name in ("Greater", "Less", "And", "Not", "Where")] == [2, 2, 2, 1, 2]
    assert_same_function(network, lowered, atol=1e-6)
    conditions = [node.outputs[0] for node in lowered.model.graph if node.op_type in LOGIC]
    assert all(len(value.uses()) == 1 for value in conditions)


def test_a_computed_condition_stays() -> None:
    lowered = lower(between("g = Greater (x, low) y = Where (g, x, zero)", **HELD))
    assert operators(lowered)["Where"] == 1


def guarded(mask: AnyArray, before: str = "") -> Network:
    return float_network(
        f"g (float[1,2,3,3] x) => (float[1,2,3,3] y) {{ {before or 't = Identity (x)'}"
        " s = Add (t, k) p = Softmax <axis=-1> (s) n = IsNaN (p) y = Where (n, zero, p) }",
        k=mask.astype(np.float32), zero=np.array(0, np.float32),
    )  # fmt: skip


def left(network: Network) -> list[str]:
    return [node.op_type for node in network.model.graph]


def test_a_guard_of_rows_that_all_have_scores_goes() -> None:
    dropped = drop_nan_guards(guarded(np.triu(np.full((3, 3), -np.inf), 1))).network
    assert left(dropped) == ["Identity", "Add", "Softmax"]
    assert [value.name for value in dropped.model.graph.outputs] == ["y"]


@pytest.mark.parametrize(
    ("mask", "before"),
    [
        (np.triu(np.full((3, 3), -np.inf)), ""),
        (np.triu(np.full((3, 3), -np.inf), 1), "t = Add (x, k)"),
        (np.tril(np.full((3, 3), np.nan), -1), ""),
    ],
    ids=["a row of nothing", "two masks", "no number"],
)
def test_a_guard_that_may_act_stays(mask: AnyArray, before: str) -> None:
    assert left(drop_nan_guards(guarded(mask, before)).network)[-2:] == ["IsNaN", "Where"]


def test_no_guard_leaves_the_very_same_network() -> None:
    network = between("y = Relu (x)")
    assert drop_nan_guards(network).network is network
