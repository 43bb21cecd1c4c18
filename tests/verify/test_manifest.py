"""A manifest edited by hand, every hash mended: verify names the field and what the files give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deploykit
from deploykit.errors import DataError
from deploykit.runtime import litert, ort
from deploykit.spec.parity import Verdict
from tests.exported import CHECKPOINT, copy_of, mend, save

Edit = Callable[[Any], None]


@pytest.fixture(scope="module")
def made(sample_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with ports of integers, at a temperature."""
    out = tmp_path_factory.mktemp("manifest") / "bundle"
    return deploykit.export(
        CHECKPOINT, config=sample_config, out=out, io="uint8", temperature=1.3
    ).path


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path)


def edit(bundle: Path, change: Edit, file: str = "manifest.json") -> None:
    record = json.loads((bundle / file).read_bytes())
    change(record)
    (bundle / file).write_text(json.dumps(record), encoding="utf-8")
    mend(bundle)


def failures(bundle: Path, **options: Any) -> list[str]:
    report = deploykit.verify_bundle(bundle, **options)
    return [step.detail for step in report.steps if step.verdict is Verdict.FAILED]


def put(*keys: str | int, value: Any) -> Edit:
    def change(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


EDITS: dict[str, Edit] = {
    "inputs[0].scale": put("inputs", 0, "scale", value=0.5),
    "inputs[0].zero_point": put("inputs", 0, "zero_point", value=7),
    "inputs[0].dtype": put("inputs", 0, "dtype", value="int8"),
    "inputs[0].tflite_dtype": put("inputs", 0, "tflite_dtype", value="float32"),
    "inputs[0].shape[1]": put("inputs", 0, "shape", 1, value=3),
    "inputs[0].tflite_shape[3]": put("inputs", 0, "tflite_shape", 3, value=3),
    "inputs[0].name": put("inputs", 0, "name", value="image"),
    "inputs[0].below": put("inputs", 0, "below", value=10),
    "outputs[0].scale": put("outputs", 0, "scale", value=None),
    "outputs[0].zero_point": put("outputs", 0, "zero_point", value=0),
    "outputs": put("outputs", value=[]),
    "io": put("io", value="float"),
    "batch": put("batch", value="dynamic"),
    "min_onnxruntime": put("min_onnxruntime", value="1.10"),
    "min_litert": put("min_litert", value="2.9"),
    "metadata.mean[0]": put("metadata", "mean", 0, value=127.5),
    "metadata.labels": put("metadata", "labels", value=11),
    "calibration.method": put("calibration", "method", value="minmax"),
    "calibration.samples": put("calibration", "samples", value=512),
    "sizes.model.onnx": put("sizes", "model.onnx", value=10),
    "stored.model.tflite.weight_bytes": put("stored", "model.tflite", "weight_bytes", value=10),
    "stored.model.tflite.deflated_bytes": put("stored", "model.tflite", "deflated_bytes", value=10),
    "int16_pairs.target": put("int16_pairs", "target", value="any"),
    "int16_pairs.overflowing": put("int16_pairs", "overflowing", value=[]),
    "int16_pairs.narrowed": put("int16_pairs", "narrowed", value=3),
    "layers.view.macs": put("layers", 4, "macs", value=3),
    "removal.parameters_after": put("removal", "parameters_after", value=4),
    "layers.conv1.bits": put("layers", 0, "bits", value=4),
    "layers.conv1.sqnr_db": put("layers", 0, "sqnr_db", value=99.0),
    "layers.conv1.channels_after": put("layers", 0, "channels_after", value=1),
    "layers.conv1.macs": put("layers", 0, "macs", value=4),
    "layers.conv1.operator": put("layers", 0, "operator", value="Linear"),
    "layers.conv1.output_scale": put("layers", 0, "output_scale", value=1.0),
    "layers.conv1.weight_scale_max": put("layers", 0, "weight_scale_max", value=1.0),
    "layers.conv1.stored.onnx.carrier": put("layers", 0, "stored", "onnx", "carrier", value="int4"),
    "temperature.value": put("temperature", "value", value=1.31),
}


def test_the_bundle_as_it_was_holds(made: Path) -> None:
    assert failures(made) == []


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_field_is_named(
    field: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtimes stay out, which have nothing to do with it."""
    for runtime in (ort, litert):
        monkeypatch.setattr(runtime, "version", lambda: None)
    edit(bundle, EDITS[field])
    (detail,) = failures(bundle)
    assert detail.startswith(f"{field}: manifest.json says ")
    assert " gives " in detail


def test_the_sentence_says_what_both_say(bundle: Path) -> None:
    edit(bundle, put("min_onnxruntime", value="1.10"))
    assert failures(bundle) == [
        'min_onnxruntime: manifest.json says "1.10", and model.onnx gives "1.20"'
    ]


def test_the_temperature_is_told_from_the_recorded_outputs(bundle: Path) -> None:
    edit(bundle, put("temperature", "value", value=2.0))
    assert failures(bundle) == [
        "temperature.value: manifest.json says 2.0, and golden.npz gives 1.3"
    ]


@pytest.mark.parametrize("stated", [None, {"value": "hot"}, {"value": -1.3}])
def test_a_temperature_that_is_none_fails(stated: Any, bundle: Path) -> None:
    edit(bundle, put("temperature", value=stated))
    (detail,) = failures(bundle)
    assert detail.startswith("temperature.value: manifest.json says ")


def test_a_temperature_that_nobody_recorded_fails(sample_bundle: Path, tmp_path: Path) -> None:
    bundle = copy_of(sample_bundle, tmp_path)
    edit(bundle, put("temperature", value={"value": 1.3}))
    (detail,) = failures(bundle)
    assert detail.endswith("says the temperature 1.3, and golden.npz records none")


def test_a_scale_that_a_float_port_has_not_fails(sample_bundle: Path, tmp_path: Path) -> None:
    bundle = copy_of(sample_bundle, tmp_path)
    edit(bundle, put("inputs", 0, "scale", value=0.1))
    assert failures(bundle) == [
        "inputs[0].scale: manifest.json says 0.1, and model.onnx gives nothing"
    ]


@pytest.mark.parametrize("stated", [3, None, [4], "x", [{"no": "name"}]])
def test_layers_that_are_none_fail(stated: Any, bundle: Path) -> None:
    edit(bundle, put("layers", value=stated))
    assert len(failures(bundle)) == 1


def test_without_the_data_accuracy_is_unchecked_and_said_so(made: Path) -> None:
    report = deploykit.verify_bundle(made)
    (step,) = [one for one in report.steps if one.verdict is Verdict.UNCHECKED]
    assert step.detail.startswith("accuracy and confidence on labelled samples")
    assert report.complete
    assert not report.failed


def test_a_bundle_without_labels_has_nothing_unchecked(sample_config: Path, tmp_path: Path) -> None:
    plain = _unlabelled(sample_config, tmp_path)
    bundle = deploykit.export(CHECKPOINT, config=sample_config, out=tmp_path / "b", eval_data=plain)
    report = deploykit.verify_bundle(bundle.path)
    assert Verdict.UNCHECKED not in {step.verdict for step in report.steps}
    with pytest.raises(DataError, match="the bundle states no accuracy"):
        deploykit.verify_bundle(bundle.path, eval_data=sample_config.parent / "test-2000.npz")


def _unlabelled(config: Path, folder: Path) -> Path:
    with np.load(config.parent / "test-2000.npz") as stored:
        return save(folder / "unlabelled.npz", inputs=stored["inputs"])


ANSWERS: dict[str, Edit] = {
    "accuracy.samples": put("accuracy", "samples", value=2000),
    "accuracy.pruned": put("accuracy", "pruned", value=0.5),
    "accuracy.model.onnx": put("accuracy", "model.onnx", value=0.9999),
    "accuracy.model.tflite": put("accuracy", "model.tflite", value=None),
    "confidence.samples": put("confidence", "samples", value=3),
    "confidence.stages.model.onnx.ece": put(
        "confidence", "stages", "model.onnx", "ece", value=0.001
    ),
    "temperature.nll_after": put("temperature", "nll_after", value=0.001),
    "temperature.ece_before": put("temperature", "ece_before", value=0.001),
    "temperature.before.model.onnx.nll": put(
        "temperature", "before", "model.onnx", "nll", value=0.001
    ),
}


@pytest.mark.parametrize("field", ANSWERS)
def test_with_the_data_accuracy_is_measured_again(
    field: str, bundle: Path, sample_config: Path
) -> None:
    data = sample_config.parent / "test-2000.npz"
    assert failures(bundle, eval_data=data) == []
    edit(bundle, ANSWERS[field])
    assert failures(bundle) == []
    (detail,) = failures(bundle, eval_data=data)
    assert detail.startswith(f"{field}: manifest.json says ")
    assert "and the data give" in detail


def test_data_without_labels_are_refused(made: Path, sample_config: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no `labels`"):
        deploykit.verify_bundle(made, eval_data=_unlabelled(sample_config, tmp_path))
