"""The probe returns every integer activation and is fused like the file it was made from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from deploykit.emit.onnx_probe import probe_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.errors import GraphError
from deploykit.runtime import ort
from deploykit.spec.quantized import IoType
from deploykit.spec.stem import Runtime, stems_as_blocks
from tests.suite.cases import CASES, Case


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_probe_runs_the_same_kernels(case: Case, io: IoType) -> None:
    data = write_onnx(case.network(io))
    assert ort.kernels(probe_onnx(data)) == ort.kernels(data)


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_integer_activation_is_returned(case: Case, io: IoType) -> None:
    network = case.network(io)
    tensors = ort.run_probe(probe_onnx(write_onnx(network)), case.inputs())
    written, _ = stems_as_blocks(network, Runtime.ONNXRUNTIME)
    answers = {port.tensor for port in network.outputs if port.tensor in network.indices}
    assert set(tensors) == set(written.tensors) | answers
    np.testing.assert_array_equal(tensors["x0"], case.inputs()["input"])
    for name, values in tensors.items():
        assert values.dtype == (network.indices[name].dtype if name in answers else np.int8)
        assert values.shape[1:] == written.shape(name)[1:]


def test_the_files_own_outputs_come_first_and_the_nodes_stay() -> None:
    data = write_onnx(CASES[0].network())
    before, after = onnx.load_from_string(data), onnx.load_from_string(probe_onnx(data))
    assert [value.name for value in after.graph.output] == ["output", "x0", "x1"]
    assert list(after.graph.node) == list(before.graph.node)
    assert list(after.graph.initializer) == list(before.graph.initializer)


def test_probing_twice_changes_nothing() -> None:
    probe = probe_onnx(write_onnx(CASES[0].network()))
    assert probe_onnx(probe) == probe


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(GraphError, match="not an ONNX file"):
        probe_onnx(b"\xff\xff\xff")
