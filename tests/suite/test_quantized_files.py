"""model.onnx of every operator case, exported again: the integers of the first time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.emit.onnx_writer import write_onnx
from deploykit.errors import DeploykitError
from deploykit.graph.normalize import normalize
from deploykit.graph.onnx_admission import check_float_or_quantized
from deploykit.graph.onnx_source import read_onnx
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.plan import QuantPlan
from deploykit.spec.quantized import IoType, QuantizedNetwork, weighted
from deploykit.spec.samples import Samples
from deploykit.verify.integer_form import integer_form
from tests.suite.cases import CASES, Case

REFUSED = {
    "island-choice": "the case's island sums several tensors at once, which no network may",
    "island-softmax": "the same",
    "mish": "functions that ONNX Runtime is slow at are tables of integers",
    "power": "the same",
    "power-five": "the same",
    "softplus": "the same",
    "thresholded": "functions that ONNX Runtime is slow at are tables of integers",
}
"""Cases whose file has operators that compute with integers in a way no float graph says."""

OTHER_OPERATORS = {
    "concat": "what is joined with an input has a sum with zero: an input has its own scale",
    "concat-features": "the same",
    "concat-rows": "the same",
    "maximum": "the same",
    "maximum-channels": "the same",
    "minimum": "the same",
    "minimum-features": "the same",
    "minimum-pixels": "the same",
    "gather-columns": "axes of an image are gathered behind a transposition",
    "gather-features": "the same",
    "gather-last-of-5": "the same",
    "gather-both": "the same",
    "island-of-two": "the island's product of two tensors has integers",
    "mul-constant": "a constant per channel multiplies as a convolution does",
    "pad-leaky": "a bound of integers between two operators of one scale is a sum with zero",
    "rearrange-drop-axes": "a rearrangement that only drops axes is a Flatten",
    "reshape-one-pixel": "a Reshape of more than length 1 is a rearrangement",
    "reshape-split": "the same",
    "reshape-to-image": "the same",
    "reshape-to-rows": "the same",
    **dict.fromkeys(
        (
            "conv-7x7-stem", "conv-7x7-stem-2-bit", "conv-7x7-stem-3-bit", "conv-7x7-stem-4-bit",
            "conv-7x7-stem-6-bit", "pool-between", "tokens", "windows",
        ),
        "a stem is written as blocks of pixels, and stays so",
    ),
}  # fmt: skip
"""Cases that come back in other operators with the same integers at the output."""

OTHER_INTEGERS = {
    "add-constant-channels": "a constant per channel is the bias of a convolution by one",
    "attention": "the island's product of two tensors has integers",
}

NARROW = ("conv-3x3", "linear-of-127", "lenet")
SOME = [
    case
    for case in CASES
    if case.bits == 8 or any(case.name.startswith(f"{name}-") for name in NARROW)
]


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)
def test_a_written_file_comes_back(case: Case, tmp_path: Path) -> None:
    network = case.network()
    path = tmp_path / "model.onnx"
    path.write_bytes(write_onnx(network))
    if case.name in REFUSED:
        with pytest.raises(DeploykitError):
            _again(path, case, network)
        return
    plan, found = _again(path, case, network)
    if case.name in OTHER_INTEGERS:
        return
    expected, given = _output(network, case), _output(found, case)
    np.testing.assert_array_equal(given.reshape(expected.shape), expected)
    if case.name in OTHER_OPERATORS:
        return
    assert [use for use in plan.given if not use.kept] == []
    assert [type(one) for one in found.operators] == [type(one) for one in network.operators]
    assert _quantizations(found) == _quantizations(network)
    for ours, theirs in zip(weighted(found), weighted(network), strict=True):
        np.testing.assert_array_equal(ours.weight.values, theirs.weight.values)
        np.testing.assert_array_equal(ours.weight.scale, theirs.weight.scale)
        np.testing.assert_array_equal(ours.bias, theirs.bias)
        assert ours.weight.bits == theirs.weight.bits


def _again(path: Path, case: Case, network: QuantizedNetwork) -> tuple[QuantPlan, QuantizedNetwork]:
    source = read_onnx(path, None, check_float_or_quantized)
    lowered = integer_form(normalize(source.network))
    quantization = network.tensors[network.inputs[0].tensor].quantization
    values = {
        name: quantization.dequantize(array) if array.dtype == np.int8 else array
        for name, array in case.inputs().items()
    }
    samples = Samples(values if len(values) > 1 else values["input"])
    runners = Runners(ort.evaluate, ReferenceRunner(), ())
    options = QuantizationOptions(io=IoType.UINT8)  # of floats, an input's scale would move
    plan = plan_quantization(lowered, samples, options, runners)
    return plan, apply_plan(lowered, plan)


def _output(network: QuantizedNetwork, case: Case) -> AnyArray:
    (port,) = network.outputs
    return ReferenceRunner()(network, case.inputs())[port.tensor]


def _quantizations(network: QuantizedNetwork) -> list[object]:
    return [
        network.tensors[one.output].quantization
        for one in network.operators
        if one.output in network.tensors
    ]
