"""Bits of weights and their storage, as options name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploykit.errors import ConfigError, UsageError
from deploykit.quantize.bits import WEIGHT_BITS, WeightBits
from deploykit.spec.carriers import OLDEST_ORT, CarrierOptions, TfliteLowbit, Version

DEFAULT = "default"
"""Key of a [bits] table: of every layer that it does not name."""
FORM = "NAME=4 or NAME=float, once for each layer"
FLOAT = "float"
"""In place of a layer's bits: it stays in float."""


def merged_bits(stated: object, given: object) -> object:
    """`bits` of export.toml below those given otherwise: a number leaves the file's layers be."""
    if isinstance(stated, Mapping) and given is not None and not isinstance(given, Mapping):
        return {**stated, DEFAULT: given}
    return stated if given is None else given


def default_of(bits: object) -> object:
    """What layers get that a table does not name: default_of({"conv1": 4}) -> 8"""
    return bits.get(DEFAULT, 8) if isinstance(bits, Mapping) else bits


def weight_bits(bits: object, layer_bits: object) -> WeightBits:
    """bits: a number, or a table of them by layer. layer_bits: the same, or ["conv1=4", ...].

    A layer's may be "float" too.
    """
    table = dict(bits) if isinstance(bits, Mapping) else {DEFAULT: bits}
    default = _number(table.pop(DEFAULT, 8), "--bits ")
    layers = {str(name): _held(value, f"[bits] {name} = ") for name, value in table.items()}
    named: Mapping[Any, Any]
    if isinstance(layer_bits, Mapping):
        named = layer_bits
    else:
        listed = [layer_bits] if isinstance(layer_bits, str) else layer_bits or ()
        named = _once([_pair(entry) for entry in _entries(listed)])
    layers |= {str(name): _held(value, f"--layer-bits {name}=") for name, value in named.items()}
    return WeightBits(
        default,
        {name: bits for name, bits in layers.items() if bits is not None},
        frozenset(name for name, bits in layers.items() if bits is None),
        {name: f"[bits] {name} = {value}" for name, value in table.items() if name not in named},
    )


def carrier_options(
    min_ort: object, lowbit: TfliteLowbit, formats: Sequence[str]
) -> CarrierOptions:
    """Which storage forms are left."""
    if min_ort is not None and "onnx" not in formats:
        raise ConfigError(
            "--min-ort is about model.onnx, and --to leaves it out; leave --min-ort out too"
        )
    if lowbit is not TfliteLowbit.FAST and "tflite" not in formats:
        raise ConfigError(
            "--tflite-lowbit is about model.tflite, and --to leaves it out; leave --tflite-lowbit "
            "out too"
        )
    return CarrierOptions(None if min_ort is None else _version(min_ort), lowbit)


def _version(stated: object) -> Version:
    if isinstance(stated, Version):
        return stated
    try:
        # A number of TOML has lost its zeros: 1.20 is 1.2.
        found = Version.parse(stated) if isinstance(stated, str) else None
    except ValueError:
        found = None
    if found is None:
        raise UsageError(f'--min-ort {stated}: give a release such as "1.23", in quotes')
    if found < OLDEST_ORT:
        raise UsageError(
            f"--min-ort {stated}: {OLDEST_ORT} is the oldest release that files were tried on"
        )
    return found


def _entries(listed: object) -> Sequence[str]:
    if isinstance(listed, Sequence) and all(isinstance(entry, str) for entry in listed):
        return listed
    raise UsageError(f"--layer-bits {listed}: give {FORM}")


def _once(pairs: Sequence[tuple[str, int | str]]) -> dict[str, int | str]:
    named: dict[str, int | str] = {}
    for name, bits in pairs:
        if named.setdefault(name, bits) != bits:
            raise UsageError(
                f"--layer-bits {name}={named[name]} and {name}={bits}: name each layer once"
            )
    return named


def _pair(entry: str) -> tuple[str, int | str]:
    name, equals, bits = entry.rpartition("=")
    if not name or not equals or not (bits.isdecimal() or bits == FLOAT):
        raise UsageError(f"--layer-bits {entry}: give {FORM}")
    return name, FLOAT if bits == FLOAT else int(bits)


def _held(value: object, where: str) -> int | None:
    """Bits of one layer, None of one that stays in float."""
    if value == FLOAT:
        return None
    try:
        return _number(value, where)
    except UsageError as error:
        raise UsageError(f"{error}, or stay in {FLOAT}") from None


def _number(value: object, where: str) -> int:
    """where: what stands before the value on a command line, or in the file."""
    if isinstance(value, int) and not isinstance(value, bool) and value in WEIGHT_BITS:
        return value
    if value == FLOAT:
        raise UsageError(
            f"{where}{value}: that leaves nothing to quantize; name the layers that stay in float: "
            f"--layer-bits NAME={FLOAT}"
        )
    known = ", ".join(map(str, WEIGHT_BITS))
    raise UsageError(f"{where}{value}: weights are quantized to {known} bits")
