"""Proof that runtimes compute the same integers, by trying every input of an operator.

Convolutions and linears agree because all runtimes do the same float32 operation on an exact
accumulator. A sum or product of two tensors has 65,536 input pairs, a tabulated function 256
inputs, a global average as many as there are sums: these are enumerated. Where a runtime rounds a
near-tie differently, the planner moves a scale and the enumeration starts again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from deploykit.spec.arrays import AnyArray, Int8Array
from deploykit.spec.operators import (
    Computing,
    Function,
    GlobalAveragePool,
    Lookup,
    Operator,
)
from deploykit.spec.quantized import (
    ActivationTensor,
    ConstantTensor,
    IntegerRunner,
    IoType,
    Port,
    Quantization,
    QuantizedNetwork,
)

EXHAUSTIVE_POSITIONS = 256
"""Up to this many averaged positions every sum is tried; beyond, every sum near a tie."""
TIE_MARGIN = 2.0**-9
"""float32 computes a multiplied sum to 2^-23 of its size, under 2^-15 steps: 64 times closer."""
ELEMENTS_AT_ONCE = 2**22
EVERY: Int8Array = np.arange(-128, 128, dtype=np.int8)


@dataclass(frozen=True)
class Pairs:
    """A number computed of two activations. wide: by side, whether it has more than one pixel."""

    operator: type[Computing]
    wide: tuple[bool, bool]

    def cases(self, quantizations: Sequence[Quantization]) -> Iterator[Trial]:
        """All 65,536 pairs. quantizations: left, right, output."""
        pixels, channels = EVERY.reshape(1, 1, 16, 16), EVERY.reshape(1, 256, 1, 1)
        full = (1, 256, 16, 16)
        # A side of one pixel varies over channels, the other over pixels.
        order = (channels, pixels) if not self.wide[0] else (pixels, channels)
        shapes = [full if wide else (1, 256, 1, 1) for wide in self.wide]
        inputs = {
            name: np.broadcast_to(every, shape).copy()
            for name, every, shape in zip(("left", "right"), order, shapes, strict=True)
        }
        tensors = {
            name: ActivationTensor(name, shape, quantization)
            for name, shape, quantization in zip(
                ("left", "right", "result"), [*shapes, full], quantizations, strict=True
            )
        }
        operator = self.operator("trial", "left", "right", "result")
        yield Trial(_network(tensors, operator, "left", "right"), inputs)


@dataclass(frozen=True)
class WithConstant:
    """The same with a constant on the right. values: its distinct integers, or one for all."""

    operator: type[Computing]
    values: tuple[int, ...]

    def cases(self, quantizations: Sequence[Quantization]) -> Iterator[Trial]:
        """256 inputs for each integer of the constant. quantizations: left, right, output."""
        left, right, output = quantizations
        shape = (1, len(self.values), 16, 16)
        constant = np.array(self.values, np.int8).reshape(1, -1, 1, 1)
        tensors = {
            "left": ActivationTensor("left", shape, left),
            "result": ActivationTensor("result", shape, output),
        }
        network = _network(tensors, self.operator("trial", "left", "right", "result"), "left")
        held = {"right": ConstantTensor("right", constant, right)}
        every = np.broadcast_to(EVERY.reshape(1, 1, 16, 16), shape).copy()
        yield Trial(
            QuantizedNetwork(
                network.tensors, network.operators, network.inputs, network.outputs, network.io,
                held,
            ),
            {"left": every},
        )  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A tabulated function."""

    function: Function
    parameter: float = 0.0

    def cases(self, quantizations: Sequence[Quantization]) -> Iterator[Trial]:
        """256 inputs. quantizations: input, output."""
        shape = (1, 1, 16, 16)
        tensors = {
            name: ActivationTensor(name, shape, quantization)
            for name, quantization in zip(("x", "result"), quantizations, strict=True)
        }
        operator = Lookup("trial", "x", "result", self.function, self.parameter)
        yield Trial(_network(tensors, operator, "x"), {"x": EVERY.reshape(shape).copy()})


@dataclass(frozen=True)
class Average:
    """A global average over H * W positions."""

    positions: tuple[int, int]

    def cases(self, quantizations: Sequence[Quantization]) -> Iterator[Trial]:
        """Every sum of H*W integers (see the module). quantizations: input, output."""
        source, output = quantizations
        count = self.positions[0] * self.positions[1]
        sums = _sums(count, source, output)
        size = max(1, ELEMENTS_AT_ONCE // count)
        for start in range(0, len(sums), size):
            block = sums[start : start + size]
            shape = (1, len(block), *self.positions)
            tensors = {
                "x": ActivationTensor("x", shape, source),
                "result": ActivationTensor("result", (1, len(block), 1, 1), output),
            }
            network = _network(tensors, GlobalAveragePool("trial", "x", "result"), "x")
            yield Trial(network, {"x": _with_sums(block, count).reshape(shape)})


Question = Pairs | WithConstant | Table | Average


@dataclass(frozen=True)
class Trial:
    """One network and the integers to put in, by port."""

    network: QuantizedNetwork
    inputs: dict[str, Int8Array]


@dataclass
class Agreement:
    """Remembers what was tried: planning asks the same again when a scale elsewhere moves."""

    reference: IntegerRunner
    runtimes: Sequence[IntegerRunner]
    _known: dict[tuple[Question, tuple[Quantization, ...]], tuple[bool, int]] = field(
        default_factory=dict
    )

    def holds(self, question: Question, quantizations: tuple[Quantization, ...]) -> bool:
        """Whether all runtimes give the reference's integers on every input."""
        return self._answer(question, quantizations)[0]

    def tried(self, question: Question, quantizations: tuple[Quantization, ...]) -> int:
        """How many inputs were compared."""
        return self._answer(question, quantizations)[1]

    def _answer(
        self, question: Question, quantizations: tuple[Quantization, ...]
    ) -> tuple[bool, int]:
        key = (question, quantizations)
        if key not in self._known:
            self._known[key] = self._try(question, quantizations)
        return self._known[key]

    def _try(self, question: Question, quantizations: tuple[Quantization, ...]) -> tuple[bool, int]:
        tried = 0
        for trial in question.cases(quantizations):
            expected = self.reference(trial.network, trial.inputs)["result"]
            tried += expected.size
            for runner in self.runtimes:
                found = runner(trial.network, trial.inputs)["result"]
                if not np.array_equal(found, expected):
                    return False, tried
        return True, tried


def _network(
    tensors: dict[str, ActivationTensor], operator: Operator, *inputs: str
) -> QuantizedNetwork:
    ports = tuple(Port(name, name) for name in inputs)
    return QuantizedNetwork(tensors, (operator,), ports, (Port("result", "result"),), IoType.INT8)


def _sums(count: int, source: Quantization, output: Quantization) -> AnyArray:
    sums = np.arange(-128 * count, 127 * count + 1, dtype=np.int64)
    if count <= EXHAUSTIVE_POSITIONS:
        return sums
    real = (sums - count * source.zero_point) * (source.scale / output.scale / count)
    fraction = np.abs(real - np.floor(real) - 0.5)
    return np.asarray(sums[fraction < TIE_MARGIN])


def _with_sums(sums: AnyArray, count: int) -> Int8Array:
    """One row of `count` int8 values per sum, as level as can be. [len(sums), count]"""
    base, rest = np.divmod(sums, count)
    rows = np.repeat(base[:, None], count, axis=1)
    rows += np.arange(count)[None, :] < rest[:, None]
    return np.asarray(rows, dtype=np.int8)
