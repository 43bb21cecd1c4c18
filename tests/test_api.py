"""The Python API: the command line's verbs as functions."""

from __future__ import annotations

import inspect as python_inspect
from pathlib import Path

import pytest

import deploykit
from deploykit.bundle import Bundle
from deploykit.errors import BundleError, CheckpointError, ConfigError
from deploykit.exporting.options import KEYS
from deploykit.posterior.describe import CheckpointSummary
from deploykit.report.model import ModelSummary
from tests.exported import CHECKPOINT


def test_every_verb_is_a_function() -> None:
    verbs = ["bench_bundle", "diagnose_bundle", "export", "inspect", "prune", "verify_bundle"]
    assert deploykit.__all__ == verbs
    assert all(callable(getattr(deploykit, name)) for name in deploykit.__all__)


def test_the_functions_stay_functions_when_their_packages_are_imported(
    sample_bundle: Path,
) -> None:
    assert not deploykit.verify_bundle(str(sample_bundle)).failed
    assert not deploykit.verify_bundle(sample_bundle).failed


def test_export_takes_every_option_of_export_toml_and_no_other() -> None:
    parameters = python_inspect.signature(deploykit.export).parameters
    assert set(parameters) == {*KEYS, "checkpoint", "out", "config", "progress"}
    keyword_only = [p for name, p in parameters.items() if name != "checkpoint"]
    assert {p.kind for p in keyword_only} == {python_inspect.Parameter.KEYWORD_ONLY}


def test_inspect_returns_what_the_path_holds(sample_bundle: Path) -> None:
    assert isinstance(deploykit.inspect(str(CHECKPOINT)), CheckpointSummary)
    assert isinstance(deploykit.inspect(sample_bundle / "model.onnx"), ModelSummary)
    found = deploykit.inspect(sample_bundle)
    assert isinstance(found, Bundle)
    assert found.path == sample_bundle
    assert found.models() == ("model.onnx", "model.tflite")


def test_errors_are_raised_as_what_they_are(sample_config: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle here"):
        deploykit.verify_bundle(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="there is no such file"):
        deploykit.export(tmp_path / "gone.pt", config=sample_config, out=tmp_path / "b")
    with pytest.raises(ConfigError, match="give --model"):
        deploykit.export(CHECKPOINT, out=tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
