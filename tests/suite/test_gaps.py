"""The table of gaps says what the installed runtimes do: a row that is closed, or new, fails."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.operators import Island, Lookup, Operator, Rearrange
from deploykit.verify.formats import Format, OnnxFormat, TfliteFormat
from tests.suite.cases import CASES
from tests.suite.gaps import FLOAT_IN_ORT, GAPS, IN_FLOAT, LITERT, ORT

FORMATS: dict[str, Format] = {ORT: OnnxFormat(), LITERT: TfliteFormat(TfliteLayout.NHWC)}
VERSIONS = {ORT: ort.version, LITERT: litert.version}


def kind(operator: Operator) -> str:
    """As the table calls it."""
    name = type(operator).__name__
    return f"{name} {operator.function.value}" if isinstance(operator, Lookup) else name


@pytest.mark.parametrize("runtime", FORMATS)
def test_every_gap_and_no_other_is_in_the_table(runtime: str) -> None:
    if VERSIONS[runtime]() is None:
        pytest.skip(f"{runtime} is not installed")
    form, found = FORMATS[runtime], defaultdict(set)
    for case in CASES:
        network = case.network()
        by_tensor = form.kernels(form.write(network), network)
        for operator in network.operators:
            if isinstance(operator, Island | Rearrange):
                continue  # the float graph's own nodes
            kernel = by_tensor[operator.output]
            if kernel == IN_FLOAT if runtime == ORT else kernel != "XNNPACK":
                found[kind(operator)].add(kernel)
    listed = {
        operator: {gap.kernel for gap in gaps}
        for (where, operator), gaps in GAPS.items()
        if where == runtime
    }
    assert found == listed


def unfused(op_type: str) -> bytes:
    """An operator on real values between uint8 tensors, as quantizers write it."""
    pair = op_type in {"Max", "Min", "PRelu", "Sub"}
    sources = ["x", "y"] if pair else ["x"]
    nodes = [
        helper.make_node("DequantizeLinear", [name, "scale", "zero"], [f"{name}_real"])
        for name in sources
    ]
    read = [f"{name}_real" for name in sources]
    read += ["axis"] if op_type == "ReduceMean" else []
    nodes.append(helper.make_node(op_type, read, ["z_real"]))
    nodes.append(helper.make_node("QuantizeLinear", ["z_real", "scale", "zero"], ["z"]))
    shape = (1, 2, 4, 4)
    result = (1, 2, 1, 4) if op_type == "ReduceMean" else shape
    held: dict[str, AnyArray] = {
        "scale": np.array(0.02, np.float32), "zero": np.array(7, np.uint8),
        "axis": np.array([2], np.int64),
    }  # fmt: skip
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in sources],
        [helper.make_tensor_value_info("z", TensorProto.UINT8, result)],
        [numpy_helper.from_array(array, name) for name, array in held.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@pytest.mark.skipif(ort.version() is None, reason="onnxruntime is not installed")
@pytest.mark.parametrize("op_type", FLOAT_IN_ORT)
def test_onnxruntime_still_leaves_it_in_float(op_type: str) -> None:
    assert ort.kernels(unfused(op_type))["z"] == IN_FLOAT, FLOAT_IN_ORT[op_type]


@pytest.mark.skipif(ort.version() is None, reason="onnxruntime is not installed")
def test_an_operator_that_is_fused_is_seen_to_be() -> None:
    assert ort.kernels(unfused("Sigmoid"))["z"] == "QLinearSigmoid"
