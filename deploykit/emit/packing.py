"""Integers of 4 or 2 bits in bytes, as ONNX and TFLite both have them: the first one lowest."""

from __future__ import annotations

import numpy as np

from deploykit.errors import GraphError
from deploykit.spec.arrays import Int8Array, UInt8Array
from deploykit.spec.carriers import Carrier
from deploykit.spec.quantized import int_range


def pack(values: Int8Array, carrier: Carrier) -> UInt8Array:
    """[ceil(n / per_byte)], the last byte filled up with zeros. pack([1, -1], INT4) -> [0xf1]"""
    low, high = int_range(carrier.bits)
    if values.size and (values.min() < low or values.max() > high):
        raise ValueError(
            f"{carrier.value} holds {low} to {high}, not {values.min()} to {values.max()}"
        )
    codes = values.reshape(-1).view(np.uint8) & np.uint8((1 << carrier.bits) - 1)
    filled = np.concatenate([codes, np.zeros(-codes.size % carrier.per_byte, np.uint8)])
    places = (np.arange(carrier.per_byte) * carrier.bits).astype(np.uint8)
    lifted = filled.reshape(-1, carrier.per_byte) << places
    return np.asarray(np.bitwise_or.reduce(lifted, axis=1), np.uint8)


def check_width(reader: str, name: str, values: Int8Array, bits: int) -> None:
    """Raise GraphError where a file's weight exceeds the bits that the file states for it."""
    if not 2 <= bits <= 8:
        raise GraphError(
            f"{reader}: the weight {name!r} is stated to have {bits} bits, not 2 to 8."
        )
    low, high = int_range(bits)
    if values.size and (values.min() < low or values.max() > high):
        raise GraphError(
            f"{reader}: the weight {name!r} is stated to have {bits} bits, and holds "
            f"{values.min()} to {values.max()}; write the file again."
        )


def byte_table(carrier: Carrier) -> Int8Array:
    """[256, per_byte], the integers in every byte. byte_table(INT4)[0xf1] -> [1, -1]"""
    places = np.arange(carrier.per_byte) * carrier.bits
    codes = np.arange(256)[:, None] >> places & ((1 << carrier.bits) - 1)
    half = 1 << (carrier.bits - 1)
    return np.asarray((codes ^ half) - half, np.int8)
