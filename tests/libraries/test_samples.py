"""Samples with what made them: libraries train, resume and evaluate; data are as published."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import PruneRule, PruneSpec
from tests.exported import ROOT
from tests.libraries.environment import require_package
from tests.libraries.frame import libraries
from tests.libraries.images import test_images
from tests.sample_models.loading import (
    RESNET18_MODULES,
    interrupt_second_epoch,
    modules_of,
    tiny_fashion_mnist,
)
from tests.sample_models.trained_by_libraries import FAMILIES, NAMES, SAMPLE, reported

WRIST = ROOT / "sample_models" / "har"
RESNET18 = ROOT / "sample_models" / "resnet18"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports the modules of the sample that libraries trained."""
    with modules_of(SAMPLE, NAMES, monkeypatch) as load:
        yield load


@pytest.fixture
def library(module: Any, request: pytest.FixtureRequest) -> Any:
    """The sample's row of a library."""
    row = module("libraries").LIBRARIES[request.param]
    require_package(row.package)
    return row


EVERY = pytest.mark.parametrize("library", sorted(FAMILIES), indirect=True)


@EVERY
def test_interrupted_training_resumes_to_the_same_numbers(
    module: Any, library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, data = module("train"), tiny_fashion_mnist(tmp_path / "data")
    (name,) = (key for key, row in train.LIBRARIES.items() if row == library)
    settings = train.Settings(name, library.kl_weight, epochs=2, batch=64, warmup_epochs=1.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.fit(settings, whole, data, resume=False)
    interrupt_second_epoch(
        train, lambda: train.fit(settings, broken, data, resume=False), monkeypatch
    )
    train.fit(settings, broken, data, resume=True)
    expected, found = (torch.load(run / "checkpoint.pt") for run in (whole, broken))
    assert expected["epochs"] == found["epochs"]
    assert all(torch.equal(found["model"][key], value) for key, value in expected["model"].items())
    with pytest.raises(train.RunError, match="resume with the same settings"):
        train.fit(replace(settings, seed=1), broken, data, resume=True)


@EVERY
def test_every_parameter_is_in_the_optimizer_with_spreads_apart(module: Any, library: Any) -> None:
    train, network = module("train"), library.build()
    optimizer = train.make_optimizer(network, train.Settings("any", library.kl_weight))
    means, spreads = (sum(p.numel() for p in group["params"]) for group in optimizer.param_groups)
    assert means == sum(p.numel() for p in module("model").network().parameters())
    assert means - spreads in (0, 10)  # pytorch_ard's bias has no spread


@EVERY
def test_the_committed_network_is_the_library_s(module: Any, library: Any) -> None:
    name = next(key for key, row in module("libraries").LIBRARIES.items() if row == library)
    trained, path = library.build(), SAMPLE / f"{name}.pt"
    trained.load_state_dict(torch.load(path))
    images = test_images()
    inputs = images.inputs[:64]
    folded = fold_posterior(
        load_checkpoint(path),
        load_factory(f"{SAMPLE / 'model.py'}:network"),
        inputs,
        PruneSpec(PruneRule.NONE),
    )
    with torch.no_grad():
        mean = library.mean(trained)(torch.tensor(inputs)).numpy()
        np.testing.assert_allclose(run(folded.module, inputs), mean, atol=1e-4)
        if library.left_out is not None:
            own = trained.eval()(torch.tensor(inputs))
            assert torch.equal(library.evaluated(trained)(torch.tensor(inputs)), own)
    report = module("report")
    torch.manual_seed(0)
    told = reported()[name]["test_accuracy_of_16_draws"]
    found = report.predictive_accuracy(trained, report.LabelledSamples.of(images))
    assert found == pytest.approx(told, abs=0.02)


def test_the_libraries_are_those_that_are_installed(module: Any) -> None:
    pins = {pin for one in libraries() for pin in one.requirements}
    assert {row.requirement for row in module("libraries").LIBRARIES.values()} <= pins


def test_slices_of_the_wrist_sample_are_those_of_the_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_package("seglearn")
    with (
        pytest.MonkeyPatch.context() as patch,
        modules_of(WRIST, ("data", "make_data"), patch) as load,
    ):
        patch.setattr(sys, "argv", ["make_data.py", "--out", str(tmp_path)])
        assert load("make_data").main() == 0
    for name in ("calibration.npz", "test-128.npz"):
        with np.load(WRIST / name) as committed, np.load(tmp_path / name) as made:
            for array in ("inputs", "labels"):
                np.testing.assert_array_equal(committed[array], made[array])


@pytest.fixture
def resnet18(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports the modules of the sample whose rival torch-pruning makes."""
    require_package("torch_pruning")
    with modules_of(RESNET18, RESNET18_MODULES, monkeypatch) as load:
        load("train")
        yield load


@pytest.mark.parametrize("scope", ["uniform", "inner", "global"])
@pytest.mark.parametrize("bound", ["weights", "macs"])
def test_the_rival_is_as_large_as_it_may_be(resnet18: Any, scope: str, bound: str) -> None:
    model, costs, magnitude = (resnet18(name) for name in ("model", "costs", "magnitude"))
    torch.manual_seed(0)
    network = model.plain(model.Widths.regular(8))
    limit = getattr(costs.cost(model.Widths.regular(8)), bound) // 3
    cut = magnitude.pruned_to_weights if bound == "weights" else magnitude.pruned_to_macs
    small = cut(network, limit, scope)
    widths = model.Widths.of(small.state_dict())
    assert 0.85 * limit < getattr(costs.cost(widths), bound) <= limit
    rebuilt = model.plain(widths)
    rebuilt.load_state_dict(small.state_dict())
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(rebuilt.eval()(images), small.eval()(images))


@pytest.mark.parametrize("scope", ["uniform", "inner", "global"])
def test_what_no_pruning_leaves_is_an_error(resnet18: Any, scope: str) -> None:
    model, magnitude = resnet18("model"), resnet18("magnitude")
    network = model.plain(model.Widths.regular(8))
    with pytest.raises(magnitude.RunError, match=f"{scope}: no pruning leaves as little as that"):
        magnitude.pruned_to_weights(network, 10, scope)


def test_the_inner_scope_leaves_streams_whole(resnet18: Any) -> None:
    model, magnitude = resnet18("model"), resnet18("magnitude")
    regular = model.Widths.regular(8)
    small = model.Widths.of(magnitude.pruned(model.plain(regular), 0.5, "inner").state_dict())
    assert small.streams == regular.streams
    assert sum(small.inner) == sum(regular.inner) // 2


def test_a_layer_keeps_the_filters_of_the_largest_norm(resnet18: Any) -> None:
    model, magnitude = resnet18("model"), resnet18("magnitude")
    network = model.plain(model.Widths.regular(8))
    block = network.blocks[3]
    with torch.no_grad():
        for layer in (block.conv1.weight, block.bn1.weight, block.conv2.weight):
            layer.fill_(0.01)
        block.conv1.weight[5:9] = 1.0
    small = magnitude.pruned(network, 0.75, "uniform")
    assert len(small.blocks[3].conv1.weight) == 4
    assert torch.equal(small.blocks[3].conv1.weight, torch.ones_like(small.blocks[3].conv1.weight))


def test_the_rival_trains_and_resumes_to_the_same_numbers(
    resnet18: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, data = resnet18("train"), tiny_fashion_mnist(tmp_path / "data")
    short = {"batch": 64, "epochs": 2, "small_epochs": 1}
    base = replace(train.settings_of("base", 4, 0), **short)
    train.fit(base, tmp_path / "base", None, data, resume=False)
    settings = replace(train.settings_of("magnitude", 4, 0, weights=20_000), **short)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.fit(settings, whole, tmp_path / "base", data, resume=False)
    interrupt_second_epoch(
        train,
        lambda: train.fit(settings, broken, tmp_path / "base", data, resume=False),
        monkeypatch,
    )
    train.fit(settings, broken, tmp_path / "base", data, resume=True)
    expected, found = (torch.load(run / "checkpoint.pt") for run in (whole, broken))
    assert expected["epochs"] == found["epochs"]
    assert all(torch.equal(found["model"][key], value) for key, value in expected["model"].items())
