"""Every opset in one spelling: each operator against ONNX Runtime on the file as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from deploykit.errors import GraphError
from deploykit.graph.opset import NEWEST, SPELLING, modernize, opset_of
from deploykit.runtime.single_pass import run_once
from deploykit.spec.arrays import AnyArray
from tests.onnx_files import Sizes, file, node, normal

OPSETS = range(9, 24)
GONE = {"Upsample"}


@dataclass(frozen=True)
class Case:
    """One operator that reads `x`, and constants of its own."""

    operator: str
    constants: dict[str, AnyArray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: str = "y"
    shape: tuple[int, ...] = (2, 4, 6, 6)
    inputs: str | None = None


def whole(*numbers: int) -> AnyArray:
    return np.array(numbers, np.int64)


def cases(opset: int) -> Iterator[Case]:
    """Operators in the spelling of an opset."""
    yield from spelled_alike()
    yield from (reductions_by_attribute() if opset < 18 else reductions_by_input())
    if opset < 13:
        yield Case("Unsqueeze", attributes={"axes": [0, 3]})
        yield Case("Squeeze", attributes={"axes": [1]}, shape=(2, 1, 3))
        yield Case("Split", attributes={"axis": 1, "split": [1, 3]}, outputs="y z")
        yield Case("Split", attributes={"axis": 1}, outputs="y z")
        yield Case("ReduceSum", attributes={"axes": [2, 3], "keepdims": 0})
        yield Case("Softmax", attributes={"axis": 1})
        yield Case("LogSoftmax")
    else:
        yield Case("Unsqueeze", {"axes": whole(0, 3)})
        yield Case("Squeeze", {"axes": whole(1)}, shape=(2, 1, 3))
        yield Case("Split", {"split": whole(1, 3)}, {"axis": 1}, "y z")
        parts = {"num_outputs": 2} if opset >= 18 else {}
        yield Case("Split", attributes={"axis": 1, **parts}, outputs="y z")
        yield Case("ReduceSum", {"axes": whole(2, 3)}, {"keepdims": 0})
        yield Case("Softmax", attributes={"axis": 1})
    yield Case("Dropout", attributes={"ratio": 0.3} if opset < 12 else {})
    if opset < 11:
        yield Case("Clip", attributes={"min": -0.5, "max": 0.5})
        yield Case("Clip", attributes={"max": 0.5})
        yield Case("Pad", attributes={"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.5})
        yield Case("Pad", attributes={"pads": [0, 0, 1, 1, 0, 0, 1, 1], "mode": "reflect"})
    else:
        low, high = np.array(-0.5, np.float32), np.array(0.5, np.float32)
        yield Case("Clip", {"low": low, "high": high})
        yield Case("Clip", {"high": high}, inputs="x - high")
        yield Case("Pad", {"pads": whole(0, 0, 1, 2, 0, 0, 0, 1), "value": high})
    if opset < 10:
        yield Case("Slice", attributes={"starts": [1, 2], "ends": [3, 9], "axes": [1, 3]})
    else:
        yield Case("Slice", {"a": whole(1, 5), "b": whole(3, -9), "c": whole(1, 3),
                             "d": whole(1, -2)})  # fmt: skip
    yield from resizes(opset)
    if opset >= 14:
        yield Case("HardSwish")
    if opset >= 17:
        yield Case("LayerNormalization", {"scale": normal(6), "bias": normal(6)})
    if opset >= 20:
        yield Case("Gelu")


def spelled_alike() -> Iterator[Case]:
    """Operators that every opset writes in the same way."""
    pads = {"pads": [1, 1, 1, 1]}
    yield Case("Conv", {"w": normal(6, 2, 3, 3), "b": normal(6)}, {**pads, "group": 2})
    yield Case("ConvTranspose", {"w": normal(4, 3, 2, 2)}, {"strides": [2, 2]})
    statistics = {"m": normal(4), "v": abs(normal(4)) + 1}
    yield Case("BatchNormalization", {"s": normal(4), "b": normal(4), **statistics})
    for operator in ("Relu", "Sigmoid", "Tanh", "Softplus", "Erf", "HardSigmoid", "LeakyRelu",
                     "Elu", "Exp", "Abs", "GlobalAveragePool", "Flatten", "Identity"):  # fmt: skip
        yield Case(operator)
    window = {"kernel_shape": [3, 3], "strides": [2, 2], **pads}
    yield Case("MaxPool", attributes=window)
    yield Case("AveragePool", attributes={**window, "count_include_pad": 1})
    yield Case("Gemm", {"w": normal(10, 5), "b": normal(5)}, shape=(2, 10))
    yield Case("MatMul", {"w": normal(6, 5)})
    for operator in ("Add", "Sub", "Mul", "Div"):
        yield Case(operator, {"w": abs(normal(1, 4, 1, 1)) + 1})
    yield Case("PRelu", {"w": normal(4, 1, 1)})
    yield Case("Concat", attributes={"axis": 1}, inputs="x x")
    yield Case("Gather", {"i": whole(3, 1)}, {"axis": 1})
    yield Case("Transpose", attributes={"perm": [0, 2, 1, 3]})
    yield Case("Reshape", {"s": whole(0, -1)})
    yield Case("DepthToSpace", attributes={"blocksize": 2})
    yield Case("SpaceToDepth", attributes={"blocksize": 2})
    yield Case("InstanceNormalization", {"s": normal(4), "b": normal(4)})


def reductions_by_attribute() -> Iterator[Case]:
    for operator in ("ReduceMean", "ReduceMax", "ReduceL2"):
        yield Case(operator, attributes={"axes": [2, 3], "keepdims": 0})
        yield Case(operator)


def reductions_by_input() -> Iterator[Case]:
    for operator in ("ReduceMean", "ReduceMax", "ReduceL2"):
        yield Case(operator, {"axes": whole(2, 3)}, {"keepdims": 0})


def resizes(opset: int) -> Iterator[Case]:
    grown, shrunk = np.array([1, 1, 2, 2.5], np.float32), np.array([1, 1, 0.5, 0.7], np.float32)
    if opset < 10:
        yield Case("Upsample", {"scales": grown}, {"mode": "linear"})
        yield Case("Upsample", {"scales": grown}, {"mode": "nearest"})
        return
    if opset == 10:
        for scales in (grown, shrunk):
            yield Case("Resize", {"scales": scales}, {"mode": "linear"})
            yield Case("Resize", {"scales": scales}, {"mode": "nearest"})
        return
    roi = np.zeros(8, np.float32)
    yield Case("Resize", {"roi": roi, "scales": grown}, {"mode": "linear"})
    aligned = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    yield Case("Resize", {"roi": roi, "scales": np.array([], np.float32),
                          "sizes": whole(2, 4, 9, 5)}, aligned)  # fmt: skip


def model_of(case: Case, opset: int) -> onnx.ModelProto:
    inputs = case.inputs or " ".join(["x", *case.constants])
    nodes = [node(case.operator, inputs, case.outputs, **case.attributes)]
    sizes: dict[str, Sizes] = {"x": ["N", *case.shape[1:]]}
    return file(nodes, case.constants, sizes, dict.fromkeys(case.outputs.split()), opset)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_operator_computes_what_it_did_in_its_own_opset(opset: int) -> None:
    for case in cases(opset):
        model = model_of(case, opset)
        modern = modernize(Path("net.onnx"), model)
        assert opset_of(modern) == max(opset, SPELLING)
        assert not GONE & {node.op_type for node in modern.graph.node}
        inputs = {"x": normal(*case.shape, seed=7)}
        before = run_once(model.SerializeToString(), inputs)
        after = run_once(modern.SerializeToString(), inputs)
        for name, values in before.items():
            np.testing.assert_allclose(
                after[name], values, rtol=1e-5, atol=1e-6, err_msg=f"{case.operator} {opset}"
            )


@pytest.mark.parametrize("opset", [8, NEWEST + 1])
def test_an_opset_out_of_range_is_refused(opset: int) -> None:
    model = model_of(Case("Relu"), 9)
    model.opset_import[0].version = opset
    with pytest.raises(GraphError, match=f"has opset {opset}, and opsets 9 to {NEWEST} are read"):
        modernize(Path("net.onnx"), model)


def test_a_softmax_over_the_last_axis_stays_one_operator() -> None:
    modern = modernize(Path("n"), model_of(Case("Softmax", attributes={"axis": 3}), 11))
    assert [node.op_type for node in modern.graph.node] == ["Softmax"]


def test_an_old_resize_of_computed_scales_is_refused() -> None:
    nodes = [node("Exp", "s", "scales"), node("Resize", "x scales", "y", mode="nearest")]
    model = file(nodes, {}, {"x": [1, 1, 4, 4], "s": [4]}, {"y": None}, 10)
    with pytest.raises(GraphError, match="Resize 'y' of opset 10 computes its scales"):
        modernize(Path("net.onnx"), model)


def test_local_functions_are_inlined_and_the_model_given_stays_as_it_was() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 15, "local" : 1]>
        g (float[N,3] x) => (float[N,3] y) { y = local.twice(x) }
        <domain: "local", opset_import: ["" : 15]> twice (a) => (b) { b = Add(a, a) }
        """
    )
    before = model.SerializeToString()
    modern = modernize(Path("net.onnx"), model)
    assert [node.op_type for node in modern.graph.node] == ["Add"]
    assert not modern.functions
    assert model.SerializeToString() == before


def test_the_bodies_of_a_condition_are_brought_up_too() -> None:
    model = parser.parse_model(
        """
        <ir_version: 4, opset_import: ["" : 9]>
        g (float[2,3] x, bool c) => (float[2,3] y) {
          y = If (c) <then_branch = t () => (float[2,3] a) { a = Clip<min = 0.0, max = 1.0>(x) },
                      else_branch = e () => (float[2,3] b) { b = Neg(x) }>
        }
        """
    )
    modern = modernize(Path("net.onnx"), model)
    inputs = {"x": normal(2, 3), "c": np.array(True)}
    assert np.array_equal(
        run_once(modern.SerializeToString(), inputs)["y"], np.clip(inputs["x"], 0, 1)
    )
