"""Every operator case at a batch of three, and with a batch that is dynamic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_flatbuffer import pack_model
from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.emit.tflite_reader import read_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.errors import GraphError
from deploykit.reference import integer
from deploykit.runtime import litert, ort
from deploykit.spec.operators import Island, Rearrange
from deploykit.spec.quantized import Batch, IoType, QuantizedNetwork
from deploykit.spec.record import first_difference, record_network
from deploykit.verify.batches import in_batches
from deploykit.verify.formats import Format, OnnxFormat, TfliteFormat
from tests.suite.cases import CASES, Case, ids_of
from tests.suite.runners import RUNNERS, computed
from tests.suite.test_round_trips import named, without_idle_pads

WITHOUT_BODIES = [
    case
    for case in CASES
    if not any(isinstance(one, Island | Rearrange) for one in case.network().operators)
]
"""Cases without the float graph's own nodes, whose sizes are those of one sample."""

FORMATS: tuple[Format, ...] = (OnnxFormat(), TfliteFormat(), TfliteFormat(TfliteLayout.NCHW))


def inputs_of(case: Case, samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(samples)
    drawn = rng.integers(-128, 128, (samples, *case.shape)).astype(np.int8)
    return {"input": drawn, **ids_of(case.network(), samples, rng)}


def dynamic(case: Case, io: IoType = IoType.INT8) -> QuantizedNetwork:
    return replace(case.network(io), batch=Batch.DYNAMIC)


def case_of(name: str) -> Case:
    (found,) = (case for case in CASES if case.name == name)
    return found


@pytest.mark.parametrize("runner", ["ort", "litert"])
@pytest.mark.parametrize("case", WITHOUT_BODIES, ids=lambda case: case.name)
def test_a_fixed_batch_of_three(case: Case, runner: str) -> None:
    network, inputs = case.network(batch=3), inputs_of(case, 6)
    expected = computed(network, integer.run(network, inputs))
    found = computed(network, RUNNERS[runner]()(network, inputs))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dynamic_batch_of_one_three_and_two(case: Case) -> None:
    network, inputs = dynamic(case), inputs_of(case, 6)
    expected = computed(network, integer.run(network, inputs))
    for fmt in FORMATS:
        found = computed(network, fmt.run_all(fmt.write(network), network, inputs))
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=f"{fmt}: {name}")


@pytest.mark.parametrize("io", list(IoType))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_dynamic_batch_comes_back(case: Case, io: IoType) -> None:
    network = without_idle_pads(dynamic(case, io))
    for found in (read_onnx(write_onnx(network)), read_tflite(write_tflite(network))):
        record = record_network(named(found, network))
        assert first_difference(record_network(network), record) is None
        assert found.batch is Batch.DYNAMIC


def test_the_files_themselves_take_any_number_of_samples() -> None:
    """Through the runtimes alone: one call each."""
    case = case_of("lenet")
    network, inputs = dynamic(case, IoType.FLOAT), inputs_of(case, 5)
    real = {"input": network.tensors["x0"].quantization.dequantize(inputs["input"])}
    nhwc = {"input": np.ascontiguousarray(real["input"].transpose(0, 2, 3, 1))}
    data = write_tflite(network)
    (onnx_output,) = ort.run(write_onnx(network), real).values()
    (tflite_output,) = litert.run(data, nhwc).values()
    assert onnx_output.shape == (5, 10)
    np.testing.assert_array_equal(onnx_output, tflite_output)
    assert set(litert.kernels(data).values()) == {"XNNPACK"}


@pytest.mark.parametrize(
    ("samples", "sizes"), [(1, [1]), (2, [1, 1]), (6, [1, 3, 2]), (70, [1, 3, 64, 2])]
)
def test_samples_run_alone_three_together_and_then_many(samples: int, sizes: list[int]) -> None:
    seen: list[int] = []

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(len(inputs["x"]))
        return {"y": inputs["x"] + 1}

    values = np.arange(samples)
    found = in_batches(Batch.DYNAMIC, run, {"x": values})  # type: ignore[arg-type]
    assert seen == sizes
    np.testing.assert_array_equal(found["y"], values + 1)


def with_tflite(name: str, edit: Callable[[object], None]) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(bytearray(write_tflite(dynamic(case_of(name)))))
    edit(model)
    return pack_model(model)


def fix_parameter(name: str) -> Callable[[object], None]:
    """Make a constant of shapes or sizes state one sample."""

    def edit(model: object) -> None:
        subgraph = model.subgraphs[0]  # type: ignore[attr-defined]
        (tensor,) = (one for one in subgraph.tensors if one.name == name.encode())
        buffer = model.buffers[tensor.buffer]  # type: ignore[attr-defined]
        numbers = np.frombuffer(bytes(bytearray(buffer.data)), np.int32).copy()
        numbers[0] = 1
        buffer.data = np.frombuffer(numbers.tobytes(), np.uint8)

    return edit


@pytest.mark.parametrize(
    ("case", "parameter", "told"),
    [
        ("flatten", "shape", "fixed number of samples of a dynamic batch"),
        ("slice-channels", "size", "fixed number of samples of a dynamic batch"),
    ],
)
def test_a_parameter_that_states_a_number_of_samples_is_refused(
    case: str, parameter: str, told: str
) -> None:
    with pytest.raises(GraphError, match=told):
        read_tflite(with_tflite(case, fix_parameter(parameter)))


def test_a_stepping_slice_that_states_its_end_is_refused() -> None:
    def edit(model: object) -> None:
        operators = model.subgraphs[0].operators  # type: ignore[attr-defined]
        operators[0].builtinOptions.endMask = 0

    with pytest.raises(GraphError, match="fixed number of samples of a dynamic batch"):
        read_tflite(with_tflite("slice-rows-step", edit))


@pytest.mark.parametrize(
    ("signature", "told"),
    [(None, "dynamic in some"), ([-1, -1, 8, 8], "the batch alone is dynamic")],
)
def test_a_tflite_file_that_is_dynamic_in_part_is_refused(
    signature: list[int] | None, told: str
) -> None:
    def edit(model: object) -> None:
        tensors = model.subgraphs[0].tensors  # type: ignore[attr-defined]
        tensors[0].shapeSignature = None if signature is None else np.array(signature, np.int32)

    with pytest.raises(GraphError, match=told):
        read_tflite(with_tflite("clamp", edit))


def test_an_onnx_file_that_is_dynamic_in_part_is_refused() -> None:
    model = onnx.load_from_string(write_onnx(dynamic(case_of("residual"))))
    value = model.graph.value_info[0]
    shape = [1, *(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])]
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.UINT8, shape))
    with pytest.raises(GraphError, match="has a fixed batch in a file whose batch is dynamic"):
        read_onnx(model.SerializeToString())
