"""A .tflite file before it is packed: tensors and operators in order, free of flatbuffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from deploykit.spec.arrays import AnyArray, Float32Array, Int8Array
from deploykit.spec.carriers import Carrier
from deploykit.spec.quantized import Batch, Quantization


@dataclass(frozen=True)
class TfliteQuantization:
    """scale: [1] per tensor, or [channels] along `dimension`; one zero point for all of them."""

    scale: Float32Array
    zero_point: int
    dimension: int = 0


@dataclass(frozen=True)
class BlockScales:
    """Several scales for each row of a weight. scales: index of a tensor [O, B] of float16.

    size: of a block, along the last axis.
    """

    scales: int
    size: int


@dataclass(frozen=True)
class TfliteTensor:
    """values: the constant's data in `shape`, None for an activation. carrier: of a weight.

    blocks: in place of its quantization. open_axis: which of an activation's lengths grows with a
    dynamic batch; None where none does.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    quantization: TfliteQuantization | None = None
    values: AnyArray | None = None
    open_axis: int | None = 0
    carrier: Carrier = Carrier.INT8
    blocks: BlockScales | None = None


class Activation(Enum):
    """The values of the schema's enum ActivationFunctionType."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3


@dataclass(frozen=True)
class Options:
    """A table of the schema's union BuiltinOptions: its name, and fields as the schema names them.

    Fields that are not given keep the schema's default; fused activations therefore are NONE.
    """

    kind: str
    fields: Mapping[str, int | float | bool | tuple[int, ...]] = field(default_factory=dict)

    def fusing(self, activation: Activation) -> Options:
        """The same options with an activation behind the operator."""
        if activation is Activation.NONE:
            return self
        return Options(self.kind, {**self.fields, "fusedActivationFunction": activation.value})


@dataclass(frozen=True)
class TfliteOperator:
    """code: a key of tflite_flatbuffer's tables of versions; inputs, outputs: indices of tensors.

    options: None for operators that have none in the schema.
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Options | None


def per_tensor(quantization: Quantization) -> TfliteQuantization:
    """An activation's quantization in the file's terms."""
    return TfliteQuantization(
        np.asarray([quantization.scale], dtype=np.float32), quantization.zero_point
    )


class TfliteGraph:
    """A subgraph under construction. batch: of every activation, whose first axis it is."""

    def __init__(self, batch: Batch = Batch.FIXED) -> None:
        self.batch = batch
        self.tensors: list[TfliteTensor] = []
        self.operators: list[TfliteOperator] = []
        self._index: dict[str, int] = {}
        self._shared: dict[tuple[str, bytes], int] = {}

    def any_batch(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape as parameters state it: -1 stands for a dynamic batch."""
        return tuple(shape) if self.batch is Batch.FIXED else (-1, *shape[1:])

    def signature(self, tensor: TfliteTensor) -> tuple[int, ...] | None:
        """An activation's shape with -1 for what a dynamic batch decides; None: nothing."""
        if self.batch is Batch.FIXED or tensor.values is not None or tensor.open_axis is None:
            return None
        return tuple(
            -1 if axis == tensor.open_axis else size for axis, size in enumerate(tensor.shape)
        )

    def adopt(self, tensor: TfliteTensor) -> int:
        """Index of a tensor that was made for another graph; its name stays unique."""
        if tensor.values is not None:
            self.tensors.append(tensor)
            return len(self.tensors) - 1
        index = self._append(tensor.name, tensor.shape, tensor.dtype, tensor.quantization)
        self.tensors[index] = replace(self.tensors[index], open_axis=tensor.open_axis)
        return index

    def activation(
        self,
        name: str,
        shape: tuple[int, ...],
        quantization: Quantization | None,
        dtype: type[np.generic] = np.int8,
    ) -> int:
        """Index of a new tensor that an operator or the caller of the file fills.

        Names are unique: one that is taken gets underscores behind it.
        """
        stored = None if quantization is None else per_tensor(quantization)
        return self._append(name, shape, np.dtype(dtype), stored)

    def like(self, tensor: int, name: str, shape: tuple[int, ...]) -> int:
        """Index of a new activation with the element type and quantization of another tensor."""
        model = self.tensors[tensor]
        return self._append(name, shape, model.dtype, model.quantization)

    def scalar_like(self, tensor: int, name: str, value: float) -> int:
        """Index of a new constant [1] with the element type and quantization of another tensor."""
        model = self.tensors[tensor]
        return self.constant(name, np.array([value], dtype=model.dtype), model.quantization)

    def constant(
        self, name: str, values: AnyArray, quantization: TfliteQuantization | None = None
    ) -> int:
        """Index of a new constant tensor."""
        self.tensors.append(TfliteTensor(name, values.shape, values.dtype, quantization, values))
        return len(self.tensors) - 1

    def weight(
        self, name: str, values: Int8Array, quantization: TfliteQuantization, carrier: Carrier
    ) -> int:
        """Index of a new constant tensor of integers that are stored as `carrier`."""
        index = self.constant(name, values, quantization)
        self.tensors[index] = replace(self.tensors[index], carrier=carrier)
        return index

    def integers(self, name: str, values: AnyArray | Sequence[int]) -> int:
        """Index of an int32 parameter tensor (axes, permutations); equal ones are shared."""
        stored = np.asarray(values, dtype=np.int32)
        key = (name, stored.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant(name, stored)
        return self._shared[key]

    def operator(
        self, code: str, inputs: tuple[int, ...], output: int, options: Options | None = None
    ) -> None:
        """Append an operator."""
        self.split(code, inputs, (output,), options)

    def split(
        self,
        code: str,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        options: Options | None = None,
    ) -> None:
        """Append an operator that fills several tensors."""
        self.operators.append(TfliteOperator(code, inputs, outputs, options))

    def store(self, index: int, values: AnyArray, quantization: TfliteQuantization) -> None:
        """Let a constant come out of a DEQUANTIZE of the integers that mean the same."""
        tensor = self.tensors[index]
        stored = self.constant(f"{tensor.name}/int8", values, quantization)
        self.tensors[index] = replace(tensor, values=None)
        made = TfliteOperator("DEQUANTIZE", (stored,), (index,), Options("DequantizeOptions"))
        self.operators.insert(0, made)

    def redirect(self, old: int, new: int) -> None:
        """Let whatever fills or reads one tensor fill or read another of the same shape instead."""
        assert self.tensors[old].shape == self.tensors[new].shape

        def moved(indices: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(new if index == old else index for index in indices)

        self.operators = [
            replace(one, inputs=moved(one.inputs), outputs=moved(one.outputs))
            for one in self.operators
        ]

    def _append(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
        quantization: TfliteQuantization | None,
    ) -> int:
        while name in self._index:
            name += "_"
        self._index[name] = len(self.tensors)
        self.tensors.append(TfliteTensor(name, shape, dtype, quantization))
        return self._index[name]
