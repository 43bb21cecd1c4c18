"""Rounding in sequence, and learned, from the export to `verify`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.onnx_file import read_float_onnx
from deploykit.emit.onnx_reader import read_onnx
from deploykit.errors import UsageError
from deploykit.exporting.options import build_options
from deploykit.spec.operators import Linear
from deploykit.spec.parity import Verdict
from deploykit.verify.integer_form import planned_form
from deploykit.verify.rounding import farthest_rounding
from tests.exported import mend, save


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.ReLU6(), nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(96, 4),
    )  # fmt: skip


@pytest.fixture(params=["sequential", "learned"])
def rounding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bundle(tmp_path: Path, rounding: str) -> Bundle:
    torch.save(small().state_dict(), tmp_path / "net.pt")
    inputs = np.random.default_rng(0).normal(size=(24, 3, 4, 4)).astype(np.float32)
    return deploykit.export(
        tmp_path / "net.pt", model=f"{__name__}:small", input_shape=(1, 3, 4, 4),
        data=save(tmp_path / "data.npz", inputs=inputs), out=tmp_path / "bundle",
        prune_rule="none", rounding=rounding, bits=4,
    )  # fmt: skip


def test_a_bundle_rounded_in_sequence_states_its_moves_and_passes_every_step(
    bundle: Bundle, rounding: str
) -> None:
    plan = json.loads(bundle.file("plan.json").read_bytes())
    assert plan["rounding"] == rounding
    weighted = [layer for layer in plan["layers"].values() if "weight" in layer]
    assert [len(layer["bias_moved_by"]) for layer in weighted] == [8, 8, 6, 4]
    assert not any("bias_corrected_by_input_means" in layer for layer in weighted)
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]
    assert {found["differing"] for found in bundle.manifest["parity"]} == {0}


@pytest.mark.parametrize("rounding", ["nearest", "compensated", "sequential"])
def test_biases_that_are_not_corrected_are_the_float_ones(tmp_path: Path, rounding: str) -> None:
    torch.save(small().state_dict(), tmp_path / "net.pt")
    inputs = np.random.default_rng(0).normal(size=(24, 3, 4, 4)).astype(np.float32)
    kept = deploykit.export(
        tmp_path / "net.pt", model=f"{__name__}:small", input_shape=(1, 3, 4, 4),
        data=save(tmp_path / "data.npz", inputs=inputs), out=tmp_path / "kept",
        prune_rule="none", rounding=rounding, bits=4, bias_correction="none",
    )  # fmt: skip
    plan = json.loads(kept.file("plan.json").read_bytes())
    moves = [
        np.abs(layer.get("bias_moved_by", layer.get("bias_corrected_by_input_means"))).max()
        for layer in plan["layers"].values()
        if "weight" in layer
    ]
    assert moves == [0.0] * 4
    assert not deploykit.verify_bundle(kept.path).failed


def test_learned_rounding_learns_biases() -> None:
    with pytest.raises(UsageError, match="learns biases too; leave one of them out"):
        build_options(
            {
                "model": "a.py:b", "input_shape": "1,3", "data": "x.npz",
                "rounding": "learned", "bias_correction": "none",
            }
        )  # fmt: skip


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (lambda moves: [moves[0] + 0.5, *moves[1:]], "steps from its float value"),
        (lambda moves: [1e9] * len(moves), "cannot make up"),
        (lambda moves: moves[1:], "cannot make up"),
        (lambda moves: "much", "does not state its bias's move"),
    ],
)
def test_a_changed_move_fails(bundle: Bundle, move: object, said: str) -> None:
    assert callable(move)
    path = bundle.path / "plan.json"
    plan = json.loads(path.read_bytes())
    layer = next(one for one in plan["layers"].values() if "bias_moved_by" in one)
    layer["bias_moved_by"] = move(layer["bias_moved_by"])
    path.write_text(json.dumps(plan), encoding="utf-8")
    mend(bundle.path)
    report = deploykit.verify_bundle(bundle.path)
    failed = [step.detail for step in report.steps if step.verdict is Verdict.FAILED]
    assert any(said in detail for detail in failed), failed


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_integers_of_other_weights_fail_at_few_bits(bits: int, tmp_path: Path) -> None:
    """Where two steps are most of the range, their mean tells."""
    torch.save(small().state_dict(), tmp_path / "net.pt")
    inputs = np.random.default_rng(0).normal(size=(24, 3, 4, 4)).astype(np.float32)
    bundle = deploykit.export(
        tmp_path / "net.pt", model=f"{__name__}:small", input_shape=(1, 3, 4, 4),
        data=save(tmp_path / "data.npz", inputs=inputs), out=tmp_path / "bundle",
        prune_rule="none", bits=bits, to=["onnx"],
    )  # fmt: skip
    network = read_onnx(bundle.file("model.onnx").read_bytes())
    plan = json.loads(bundle.file("plan.json").read_bytes())
    model = read_float_onnx(bundle.file("model.float.onnx").read_bytes())
    lowered = planned_form(model, plan).model
    assert farthest_rounding(network, lowered, plan).share <= 1.0
    (last,) = [one for one in network.operators if isinstance(one, Linear)]
    other = np.random.default_rng(1).permuted(last.weight.values.reshape(-1))
    changed = replace(
        last, weight=replace(last.weight, values=other.reshape(last.weight.values.shape))
    )
    operators = tuple(changed if one is last else one for one in network.operators)
    found = farthest_rounding(replace(network, operators=operators), lowered, plan)
    assert found.share > 1.0
    assert bits > 2 or "on average" in found.what
