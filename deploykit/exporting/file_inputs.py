"""Inputs on which two ONNX files are compared, and how far their outputs are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx

from deploykit.graph.ports import Port, Shape
from deploykit.spec.arrays import AnyArray, Tensors


class RunOnce(Protocol):
    """Runs a model file's bytes on inputs by port name, as deploykit.runtime.single_pass does."""

    def __call__(
        self, data: bytes, inputs: Tensors, outputs: Sequence[str] | None = None
    ) -> dict[str, AnyArray]:
        """The graph's outputs, or the tensors named."""
        ...


def draw(ports: Sequence[Port], shapes: Mapping[str, Shape], seed: int = 0) -> dict[str, AnyArray]:
    """Seeded inputs by name: standard normal floats, any byte as uint8, other integers 0 or 1."""
    generator = np.random.default_rng(seed)
    return {port.name: _draw(generator, port.dtype, shapes[port.name]) for port in ports}


def _draw(generator: np.random.Generator, dtype: str, shape: Shape) -> AnyArray:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return generator.standard_normal(shape).astype(kind)
    return generator.integers(0, 256 if dtype == "uint8" else 2, shape).astype(kind)


@dataclass(frozen=True)
class FileDifference:
    """Outputs of two files on the same inputs. relative: to the largest |output| of the first."""

    inputs: int
    max_absolute: float
    max_relative: float


def difference(pairs: Sequence[tuple[Tensors, Tensors]]) -> FileDifference:
    """The largest difference over pairs of outputs; infinite where names, shapes or NaNs differ."""
    absolute, relative = 0.0, 0.0
    for first, second in pairs:
        if first.keys() != second.keys():
            return FileDifference(len(pairs), float("inf"), float("inf"))
        for name, values in first.items():
            apart, largest = _apart(values, second[name])
            absolute = max(absolute, apart)
            relative = max(relative, apart / largest if largest > 0 else apart)
    return FileDifference(len(pairs), absolute, relative)


def _apart(first: AnyArray, second: AnyArray) -> tuple[float, float]:
    """(largest |difference|, largest |first|); equal NaNs and infinities are not apart."""
    if first.shape != second.shape:
        return float("inf"), 1.0
    left, right = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return float("inf"), 1.0
    apart = np.abs(left[finite] - right[finite]).max(initial=0.0)
    return float(apart), float(np.abs(left[finite]).max(initial=0.0))


def with_outputs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A copy that gives every tensor its nodes compute, and their names."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {port.name for port in shown.graph.output}
    names = [name for node in shown.graph.node for name in node.output if name]
    for name in dict.fromkeys(names):
        if name not in known:
            shown.graph.output.append(onnx.ValueInfoProto(name=name))
    return shown, list(dict.fromkeys([*known, *names]))
