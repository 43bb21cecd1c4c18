"""Every way to run an integer network, each as an IntegerRunner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from deploykit.emit.onnx_probe import probe_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_layout import from_tflite_layout, to_tflite_layout
from deploykit.emit.tflite_probe import probe_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import Int8Array, Tensors
from deploykit.spec.quantized import IntegerRunner, IoType, QuantizedNetwork


@dataclass(frozen=True)
class OrtRunner:
    """The written ONNX file in ONNX Runtime, in its fused form."""

    name: str = "ort"

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        return ort.run_probe(probe_onnx(write_onnx(network)), inputs)


@dataclass(frozen=True)
class LiteRtRunner:
    """The written TFLite file in LiteRT, with XNNPACK; int8 ports, whatever the network's."""

    name: str = "litert"

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        signed = replace(network, io=IoType.INT8)
        laid = to_tflite_layout(signed, inputs)
        raw = litert.run_probe(probe_tflite(write_tflite(signed)), laid)
        return from_tflite_layout(signed, raw)


RUNNERS: Mapping[str, Callable[[], IntegerRunner]] = {
    "reference": ReferenceRunner,
    "ort": OrtRunner,
    "litert": LiteRtRunner,
}


def computed(network: QuantizedNetwork, tensors: Tensors) -> dict[str, Int8Array]:
    """The outputs of a network's operators, without its inputs."""
    return {operator.output: tensors[operator.output] for operator in network.operators}
