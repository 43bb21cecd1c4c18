"""`--bits auto` and its limits, as options state them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from deploykit.errors import UsageError
from deploykit.spec.allocation import (
    ALLOCATED_BITS,
    AutoBits,
    BitsTarget,
    MaxAccuracyDrop,
    MaxBytes,
    SensitivityChoice,
    TargetBits,
)

AUTO = "auto"
UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}
SIZE = re.compile(r"(\d+(?:\.\d+)?) *([a-z]*)", re.IGNORECASE)
TARGETS = ("max_bytes", "target_bits", "max_accuracy_drop")
OF_AUTO = (*TARGETS, "sensitivity")


def auto_bits(
    bits: object, values: Mapping[str, Any], sensitivity: SensitivityChoice
) -> AutoBits | None:
    """What is to be allocated, None where bits are given. bits: number, table or "auto".

    Raises UsageError where a limit is missing, is one too many, or is none.
    """
    stated = [key for key in TARGETS if values.get(key) is not None]
    if bits != AUTO:
        for key in OF_AUTO:
            if values.get(key) is not None:
                stated_bits = "a table" if isinstance(bits, Mapping) else bits
                instead = (
                    "give --bits auto with it"
                    if values.get("bits") is None
                    else (f"--bits is {stated_bits}; leave one of them out")
                )
                raise UsageError(f"{_flag(key)} belongs to --bits auto: {instead}")
        return None
    if len(stated) != 1:
        told = " and ".join(map(_flag, stated)) or "no limit"
        raise UsageError(
            f"--bits auto needs one limit and got {told}: give --max-bytes 40kB (no model file "
            "larger), --target-bits 4.5 (mean of all weights), or --max-accuracy-drop 0.5 (points "
            "of top-1 on --eval-data)"
        )
    target = _target(stated[0], values[stated[0]])
    if isinstance(target, MaxAccuracyDrop) and values.get("eval_data") is None:
        raise UsageError(
            f"{target} is measured on --eval-data labelled.npz, which is other data than --data"
        )
    return AutoBits(target, sensitivity)


def _target(key: str, value: object) -> BitsTarget:
    if key == "max_bytes":
        return MaxBytes(size_in_bytes(value))
    number = _number(key, value)
    if key == "target_bits":
        low, high = ALLOCATED_BITS[0], ALLOCATED_BITS[-1]
        if not low <= number <= high:
            raise UsageError(f"--target-bits {value}: give a number from {low} to {high}")
        return TargetBits(number)
    if not 0 <= number < 100:
        raise UsageError(f"--max-accuracy-drop {value}: give points of top-1, such as 0.5")
    return MaxAccuracyDrop(number)


def size_in_bytes(value: object) -> int:
    """size_in_bytes("40kB") -> 40000; size_in_bytes("1.5 MiB") -> 1572864"""
    found = SIZE.fullmatch(str(value).strip()) if not isinstance(value, bool) else None
    unit = None if found is None else UNITS.get(found[2].lower())
    size = 0 if found is None or unit is None else int(float(found[1]) * unit)
    if size < 1:
        raise UsageError(f"--max-bytes {value}: give a size such as 40000, 40kB or 1.5MB")
    return size


def _number(key: str, value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{_flag(key)} {value}: give a number")
    return number


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"
