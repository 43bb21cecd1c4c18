"""The ResNet-18 sample: gates and costs as told, training resumes, what is committed holds."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import deploykit
from deploykit.posterior.information_bottleneck import INFORMATION_BOTTLENECK
from tests.exported import ROOT
from tests.sample_models.loading import (
    RESNET18_MODULES,
    interrupt_second_epoch,
    modules_of,
    tiny_fashion_mnist,
)

SAMPLE = ROOT / "sample_models" / "resnet18"
WIDTH = 4
SIMILAR = 3
"""Of 500 images, that another processor's rounding may decide otherwise."""
TRAINING = json.loads((SAMPLE / "training.json").read_text())["networks"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports the sample's modules."""
    with modules_of(SAMPLE, RESNET18_MODULES, monkeypatch) as load:
        load("train")  # puts what samples share on the path
        yield load


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Random images in Fashion-MNIST's files."""
    return tiny_fashion_mnist(tmp_path / "data")


def half_closed(module: Any) -> Any:
    """A gated network with every third gate closed, and norms that are not their initial ones."""
    model = module("model")
    torch.manual_seed(0)
    network = model.gated(model.Widths.regular(WIDTH))
    with torch.no_grad():
        for gate in model.gates(network):
            gate.post_z_mu.uniform_(0.5, 1.5)
            gate.post_z_logD[::3] = 2.0
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                norm.running_mean.normal_(std=0.1)
                norm.bias.normal_(std=0.1)
    return network.eval()


def test_gates_are_what_deploykit_reads(module: Any) -> None:
    gate = module("information_bottleneck").InformationBottleneck(9)
    with torch.no_grad():
        gate.post_z_mu.copy_(torch.linspace(-2, 2, 9))
        gate.post_z_logD.copy_(torch.linspace(1, -3, 9))
    tensors = {name: p.detach().numpy() for name, p in gate.named_parameters()}
    assert INFORMATION_BOTTLENECK.signature == set(tensors)
    mean, variance = tensors["post_z_mu"], np.exp(tensors["post_z_logD"])
    np.testing.assert_array_equal(gate.is_open().numpy(), variance < mean**2 + 1e-8)
    evaluated = gate.eval()(torch.ones(1, 9, 1, 1))[0, :, 0, 0].detach().numpy()
    np.testing.assert_array_equal(evaluated, mean * (variance < mean**2 + 1e-8))
    torch.manual_seed(0)
    drawn = gate.train()(torch.ones(50_000, 9, 1, 1))[:, :, 0, 0].detach().numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(drawn.std(axis=0), np.sqrt(variance), rtol=0.02)


def test_the_divergence_is_that_to_the_best_prior(module: Any) -> None:
    gate = module("information_bottleneck").InformationBottleneck(3)
    with torch.no_grad():
        gate.post_z_mu.copy_(torch.tensor([0.5, -1.0, 2.0]))
        gate.post_z_logD.copy_(torch.tensor([-4.0, 0.0, 1.0]))
    mean, variance = gate.post_z_mu.detach(), gate.post_z_logD.detach().exp()
    posterior = torch.distributions.Normal(mean, variance.sqrt())
    divergences = torch.stack([
        torch.distributions.kl_divergence(
            posterior, torch.distributions.Normal(0.0, factor * (variance + mean**2).sqrt())
        )
        for factor in (0.9, 1.0, 1.1)
    ])  # fmt: skip
    torch.testing.assert_close(gate.kl_divergence().detach(), divergences[1])
    assert bool((divergences[1] < divergences[0]).all() and (divergences[1] < divergences[2]).all())


@pytest.mark.parametrize("width", [4, 16])
def test_costs_are_those_of_the_network(module: Any, width: int) -> None:
    model, costs = module("model"), module("costs")
    inner = tuple(range(3, 11))
    widths = model.Widths.regular(width).with_inner(inner)
    network = model.plain(widths)
    macs = 0

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        positions = output[0, 0].numel() if output.ndim == 4 else 1
        assert isinstance(layer.weight, torch.Tensor)
        macs += layer.weight.numel() * positions

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    network.eval()(torch.zeros(1, 1, 28, 28))
    weights = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    assert costs.cost(widths) == costs.Cost(weights, macs)
    for place in range(8):
        fewer = tuple(n - (p == place) for p, n in enumerate(inner))
        left = costs.cost(widths.with_inner(fewer))
        one = costs.channel_cost(widths, place)
        assert (left.weights, left.macs) == (weights - one.weights, macs - one.macs)
    for share in (0.0, 0.6, 1.0):
        by_channel = costs.channel_shares(widths, share)
        total = sum(s * n for s, n in zip(by_channel, inner, strict=True))
        assert total == pytest.approx(1.0)
    assert model.Widths.of(network.state_dict()) == widths


def test_closed_channels_go_and_come_back(module: Any) -> None:
    compact, model = module("compact"), module("model")
    network = half_closed(module)
    small = compact.without_closed(network).eval()
    assert model.Widths.of(small.state_dict()).inner == module("costs").kept_inner(network)
    images = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(small(images), network(images))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(1.1)
    opened = compact.opened(network)
    network.load_state_dict(compact.expanded(network.state_dict(), small.state_dict(), opened))
    torch.testing.assert_close(small(images), network(images))
    for multiple in (1, 8, 64):
        keep = compact.kept(network, multiple)
        for mask, is_open in zip(keep, opened, strict=True):
            assert bool((mask >= is_open).all())
            assert int(mask.sum()) == min(-(-int(is_open.sum()) // multiple) * multiple, len(mask))
        more = compact.compacted(network, keep).eval()
        torch.testing.assert_close(more(images), network(images))


def settings_of(module: Any, kind: str, **changed: Any) -> Any:
    settings = module("train").settings_of(kind, WIDTH, 0)
    return replace(settings, batch=64, **{"epochs": 2, "small_epochs": 1, **changed})


def trained(module: Any, kind: str, start: Path | None, run: Path, data: Path, **more: Any) -> Any:
    """One whole run."""
    train = module("train")
    train.fit(settings_of(module, kind, **more), run, start, data, resume=False)
    return torch.load(run / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("kind", ["base", "gates"])
def test_interrupted_training_resumes_to_the_same_numbers(
    module: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    train = module("train")
    start = None
    if kind == "gates":
        start = tmp_path / "base"
        trained(module, "base", None, start, data, epochs=1)
    settings = settings_of(module, kind, kl_weight=1.0 if start else 0.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.fit(settings, whole, start, data, resume=False)
    interrupt_second_epoch(
        train, lambda: train.fit(settings, broken, start, data, resume=False), monkeypatch
    )
    train.fit(settings, broken, start, data, resume=True)
    expected, found = (torch.load(run / "checkpoint.pt") for run in (whole, broken))
    assert expected["epochs"] == found["epochs"]
    assert all(torch.equal(found["model"][key], value) for key, value in expected["model"].items())
    with pytest.raises(train.RunError, match="resume with the same settings"):
        train.fit(replace(settings, batch=32), broken, start, data, resume=True)


def test_settled_gates_stay_and_the_report_puts_all_together(
    module: Any, data: Path, tmp_path: Path
) -> None:
    model, report, runs = module("model"), module("report"), tmp_path / "runs"
    trained(module, "base", None, runs / "base4-0", data, epochs=1)
    before = trained(module, "gates", runs / "base4-0", runs / "gates4-0", data, kl_weight=0.25)
    for place in range(8):
        before["model"][f"blocks.{place}.gate.post_z_logD"][place % 3 :: 3] = 2.0
    torch.save(before, runs / "gates4-0" / "checkpoint.pt")
    after = trained(module, "settled", runs / "gates4-0", runs / "settled4-0", data)
    trained(module, "dense", runs / "base4-0", runs / "dense4-0", data)
    trained(module, "again", runs / "dense4-0", runs / "dense4-0-again", data)
    gated = report.network_with(before["model"])
    widths = model.Widths.regular(4).with_inner(module("costs").kept_inner(gated))
    left = module("costs").cost(widths)
    assert (after["epochs"][-1]["weights"], after["epochs"][-1]["macs"]) == (
        left.weights,
        left.macs,
    )
    for place, keep in enumerate(report.kept(gated, report.FAST)):
        for name in ("post_z_mu", "post_z_logD"):
            key = f"blocks.{place}.gate.{name}"
            torch.testing.assert_close(after["model"][key], before["model"][key][keep])
    further = trained(module, "again", runs / "settled4-0", runs / "settled4-0-again", data)
    for place in range(8):
        gate = f"blocks.{place}.gate.post_z_mu"
        assert torch.equal(further["model"][gate], after["model"][gate])
    out = tmp_path / "out"
    out.mkdir()
    (out / "training.json").write_text('{"networks": {"elsewhere": {"kept": true}}}')
    images = module("train").LabelledSamples.of(module("data").test_images(data))
    report.write_report(runs, images, images, out)
    log = json.loads((out / "training.json").read_text())["networks"]
    assert set(log) == {"base4-0", "bayesian4-0", "dense4-0", "elsewhere"}
    kinds = [one["settings"]["kind"] for one in log["bayesian4-0"]["trainings"]]
    assert kinds == ["base", "gates", "settled", "again"]
    state = torch.load(out / "checkpoints" / "bayesian4-0.pt", weights_only=True)
    assert model.Widths.of(state) == model.Widths.regular(4)
    assert torch.equal(state["fc.bias"], further["model"]["fc.bias"])
    assert not torch.equal(state["fc.bias"], after["model"]["fc.bias"])
    for ending in ("", "-again"):
        shutil.copytree(runs / f"dense4-0{ending}", runs / f"magnitude4-0{ending}")
    report.write_report(runs, images, images, out)
    log = json.loads((out / "training.json").read_text())["networks"]
    assert set(log) == {"bayesian4-0", "dense4-0", "elsewhere", "magnitude4-0"}
    assert {path.stem for path in (out / "checkpoints").iterdir()} == set(log) - {"elsewhere"}
    with pytest.raises(report.RunError, match="holds no finished run"):
        report.write_report(tmp_path / "nothing", images, images, out)


def test_a_run_goes_on_from_a_finished_one_of_its_kind_and_width(
    module: Any, data: Path, tmp_path: Path
) -> None:
    train, base = module("train"), tmp_path / "base"
    for start in (None, tmp_path / "absent"):
        with pytest.raises(train.RunError):
            trained(module, "dense", start, tmp_path / "dense", data)
    trained(module, "base", None, base, data, epochs=1)
    with pytest.raises(train.RunError, match="name a run of the kind gates with --start"):
        trained(module, "settled", base, tmp_path / "settled", data)
    with pytest.raises(train.RunError, match="of the kind dense or settled or magnitude with"):
        trained(module, "again", base, tmp_path / "again", data)
    for name, value in (("width", 8), ("seed", 1)):
        other = replace(settings_of(module, "dense"), **{name: value})
        with pytest.raises(train.RunError, match=f"another {name}"):
            train.fit(other, tmp_path / "other", base, data, resume=False)
    checkpoint = torch.load(base / "checkpoint.pt", weights_only=True)
    checkpoint["settings"]["epochs"] = 2
    torch.save(checkpoint, base / "checkpoint.pt")
    with pytest.raises(train.RunError, match="not done"):
        trained(module, "dense", base, tmp_path / "dense", data)


def test_without_torch_pruning_the_rival_says_how_to_get_it(
    module: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, magnitude = module("model"), module("magnitude")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(magnitude.RunError, match=r"pip install --no-deps torch-pruning==1\.6\.1"):
        magnitude.pruned_to_weights(model.plain(model.Widths.regular(4)), 9_000, "global")
    monkeypatch.setattr("sys.argv", ["train.py", "all", "--runs", str(tmp_path / "runs")])
    assert module("train").main() == 1
    assert "torch-pruning is not installed" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_views_are_the_image_moved_and_mirrored(module: Any) -> None:
    augment = module("augment")
    images = torch.zeros(200, 1, 28, 28)
    images[:, 0, 10, 5] = 1.0
    views = augment.moved(images, torch.Generator().manual_seed(0))
    found = {tuple(place[2:]) for place in views.nonzero().tolist()}
    mirrored = 27 - 5
    everywhere = {
        (10 + down, column + right)
        for column in (5, mirrored)
        for down in range(-2, 3)
        for right in range(-2, 3)
    }
    assert found <= everywhere
    assert len(found) > 40
    assert torch.equal(views.sum(dim=(1, 2, 3)), torch.ones(200))
    small = augment.resized(torch.full((1, 1, 28, 28), 0.3), 20)
    torch.testing.assert_close(small, torch.full((1, 1, 20, 20), 0.3))


def run_of(kind: str, seed: int = 0, epochs: int = 1, planned: int = 1) -> dict[str, Any]:
    """A run as `report` reads it, of a network that nobody looks into."""
    settings = {"kind": kind, "width": 4, "seed": seed, "epochs": planned}
    return {"settings": settings, "epochs": [{"weights": 1}] * epochs, "seconds": 1.0, "model": {}}


def test_networks_that_are_compared_had_equally_many_epochs(module: Any) -> None:
    report = module("report")
    runs = {
        "base4-0": run_of("base"),
        "dense4-0": run_of("dense"), "dense4-0-again": run_of("again"),
        "magnitude4-0": run_of("magnitude"),
        "dense4-1": run_of("dense", 1), "dense4-1-again": run_of("again", 1),
    }  # fmt: skip
    assert report.taken_further(runs) == {"dense4-1"}
    kinds = {
        name: [one["settings"]["kind"] for one in trainings]
        for name, _, trainings in report.results(runs)
    }
    assert kinds == {
        "base4-0": ["base"],
        "dense4-0": ["base", "dense"],
        "magnitude4-0": ["base", "magnitude"],
        "dense4-1": ["dense", "again"],
    }
    runs["magnitude4-0-again"] = run_of("again")
    assert report.taken_further(runs) == {"dense4-0", "magnitude4-0", "dense4-1"}


def test_settled_gates_without_those_that_chose_are_an_error(module: Any) -> None:
    report = module("report")
    with pytest.raises(report.RunError, match="goes on from gates4-0, which is not here"):
        list(report.results({"settled4-0": run_of("settled")}))


def test_points_under_another_come_with_the_error_of_pairs(module: Any) -> None:
    report = module("report")
    generator = np.random.default_rng(0)
    first, second = (generator.random(1003) < share for share in (0.9, 0.93))

    def entry(right: Any) -> dict[str, Any]:
        packed = report.base64.b64encode(np.packbits(right).tobytes()).decode()
        return {"test_images": len(right), "test_hits": packed}

    networks = {"dense4-0": entry(second), "bayesian4-0": entry(first), "magnitude4-0-20": {}}
    networks["magnitude4-0-20"] = entry(first)
    report.compared(networks)
    assert networks["dense4-0"]["points_under"] == {}
    assert networks["magnitude4-0-20"]["points_under"].keys() == {"dense4-0"}
    told = networks["bayesian4-0"]["points_under"]["dense4-0"]
    difference = 100 * (second.astype(float) - first)
    assert told["points"] == pytest.approx(difference.mean(), abs=1e-5)
    assert told["standard_error"] == pytest.approx(difference.std() / 1003**0.5, abs=1e-5)


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_a_committed_checkpoint_is_the_one_that_was_measured(module: Any, name: str) -> None:
    report = module("report")
    state = torch.load(SAMPLE / "checkpoints" / f"{name}.pt", weights_only=True)
    kernels = [one for one in state.values() if one.ndim > 1]
    assert {one.dtype for one in kernels} == {torch.float16}
    network = report.network_with({key: values.float() for key, values in state.items()})
    if report.opened(network):
        network = report.without_closed(network)
    widths = module("model").Widths.of(network.state_dict())
    told = TRAINING[name]
    assert report.asdict(widths) == {key: tuple(v) for key, v in told["widths"].items()}
    assert report.asdict(module("costs").cost(widths)) == {
        key: told[key] for key in ("weights", "macs")
    }
    with np.load(ROOT / "sample_models" / "lenet5" / "test-2000.npz") as stored:
        inputs, labels = (torch.from_numpy(stored[key][:500]) for key in ("inputs", "labels"))
    with torch.no_grad():
        found = network.eval()(inputs).argmax(dim=1)
    right = (found == labels).numpy()
    assert int((right != report.hits_of(told)[:500]).sum()) <= SIMILAR
    content = (SAMPLE / "checkpoints" / f"{name}.pt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["sha256"]


def test_what_is_compared_was_trained_for_as_long() -> None:
    epochs: dict[str, set[int]] = {}
    for name, told in TRAINING.items():
        done = sum(len(one["by_epoch"]["weights"]) for one in told["trainings"])
        if not name.startswith("base"):
            epochs.setdefault(name.lstrip("abdegimnstuy")[:4], set()).add(done)
    assert epochs
    assert all(len(found) == 1 for found in epochs.values()), epochs


def test_the_readme_shows_what_came_out(module: Any) -> None:
    assert module("table").markdown(TRAINING) in (SAMPLE / "README.md").read_text()


def test_every_checkpoint_is_reported_and_every_file_small() -> None:
    files = {path.stem: path for path in (SAMPLE / "checkpoints").iterdir()}
    assert set(files) == set(TRAINING)
    assert sum(path.stat().st_size for path in files.values()) < 30e6


def test_the_committed_posterior_exports_and_verifies(tmp_path: Path) -> None:
    config = tomllib.loads((SAMPLE / "export.toml").read_text())
    with np.load(SAMPLE / config["data"]) as stored:
        np.savez(tmp_path / "few.npz", inputs=stored["inputs"][:32], labels=stored["labels"][:32])
    width = config["model"][-2:]
    name = f"bayesian{width}-0"
    bundle = deploykit.export(
        SAMPLE / "checkpoints" / f"{name}.pt", config=SAMPLE / "export.toml",
        data=tmp_path / "few.npz", eval_data=tmp_path / "few.npz", align="none",
        out=tmp_path / "bundle",
    )  # fmt: skip
    layers = {one["name"]: one for one in bundle.manifest["layers"]}
    inner = [layers[f"blocks.{place}.conv1"]["channels_after"] for place in range(8)]
    assert inner == TRAINING[name]["widths"]["inner"]
    assert all(one["differing"] == 0 for one in bundle.manifest["parity"])
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed
