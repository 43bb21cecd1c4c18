"""The sample network on an x86 processor without VNNI, planned for it and not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deploykit
from deploykit.spec.pairs import LARGEST_PAIR
from tests.exported import CHECKPOINT
from tests.x86.emulation import run_python

pytestmark = pytest.mark.xdist_group("emulated")
"""One worker, so that what is emulated runs once."""

VERIFY = """
import sys
from pathlib import Path
from deploykit.report.parity import parity_json
from deploykit.verify import saturation
from deploykit.verify.ladder import verify_bundle
import json
# QEMU shows programs the flags of the machine below it.
saturation.processor_flags = lambda: frozenset({"avx2"})
print(json.dumps([parity_json(verify_bundle(Path(path)))["steps"] for path in sys.argv[1:]]))
"""
RUNTIME = "model.onnx in onnxruntime / reference"


@pytest.fixture(scope="module")
def planned(sample_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's bundle for x86 without VNNI."""
    out = tmp_path_factory.mktemp("x86") / "bundle"
    return deploykit.export(CHECKPOINT, config=sample_config, out=out, target="x86-avx2").path


def test_the_sample_verifies_there_by_its_kernels_or_where_not_planned_for_them_by_exact_sums(
    planned: Path, sample_bundle: Path
) -> None:
    done = run_python("-c", VERIFY, str(planned), str(sample_bundle))
    assert done.returncode == 0, done.stderr
    for_it, not_for_it = (
        {step["compared"]: step for step in steps} for steps in json.loads(done.stdout)
    )
    for steps in (for_it, not_for_it):
        assert {step["verdict"] for step in steps.values()} == {"passed", "unchecked"}
        assert steps[RUNTIME]["detail"].startswith("0 of ")
    assert "in 32-bit sums" not in for_it[RUNTIME]["detail"]
    assert not_for_it[RUNTIME]["detail"].endswith(
        "; in 32-bit sums, as phones add; onnxruntime's own on this processor, AVX2 without VNNI, "
        "overflow in conv1, conv2, fc1, fc2: to run the file here, export with --target x86-avx2 "
        "(or any)"
    )


def test_the_plan_says_what_it_costs(planned: Path, sample_bundle: Path) -> None:
    plan, full = (
        json.loads((bundle / "plan.json").read_text()) for bundle in (planned, sample_bundle)
    )
    assert (plan["target"], full["target"]) == ("x86-avx2", None)
    for name in ("conv1", "conv2", "fc1", "fc2"):
        pairs, before = (one["layers"][name]["weight"]["int16_pairs"] for one in (plan, full))
        assert pairs["largest"] <= LARGEST_PAIR < before["largest"]
        assert pairs["narrowed"] > 0 and 1.0 < pairs["growth"] < 2.0
        assert (before["narrowed"], before["growth"]) == (0, 1.0)
