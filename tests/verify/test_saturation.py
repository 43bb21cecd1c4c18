"""What is said of weights that overflow 16-bit sums, and where it is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import deploykit
from deploykit.errors import ConfigError
from deploykit.runtime.ort import Sums
from deploykit.spec.operators import Conv
from deploykit.spec.parity import Verdict
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.verify import saturation
from deploykit.verify.saturation import (
    how_it_was_summed,
    overflowing_layers,
    sums_for,
    why_onnxruntime_differs,
)
from tests.exported import copy_of, mend
from tests.suite.cases import CASES

AVX2 = frozenset({"avx2"})


def network(value: int) -> QuantizedNetwork:
    """One convolution whose weights are all `value`."""
    (case,) = (case for case in CASES if case.name == "conv-3x3-same")
    built = case.network()
    (conv,) = built.operators
    assert isinstance(conv, Conv)
    values = np.full_like(conv.weight.values, value)
    return replace(
        built, operators=(replace(conv, weight=replace(conv.weight, values=values), name="c"),)
    )


def on(monkeypatch: pytest.MonkeyPatch, flags: frozenset[str]) -> None:
    monkeypatch.setattr(saturation, "processor_flags", lambda: flags)


@pytest.mark.parametrize(("value", "expected"), [(64, ()), (65, ("c",)), (-65, ("c",))])
def test_layers_that_overflow(value: int, expected: tuple[str, ...]) -> None:
    assert overflowing_layers(network(value)) == expected


def test_sums_are_exact_where_kernels_saturate_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, AVX2)
    assert sums_for(network(65)) is Sums.EXACT
    assert how_it_was_summed(network(65)) == (
        "in 32-bit sums, as phones add; onnxruntime's own on this processor, AVX2 without VNNI, "
        "overflow in c: to run the file here, export with --target x86-avx2 (or any)"
    )
    assert why_onnxruntime_differs(network(65)) == ""


@pytest.mark.parametrize("flags", [AVX2 | {"avx_vnni"}, frozenset({"asimd"})])
def test_a_processor_that_adds_in_32_bits_keeps_its_kernels(
    flags: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, flags)
    assert sums_for(network(127)) is Sums.KERNELS
    assert how_it_was_summed(network(127)) == why_onnxruntime_differs(network(127)) == ""


def test_kernels_are_proved_as_they_are_where_all_weights_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, AVX2)
    assert sums_for(network(64)) is Sums.KERNELS
    assert how_it_was_summed(network(64)) == ""


def test_unreadable_flags_are_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> frozenset[str]:
        raise ConfigError("the instruction sets of this processor cannot be read")

    monkeypatch.setattr(saturation, "processor_flags", unreadable)
    assert "which this one may be" in why_onnxruntime_differs(network(65))
    assert why_onnxruntime_differs(network(64)) == how_it_was_summed(network(65)) == ""
    assert sums_for(network(65)) is Sums.KERNELS


def claim(bundle: Path, target: str) -> None:
    """Make plan.json and manifest.json say that weights were planned for a target."""
    plan, manifest = (
        json.loads((bundle / name).read_text()) for name in ("plan.json", "manifest.json")
    )
    plan["target"] = manifest["int16_pairs"]["target"] = target
    (bundle / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    mend(bundle)


def test_a_plan_that_only_claims_its_target_fails(sample_bundle: Path, tmp_path: Path) -> None:
    bundle = copy_of(sample_bundle, tmp_path)
    claim(bundle, "any")
    steps = {step.compared: step for step in deploykit.verify_bundle(bundle).steps}
    step = steps["model.onnx, 16-bit sums / any"]
    assert (step.verdict, step.operator) == (Verdict.FAILED, "conv1")
    assert step.detail == "operator conv1: a pair of weights exceeds 128"
    failed = [one.detail for one in steps.values() if one.verdict is Verdict.FAILED]
    assert len(failed) == 2
    assert failed[1].startswith("sizes.plan.json: manifest.json says")


def test_a_target_that_does_not_exist_is_refused(sample_bundle: Path, tmp_path: Path) -> None:
    bundle = copy_of(sample_bundle, tmp_path)
    claim(bundle, "z80")
    with pytest.raises(deploykit.errors.IntegrityError, match="target 'z80', which does not exist"):
        deploykit.verify_bundle(bundle)
