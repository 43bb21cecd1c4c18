"""Float TFLite forms of GRU and LSTM: unrolled, for TFLite has no GRU and XNNPACK neither.

What depends on the inputs alone is one FULLY_CONNECTED over all times; each time then takes one or
two small ones on the state. Gates lie as in ONNX: z, r, h (GRU) or i, o, f, c (LSTM).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_channels import join, span
from deploykit.emit.tflite_float_order import natural
from deploykit.emit.tflite_float_site import FloatSite
from deploykit.emit.tflite_graph import Options
from deploykit.spec.arrays import Float32Array

REFUSED = ("activation_alpha", "activation_beta", "clip")
GIVEN = {4: "lengths of its own sequences", 7: "peepholes"}


@dataclass(frozen=True)
class Direction:
    """weight: [G*H, I]; recurrent: [G*H, H]; outer, inner: [G*H], biases; start: states, or None.

    source: index of the inputs [T*N, I]. order: times as they are taken.
    """

    name: str
    source: int
    order: Iterable[int]
    batch: int
    weight: Float32Array
    recurrent: Float32Array
    outer: Float32Array
    inner: Float32Array
    start: tuple[int | None, ...]

    @property
    def hidden(self) -> int:
        """Length of the state."""
        return int(self.recurrent.shape[1])


Unrolled = tuple[dict[int, int], tuple[int, ...]]
"""By time the index of the state [N, H]; the last states."""


def gru(node: ir.Node, site: FloatSite) -> None:
    """z, r = sigmoid(...); h = tanh(...); H' = h + z (H - h)."""
    after = bool(node.attributes.get_int("linear_before_reset", 0))
    _recurrent(node, site, 3, 1, _gru if after else _gru_reset_before)


def lstm(node: ir.Node, site: FloatSite) -> None:
    """i, o, f = sigmoid(...); c = f c + i tanh(...); H' = o tanh(c)."""
    _recurrent(node, site, 4, 2, _lstm)


def _gru(one: Direction, site: FloatSite) -> Unrolled:
    """The matrix takes the state, and what it gives is reset, as in torch."""

    def mixed(reset: int, state: int | None, name: str) -> int:
        inner, matrix = one.inner[-one.hidden :], one.recurrent[-one.hidden :]
        if state is None:
            mapped = site.graph.constant(f"{name}/inner", inner)
        else:
            mapped = _linear(site, state, matrix, inner, f"{name}/h")
        return _binary(site, "MUL", reset, mapped, f"{name}/reset/h")

    return _unrolled_gru(one, site, mixed)


def _gru_reset_before(one: Direction, site: FloatSite) -> Unrolled:
    """The state is reset, and the matrix takes what is left, as in the first GRU."""

    def mixed(reset: int, state: int | None, name: str) -> int:
        inner, matrix = one.inner[-one.hidden :], one.recurrent[-one.hidden :]
        if state is None:
            return site.shared(inner, "inner", name)
        left = _binary(site, "MUL", reset, state, f"{name}/reset/h")
        return _linear(site, left, matrix, inner, f"{name}/h")

    return _unrolled_gru(one, site, mixed)


def _unrolled_gru(
    one: Direction, site: FloatSite, mixed: Callable[[int, int | None, str], int]
) -> Unrolled:
    """By time the index of the state [N, H], and the last ones.

    mixed: from the reset gate, the state (None: zeros) and a name, what the candidate takes of it.
    """
    hidden = one.hidden
    opened, last = slice(0, 2 * hidden), slice(2 * hidden, None)
    both = one.outer + np.where(np.arange(3 * hidden) < 2 * hidden, one.inner, 0.0)
    gates_x = _linear(site, one.source, one.weight[opened], both[opened], f"{one.name}/x/gates")
    state_x = _linear(site, one.source, one.weight[last], both[last], f"{one.name}/x/state")
    none = np.zeros(2 * hidden, np.float32)
    (state,) = one.start
    states: dict[int, int] = {}
    for time in one.order:
        name = f"{one.name}/{time}"
        gates = _at_time(one, site, gates_x, time, f"{name}/x/gates")
        if state is not None:
            linear = _linear(site, state, one.recurrent[opened], none, f"{name}/gates/h")
            gates = _binary(site, "ADD", gates, linear, f"{name}/gates/sum")
        gates = _unary(site, "LOGISTIC", gates, f"{name}/gates")
        update = span(site, gates, 1, 0, hidden, f"{name}/update")
        reset = span(site, gates, 1, hidden, hidden, f"{name}/reset")
        fresh = _at_time(one, site, state_x, time, f"{name}/x/state")
        fresh = _binary(site, "ADD", fresh, mixed(reset, state, name), f"{name}/state/sum")
        fresh = _unary(site, "TANH", fresh, f"{name}/state")
        if state is None:
            kept = _binary(site, "MUL", update, fresh, f"{name}/kept")
            state = _binary(site, "SUB", fresh, kept, f"{name}/next")
        else:
            change = _binary(site, "SUB", state, fresh, f"{name}/change")
            kept = _binary(site, "MUL", update, change, f"{name}/kept")
            state = _binary(site, "ADD", fresh, kept, f"{name}/next")
        states[time] = state
    assert state is not None
    return states, (state,)


def _lstm(one: Direction, site: FloatSite) -> Unrolled:
    """By time the index of the state [N, H], and the last state and cell."""
    hidden = one.recurrent.shape[1]
    mapped = _linear(site, one.source, one.weight, one.outer + one.inner, f"{one.name}/x")
    none = np.zeros(4 * hidden, np.float32)
    state, cell = one.start
    states: dict[int, int] = {}
    for time in one.order:
        name = f"{one.name}/{time}"
        gates = _at_time(one, site, mapped, time, f"{name}/x")
        if state is not None:
            linear = _linear(site, state, one.recurrent, none, f"{name}/h")
            gates = _binary(site, "ADD", gates, linear, f"{name}/sum")
        opened = span(site, gates, 1, 0, 3 * hidden, f"{name}/gates/sum")
        opened = _unary(site, "LOGISTIC", opened, f"{name}/gates")
        fresh = span(site, gates, 1, 3 * hidden, hidden, f"{name}/cell/sum")
        fresh = _unary(site, "TANH", fresh, f"{name}/cell/fresh")
        enter, leave, keep = (
            span(site, opened, 1, gate * hidden, hidden, f"{name}/{what}")
            for gate, what in enumerate(("enter", "leave", "keep"))
        )
        entering = _binary(site, "MUL", enter, fresh, f"{name}/cell/entering")
        if cell is None:
            cell = entering
        else:
            kept = _binary(site, "MUL", keep, cell, f"{name}/cell/kept")
            cell = _binary(site, "ADD", kept, entering, f"{name}/cell")
        state = _binary(site, "MUL", leave, _unary(site, "TANH", cell, f"{name}/out"), f"{name}/y")
        states[time] = state
    assert state is not None and cell is not None
    return states, (state, cell)


def _recurrent(
    node: ir.Node,
    site: FloatSite,
    gates: int,
    states: int,
    unroll: Callable[[Direction, FloatSite], Unrolled],
) -> None:
    """Y [T, D, N, H] and the last states [D, N, H], of which only those that are read."""
    length, batch, directions = _check(node, site)
    weight, recurrent = (_array(node, index) for index in (1, 2))
    hidden = recurrent.shape[2]
    bias = read.parameter(node, 3)
    if bias is None:
        bias = np.zeros((directions, 2 * gates * hidden), np.float32)
    source = site.source(node, natural(3))
    source = site.reshaped(source, (length * batch, weight.shape[2]))
    orders = _orders(node, length, directions)
    outputs: list[int] = []
    ends: list[tuple[int, ...]] = []
    for direction, order in enumerate(orders):
        name = f"{read.label(node)}/{direction}"
        outer, inner = np.split(bias[direction], 2)
        start = tuple(_start(node, site, 5 + k, direction) for k in range(states))
        one = Direction(
            name, source, order, batch, weight[direction], recurrent[direction], outer, inner, start
        )
        by_time, last = unroll(one, site)
        rows = join(site, tuple(by_time[time] for time in range(length)), 0, f"{name}/all")
        outputs.append(site.reshaped(rows, (length, 1, batch, hidden)))
        ends.append(last)
    _give(node, site, 0, join(site, tuple(outputs), 1, f"{read.label(node)}/both"))
    for k, parts in enumerate(zip(*ends, strict=True)):
        apart = tuple(site.reshaped(part, (1, batch, hidden)) for part in parts)
        _give(node, site, 1 + k, join(site, apart, 0, f"{read.label(node)}/last/{k}"))


def _at_time(one: Direction, site: FloatSite, rows: int, time: int, name: str) -> int:
    """Index of the rows [N, K] of one time, of [T*N, K].

    Times are set apart where there are several samples: a SLICE then states none of their number.
    """
    if one.batch == 1:
        return span(site, rows, 0, time, 1, name)
    length, width = (
        site.graph.tensors[rows].shape[0] // one.batch,
        site.graph.tensors[rows].shape[1],
    )
    apart = site.reshaped(rows, (length, one.batch, width))
    part = span(site, apart, 0, time, 1, name)
    return site.reshaped(part, (one.batch, width))


def _give(node: ir.Node, site: FloatSite, place: int, index: int) -> None:
    if place < len(node.outputs):
        value = node.outputs[place]
        if value.uses() or value.is_graph_output():
            site.put(value, index, natural(len(read.value_shape(value))))


def _check(node: ir.Node, site: FloatSite) -> tuple[int, int, int]:
    """(T, N, D)."""
    for name in REFUSED:
        if name in node.attributes:
            raise read.refuse(node, f"it has {name}", "use the operator's own activations")
    for index, what in GIVEN.items():
        if index < len(node.inputs) and node.inputs[index] is not None:
            raise read.refuse(node, f"it has {what}", "leave them out")
    if not set(node.attributes.get_strings("activations", ())) <= {"Sigmoid", "Tanh"}:
        raise read.refuse(node, "it has activations of its own", "use sigmoid and tanh")
    if node.attributes.get_int("input_forget", 0):
        raise read.refuse(node, "its input and forget gates are one", "keep them apart")
    if node.attributes.get_int("layout", 0):
        raise read.refuse(node, "its layout is batch first", "transpose its input instead")
    length, batch, _ = site.place(node).shape
    return length, batch, _array(node, 2).shape[0]


def _orders(node: ir.Node, length: int, directions: int) -> list[range]:
    forward, backward = range(length), range(length)[::-1]
    known = {"forward": [forward], "reverse": [backward], "bidirectional": [forward, backward]}
    orders = known.get(node.attributes.get_string("direction", "forward"), [])
    if len(orders) != directions:
        raise read.refuse(node, f"its weights have {directions} directions", "export it again")
    return orders


def _array(node: ir.Node, index: int) -> Float32Array:
    values = read.parameter(node, index)
    if values is None:
        raise read.refuse(node, f"its input {index} is missing", "give it")
    return values


def _start(node: ir.Node, site: FloatSite, index: int, direction: int) -> int | None:
    """Index of a state [N, H] to begin with, given or computed; None where it is zero."""
    given = node.inputs[index] if index < len(node.inputs) else None
    if given is not None and read.constant(given) is None:
        both = site.source(node, natural(3), index)
        one = span(site, both, 0, direction, 1, f"{read.label(node)}/start/{index}/{direction}")
        return site.reshaped(one, site.graph.tensors[both].shape[1:])
    values = read.parameter(node, index)
    if values is None or not values.any():
        return None
    return site.graph.constant(f"{read.label(node)}/start/{index}/{direction}", values[direction])


def _linear(
    site: FloatSite, source: int, weight: Float32Array, bias: Float32Array, name: str
) -> int:
    """x W' + b, [N, I] -> [N, O]; a constant is stored once."""
    inputs = (
        source,
        site.shared(weight, "weight", name),
        site.shared(bias.astype(np.float32), "bias", name),
    )
    shape = (site.graph.tensors[source].shape[0], weight.shape[0])
    return site.step("FULLY_CONNECTED", inputs, name, shape, Options("FullyConnectedOptions"))


def _binary(site: FloatSite, code: str, left: int, right: int, name: str) -> int:
    shape = site.graph.tensors[left].shape
    return site.step(code, (left, right), name, shape, Options(f"{code.title()}Options"))


def _unary(site: FloatSite, code: str, source: int, name: str) -> int:
    return site.step(code, (source,), name, site.graph.tensors[source].shape)
