"""GRU and LSTM for several samples: their own batch axis holds them."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.stack import OPEN, Stack, numbers_of, shape_of

STATES = {"GRU": (5,), "LSTM": (5, 6)}
"""Inputs that hold the states to begin with."""
RECURRENT = frozenset(STATES)
"""Operators that carry a state through time."""


def recurrent(node: ir.Node, stack: Stack) -> None:
    """x [N*T, S, F] -> [T, N*S, F] and back: y [T, D, N*S, H] -> [N*T, D, S, H], last states alike.

    S: sequences of one sample. States to begin with may be computed, or are zero.
    """
    starts: list[ir.Value | None] = []
    for index in STATES[node.op_type]:
        value = node.inputs[index] if len(node.inputs) > index else None
        start = numbers_of(value)
        if value is not None and stack.varies(value):
            starts.append(_start(value, stack))
            continue
        starts.append(None)
        if start is not None and start.any():
            raise UnsupportedOperatorError(
                f"--batch dynamic: {node.name}: {node.op_type} begins with a state that is not "
                "zero; leave --batch out, or let it begin with zeros"
            )
    length, batch, features = shape_of(node.inputs[0])
    many = stack.samples
    value = node.inputs[0]
    assert value is not None
    apart = stack.apart(value, 3)
    times = stack.step(
        "Transpose", [apart], (length, many, batch, features), value, {"perm": [1, 0, 2, 3]}
    )
    rows = stack.reshaped(times, (length, OPEN, features), (length, many * batch, features))
    held = [stack.held(one) for one in node.inputs[1:4]]
    inputs = [rows, *held, *[None] * (4 - len(held)), *starts]
    while inputs[-1] is None:
        inputs.pop()
    outputs: list[ir.Value] = []
    for place, one in enumerate(node.outputs):
        shape = list(shape_of(one)) if one.shape is not None else []
        if shape:
            shape[_batch_axis(place)] = many * batch
        outputs.append(
            ir.Value(
                name=f"{one.name}/sequences" if one.name else None,
                shape=ir.Shape(shape),
                type=one.type,
            )
        )
    stack.nodes.append(
        ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            outputs=outputs,
            name=node.name,
        )
    )
    for place, (one, made) in enumerate(zip(node.outputs, outputs, strict=True)):
        if one.uses() or one.is_graph_output():
            _give_back(one, made, _batch_axis(place), stack)


def _start(value: ir.Value, stack: Stack) -> ir.Value:
    """A state [N*D, S, H] as [D, N*S, H]."""
    directions, batch, hidden = shape_of(value)
    many = stack.samples
    apart = stack.apart(value, 3)
    shape = (directions, many, batch, hidden)
    turned = stack.step("Transpose", [apart], shape, value, {"perm": [1, 0, 2, 3]})
    return stack.reshaped(turned, (directions, OPEN, hidden), (directions, many * batch, hidden))


def _batch_axis(place: int) -> int:
    """Of y [T, D, N, H], and of the last states [D, N, H]."""
    return 2 if place == 0 else 1


def _give_back(value: ir.Value, made: ir.Value, axis: int, stack: Stack) -> None:
    """Move the samples in front."""
    shape, many = shape_of(value), stack.samples
    split = (*shape[:axis], OPEN, *shape[axis:])
    stated = (*shape[:axis], many, *shape[axis:])
    apart = stack.reshaped(made, split, stated)
    perm = [axis, *(other for other in range(len(stated)) if other != axis)]
    front = stack.step("Transpose", [apart], (many, *shape), value, {"perm": perm})
    stack.together(front, value)
