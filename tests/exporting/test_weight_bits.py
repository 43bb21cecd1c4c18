"""Bits and carriers as flags, tables and the API give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploykit.errors import ConfigError
from deploykit.exporting.options import build_options
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.options import QuantizationOptions
from deploykit.spec.carriers import CarrierOptions, TfliteLowbit, Version

LEAST = {"model": "m:f", "input_shape": "1,1,8,8", "data": "d.npz"}


def quantization(config: str = "", folder: Path | None = None, **given: Any) -> QuantizationOptions:
    path = None
    if folder is not None:
        path = folder / "export.toml"
        path.write_text(config, encoding="utf-8")
    return build_options({**LEAST, **given}, path).quantization


A = frozenset("a")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, WeightBits(8)),
        ({"bits": 4}, WeightBits(4)),
        ({"bits": 4, "layer_bits": ["a=8", "b.c=2"]}, WeightBits(4, {"a": 8, "b.c": 2})),
        ({"layer_bits": {"a": 3}}, WeightBits(8, {"a": 3})),
        ({"layer_bits": "a=b=3"}, WeightBits(8, {"a=b": 3})),
        ({"bits": {"default": 2, "a": 8}}, WeightBits(2, {"a": 8})),
        ({"bits": {"a": 4}, "layer_bits": ["a=6"]}, WeightBits(8, {"a": 6})),
        (
            {"bits": 4, "layer_bits": ["a=float", "b=8"]},
            WeightBits(4, {"b": 8}, in_float=A),
        ),
        (
            {"bits": {"a": 4}, "layer_bits": {"a": "float"}},
            WeightBits(8, {}, in_float=A),
        ),
        ({"bits": {"a": "float"}, "layer_bits": ["a=8"]}, WeightBits(8, {"a": 8})),
    ],
)
def test_bits_are_a_number_a_table_or_flags(given: dict[str, Any], expected: WeightBits) -> None:
    assert quantization(**given).bits == expected


def test_flags_change_the_default_of_a_table_and_leave_its_layers(tmp_path: Path) -> None:
    table = "[bits]\ndefault = 4\nconv1 = 8\n"
    assert quantization(table, tmp_path).bits == WeightBits(4, {"conv1": 8})
    assert quantization(table, tmp_path, bits=2).bits == WeightBits(2, {"conv1": 8})
    more = quantization(table, tmp_path, layer_bits=["fc=2", "conv1=6"]).bits
    assert more == WeightBits(4, {"conv1": 6, "fc": 2})
    assert quantization("bits = 4\n", tmp_path, bits=2).bits == WeightBits(2)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"bits": 7}, "--bits 7: weights are quantized to 2, 3, 4, 5, 6, 8 bits"),
        ({"bits": "4"}, "--bits 4: weights"),
        ({"bits": True}, "--bits True"),
        ({"bits": {"conv1": 1}}, r"\[bits\] conv1 = 1: weights .* or stay in float"),
        ({"bits": "float"}, "--bits float: that leaves nothing to quantize; name the layers"),
        ({"layer_bits": ["conv1=float32"]}, "--layer-bits conv1=float32: give NAME=4 or"),
        ({"layer_bits": ["conv1=16"]}, "--layer-bits conv1=16: weights"),
        ({"layer_bits": ["conv1"]}, "--layer-bits conv1: give NAME=4"),
        ({"layer_bits": ["c=8", "c=2"]}, "--layer-bits c=8 and c=2: name each layer once"),
        ({"layer_bits": ["=4"]}, "--layer-bits =4: give NAME=4"),
        ({"layer_bits": 4}, "--layer-bits 4: give NAME=4"),
        ({"layer_bits": [4]}, r"--layer-bits \[4\]: give NAME=4"),
        ({"min_ort": 1.2}, "--min-ort 1.2: give a release .* in quotes"),
        ({"min_ort": "new"}, "--min-ort new: give a release"),
        ({"min_ort": "1"}, "--min-ort 1: give a release"),
        ({"min_ort": "1.19"}, "--min-ort 1.19: 1.20 is the oldest release"),
        ({"min_ort": "1.20", "to": "tflite"}, "--min-ort is about model.onnx"),
        ({"tflite_lowbit": "tiny"}, "--tflite-lowbit tiny: choose one of fast, small"),
        ({"tflite_lowbit": "small", "to": "onnx"}, "--tflite-lowbit is about model.tflite"),
    ],
)
def test_what_is_no_width_or_release_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        quantization(**given)


def test_carriers_are_those_of_any_runtime_unless_asked() -> None:
    assert quantization().carriers == CarrierOptions()
    asked = quantization(min_ort="1.23.2", tflite_lowbit="small").carriers
    assert asked == CarrierOptions(Version(1, 23), TfliteLowbit.SMALL)
