"""Recurrent layers, unrolled: what they compute in LiteRT, and that XNNPACK takes the whole."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.emit.tflite_float import write_float_tflite
from deploykit.errors import UnsupportedOperatorError
from deploykit.runtime import litert
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.emit.float_checking import (
    TOLERANCE,
    difference,
    node_network,
    operators,
    outside_xnnpack,
)

pytestmark = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")

TIMES, FEATURES, HIDDEN = 7, 6, 5
GATES = {"GRU": 3, "LSTM": 4}
PER_TIME = {"GRU": 14, "LSTM": 15}
"""Operators for each time but the first, which has no state."""


def normal(*shape: int) -> AnyArray:
    return np.random.default_rng(7).normal(0, 1, shape).astype(np.float32)


def layer(
    op_type: str, direction: str, given: str = "y", batch: int = 1, attributes: str = ""
) -> Network:
    """One layer over x [TIMES, batch, FEATURES]. given: the outputs' names."""
    count = 2 if direction == "bidirectional" else 1
    rows = GATES[op_type] * HIDDEN
    before = "linear_before_reset=1, " if op_type == "GRU" and not attributes else ""
    return node_network(
        [f'{given} = {op_type} <hidden_size={HIDDEN}, {before}{attributes} direction="{direction}">'
         " (x, w, r, b)"],
        {"x": (TIMES, batch, FEATURES)},
        {"w": normal(count, rows, FEATURES), "r": normal(count, rows, HIDDEN),
         "b": normal(count, 2 * rows)},
        tuple(given.replace(" ", "").split(",")),
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
def test_all_times_and_the_last_state(op_type: str, direction: str, batch: int) -> None:
    network = layer(op_type, direction, "y, h", batch)
    assert difference(network) <= TOLERANCE
    assert not outside_xnnpack(write_float_tflite(network))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_gru_that_resets_before_its_matrix(direction: str) -> None:
    network = layer("GRU", direction, "y, h", attributes="linear_before_reset=0,")
    assert difference(network) <= TOLERANCE
    assert not outside_xnnpack(write_float_tflite(network))


@pytest.mark.parametrize("computed", [True, False])
@pytest.mark.parametrize("reset", [0, 1])
@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
def test_first_states(op_type: str, reset: int, computed: bool) -> None:
    states = ["h", "c"] if op_type == "LSTM" else ["h"]
    rows = GATES[op_type] * HIDDEN
    own = f"linear_before_reset={reset}, " if op_type == "GRU" else ""
    given = dict.fromkeys(states, (2, 1, HIDDEN))
    held = {"w": normal(2, rows, FEATURES), "r": normal(2, rows, HIDDEN)}
    if not computed:
        held |= {name: normal(*shape) for name, shape in given.items()}
    network = node_network(
        [f'y, l = {op_type} <hidden_size={HIDDEN}, {own} direction="bidirectional">'
         f" (x, w, r, , , {', '.join(states)})"],
        {"x": (TIMES, 1, FEATURES), **(given if computed else {})}, held, ("y", "l"),
    )  # fmt: skip
    assert difference(network) <= TOLERANCE
    assert not outside_xnnpack(write_float_tflite(network))


def test_the_cell_of_an_lstm() -> None:
    assert difference(layer("LSTM", "forward", "y, h, c")) <= TOLERANCE


@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
def test_a_time_takes_few_operators(op_type: str) -> None:
    found = len(operators(write_float_tflite(layer(op_type, "forward"))))
    assert found <= TIMES * PER_TIME[op_type] + 12


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("linear_before_reset=1, clip=1.0,", "it has clip"),
        ('linear_before_reset=1, activations=["Relu", "Tanh"],', "activations of its own"),
    ],
)
def test_other_forms_are_refused(attributes: str, reason: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=reason):
        write_float_tflite(layer("GRU", "forward", attributes=attributes))
