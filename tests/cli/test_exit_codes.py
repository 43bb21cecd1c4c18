"""The exit codes are a contract: one for each way to end, whichever verb it is."""

from __future__ import annotations

import inspect as python_inspect
from pathlib import Path

import pytest

from deploykit import errors
from deploykit.errors import DeploykitError
from tests.cli.running import assert_refused, run
from tests.exported import copy_of, flip

CODES = {
    "CheckpointError": 3, "ArchitectureError": 3, "DataError": 3, "ConfigError": 3,
    "GraphError": 3, "UnsupportedOperatorError": 3, "RemovalError": 3, "QuantizationError": 3,
    "BundleError": 3, "DeploykitError": 3,
    "UsageError": 2,
    "ParityError": 1, "IntegrityError": 1,
    "RuntimeUnavailableError": 4,
    "DeviceError": 5,
}  # fmt: skip


def test_every_error_has_its_documented_code() -> None:
    found = {
        name: kind.exit_code
        for name, kind in python_inspect.getmembers(errors, python_inspect.isclass)
        if issubclass(kind, DeploykitError)
    }
    assert found == CODES


@pytest.mark.parametrize("verb", ["export", "verify", "diagnose", "bench", "inspect"])
def test_help_is_no_error(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.parametrize("verb", ["export", "verify", "diagnose", "bench", "inspect"])
def test_a_usage_error_is_2(verb: str) -> None:
    assert run(verb, "--no-such-option").exit_code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give --model FILE.py:FACTORY"),
        (("--model", "m.py:f"), "give --input-shape 1,1,28,28"),
        (("--model", "m.py:f", "--input-shape", "1,4"), "give --data calibration.npz"),
        (("--model", "m.py:f", "--input-shape", "1,4", "--data", "d.npz", "--io", "int4"),
         "--io int4: choose one of float, int8, uint8"),
    ],
)  # fmt: skip
def test_an_option_that_is_missing_or_unknown_is_2(
    words: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    result = run("export", tmp_path / "weights.pt", "--out", tmp_path / "bundle", *words)
    assert_refused(result, 2, told)


@pytest.mark.parametrize("verb", ["verify", "diagnose", "bench", "inspect"])
def test_a_missing_path_is_3(verb: str, tmp_path: Path) -> None:
    result = run(verb, tmp_path / "gone")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("verb", ["verify", "diagnose", "inspect"])
def test_a_damaged_bundle_is_1(verb: str, sample_bundle: Path, tmp_path: Path) -> None:
    damaged = copy_of(sample_bundle, tmp_path)
    flip(damaged / "model.tflite", 99)
    assert run(verb, damaged).exit_code == 1
