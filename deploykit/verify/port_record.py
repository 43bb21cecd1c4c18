"""What manifest.json says of inputs and outputs: how a program feeds and reads the files."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from deploykit.emit.tflite_layout import TfliteLayout, port_shape
from deploykit.spec.network import static_shape
from deploykit.spec.quantized import UINT8_SHIFT, IoType, Port, QuantizedNetwork

ELEMENTS = {IoType.FLOAT: "float32", IoType.INT8: "int8", IoType.UINT8: "uint8"}


def port_record(port: Port, network: QuantizedNetwork, layout: TfliteLayout) -> dict[str, Any]:
    """Shape by file, element type, quantization.

    For integer types, q = round(real / scale) + zero_point, held inside the type. Whole numbers
    have no scale; they lie from 0 to below `below`.
    """
    if port.tensor in network.indices:
        held = network.indices[port.tensor]
        return {
            "name": port.name, "dtype": held.dtype,
            "tflite_dtype": "int32" if port in network.inputs else held.dtype,
            "shape": list(held.shape), "tflite_shape": list(port_shape(held.shape, layout)),
            "below": held.limit,
        }  # fmt: skip
    tensor, dtype = network.tensors[port.tensor], ELEMENTS[network.io]
    quantization: dict[str, Any] = {}
    if network.io is not IoType.FLOAT:
        shift = UINT8_SHIFT if network.io is IoType.UINT8 else 0
        quantization = {
            "scale": tensor.quantization.scale,
            "zero_point": tensor.quantization.zero_point + shift,
        }
    return {
        "name": port.name,
        "dtype": dtype,
        "tflite_dtype": dtype,
        "shape": list(tensor.shape),
        "tflite_shape": list(port_shape(tensor.shape, layout)),
        **quantization,
    }


def float_port_record(value: ir.Value, layout: TfliteLayout) -> dict[str, Any]:
    """The same of an input or output that is float32, or whole numbers, in both files."""
    shape = static_shape(value) or ()
    element = "float32" if value.dtype is None else value.dtype.numpy().name
    return {
        "name": str(value.name), "dtype": element,
        "tflite_dtype": element if element == "float32" else "int32",
        "shape": list(shape), "tflite_shape": list(port_shape(shape, layout)),
    }  # fmt: skip
