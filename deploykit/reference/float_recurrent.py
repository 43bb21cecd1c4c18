"""Recurrent layers of the float evaluator: GRU and LSTM, one or two directions, time first.

Source: ONNX operator specification. x: [T, N, I], W: [D, G*H, I], R: [D, G*H, H], B: [D, 2*G*H],
with G gates in the order z, r, h (GRU) or i, o, f, c (LSTM); states: [D, N, H].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from deploykit.reference.float_activations import sigmoid
from deploykit.reference.float_node import FloatNode, Inputs, given, optional
from deploykit.spec.arrays import AnyArray

State = tuple[AnyArray, ...]
Step = Callable[[AnyArray, State], State]
"""(x W' [N, G*H], state) -> next state; the first array of a state is what the layer gives."""

LENGTHS, PEEPHOLES = 4, 7
REFUSED = ("activation_alpha", "activation_beta", "clip")
USUAL = frozenset(("Sigmoid", "Tanh"))
"""The activations that are meant where none are named; nobody names them in another order."""


def gru(node: FloatNode, inputs: Inputs) -> tuple[AnyArray, AnyArray]:
    """z, r = sigmoid(...); h = tanh(...); H' = (1 - z) h + z H. Gives Y [T, D, N, H] and Y_h."""
    after = bool(node.integer("linear_before_reset", 0))

    def steps(recurrent: AnyArray, bias: AnyArray) -> Step:
        hidden = recurrent.shape[1]
        outer, inner = np.split(bias, 2)

        def step(mapped: AnyArray, state: State) -> State:
            (before,) = state
            x, h = mapped + outer, before @ recurrent.T + inner
            update, reset = (
                sigmoid(x[:, part] + h[:, part])
                for part in (slice(0, hidden), slice(hidden, 2 * hidden))
            )
            last = slice(2 * hidden, None)
            if after:
                mixed = reset * h[:, last]
            else:
                mixed = (reset * before) @ recurrent[last].T + inner[last]
            candidate = np.tanh(x[:, last] + mixed)
            return ((1.0 - update) * candidate + update * before,)

        return step

    given_states, (last,) = _run(node, inputs, 3, 1, steps)
    return given_states, last


def lstm(node: FloatNode, inputs: Inputs) -> tuple[AnyArray, AnyArray, AnyArray]:
    """i, o, f = sigmoid(...); c = f c + i tanh(...); H' = o tanh(c). Gives Y, Y_h and Y_c."""

    def steps(recurrent: AnyArray, bias: AnyArray) -> Step:
        outer, inner = np.split(bias, 2)

        def step(mapped: AnyArray, state: State) -> State:
            before, cell = state
            gates = mapped + outer + before @ recurrent.T + inner
            opened, out, kept, candidate = np.split(gates, 4, axis=1)
            cell = sigmoid(kept) * cell + sigmoid(opened) * np.tanh(candidate)
            return sigmoid(out) * np.tanh(cell), cell

        return step

    given_states, (last, cell) = _run(node, inputs, 4, 2, steps)
    return given_states, last, cell


def _run(
    node: FloatNode,
    inputs: Inputs,
    gates: int,
    states: int,
    steps: Callable[[AnyArray, AnyArray], Step],
) -> tuple[AnyArray, State]:
    """(Y [T, D, N, H], the states behind the last step, each [D, N, H])."""
    _check(node, inputs)
    x, weight, recurrent = (given(node, inputs, index) for index in range(3))
    directions, hidden = recurrent.shape[0], recurrent.shape[2]
    bias = optional(inputs, 3)
    if bias is None:
        bias = np.zeros((directions, 2 * gates * hidden), x.dtype)
    start = [optional(inputs, index) for index in (5, 6)[:states]]
    orders = _orders(node, len(x), directions)
    outputs, ends = [], []
    for direction, order in enumerate(orders):
        step = steps(recurrent[direction], bias[direction])
        state: State = tuple(
            np.zeros((x.shape[1], hidden), x.dtype) if one is None else one[direction]
            for one in start
        )
        given_by = np.empty((len(x), x.shape[1], hidden), x.dtype)
        for time in order:
            state = step(x[time] @ weight[direction].T, state)
            given_by[time] = state[0]
        outputs.append(given_by)
        ends.append(state)
    return np.stack(outputs, axis=1), tuple(np.stack(one) for one in zip(*ends, strict=True))


def _orders(node: FloatNode, length: int, directions: int) -> Sequence[Sequence[int]]:
    """By direction, the times in the order in which they are taken."""
    forward, backward = range(length), range(length)[::-1]
    known = {"forward": [forward], "reverse": [backward], "bidirectional": [forward, backward]}
    orders = known.get(node.text("direction", "forward"), [])
    if len(orders) != directions:
        raise node.refuse(f"its weights have {directions} directions")
    return orders


def _check(node: FloatNode, inputs: Inputs) -> None:
    for name in REFUSED:
        if node.has(name):
            raise node.refuse(f"it has {name}")
    named = node.node.attributes.get("activations")
    if named is not None and not set(named.as_strings()) <= USUAL:
        raise node.refuse(f"its activations are {list(named.as_strings())}")
    if node.integer("input_forget", 0):
        raise node.refuse("its input and forget gates are one")
    if node.integer("layout", 0):
        raise node.refuse("its layout is batch first")
    if optional(inputs, LENGTHS) is not None:
        raise node.refuse("its sequences have lengths of their own")
    if optional(inputs, PEEPHOLES) is not None:
        raise node.refuse("it has peepholes")
