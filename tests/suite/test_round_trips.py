"""Every operator case comes back out of both files as it went in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_reader import read_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.spec.operators import Conv, MaxPool
from deploykit.spec.quantized import IoType, QuantizedNetwork, Tail
from deploykit.spec.record import first_difference, record_network
from deploykit.verify.formats import named_as_planned
from tests.suite.cases import CASES, Case


def named(found: QuantizedNetwork, network: QuantizedNetwork) -> QuantizedNetwork:
    plan = {
        "network": record_network(network),
        "names": {operator.output: operator.name for operator in network.operators},
    }
    return named_as_planned(found, plan)


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_onnx_file_comes_back(case: Case, io: IoType) -> None:
    network = case.network(io)
    found = named(read_onnx(write_onnx(network)), network)
    assert first_difference(record_network(network), record_network(found)) is None
    assert [one.name for one in found.operators] == [one.name for one in network.operators]


def with_softmax(tail: Tail | None = Tail.SOFTMAX) -> QuantizedNetwork:
    (case,) = (case for case in CASES if case.name == "lenet")
    network = case.network()
    (port,) = network.outputs
    return replace(network, outputs=(replace(port, tail=tail),))


@pytest.mark.parametrize(
    ("write", "read"), [(write_onnx, read_onnx), (write_tflite, read_tflite)],
    ids=["onnx", "tflite"],
)  # fmt: skip
@pytest.mark.parametrize("tail", list(Tail))
def test_a_softmax_behind_the_last_integers_comes_back(
    write: Callable[[QuantizedNetwork], bytes],
    read: Callable[[bytes], QuantizedNetwork],
    tail: Tail,
) -> None:
    network = without_idle_pads(with_softmax(tail))
    found = named(read(write(network)), network)
    assert first_difference(record_network(network), record_network(found)) is None
    assert found.outputs[0].tail is tail
    without = record_network(without_idle_pads(with_softmax(None)))
    assert first_difference(without, record_network(found)) is not None


def without_idle_pads(network: QuantizedNetwork) -> QuantizedNetwork:
    """Without the padding that no window reaches, for which TFLite has no place."""
    operators = []
    for operator in network.operators:
        if isinstance(operator, Conv | MaxPool):
            window = operator.window
            sizes = network.tensors[operator.input].shape[2:]
            results = network.tensors[operator.output].shape[2:]
            ends = [
                max(0, (result - 1) * stride + (kernel - 1) * dilation + 1 - begin - size)
                for size, result, stride, kernel, dilation, begin in zip(
                    sizes, results, window.strides, window.kernel, window.dilations,
                    window.pads[:2], strict=True,
                )
            ]  # fmt: skip
            pads = (*window.pads[:2], ends[0], ends[1])
            operator = replace(operator, window=replace(window, pads=pads))
        operators.append(operator)
    return replace(network, operators=tuple(operators))


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_tflite_file_comes_back(case: Case, io: IoType) -> None:
    network = without_idle_pads(case.network(io))
    found = named(read_tflite(write_tflite(network)), network)
    assert first_difference(record_network(network), record_network(found)) is None
    assert [one.name for one in found.operators] == [one.name for one in network.operators]
