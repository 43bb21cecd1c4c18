"""What deserves a second look is said, and nothing is said where all is well."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from deploykit.report.warnings import warnings_of

GOOD: dict[str, Any] = {
    "accuracy": {
        "samples": 100, "folded": 0.90, "pruned": 0.89, "model.onnx": 0.885, "model.tflite": 0.885,
    },
    "layers": [
        {"name": "conv1", "operator": "Conv", "sqnr_db": 30.0, "kernels": {"litert": "XNNPACK"}},
        {"name": "view", "operator": "Flatten", "sqnr_db": None,
         "kernels": {"onnxruntime": "Flatten"}},
        {"name": "words", "operator": "Embedding", "sqnr_db": 40.0,
         "kernels": {"litert": "GATHER"}},
    ],
    "fold": {"metrics": {"mean": {"accuracy": 0.9}, "monte_carlo": {"accuracy": 0.91}}},
    "removal": {"alignment": {"note": ""}},
    "calibration": {"method": "mse", "samples": 256},
}  # fmt: skip


def changed(path: str, value: object) -> dict[str, Any]:
    manifest = copy.deepcopy(GOOD)
    *keys, last = path.split("/")
    place: Any = manifest
    for key in keys:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    return manifest


def fit(shift: float = 0.2, spread: float = 1.1) -> dict[str, Any]:
    """Pixels for a network that was trained on pixels."""
    return {
        "low": 0.0, "high": 255.0, "pixels": True, "possible": None,
        "batchnorm": {"name": "bn1", "shift": shift, "spread": spread},
    }  # fmt: skip


def test_nothing_is_said_where_all_is_well() -> None:
    assert warnings_of(GOOD) == []
    assert warnings_of(changed("calibration/fit", fit())) == []


def test_low_sqnr_names_equalization_where_it_was_not_tried() -> None:
    low = changed("layers/0/sqnr_db", 3.0)
    (sentence,) = warnings_of(low)
    assert "try --equalization cross-layer, or what `deploykit diagnose`" in sentence
    (sentence,) = warnings_of({**low, "equalization": {"samples": 32, "chains": []}})
    assert "try what `deploykit diagnose` on the bundle finds" in sentence


def test_an_output_that_nothing_changes_is_told_with_what_is_zero() -> None:
    (sentence,) = warnings_of({**GOOD, "constant_output": {"samples": 32, "zero_weights": []}})
    assert sentence.startswith("the float network gives the same output for all 32 samples")
    held = {"samples": 32, "zero_weights": ["conv2"]}
    (sentence,) = warnings_of({**GOOD, "constant_output": held})
    assert "the weights of conv2 are all zero" in sentence


def test_accuracy_that_few_bits_cost_names_what_gives_it_back() -> None:
    lost = {"samples": 100, "folded": 0.9, "pruned": 0.9, "model.onnx": 0.7, "model.tflite": 0.7}
    wide = changed("accuracy", lost)
    (sentence,) = warnings_of(wide)
    assert sentence.startswith("model.onnx and model.tflite are 20.0 points under")
    assert "--calibration" in sentence and "--bits auto" not in sentence
    narrow = {**wide, "layers": [{**wide["layers"][0], "bits": 4}, *wide["layers"][1:]]}
    (sentence,) = warnings_of(narrow)
    for word in ("--bits auto", "`deploykit diagnose` on the bundle", "--layer-bits NAME=8"):
        assert word in sentence
    (sentence,) = warnings_of({**narrow, "allocation": {"target": "--max-bytes 40000"}})
    assert "allow more than --max-bytes 40000, or" in sentence
    kept = [{"kind": "weight", "name": "conv1", "bits": 4, "why": None}]
    (sentence,) = warnings_of({**narrow, "given": kept})
    assert "--calibration" in sentence


def test_nothing_is_said_of_accuracy_that_was_not_measured() -> None:
    assert warnings_of(changed("accuracy", None)) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("accuracy/pruned", 0.80, "pruning costs 10.0 points (0.9000 to 0.8000)"),
        ("accuracy/model.tflite", 0.80, "model.tflite is 9.0 points under"),
        ("layers/0/sqnr_db", 3.0, "the worst conv1 with 3.0 dB"),
        ("layers/0/sqnr_db", -6.0, "the worst conv1 with -6.0 dB"),
        ("fold/metrics/monte_carlo", {"accuracy": 0.5}, "40.0 points worse than its mean"),
        ("layers/0/kernels/litert", "MAXIMUM", "LiteRT runs conv1 outside XNNPACK"),
        ("removal/alignment/note", "no width table fits", "no width table fits"),
        ("calibration/samples", 3, "ranges come from 3 calibration samples"),
        ("calibration/fit", fit(shift=91.5), "their mean 91.5 deviations from its running mean"),
        ("calibration/fit", fit(spread=58.2), "they spread 58.2 times as far as its running"),
        ("calibration/fit", fit(spread=0.004), "bn1, they spread 0.004 times as far"),
        ("calibration/fit", {**fit(), "batchnorm": None}, "whole numbers as pixels are"),
        ("calibration/fit", {**fit(), "possible": [-1.0, 1.0]}, "make -1 to 1 of pixels"),
    ],
)
def test_a_finding_is_told_with_its_figure(path: str, value: object, told: str) -> None:
    (sentence,) = warnings_of(changed(path, value))
    assert told in sentence


@pytest.mark.parametrize("kernel", ["XNNPACK", "GELU"])
def test_a_kernel_as_fast_as_its_float_form_is_no_finding(kernel: str) -> None:
    assert warnings_of(changed("layers/0/kernels/litert", kernel)) == []


def test_what_training_rounded_to_few_bits_is_no_finding() -> None:
    manifest = changed("layers/0/sqnr_db", 3.0)
    clip = {"name": "clamp", "operator": "Clamp", "sqnr_db": 3.0, "kernels": {"litert": "MINIMUM"}}
    manifest["layers"].append(clip)
    assert len(warnings_of(manifest)) == 2
    held = {"kind": "activation", "name": "clamp", "bits": 4, "why": None}
    assert warnings_of(manifest | {"given": [held]}) == []
    assert len(warnings_of(manifest | {"given": [held | {"bits": 8}]})) == 1


def temperature(**changed: object) -> dict[str, Any]:
    return {"fitted_on": "labels", "samples": 1000, "nll_before": 0.4, "nll_after": 0.4, **changed}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (
            temperature(nll_after=0.41),
            "takes NLL from 0.400 to 0.410 nats on the labels",
        ),
        (temperature(samples=199), "is fitted to 199 labels: give 200 or more"),
    ],
)
def test_a_temperature_that_does_harm_or_comes_from_few_labels_is_told(
    value: dict[str, Any], told: str
) -> None:
    (sentence,) = warnings_of({**GOOD, "temperature": value})
    assert told in sentence


@pytest.mark.parametrize(
    "value",
    [
        None, temperature(), temperature(nll_after=0.403), temperature(samples=200),
        temperature(fitted_on="monte-carlo", samples=64),
        temperature(fitted_on="given", samples=0, nll_before=None, nll_after=None),
    ],
)  # fmt: skip
def test_nothing_is_said_of_another_temperature(value: dict[str, Any] | None) -> None:
    assert warnings_of({**GOOD, "temperature": value}) == []


@pytest.mark.parametrize("what", ["evaluation", "temperature"])
def test_calibration_samples_that_measure_or_fit_are_told(what: str) -> None:
    fitted = {"fitted_on": "labels", "nll_before": 0.4, "nll_after": 0.4}
    held = {"samples": 1000, "in_calibration": 10, **fitted}
    assert warnings_of({**GOOD, what: held}) == []
    (sentence,) = warnings_of({**GOOD, what: {**held, "in_calibration": 11}})
    assert sentence.startswith("11 samples of the calibration data are in ")
    assert ("--eval-data" in sentence) == (what == "evaluation")
