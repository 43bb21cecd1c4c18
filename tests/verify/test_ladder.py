"""The ladder on a whole bundle, and on bundles that were changed with every hash mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema

import deploykit
from deploykit.emit.tflite_flatbuffer import pack_model
from deploykit.errors import DeploykitError, IntegrityError
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.parity import ParityReport, Step, Verdict
from tests.exported import copy_of, mend, save
from tests.verify.tampering import ONNX, TFLITE, change, state_in_plan

FLOAT, GOLDEN, PLAN, MANIFEST = "model.float.onnx", "golden.npz", "plan.json", "manifest.json"


@pytest.fixture
def bundle(sample_bundle: Path, tmp_path: Path) -> Path:
    """The sample's bundle, to change."""
    return copy_of(sample_bundle, tmp_path)


def step_of(report: ParityReport, compared: str) -> Step:
    (found,) = [step for step in report.steps if step.compared == compared]
    return found


def failed_steps(report: ParityReport) -> set[int]:
    return {step.number for step in report.steps if step.verdict is Verdict.FAILED}


def change_golden(bundle: Path, edit: Callable[[dict[str, AnyArray]], None]) -> None:
    with np.load(bundle / GOLDEN) as stored:
        arrays = {name: stored[name].copy() for name in stored.files}
    edit(arrays)
    save(bundle / GOLDEN, **arrays)
    mend(bundle)


def change_json(path: Path, edit: Callable[[Any], None]) -> None:
    record = json.loads(path.read_bytes())
    edit(record)
    path.write_text(json.dumps(record), encoding="utf-8")
    mend(path.parent)


def test_a_whole_bundle_passes_every_step(sample_bundle: Path) -> None:
    report = deploykit.verify_bundle(sample_bundle)
    assert [(step.number, step.compared) for step in report.steps] == [
        (1, "Bayesian mean forward / folded"),
        (2, "folded and masked / pruned"),
        (3, "float / integer"),
        (4, "model.onnx, read back / plan"),
        (4, "model.onnx, read back / float weights"),
        (4, "model.onnx in the reference / golden"),
        (4, "model.onnx in onnxruntime / reference"),
        (4, "model.tflite, read back / plan"),
        (4, "model.tflite, read back / float weights"),
        (4, "model.tflite in the reference / golden"),
        (4, "model.tflite in litert / reference"),
        (4, "manifest.json / files"),
        (4, "manifest.json / labelled data"),
    ]
    *tried, answers = report.steps
    assert {step.verdict for step in tried} == {Verdict.PASSED}
    assert answers.verdict is Verdict.UNCHECKED
    assert report.complete
    assert not report.failed


def test_the_stage_that_runs_is_announced(sample_bundle: Path) -> None:
    from deploykit.verify.ladder import verify_bundle

    told: list[str] = []
    verify_bundle(sample_bundle, told.append)
    assert told[:2] == ["hashes", "float graph"]
    assert "model.tflite in litert" in told


def test_verifying_writes_nothing(sample_bundle: Path) -> None:
    before = {item: item.stat().st_mtime_ns for item in sample_bundle.iterdir()}
    deploykit.verify_bundle(sample_bundle)
    assert {item: item.stat().st_mtime_ns for item in sample_bundle.iterdir()} == before


@pytest.mark.parametrize("kind", ["weight", "bias", "scale"])
@pytest.mark.parametrize("file", [ONNX, TFLITE])
def test_one_changed_number_fails_at_step_4_and_names_its_operator(
    file: str, kind: str, bundle: Path
) -> None:
    change(bundle, file, kind)
    report = deploykit.verify_bundle(bundle)
    assert failed_steps(report) == {4}
    failures = [step for step in report.steps if step.verdict is Verdict.FAILED]
    assert all(step.compared.startswith(file) for step in failures)
    assert {step.operator for step in failures} == {"conv2"}
    assert all("conv2" in step.detail for step in failures)
    assert f"{file}, read back / plan" in {step.compared for step in failures}


@pytest.mark.parametrize("file", [ONNX, TFLITE])
def test_a_weight_changed_in_the_plan_too_fails_against_the_golden_integers(
    file: str, bundle: Path
) -> None:
    change(bundle, file, "weight")
    state_in_plan(bundle, file)
    report = deploykit.verify_bundle(bundle)
    assert step_of(report, f"{file}, read back / plan").verdict is Verdict.PASSED
    against = step_of(report, f"{file} in the reference / golden")
    assert (against.verdict, against.operator) == (Verdict.FAILED, "conv2")
    assert "operator conv2: integers differ from those recorded at export" in against.detail


def test_a_changed_float_weight_fails_at_step_2(bundle: Path) -> None:
    model = onnx.load(bundle / FLOAT)
    for tensor in model.graph.initializer:
        if tensor.name == "conv2.weight":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values.flat[np.argmax(np.abs(values))] *= 1.01
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, bundle / FLOAT)
    mend(bundle)
    assert 2 in failed_steps(deploykit.verify_bundle(bundle))


def nan_in_one_extreme(arrays: dict[str, AnyArray]) -> None:
    arrays["masked"][-1] = np.nan


def move(name: str, by: float = 1.0) -> Callable[[dict[str, AnyArray]], None]:
    def edit(arrays: dict[str, AnyArray]) -> None:
        arrays[name].flat[0] += np.asarray(by, arrays[name].dtype)

    return edit


def drop(*names: str) -> Callable[[dict[str, AnyArray]], None]:
    def edit(arrays: dict[str, AnyArray]) -> None:
        for name in names:
            del arrays[name]

    return edit


CHANGED_GOLDEN = {
    "the mean forward": (move("mean_forward"), 1),
    "the folded outputs": (move("folded"), 1),
    "the masked outputs": (move("masked"), 2),
    "one extreme is NaN": (nan_in_one_extreme, 2),
    "an inner integer": (move("integers/relu_1"), 4),
    "an output integer": (move("outputs/output_quantized"), 4),
    "an input": (move("inputs", 0.5), 4),
    "a tensor was left out": (drop("integers/relu_1"), 4),
    "tensors were left out but one": (
        drop("integers/relu_1", "integers/relu_2", "integers/relu", "integers/view"), 3
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGED_GOLDEN)
def test_a_changed_golden_file_fails(what: str, bundle: Path) -> None:
    edit, number = CHANGED_GOLDEN[what]
    change_golden(bundle, edit)
    assert number in failed_steps(deploykit.verify_bundle(bundle))


def test_the_last_real_output_counts_as_the_first_does(bundle: Path) -> None:
    def edit(arrays: dict[str, AnyArray]) -> None:
        arrays["outputs/output_quantized"].flat[-1] ^= 1

    change_golden(bundle, edit)
    report = deploykit.verify_bundle(bundle)
    assert step_of(report, "model.onnx in the reference / golden").operator == "fc2"


def test_a_stated_sqnr_that_is_not_measured_fails_at_step_3(bundle: Path) -> None:
    change_json(bundle / MANIFEST, lambda record: record["sqnr_db"].update(relu_1=99.0))
    step = step_of(deploykit.verify_bundle(bundle), "float / integer")
    assert (step.verdict, step.operator) == (Verdict.FAILED, "relu_1")
    assert "where the manifest states 99.0" in step.detail


def test_an_sqnr_that_is_not_stated_fails_at_step_3(bundle: Path) -> None:
    change_json(bundle / MANIFEST, lambda record: record["sqnr_db"].pop("relu_1"))
    assert step_of(deploykit.verify_bundle(bundle), "float / integer").verdict is Verdict.FAILED


def test_the_tflite_layout_belongs_to_the_proof(bundle: Path) -> None:
    change_json(bundle / MANIFEST, lambda record: record.update(tflite_layout="nchw"))
    report = deploykit.verify_bundle(bundle)
    assert step_of(report, "model.tflite in litert / reference").verdict is Verdict.FAILED
    assert step_of(report, "model.onnx in onnxruntime / reference").verdict is Verdict.PASSED


PLANS = {
    "not JSON": "{",
    "of another schema": '{"schema": 2}',
    "without names": '{"schema": 1, "network": {}}',
    "with names that are no table": '{"schema": 1, "names": 3, "network": {}}',
    "without a network": '{"schema": 1, "names": {}}',
    "with a hollow network": '{"schema": 1, "names": {}, "network": {"operators": {"a": {}}}}',
}


@pytest.mark.parametrize("what", PLANS)
def test_an_unreadable_plan_is_named(what: str, bundle: Path) -> None:
    (bundle / PLAN).write_text(PLANS[what], encoding="utf-8")
    mend(bundle)
    with pytest.raises(IntegrityError, match=PLAN):
        deploykit.verify_bundle(bundle)


def test_a_layout_that_does_not_exist_is_named(bundle: Path) -> None:
    change_json(bundle / MANIFEST, lambda record: record.update(tflite_layout="hwcn"))
    with pytest.raises(IntegrityError, match=f"{MANIFEST} states the TFLite layout hwcn"):
        deploykit.verify_bundle(bundle)


@pytest.mark.parametrize(
    ("file", "number"), [(FLOAT, 2), (ONNX, 4), (TFLITE, 4)]
)  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_a_file_that_is_no_model_fails_its_step(
    file: str, number: int, content: bytes, bundle: Path
) -> None:
    (bundle / file).write_bytes(content)
    mend(bundle)
    assert number in failed_steps(deploykit.verify_bundle(bundle))


def test_a_swapped_model_fails(bundle: Path, sample_bundle: Path) -> None:
    (bundle / ONNX).write_bytes((sample_bundle / FLOAT).read_bytes())
    mend(bundle)
    report = deploykit.verify_bundle(bundle)
    assert step_of(report, "model.onnx, read back / plan").verdict is Verdict.FAILED
    assert step_of(report, "model.tflite in litert / reference").verdict is Verdict.PASSED


def test_a_float_model_of_another_shape_fails_at_step_2(bundle: Path) -> None:
    model = onnx.load(bundle / FLOAT)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 30
    onnx.save(model, bundle / FLOAT)
    mend(bundle)
    assert 2 in failed_steps(deploykit.verify_bundle(bundle))


@pytest.mark.parametrize("file", [FLOAT, ONNX, TFLITE, GOLDEN, PLAN, MANIFEST])
def test_random_damage_with_mended_hashes_never_ends_in_a_bug(
    file: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtimes stay out: a damaged file may crash their native code."""
    for runtime in (ort, litert):
        monkeypatch.setattr(runtime, "version", lambda: None)
    generator = np.random.default_rng(0)
    data = (bundle / file).read_bytes()
    for _ in range(6):
        damaged = bytearray(data)
        for position in generator.integers(0, len(data), 3):
            damaged[position] = int(generator.integers(0, 256))
        (bundle / file).write_bytes(damaged)
        mend(bundle)
        try:
            deploykit.verify_bundle(bundle)
        except DeploykitError as error:
            assert file in str(error)


def test_missing_runtimes_are_skipped_and_named(
    sample_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert, "version", lambda: None)
    report = deploykit.verify_bundle(sample_bundle)
    assert not report.failed
    assert not report.complete
    step = step_of(report, "model.tflite in litert / reference")
    assert step.verdict is Verdict.SKIPPED
    assert "litert cannot be imported here; install it and verify again" in step.detail


@pytest.mark.parametrize("file", [ONNX, TFLITE])
def test_integers_that_are_not_the_float_weights_rounded_fail_whatever_the_plan_states(
    file: str, bundle: Path
) -> None:
    change(bundle, file, "bias")
    state_in_plan(bundle, file)
    against = step_of(deploykit.verify_bundle(bundle), f"{file}, read back / float weights")
    assert against.verdict is Verdict.FAILED
    assert against.operator == "conv2"


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("nearest", "steps from its float value, where 0.5 are allowed"),
        ("upwards", "plan.json names no known rounding ('upwards' is not a valid Rounding)"),
        (None, "plan.json names no known rounding"),
    ],
)
def test_weights_lie_no_farther_than_the_stated_rounding_moves_them(
    stated: str | None, told: str, bundle: Path
) -> None:
    change_json(bundle / PLAN, lambda plan: plan.update(rounding=stated))
    report = deploykit.verify_bundle(bundle)
    for file in (ONNX, TFLITE):
        step = step_of(report, f"{file}, read back / float weights")
        assert step.verdict is Verdict.FAILED
        assert told in step.detail


@pytest.mark.parametrize("file", [ONNX, TFLITE])
def test_a_weight_that_is_not_its_float_value_rounded_fails_whatever_the_plan_states(
    file: str, bundle: Path
) -> None:
    change(bundle, file, "weight")
    state_in_plan(bundle, file)
    against = step_of(deploykit.verify_bundle(bundle), f"{file}, read back / float weights")
    assert against.verdict is Verdict.FAILED
    assert against.operator == "conv2"


def test_a_plan_that_leaves_something_out_is_a_difference(bundle: Path) -> None:
    def forget_weights(plan: Any) -> None:
        for operator in plan["network"]["operators"].values():
            operator.pop("weight", None)

    change_json(bundle / "plan.json", forget_weights)
    report = deploykit.verify_bundle(bundle)
    assert step_of(report, f"{ONNX}, read back / plan").verdict is Verdict.FAILED


def test_weights_kept_in_another_file_are_refused(bundle: Path) -> None:
    model = onnx.load(bundle / ONNX)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (bundle / ONNX).write_bytes(model.SerializeToString())
    mend(bundle)
    report = deploykit.verify_bundle(bundle)
    refused, sizes = [step for step in report.steps if step.verdict is Verdict.FAILED]
    assert sizes.detail.startswith("sizes.model.")
    assert "in another file" in refused.detail


def test_an_output_that_only_callers_by_index_would_get_is_refused(bundle: Path) -> None:
    model = schema.ModelT.InitFromPackedBuf((bundle / TFLITE).read_bytes(), 0)
    graph = model.subgraphs[0]
    inner = int(graph.operators[-1].inputs[0])
    graph.outputs = np.array([inner, *graph.outputs], np.int32)
    (bundle / TFLITE).write_bytes(pack_model(model))
    mend(bundle)
    report = deploykit.verify_bundle(bundle)
    refused, sizes = [step for step in report.steps if step.verdict is Verdict.FAILED]
    assert sizes.detail.startswith("sizes.model.")
    assert "by name and by index" in refused.detail
