"""deploykit verify: its exit codes, its three forms of output, and a host without any runtime."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from deploykit.runtime import litert, ort
from tests.cli.running import assert_refused, run, start
from tests.exported import copy_of, flip, mend
from tests.verify.tampering import ONNX, TFLITE, change

NO_RUNTIME = """
import sys

class Unimportable:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"onnxruntime", "ai_edge_litert", "tflite_runtime"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Unimportable())
"""
STEPS, UNCHECKED = 12, 1
"""Of the sample: passed, and those that need its labelled data."""


@pytest.fixture
def bundle(sample_bundle: Path, tmp_path: Path) -> Path:
    """The sample's bundle, to change."""
    return copy_of(sample_bundle, tmp_path)


def test_a_whole_bundle_passes(sample_bundle: Path) -> None:
    result = run("verify", sample_bundle)
    assert result.exit_code == 0, result.stderr
    assert "Every step that was checked holds." in result.stdout
    assert "failed" not in result.stdout
    assert result.stdout.count("passed") == STEPS


def test_json_is_alone_on_stdout(sample_bundle: Path) -> None:
    result = run("verify", sample_bundle, "--json")
    report = json.loads(result.stdout)
    assert (report["schema"], report["passed"], report["complete"]) == (1, True, True)
    assert [step["step"] for step in report["steps"]] == [1, 2, 3, *[4] * 10]
    verdicts = [step["verdict"] for step in report["steps"]]
    assert verdicts == [*["passed"] * STEPS, "unchecked"]


def test_with_the_data_nothing_is_unchecked(sample_bundle: Path, sample_config: Path) -> None:
    data = sample_config.parent / "test-2000.npz"
    result = run("verify", sample_bundle, "--eval-data", data)
    assert result.exit_code == 0, result.stderr
    assert "Every step holds." in result.stdout
    assert result.stdout.count("passed") == STEPS + UNCHECKED
    assert_refused(
        run("verify", sample_bundle, "--eval-data", "no.npz"), 3, "there is no such file"
    )


@pytest.mark.parametrize("file", [ONNX, TFLITE])
def test_a_changed_weight_ends_with_1_and_names_the_operator(file: str, bundle: Path) -> None:
    change(bundle, file, "weight")
    result = run("verify", bundle, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["passed"]
    failures = [step for step in report["steps"] if step["verdict"] == "failed"]
    assert {(step["step"], step["operator"]) for step in failures} == {(4, "conv2")}
    table = run("verify", bundle)
    assert table.exit_code == 1
    assert "operator conv2" in table.stdout
    assert "not what was exported" in table.stdout


@pytest.mark.parametrize(
    "name",
    ["golden.npz", "manifest.json", "model.float.onnx", ONNX, TFLITE, "plan.json",
     "MANIFEST.sha256"],
)  # fmt: skip
def test_a_flipped_byte_ends_with_1_and_names_the_file(name: str, bundle: Path) -> None:
    flip(bundle / name, 40)
    assert_refused(run("verify", bundle), 1, name, "Export the bundle again")


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert_refused(run("verify", tmp_path / "gone"), 3, "there is no bundle here")
    assert_refused(run("verify", tmp_path), 3, "it has no MANIFEST.sha256")


def test_an_unreadable_golden_file_is_named(bundle: Path) -> None:
    (bundle / "golden.npz").write_bytes(b"PK\x03\x04")
    mend(bundle)
    assert_refused(run("verify", bundle), 1, "golden.npz is not a golden file of a bundle")


def test_junit_has_a_case_for_each_step(sample_bundle: Path, tmp_path: Path) -> None:
    result = run("verify", sample_bundle, "--junit", tmp_path / "parity.xml")
    assert result.exit_code == 0
    suite = ET.parse(tmp_path / "parity.xml").getroot()
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == (
        "testsuite", str(STEPS + UNCHECKED), "0",
    )  # fmt: skip
    assert len(suite.findall("testcase")) == STEPS + UNCHECKED


def test_junit_tells_failures_and_skips(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(bundle, ONNX, "weight")
    monkeypatch.setattr(litert, "version", lambda: None)
    result = run("verify", bundle, "--junit", tmp_path / "parity.xml")
    assert result.exit_code == 1
    suite = ET.parse(tmp_path / "parity.xml").getroot()
    assert (suite.get("failures"), suite.get("skipped")) == ("3", "2")
    failures = suite.findall("testcase/failure")
    assert ["conv2" in (failure.get("message") or "") for failure in failures] == [True, True, True]
    assert len(suite.findall("testcase/skipped")) == 2


def test_a_junit_file_that_cannot_be_written_is_told(sample_bundle: Path, tmp_path: Path) -> None:
    result = run("verify", sample_bundle, "--junit", tmp_path / "gone" / "parity.xml")
    assert_refused(result, 3, "gone/parity.xml: No such file or directory")


def test_one_missing_runtime_ends_with_4(
    sample_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "version", lambda: None)
    result = run("verify", sample_bundle)
    assert result.exit_code == 4
    assert "skipped" in result.stdout
    assert "Exit code 4" in result.stdout


def test_without_any_runtime_the_reference_still_verifies(sample_bundle: Path) -> None:
    with start("verify", sample_bundle, "--json", before=NO_RUNTIME) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 4, stderr
    report = json.loads(stdout)
    assert (report["passed"], report["complete"]) == (True, False)
    skipped = [step for step in report["steps"] if step["verdict"] == "skipped"]
    assert [step["compared"] for step in skipped] == [
        "model.onnx in onnxruntime / reference", "model.tflite in litert / reference",
    ]  # fmt: skip
    assert all("cannot be imported here; install it" in step["detail"] for step in skipped)
    assert [step["verdict"] for step in report["steps"]].count("passed") == STEPS - 2


def test_without_any_runtime_a_changed_weight_still_fails(bundle: Path) -> None:
    change(bundle, TFLITE, "weight")
    with start("verify", bundle, before=NO_RUNTIME) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "operator conv2" in " ".join(stdout.split())
    assert "Traceback" not in stderr


def test_a_damaged_bundle_is_a_failure_in_the_report_files_too(
    bundle: Path, tmp_path: Path
) -> None:
    (bundle / "plan.json").write_bytes(b"{}")
    result = run("verify", bundle, "--json", "--junit", tmp_path / "parity.xml")
    assert result.exit_code == 1
    assert "plan.json is not the file that was written" in result.stderr
    (step,) = json.loads(result.stdout)["steps"]
    assert (step["step"], step["verdict"]) == (0, "failed")
    suite = ET.parse(tmp_path / "parity.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
