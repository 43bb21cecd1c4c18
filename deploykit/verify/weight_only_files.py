"""Both formats of a network whose weights alone are integers: written, read back, run, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deploykit.emit.onnx_weight_only import read_weight_only_onnx, write_weight_only_onnx
from deploykit.emit.tflite_products import with_products
from deploykit.emit.tflite_weight_only import (
    WEIGHT,
    read_weight_only_tflite,
    write_weight_only_tflite,
)
from deploykit.errors import GraphError
from deploykit.reference.float import evaluate_outputs
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray, Float32Array, Int8Array, Tensors
from deploykit.spec.carriers import Carrier
from deploykit.spec.linears import flattened_images, linears
from deploykit.spec.network import Network
from deploykit.spec.record import digest
from deploykit.spec.weight_only import LowBitLinear, WeightOnlyPlan
from deploykit.verify.file_format import FileFormat, OnnxFile, TfliteFile


@dataclass(frozen=True)
class HeldLinear:
    """A weight as a file has it: [O, I] and [O, B]."""

    values: Int8Array
    scale: Float32Array
    carrier: Carrier

    @property
    def bits(self) -> int:
        """That the file gives each integer."""
        return self.carrier.bits


class WeightOnlyFormat(FileFormat, Protocol):
    """A format of float networks. Inputs and outputs of `run`: by name, as in the network."""

    def write(self, network: Network, plan: WeightOnlyPlan) -> bytes:
        """The file."""
        ...

    def read(self, data: bytes) -> Mapping[str, HeldLinear]:
        """By layer, the integers in a file."""
        ...

    def run(self, data: bytes, inputs: Tensors) -> Tensors:
        """The outputs [N, ...] for inputs [N, ...]."""
        ...

    @property
    def on_floats(self) -> str:
        """What `run_products` runs in."""
        ...

    def run_products(self, data: bytes, inputs: Tensors) -> Tensors:
        """The outputs of a file whose integers are multiplied out to float32 before it runs.

        So no row of activations is rounded, and all else is what the file says.
        """
        ...

    def kernels(self, data: bytes) -> Mapping[str, str]:
        """By layer, what of the runtime computes it."""
        ...


@dataclass(frozen=True)
class OnnxWeights(OnnxFile):
    """ONNX and ONNX Runtime."""

    def write(self, network: Network, plan: WeightOnlyPlan) -> bytes:
        """See WeightOnlyFormat."""
        return write_weight_only_onnx(network, plan)

    def read(self, data: bytes) -> Mapping[str, HeldLinear]:
        """See WeightOnlyFormat."""
        found, _ = read_weight_only_onnx(data)
        carriers = {one.bits: one for one in (Carrier.INT8, Carrier.INT4)}
        return {
            name: HeldLinear(one.values, one.scale, carriers[one.bits])
            for name, one in found.items()
        }

    def run(self, data: bytes, inputs: Tensors) -> Tensors:
        """See WeightOnlyFormat."""
        return ort.run(data, inputs)

    @property
    def on_floats(self) -> str:
        """See WeightOnlyFormat."""
        return "the reference"

    def run_products(self, data: bytes, inputs: Tensors) -> Tensors:
        """See WeightOnlyFormat."""
        _, network = read_weight_only_onnx(data)
        return evaluate_outputs(network, inputs)

    def kernels(self, data: bytes) -> Mapping[str, str]:
        """See WeightOnlyFormat."""
        return ort.node_kernels(data)


@dataclass(frozen=True)
class TfliteWeights(TfliteFile):
    """TFLite and LiteRT; its own images are NHWC, its token ids int32."""

    def write(self, network: Network, plan: WeightOnlyPlan) -> bytes:
        """See WeightOnlyFormat."""
        return write_weight_only_tflite(network, plan)

    def read(self, data: bytes) -> Mapping[str, HeldLinear]:
        """See WeightOnlyFormat."""
        return {
            name: HeldLinear(one.values, one.scale, one.carrier)
            for name, one in read_weight_only_tflite(data).items()
        }

    def run(self, data: bytes, inputs: Tensors) -> Tensors:
        """See WeightOnlyFormat."""
        laid = {name: _laid(values) for name, values in inputs.items()}
        return {
            name: values.transpose(0, 3, 1, 2) if values.ndim == 4 else values
            for name, values in litert.run(data, laid).items()
        }

    @property
    def on_floats(self) -> str:
        """See WeightOnlyFormat."""
        return self.runtime

    def run_products(self, data: bytes, inputs: Tensors) -> Tensors:
        """See WeightOnlyFormat."""
        return self.run(with_products(data), inputs)

    def kernels(self, data: bytes) -> Mapping[str, str]:
        """See WeightOnlyFormat."""
        return {
            name.removesuffix(WEIGHT): kernel
            for name, kernel in litert.weight_kernels(data).items()
        }


def _laid(values: AnyArray) -> AnyArray:
    if values.dtype.kind == "i":
        return values.astype(np.int32)
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values


FORMATS: Mapping[str, WeightOnlyFormat] = {"onnx": OnnxWeights(), "tflite": TfliteWeights()}


def weights_alone(fmt: WeightOnlyFormat, data: bytes) -> Mapping[str, HeldLinear]:
    """By layer, the linears of a file whose weights alone are integers; empty of other files."""
    try:
        return fmt.read(data)
    except GraphError:
        return {}


@dataclass(frozen=True)
class PlannedLinear:
    """What plan.json says of a layer's weight. digest: of its integers [O, I], as spec.record's."""

    bits: int
    scale: Float32Array
    digest: str
    carriers: Mapping[str, str]

    @classmethod
    def of(cls, layer: LowBitLinear) -> PlannedLinear:
        """Of a plan's own layer."""
        carriers = {key: layer.carrier(key).value for key in FORMATS}
        return cls(layer.bits, layer.scale, digest(layer.values), carriers)


def compare_weights(
    fmt: WeightOnlyFormat,
    held: Mapping[str, HeldLinear],
    planned: Mapping[str, PlannedLinear],
    network: Network,
) -> tuple[dict[str, Int8Array], tuple[str, str] | None]:
    """The file's integers by layer in the network's order, [O, I]; and the first that is not so.

    The latter as (layer, what differs), None where all are the plan's. network: that the plan is
    of; where it flattens an image, the .tflite file has the columns in the order of H, W, C.
    """
    nodes = linears(network)
    found: dict[str, Int8Array] = {}
    for name in (*planned, *(held.keys() - planned.keys())):
        if name not in planned or name not in nodes:
            return found, (name, "the file has integers for it, and the plan has none")
        if name not in held:
            return found, (name, "the file has no integers for it")
        wanted, one = planned[name], held[name]
        if one.carrier.value != wanted.carriers.get(fmt.key):
            return found, (name, f"its weight is stored as {one.carrier.value}")
        if not np.array_equal(one.scale, wanted.scale):
            return found, (name, "its scales are others")
        orders = [one.values]
        if fmt.key == "tflite":
            orders += [_from_hwc(one.values, image) for image in flattened_images(nodes[name])]
        fitting = [values for values in orders if digest(values) == wanted.digest]
        if not fitting:
            return found, (name, "its integers are others")
        found[name] = fitting[0]
    return found, None


def _from_hwc(values: Int8Array, image: tuple[int, int, int]) -> Int8Array:
    """Columns [O, C*H*W] back from the order of H, W, C."""
    channels, height, width = image
    blocks = values.reshape(-1, height, width, channels)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 2).reshape(values.shape))
