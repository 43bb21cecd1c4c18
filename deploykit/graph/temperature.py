"""Logits divided by a temperature, in the constants of the layer that gives them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import (
    attribute_int,
    constant,
    label,
    readers,
    set_initializer,
    set_operand,
)
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import Network

TAILS = frozenset(("Softmax", "LogSoftmax"))
MOVES = frozenset(
    ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)
"""Operators that put numbers in other places."""
SUMS = frozenset(("Add", "Sub"))
CHANNELS = 1
"""Axis of channels in tensors of rank 4; in others the last."""


def divided_logits(network: Network, divisors: Float64Array) -> Network:
    """The same network with its only output's logits divided: W[o] / T[o], b[o] / T[o].

    The logits are what a Softmax or LogSoftmax at the end reads, or else the output.
    divisors: [O], one temperature but for the float32 rounding of each channel's scale, so that
    weights are as many steps of their new scales as they were of the old ones.

    Raises GraphError where no weighted layer of O channels gives them.
    """
    model = network.model.clone()
    (output,) = model.graph.outputs
    last = output.producer()
    value: ir.Value | None = output
    if last is not None and last.op_type in TAILS:
        value = last.inputs[0]
    dividing = _Dividing(model.graph, divisors)
    dividing.divide(value)
    variance = {**network.variance}
    for name, axis in dividing.changed.items():
        if name in variance:
            squared = _over(variance[name], np.square(divisors), axis)
            variance[name] = squared.astype(np.float32)
    return replace(network.rewritten(model), variance=variance)


def _over(array: AnyArray, divisors: Float64Array, axis: int) -> Float64Array:
    """The array divided along an axis, which grows from 1 to O where it broadcast."""
    shape = [1] * array.ndim
    shape[axis] = -1
    return np.asarray(array.astype(np.float64) / divisors.reshape(shape))


@dataclass
class _Dividing:
    """graph: the caller's own. changed: initializers, and the axis of their channels."""

    graph: ir.Graph
    divisors: Float64Array
    changed: dict[str, int] = field(default_factory=dict)

    def divide(self, value: ir.Value | None) -> None:
        """Divide what gives a tensor, back to the layer whose weights do."""
        node = None if value is None else value.producer()
        if value is None or node is None:
            raise GraphError("--temperature: the logits are no layer's output; leave it out")
        if len(readers(value)) + value.is_graph_output() > 1:
            raise GraphError(
                f"--temperature: {value.name!r}, the logits, is read inside of the network too; "
                "leave it out"
            )
        if node.op_type in MOVES:
            self.divide(node.inputs[0])
            return
        held = [index for index, one in enumerate(node.inputs) if constant(one) is not None]
        if node.op_type in SUMS and len(held) == 1:
            self.divide(node.inputs[1 - held[0]])
            rank = len(value.shape or ())
            operand = constant(node.inputs[held[0]])
            assert operand is not None
            behind = rank - CHANNELS if rank == 4 else 1
            self._constant(
                node,
                held[0],
                operand.reshape((1,) * (behind - operand.ndim) + operand.shape),
                -behind,
            )
        elif node.op_type == "Gemm" and 1 in held and 0 not in held:
            self._operand(node, 1, 0 if attribute_int(node, "transB", 0) else 1)
            self._operand(node, 2, -1)
        elif node.op_type == "Conv" and 1 in held:
            self._operand(node, 1, 0)
            self._operand(node, 2, 0)
        elif node.op_type == "MatMul" and held == [1]:
            self._operand(node, 1, -1)
        else:
            raise GraphError(
                f"--temperature: the logits come from {node.op_type} {label(node)!r}, which has no "
                "weights to divide; end the network in a linear layer or convolution"
            )

    def _operand(self, node: ir.Node, place: int, axis: int) -> None:
        array = None if place >= len(node.inputs) else constant(node.inputs[place])
        if array is not None:
            self._constant(node, place, array, axis)
        elif place < len(node.inputs) and node.inputs[place] is not None:
            raise GraphError(
                f"--temperature: input {place} of {node.op_type} {label(node)!r}, which gives the "
                "logits, is no constant; leave it out"
            )

    def _constant(self, node: ir.Node, place: int, array: AnyArray, axis: int) -> None:
        if array.ndim == 0:
            array = array.reshape(1)
        if array.shape[axis] not in (1, len(self.divisors)):
            raise GraphError(
                f"--temperature: {node.op_type} {label(node)!r} has {array.shape[axis]} channels "
                f"where the logits have {len(self.divisors)}; this is not expected: please report "
                "the network"
            )
        scaled = _over(array, self.divisors, axis).astype(array.dtype)
        operand = node.inputs[place]
        assert operand is not None
        name = str(operand.name)
        if len(readers(operand)) > 1 or name not in self.graph.initializers:
            set_operand(self.graph, node, place, scaled)
            return
        set_initializer(self.graph, name, scaled)
        self.changed[name] = axis
