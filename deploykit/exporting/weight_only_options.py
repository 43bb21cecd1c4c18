"""Options that say how activations become integers, and have nothing to say where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from deploykit.errors import ConfigError, UsageError
from deploykit.exporting.bit_targets import AUTO
from deploykit.exporting.weight_bits import default_of
from deploykit.spec.pairs import Target
from deploykit.spec.weight_only import BITS, BLOCK_SIZES, Activations

LEFT_OUT: Mapping[str, tuple[tuple[object, ...], str]] = {
    "io": (("float",), "inputs and outputs are float32 then"),
    "temperature": ((), "it is folded into the scales of integers, and there are none behind the "
                        "last layer; divide the logits in the app"),
    "temperature_data": ((), "there is no temperature then"),
    "equalization": (("none",), "a scale per output has nothing to gain from it"),
    "calibration": (("mse",), "no range of an activation is chosen"),
    "bias_correction": (("means",), "no bias is changed: the moments that guide rounding are about "
                                    "zero"),
    "rounding": (("auto", "compensated", "nearest"), "weights are rounded layer by layer on the "
                                                     "float network: compensated or nearest"),
    "batch": (("fixed",), "the float writer of model.tflite fixes the batch; give that of "
                          "--input-shape"),
    "tflite_layout": (("nhwc",), "model.tflite takes images as NHWC"),
    "tflite_lowbit": (("fast",), "it is about convolutions"),
    "min_ort": ((), "the file is the same for all: MatMulNBits of 4 bits was tried from 1.20 "
                    "on, of 8 bits from 1.23 on"),
    "max_bytes": ((), "bits are not allocated"),
    "target_bits": ((), "bits are not allocated"),
    "max_accuracy_drop": ((), "bits are not allocated"),
    "sensitivity": (("auto",), "bits are not allocated"),
}  # fmt: skip
"""By option, the values that go with float activations, and why others do not."""


def block_size(stated: object, activations: Activations) -> int | None:
    """Inputs that share a scale; "none", and None: all of an output."""
    if stated is None or stated == "none":
        return None
    if activations is not Activations.FLOAT:
        raise ConfigError(
            f"--block-size {stated}: kernels take a scale for each block of weights with "
            "--activations float alone; add that, or leave it out"
        )
    sizes = {str(size): size for size in BLOCK_SIZES}
    if str(stated) not in sizes:
        raise UsageError(f"--block-size {stated}: choose one of {', '.join(sizes)}, or none")
    return sizes[str(stated)]


def check_weight_only(values: Mapping[str, Any]) -> None:
    """Raise ConfigError naming the first option that float activations leave nothing to do for."""
    for option, (allowed, why) in LEFT_OUT.items():
        value = values.get(option)
        stated = value.value if isinstance(value, Enum) else value
        if value is not None and stated not in allowed:
            raise ConfigError(
                f"--{option.replace('_', '-')} {stated} does not go with --activations float: "
                f"{why}; leave one of them out"
            )
    target = values.get("target")
    if target in {*Target, *(member.value for member in Target)}:
        stated = target.value if isinstance(target, Target) else target
        raise ConfigError(
            f"--target {stated} does not go with --activations float: it is about sums of "
            "quantized activations; leave one of them out"
        )
    bits = default_of(values.get("bits", BITS[-1]))
    if bits == AUTO or bits not in BITS:
        raise ConfigError(
            f"--bits {bits} does not go with --activations float, whose kernels take weights of "
            f"{' or '.join(map(str, BITS))} bits; choose one of them"
        )
