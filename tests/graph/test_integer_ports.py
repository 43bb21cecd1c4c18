"""Inputs and outputs of integers as floats: the same function of the real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploykit.graph.quantized.integer_ports import float_ports
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray

SCALE = 0.25


def model(kind: str, zero_point: int | None, **wanted: Any) -> onnx.ModelProto:
    """x -> DequantizeLinear -> Relu -> QuantizeLinear -> y; x and y of `kind`."""
    grid = ["scale"] if zero_point is None else ["scale", "zero"]
    elements = getattr(TensorProto, kind.upper())
    nodes = [
        helper.make_node("DequantizeLinear", ["x", *grid], ["real"]),
        helper.make_node("Relu", ["real"], ["relu"]),
        helper.make_node("QuantizeLinear", ["relu", "scale", "zero"], ["y"]),
    ]
    if wanted.get("read_again"):
        nodes.append(helper.make_node("DequantizeLinear", ["y", "scale", "zero"], ["again"]))
    initializers = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [SCALE]),
        helper.make_tensor("zero", elements, [], [zero_point or 0]),
    ]
    outputs = [helper.make_tensor_value_info("y", elements, [1, 256])]
    if wanted.get("read_again"):
        outputs.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, [1, 256]))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", elements, [1, 256])], outputs, initializers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(given: onnx.ModelProto, values: AnyArray) -> dict[str, AnyArray]:
    return ort.run(given.SerializeToString(), {"x": values})


@pytest.mark.parametrize(("kind", "zero_point"), [("int8", -3), ("uint8", 117), ("int8", None)])
@pytest.mark.parametrize("read_again", [True, False])
def test_they_compute_the_same_of_real_numbers(
    kind: str, zero_point: int | None, read_again: bool
) -> None:
    source = model(kind, zero_point, read_again=read_again)
    before = source.SerializeToString()
    changed = float_ports(source)
    onnx.checker.check_model(changed, full_check=True)
    assert source.SerializeToString() == before
    limits = np.iinfo(kind)
    integers = np.arange(limits.min, limits.max + 1, dtype=kind)[None]

    def real(values: AnyArray) -> AnyArray:
        return np.asarray((values.astype(np.float32) - (zero_point or 0)) * SCALE, np.float32)

    wanted, found = run(source, integers), run(changed, real(integers))
    np.testing.assert_array_equal(found["y"], real(wanted["y"]))
    if read_again:
        np.testing.assert_array_equal(found["again"], wanted["again"])


def test_what_others_read_stays_as_it_is() -> None:
    source = model("uint8", 3)
    source.graph.node.insert(0, helper.make_node("Cast", ["x"], ["copy"], to=TensorProto.INT32))
    source.graph.output.append(helper.make_tensor_value_info("copy", TensorProto.INT32, [1, 256]))
    changed = float_ports(source)
    kinds = [port.type.tensor_type.elem_type for port in changed.graph.input]
    assert kinds == [TensorProto.UINT8]
    assert changed.graph.output[1].type.tensor_type.elem_type == TensorProto.INT32


def test_integers_that_are_moved_first_are_on_the_grid_behind() -> None:
    source = model("uint8", 3)
    source.graph.node[0].input[0] = "turned"
    source.graph.node.insert(0, helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 1]))
    changed = float_ports(source)
    assert changed.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.checker.check_model(changed, full_check=True)


def test_float_models_come_back_themselves() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    source = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:]))
    assert float_ports(source) is source
