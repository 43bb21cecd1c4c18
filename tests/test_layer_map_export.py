"""A checkpoint whose layers have other names than the network's, from refusal to bundle."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.cli.running import run
from tests.exported import CHECKPOINT

RECORDED = ("model.onnx", "model.tflite", "model.float.onnx", "plan.json", "golden.npz")
OTHER = {"conv1": "features.first", "conv2": "features.second", "fc1": "fc.0", "fc2": "fc.1"}


def renamed(state: dict[str, torch.Tensor], names: dict[str, str]) -> dict[str, torch.Tensor]:
    return {
        f"{names[layer]}.{key}": value
        for full, value in state.items()
        for layer, key in (full.split(".", 1),)
    }


def test_the_proposed_map_gives_the_same_bundle(
    sample_config: Path, sample_bundle: Path, tmp_path: Path
) -> None:
    state = torch.load(CHECKPOINT, weights_only=True)
    torch.save(renamed(state, OTHER), tmp_path / "other.pt")
    export = ("export", tmp_path / "other.pt", "--config", sample_config, "--out", tmp_path / "b")
    refused = run(*export)
    assert refused.exit_code == 3
    for layer, name in OTHER.items():
        assert any(line.split()[:2] == [name, layer] for line in refused.stderr.splitlines())
    told = next(line for line in refused.stderr.splitlines() if line.startswith("deploykit insp"))
    words = told.replace("map.json", str(tmp_path / "map.json")).split()[1:]
    assert run(*words).exit_code == 0
    assert json.loads((tmp_path / "map.json").read_text()) == {v: k for k, v in OTHER.items()}
    done = run(*export, "--layer-map", tmp_path / "map.json")
    assert done.exit_code == 0, done.stderr
    for name in RECORDED:
        assert (tmp_path / "b" / name).read_bytes() == (sample_bundle / name).read_bytes(), name
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["source"]["layer_map"] == {v: k for k, v in OTHER.items()}
