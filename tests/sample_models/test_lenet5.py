"""The sample: its data is what it says, its training resumes, its claims are those of its files."""

from __future__ import annotations

import filecmp
import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploykit.posterior.checkpoint import load_checkpoint
from tests.sample_models.loading import interrupt_second_epoch, modules_of, tiny_fashion_mnist
from tests.tools import require_path

SAMPLE = Path(__file__).parents[2] / "sample_models" / "lenet5"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("data", "group_normal_jeffreys", "make_data", "model", "pruning", "report", "train")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports the sample's modules."""
    with modules_of(SAMPLE, NAMES, monkeypatch) as load:
        yield load


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """128 random images to train on beside the 5,000 held out, and 16 to test."""
    return tiny_fashion_mnist(tmp_path / "data")


def test_slices_are_those_of_the_data_set(module: Any, tmp_path: Path) -> None:
    require_path(DEBIAN, "Debian's package dataset-fashion-mnist")
    make_data = module("make_data")
    arguments = ["make_data.py", "--data-dir", str(DEBIAN), "--out", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        assert make_data.main() == 0
    for name in ("calibration.npz", "test-2000.npz"):
        with np.load(SAMPLE / name) as committed, np.load(tmp_path / name) as made:
            for array in ("inputs", "labels"):
                np.testing.assert_array_equal(committed[array], made[array])


def test_interrupted_training_resumes_to_the_same_numbers(
    module: Any, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = module("train")
    settings = train.Settings("bayesian", 2, 0, 64, 1e-3, 1e-2, 0.1, 1.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.fit(settings, whole, tiny_data, resume=False)
    interrupt_second_epoch(
        train, lambda: train.fit(settings, broken, tiny_data, resume=False), monkeypatch
    )
    train.fit(settings, broken, tiny_data, resume=True)
    expected = torch.load(whole / "checkpoint.pt", weights_only=True)["model"]
    found = torch.load(broken / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_resuming_under_other_settings_is_refused(
    module: Any, tiny_data: Path, tmp_path: Path
) -> None:
    train = module("train")
    settings = train.Settings("dense", 1, 0, 64, 1e-3, 1e-2, 0.0, 0.0)
    train.fit(settings, tmp_path / "run", tiny_data, resume=False)
    other = train.Settings("dense", 2, 0, 64, 1e-3, 1e-2, 0.0, 0.0)
    with pytest.raises(train.RunError, match="resume with the same settings"):
        train.fit(other, tmp_path / "run", tiny_data, resume=True)


def test_a_run_of_weight_one_goes_beside_what_is_shipped(
    module: Any, tiny_data: Path, tmp_path: Path
) -> None:
    train, report = module("train"), module("report")
    for name in ("export.toml", "training.json"):
        (tmp_path / name).write_bytes((SAMPLE / name).read_bytes())
    for weight in (0.1, 1.0):
        settings = train.Settings("bayesian", 1, 0, 64, 1e-3, 1e-2, weight, 1.0)
        train.fit(settings, tmp_path / str(weight), tiny_data, resume=False)
    with pytest.raises(report.RunError, match=r"KL weight 0\.1"):
        report.also(tmp_path / "0.1", tiny_data, tmp_path, 0.004)
    report.also(tmp_path / "1.0", tiny_data, tmp_path, 0.004)
    before, after = (
        json.loads((folder / "training.json").read_text()) for folder in (SAMPLE, tmp_path)
    )
    (told,) = (one for one in after["others"] if one["settings"]["kl_weight"] == 1.0)
    assert (after["dense"], after["shipped"]) == (before["dense"], before["shipped"])
    shipped, other = (
        tomllib.loads((tmp_path / name).read_text()) for name in ("export.toml", "export-kl1.toml")
    )
    assert other.pop("threshold") == told["pruned"]["thresholds"]
    shipped.pop("threshold")
    assert other == shipped
    state = torch.load(tmp_path / "bayesian-kl1.pt", weights_only=True)
    assert {one.dtype for one in state.values() if one.ndim > 1} == {torch.float16}


def test_thresholds_of_export_toml_are_the_ones_that_training_chose() -> None:
    config = tomllib.loads((SAMPLE / "export.toml").read_text())
    training = json.loads((SAMPLE / "training.json").read_text())
    assert config["threshold"] == training["shipped"]["pruned"]["thresholds"]


def test_a_tempered_posterior_is_shown_beside_the_one_at_weight_one() -> None:
    training = json.loads((SAMPLE / "training.json").read_text())
    shipped = training["shipped"]["settings"]
    weights = {run["settings"]["kl_weight"]: run for run in training["others"]}
    assert shipped["kl_weight"] == 1.0 or 1.0 in weights
    assert weights[1.0]["settings"]["epochs"] == shipped["epochs"]
    text = (SAMPLE / "README.md").read_text()
    assert "KL weight 1 " in text


@pytest.mark.parametrize(("name", "parameters"), [("bayesian.pt", 864_900), ("dense.pt", 431_080)])
def test_checkpoints_hold_tensors_only(name: str, parameters: int) -> None:
    tensors = load_checkpoint(SAMPLE / name).tensors
    assert sum(array.size for array in tensors.values()) == parameters
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}


def test_slices_are_compressed_the_same_way_each_time(module: Any, tmp_path: Path) -> None:
    make_data = module("make_data")
    images = module("data").Images(
        np.zeros((3, 1, 28, 28), np.float32), np.arange(3, dtype=np.int64)
    )
    for name in ("a.npz", "b.npz"):
        make_data.save(images, tmp_path / name)
    assert filecmp.cmp(tmp_path / "a.npz", tmp_path / "b.npz", shallow=False)
