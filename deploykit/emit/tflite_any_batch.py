"""Part of a .tflite file for any number of samples, from the same part written for two numbers.

Where a length or a parameter is k times the number of samples in both, it is open (-1) in the file,
and stated as k for one sample. What differs in another way cannot be left open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploykit.emit.tflite_graph import (
    Options,
    TfliteGraph,
    TfliteOperator,
    TfliteTensor,
)
from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.arrays import AnyArray

SAMPLES = (7, 11)
"""Numbers that no length of a network is a multiple of by chance in both."""

OPEN = -1


@dataclass(frozen=True)
class Part:
    """Operators written for some number of samples. result: index of the tensor they are for."""

    graph: TfliteGraph
    inputs: tuple[int, ...]
    result: int


def write_open(
    graph: TfliteGraph, inputs: Sequence[int], write: Callable[[int], Part], name: str
) -> int:
    """Append a part with its batch open; index of its result.

    inputs: the tensors of `graph` that the part's own inputs stand for. write: the part for a
    number of samples. name: of the operator, for errors.

    Raises UnsupportedOperatorError where the format has no such form.
    """
    few, many = (write(samples) for samples in SAMPLES)
    return _Joining(graph, few.graph, many.graph, name).join(few, many, inputs)


class _Joining:
    """Two writings of one part, brought into one graph."""

    def __init__(self, into: TfliteGraph, few: TfliteGraph, many: TfliteGraph, name: str) -> None:
        self.into, self.few, self.many, self.name = into, few, many, name
        self.index: dict[tuple[int, int], int] = {}

    def join(self, few: Part, many: Part, inputs: Sequence[int]) -> int:
        self.index.update(
            (pair, place)
            for pair, place in zip(zip(few.inputs, many.inputs, strict=True), inputs, strict=True)
        )
        if len(self.few.operators) != len(self.many.operators):
            raise self._refused("it is written otherwise for more samples")
        for one, other in zip(self.few.operators, self.many.operators, strict=True):
            self._operator(one, other)
        return self.index[few.result, many.result]

    def _operator(self, one: TfliteOperator, other: TfliteOperator) -> None:
        if one.code != other.code or len(one.inputs) != len(other.inputs):
            raise self._refused("it is written otherwise for more samples")
        inputs = [
            self._tensor(pair, one, place)
            for place, pair in enumerate(zip(one.inputs, other.inputs, strict=True))
        ]
        outputs = [
            self._tensor(pair, one, None) for pair in zip(one.outputs, other.outputs, strict=True)
        ]
        options = self._options(one.options, other.options)
        self.into.operators.append(TfliteOperator(one.code, tuple(inputs), tuple(outputs), options))

    def _tensor(self, pair: tuple[int, int], reader: TfliteOperator, place: int | None) -> int:
        if pair in self.index:
            return self.index[pair]
        one, other = self.few.tensors[pair[0]], self.many.tensors[pair[1]]
        if one.values is None or other.values is None:
            made = self._activation(one, other)
        elif np.array_equal(one.values, other.values):
            made = one
        else:
            made = self._parameter(one, other, reader, place)
        self.index[pair] = self.into.adopt(made)
        return self.index[pair]

    def _activation(self, one: TfliteTensor, other: TfliteTensor) -> TfliteTensor:
        stated = self._opened(one.shape, other.shape)
        places = [axis for axis, length in enumerate(stated) if length == OPEN]
        if len(places) > 1:
            raise self._refused("several axes of a tensor grow with the samples")
        shape = tuple(
            size // SAMPLES[0] if length == OPEN else length
            for size, length in zip(one.shape, stated, strict=True)
        )
        return replace(one, shape=shape, open_axis=places[0] if places else None)

    def _parameter(
        self, one: TfliteTensor, other: TfliteTensor, reader: TfliteOperator, place: int | None
    ) -> TfliteTensor:
        """Of a RESHAPE, or of a SLICE that takes the samples whole."""
        assert one.values is not None and other.values is not None
        code = reader.code.partition("/")[0]
        if one.values.shape != other.values.shape or (code, place) not in {
            ("RESHAPE", 1), ("SLICE", 2),
        }:  # fmt: skip
            raise self._refused(f"a parameter of {code} would have to state the samples")
        values = np.array(self._opened(one.values.tolist(), other.values.tolist()), np.int32)
        if code == "SLICE":
            self._require_whole(one, reader, values)
        return replace(one, values=values)

    def _require_whole(self, size: TfliteTensor, reader: TfliteOperator, values: AnyArray) -> None:
        assert size.values is not None
        source, begin = (self.few.tensors[index] for index in reader.inputs[:2])
        assert begin.values is not None
        for axis in np.flatnonzero(values == OPEN):
            if begin.values[axis] or size.values[axis] != source.shape[axis]:
                raise self._refused("a SLICE cuts among the samples")

    def _options(self, one: Options | None, other: Options | None) -> Options | None:
        if one == other or one is None or other is None:
            return one
        fields = dict(one.fields)
        for name, value in one.fields.items():
            theirs = other.fields[name]
            if value == theirs:
                continue
            if not isinstance(value, tuple) or not isinstance(theirs, tuple):
                raise self._refused(f"its {one.kind} would have to state the samples")
            fields[name] = self._opened(value, theirs)
        return replace(one, fields=fields)

    def _opened(self, few: Sequence[int], many: Sequence[int]) -> tuple[int, ...]:
        """Lengths, OPEN where they grow with the samples."""
        if len(few) != len(many):
            raise self._refused("its shapes have other ranks for more samples")
        found = []
        for one, other in zip(few, many, strict=True):
            if one != other and one * SAMPLES[1] != other * SAMPLES[0]:
                raise self._refused(f"a length is {one} for {SAMPLES[0]} samples")
            found.append(one if one == other else OPEN)
        return tuple(found)

    def _refused(self, why: str) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(
            f"--batch dynamic: {self.name}: LiteRT has no form of it for any number of samples "
            f"({why}); leave --batch out, or write ONNX alone with --to onnx"
        )
