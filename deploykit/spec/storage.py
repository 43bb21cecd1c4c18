"""What the weights of a written network take, and which kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.spec.carriers import Carrier, Layer, Version, layer_kind, row_of
from deploykit.spec.operators import Conv, Linear

BITS_PER_BYTE = 8


@dataclass(frozen=True)
class Storage:
    """One weight in one format. kernel: that computes the layer, by the table of carriers.

    file_bytes: of its integers in the file. memory_bytes: of them as the kernel reads them. exact:
    whether the kernel rounds as the reference does. since: the oldest release that has it, where
    int8 asks for none.
    """

    carrier: Carrier
    kernel: str
    file_bytes: int
    memory_bytes: int
    exact: bool
    since: Version | None


def kind_of(operator: Conv | Linear) -> Layer:
    """As the table of carriers tells layers apart."""
    shape = operator.weight.values.shape
    if isinstance(operator, Linear):
        return layer_kind(shape, plain=True)
    window = operator.window
    plain = window.strides == (1, 1) and not any(window.pads)
    return layer_kind(shape, plain, operator.groups)


def storage_of(fmt: str, operator: Conv | Linear) -> Storage:
    """fmt: "onnx" or "tflite". Raises QuantizationError where no kernel is known to take it."""
    held = operator.weight
    carrier = held.carriers.of(fmt)
    row = row_of(fmt, carrier, kind_of(operator))
    kernel = row.kernels[kind_of(operator)]
    memory = -(-held.values.size * row.memory_bits // BITS_PER_BYTE)
    size = carrier.size_bytes(held.values.size)
    return Storage(carrier, kernel, size, memory, row.exact, row.since)
