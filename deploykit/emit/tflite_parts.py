"""The parts of a .tflite file: tensors, operators and ports, in the file's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.emit.tflite_tables import Table
from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.carriers import Carrier


@dataclass(frozen=True)
class FileTensor:
    """scale: [] where there is no quantization. values: constants only, in `shape`.

    signature: `shape` with -1 for what a caller may resize. carrier: how a weight is stored.
    blocks: index of the tensor with a weight's scales by block, and the block's size.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    scale: Float32Array
    zero_point: AnyArray
    dimension: int
    values: AnyArray | None
    signature: tuple[int, ...]
    carrier: Carrier = Carrier.INT8
    blocks: tuple[int, int] | None = None


@dataclass(frozen=True)
class FileOperator:
    """inputs: tensors in the file's order, None for an optional one that is left out."""

    position: int
    code: str
    inputs: tuple[FileTensor | None, ...]
    outputs: tuple[FileTensor, ...]
    options: Table | None

    @property
    def output(self) -> FileTensor:
        """Its one output."""
        if len(self.outputs) != 1:
            raise GraphError(
                f"{self.code} number {self.position} has {len(self.outputs)} outputs, not 1."
            )
        return self.outputs[0]

    def refuse(self, what: str) -> GraphError:
        """The error that names this operator."""
        return GraphError(f"{self.code} number {self.position} ({self.outputs[0].name!r}): {what}")

    def option(self, slot: int, form: str = "<i", default: int = 0) -> int:
        """A scalar of the operator's options."""
        return default if self.options is None else self.options.integer(slot, form, default)

    def real_option(self, slot: int) -> float:
        """A float32 of the operator's options, 0 where it is left out."""
        return 0.0 if self.options is None else self.options.real(slot)


@dataclass(frozen=True)
class FilePort:
    """A graph input or output: its public name and its tensor."""

    name: str
    tensor: FileTensor


@dataclass(frozen=True)
class TfliteFile:
    """The one subgraph of a file. rearranged, stems, bits: see tflite_file."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[FilePort, ...]
    outputs: tuple[FilePort, ...]
    rearranged: Mapping[str, str]
    stems: Mapping[str, str]
    bits: Mapping[str, str]
