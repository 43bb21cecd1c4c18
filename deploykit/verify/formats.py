"""The two file formats, each as its writer, its independent reader, its probe and its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, assert_never

import numpy as np

from deploykit.emit.onnx_probe import probe_onnx
from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_layout import (
    TfliteLayout,
    from_tflite_layout,
    ports_from_tflite_layout,
    tensor_names,
    to_tflite_layout,
)
from deploykit.emit.tflite_probe import probe_tflite
from deploykit.emit.tflite_reader import read_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.inputs import GraphInputs, named_inputs
from deploykit.spec.operators import Operator, renamed
from deploykit.spec.quantized import IoType, Port, QuantizedNetwork, as_int8, as_uint8
from deploykit.verify.batches import in_batches
from deploykit.verify.file_format import FileFormat, OnnxFile, TfliteFile
from deploykit.verify.saturation import sums_for


class Format(FileFormat, Protocol):
    """A format of integer networks."""

    def write(self, network: QuantizedNetwork) -> bytes:
        """The file."""
        ...

    def read(self, data: bytes) -> QuantizedNetwork:
        """The integer network in a file, by a reader that shares no operator code with write."""
        ...

    def run_all(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """Every activation int8 NCHW by tensor name, as the runtime computes it."""
        ...

    def run_outputs(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """The graph's outputs by port name, NCHW, in the file's element type."""
        ...

    def kernels(self, data: bytes, network: QuantizedNetwork) -> Mapping[str, str | None]:
        """Which kernel of the runtime computes each tensor."""
        ...


@dataclass(frozen=True)
class OnnxFormat(OnnxFile):
    """ONNX and ONNX Runtime. Inputs by port name: float32, or int8 already quantized."""

    def write(self, network: QuantizedNetwork) -> bytes:
        """See Format."""
        return write_onnx(network)

    def read(self, data: bytes) -> QuantizedNetwork:
        """See Format."""
        return read_onnx(data)

    def run_all(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """See Format."""
        run = partial(ort.run_probe, probe_onnx(data), sums=sums_for(network))
        tensors = in_batches(network.batch, run, inputs)
        given = {**inputs, **tensors}
        found = {name: tensors[name] for name in network.tensors if name in tensors}
        whole = {name: given[name] for name in network.indices if name in given}
        return {**found, **whole}

    def run_outputs(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """See Format."""
        if network.io is IoType.UINT8:
            inputs = {
                name: as_uint8(values) if values.dtype == np.int8 else values
                for name, values in inputs.items()
            }
        run = partial(ort.run, data, sums=sums_for(network))
        return in_batches(network.batch, run, inputs)

    def kernels(self, data: bytes, network: QuantizedNetwork) -> Mapping[str, str | None]:
        """See Format."""
        return ort.kernels(data)


@dataclass(frozen=True)
class TfliteFormat(TfliteFile):
    """TFLite and LiteRT. Inputs by port name: float32, or int8 already quantized."""

    layout: TfliteLayout = TfliteLayout.NHWC

    def write(self, network: QuantizedNetwork) -> bytes:
        """See Format."""
        return write_tflite(network, self.layout)

    def read(self, data: bytes) -> QuantizedNetwork:
        """See Format."""
        return read_tflite(data)

    def run_all(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """See Format."""
        laid = to_tflite_layout(network, inputs, self.layout)
        names = {port.name for port in (*network.inputs, *network.outputs)}
        names.update(tensor_names(network, self.layout).values())
        probe = probe_tflite(data)

        def run(given: Tensors) -> Tensors:
            # Inside of a rearrangement samples may lie along any axis.
            found = litert.run_probe(probe, given)
            return {name: values for name, values in found.items() if name in names}

        return from_tflite_layout(network, in_batches(network.batch, run, laid), self.layout)

    def run_outputs(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """See Format."""
        laid = to_tflite_layout(network, inputs, self.layout)
        outputs = in_batches(network.batch, partial(litert.run, data), laid)
        return ports_from_tflite_layout(network, outputs, self.layout)

    def kernels(self, data: bytes, network: QuantizedNetwork) -> Mapping[str, str | None]:
        """See Format."""
        by_name = litert.kernels(data)
        names = tensor_names(network, self.layout)
        return {tensor: by_name.get(name) for tensor, name in names.items()}


@dataclass(frozen=True)
class WrittenRunner:
    """An IntegerRunner: writes a network, runs the file in its runtime, reads every tensor."""

    format: Format

    @property
    def name(self) -> str:
        """The runtime."""
        return self.format.runtime

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        """See IntegerRunner."""
        return self.format.run_all(self.format.write(network), network, inputs)


def port_inputs(network: QuantizedNetwork, inputs: GraphInputs) -> Tensors:
    """What a file of `network` takes for samples, by port name: floats, or integers."""
    match network.io:
        case IoType.FLOAT:
            return named_inputs(inputs, [port.name for port in network.inputs])
        case IoType.INT8 | IoType.UINT8:
            return quantized_inputs(network, inputs)
        case _:
            assert_never(network.io)


def quantized_inputs(network: QuantizedNetwork, inputs: GraphInputs) -> dict[str, AnyArray]:
    """Samples as the integers of the network's inputs, by port name; whole numbers stay."""
    given = named_inputs(inputs, [port.name for port in network.inputs])
    return {
        port.name: given[port.name]
        if port.tensor in network.indices
        else network.tensors[port.tensor].quantization.quantize(given[port.name])
        for port in network.inputs
    }


def real_output(network: QuantizedNetwork, port: Port, outputs: Tensors) -> AnyArray:
    """An output in real values, whatever element type the file gives it; whole numbers stay."""
    values = outputs[port.name]
    if port.tensor in network.indices:
        return values
    quantization = network.tensors[port.tensor].quantization
    if values.dtype == np.uint8:
        return quantization.dequantize(as_int8(values))
    return quantization.dequantize(values) if values.dtype == np.int8 else values


def named_as_planned(network: QuantizedNetwork, plan: Mapping[str, Any]) -> QuantizedNetwork:
    """A network read from a file, its ports' tensors and its operators named as in plan.json.

    A .tflite file has no operator names, and calls an integer port's tensor by its public name.
    """
    ports = {**plan["network"]["inputs"], **plan["network"]["outputs"]}
    planned = {
        port.tensor: ports[port.name]
        for port in (*network.inputs, *network.outputs)
        if port.name in ports and ports[port.name] not in network.tensors
    }

    def name(tensor: str) -> str:
        return str(planned.get(tensor, tensor))

    def operator(found: Operator) -> Operator:
        output = name(found.output)
        return renamed(found, str(plan["names"].get(output, found.name)), name)

    return QuantizedNetwork(
        {name(key): replace(tensor, name=name(key)) for key, tensor in network.tensors.items()},
        tuple(operator(found) for found in network.operators),
        tuple(Port(port.name, name(port.tensor)) for port in network.inputs),
        tuple(Port(port.name, name(port.tensor), port.tail) for port in network.outputs),
        network.io,
        network.constants,
        network.batch,
        network.indices,
        network.min_ort,
    )


def formats_for(names: tuple[str, ...], layout: TfliteLayout) -> tuple[Format, ...]:
    """The formats by their names on the command line."""
    known: dict[str, Format] = {"onnx": OnnxFormat(), "tflite": TfliteFormat(layout)}
    return tuple(known[name] for name in names)
