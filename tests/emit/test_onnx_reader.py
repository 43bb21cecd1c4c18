"""The reader gives back what the writer wrote, and refuses what it does not understand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.errors import GraphError, UnsupportedOperatorError
from deploykit.reference import integer
from deploykit.spec.operators import Conv, Island, Rearrange
from deploykit.spec.quantized import IoType, Port, QuantizedNetwork
from tests.suite.building import Builder
from tests.suite.cases import CASES, Case, square
from tests.suite.comparing import assert_same_network


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_round_trip(case: Case, io: IoType) -> None:
    network = case.network(io)
    read = read_onnx(write_onnx(network))
    assert_same_network(read, network)
    if any(isinstance(one, Island | Rearrange) for one in network.operators):
        return  # what they compute is not read back, but run: see tests/test_island_export.py
    inputs = case.inputs()
    expected = integer.run(network, inputs)
    for name, values in integer.run(read, inputs).items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("io", list(IoType))
def test_round_trip_where_ports_and_tensors_share_names(io: IoType) -> None:
    network = replace(_network(), inputs=(Port("x0", "x0"),), outputs=(Port("x2", "x1"),), io=io)
    assert_same_network(read_onnx(write_onnx(network)), network)


def test_round_trip_of_a_weight_of_four_bits() -> None:
    network = _network()
    (conv,) = (operator for operator in network.operators if isinstance(operator, Conv))
    weight = replace(conv.weight, values=np.clip(conv.weight.values, -7, 7), bits=4)
    narrow = replace(network, operators=(replace(conv, weight=weight), *network.operators[1:]))
    assert_same_network(read_onnx(write_onnx(narrow)), narrow)


def _network() -> QuantizedNetwork:
    build = Builder(np.random.default_rng(5), (1, 4, 6, 6))
    hidden = build.conv(build.input, 6, square(3, pad=1))
    return build.network(build.max_pool(hidden, square(2, 2)))


def _edited(edit: Callable[[onnx.GraphProto], object]) -> bytes:
    model = onnx.load_from_string(write_onnx(_network()))
    edit(model.graph)
    return bytes(model.SerializeToString())


def _node(graph: onnx.GraphProto, op_type: str) -> onnx.NodeProto:
    found: list[onnx.NodeProto] = [node for node in graph.node if node.op_type == op_type]
    (node,) = found
    return node


def _set(graph: onnx.GraphProto, ending: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (constant,) = (entry for entry in graph.initializer if entry.name.endswith(ending))
    values = change(numpy_helper.to_array(constant))
    constant.CopyFrom(numpy_helper.from_array(values, constant.name))


def test_an_operator_without_integer_form_is_refused_by_name() -> None:
    def edit(graph: onnx.GraphProto) -> None:
        _node(graph, "MaxPool").op_type = "LpPool"

    with pytest.raises(UnsupportedOperatorError, match=r"LpPool 'pool_x2'.*Conv"):
        read_onnx(_edited(edit))


def test_a_bias_on_another_scale_is_refused() -> None:
    with pytest.raises(GraphError, match=r"bias .* input scale times weight scale"):
        read_onnx(_edited(lambda graph: _set(graph, "bias.scale", lambda v: v * np.float32(2))))


def test_an_asymmetric_weight_is_refused() -> None:
    with pytest.raises(GraphError, match="symmetric"):
        read_onnx(
            _edited(lambda graph: _set(graph, "weight_0.zero_point", lambda v: v + np.int8(1)))
        )


def test_an_unknown_attribute_is_refused() -> None:
    def edit(graph: onnx.GraphProto) -> None:
        attribute = helper.make_attribute("auto_pad", "SAME_UPPER")
        _node(graph, "Conv").attribute.append(attribute)

    with pytest.raises(GraphError, match=r"Conv 'conv_x1' has the attribute 'auto_pad'"):
        read_onnx(_edited(edit))


def test_an_unquantized_tensor_is_refused() -> None:
    def edit(graph: onnx.GraphProto) -> None:
        conv = _node(graph, "Conv")
        relu = helper.make_node("Relu", [conv.output[0]], ["relu"], name="relu")
        graph.node.insert(len(graph.node) - 1, relu)

    with pytest.raises(GraphError, match="exactly one QuantizeLinear"):
        read_onnx(_edited(edit))


@pytest.mark.parametrize("data", [b"", b"no onnx file", b"\x08\x08\x3a\xff"])
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError):
        read_onnx(data)
