"""What libraries trained, used without them: each file exports, and holds what README says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.bundle import Bundle, read_bundle
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.scores import channel_snr
from tests.cli.running import run
from tests.exported import ROOT
from tests.sample_models.loading import modules_of
from tests.sample_models.trained_by_libraries import FAMILIES, NAMES, SAMPLE, reported

EVERY = pytest.mark.parametrize("library", sorted(FAMILIES))
LARGEST = 300_000
SLICE = 2_000
FEW = 5 / SLICE
"""Images that another processor's rounding may tell otherwise."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports the sample's modules."""
    with modules_of(SAMPLE, NAMES, monkeypatch) as load:
        yield load


def config(library: str) -> dict[str, Any]:
    return tomllib.loads((SAMPLE / f"{library}.toml").read_text())


def command(library: str) -> list[str]:
    """README's command that exports it, one word each, without the program."""
    text = (SAMPLE / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(rf"^deploykit (export \S*/{library}\.pt .*)$", text, flags=re.MULTILINE)
    return shlex.split(line)


def shown_by_the_index(library: str) -> list[str]:
    """What the index of samples shows of the export's output; nothing of most libraries."""
    text = (ROOT / "sample_models" / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"--out build/{library}\n\.\.\.\n(.*?)The bundle", text, flags=re.DOTALL)
    return [line for block in found for line in block.splitlines()]


def row(library: str) -> dict[str, str]:
    """README's row of what came out, by column."""
    lines = (SAMPLE / "README.md").read_text(encoding="utf-8").splitlines()
    title = next(line for line in lines if line.startswith("| library | epochs"))
    (found,) = (line for line in lines if line.startswith(f"| {library} |") and "%" in line)
    titles, cells = ([cell.strip() for cell in one.split("|")] for one in (title, found))
    return dict(zip(titles, cells, strict=True))


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def share(cell: str) -> float:
    return float(cell.removesuffix(" %")) / 100


@EVERY
def test_the_command_of_readme_exports_what_it_says(library: str, tmp_path: Path) -> None:
    words = command(library)
    words[words.index("--out") + 1] = str(tmp_path / "bundle")
    exported = run(*(ROOT / word if word.startswith("sample_models/") else word for word in words))
    assert exported.exit_code == 0, exported.stderr
    lines = {line.rstrip() for line in exported.stdout.splitlines()}
    assert lines.issuperset(shown_by_the_index(library))
    verified = run("verify", tmp_path / "bundle")
    assert verified.exit_code == 0, verified.stdout
    bundle = read_bundle(tmp_path / "bundle")
    assert set(bundle.manifest["fold"]["families"].values()) == FAMILIES[library]
    assert [one["differing"] for one in bundle.manifest["parity"]] == [0, 0]
    assert_as_told(bundle, library)


def assert_as_told(bundle: Bundle, library: str) -> None:
    """Accuracies are README's; those on all 10,000 images within three deviations of a slice."""
    told, shares, log = row(library), bundle.manifest["accuracy"], reported()[library]
    for file, column in (("pruned", "pruned"), ("model.onnx", "int8"), ("model.tflite", "int8")):
        assert share(told[f"{column}, slice"]) == pytest.approx(shares[file], abs=FEW)
    for stage, expected in (
        ("folded", log["test_accuracy"]),
        ("pruned", log["pruned"]["test_accuracy"]),
    ):
        deviation = np.sqrt(expected * (1 - expected) / SLICE)
        assert shares[stage] == pytest.approx(expected, abs=3 * deviation)
    removal = bundle.manifest["removal"]
    assert told["parameters"] == (
        f"{removal['parameters_before']:,} → {removal['parameters_after']:,}"
    )
    assert told["model.tflite"] == f"{bundle.manifest['sizes']['model.tflite']:,} bytes"


@EVERY
def test_readme_s_figures_are_those_of_training(library: str) -> None:
    told, log = row(library), reported()[library]
    assert told["epochs"] == str(log["settings"]["epochs"])
    assert told["mean"] == percent(log["test_accuracy"])
    assert told["16 draws"] == percent(log["test_accuracy_of_16_draws"])
    assert told["pruned"] == percent(log["pruned"]["test_accuracy"])


@EVERY
def test_the_rule_is_the_one_that_was_chosen_on_validation(library: str) -> None:
    chosen, given = reported()[library]["pruned"], config(library)
    assert given["prune_rule"] == chosen["rule"]
    assert given.get("threshold") == chosen.get("thresholds")


@EVERY
def test_the_file_is_small_and_holds_tensors_only(library: str) -> None:
    path = SAMPLE / f"{library}.pt"
    assert path.stat().st_size <= LARGEST
    arrays = load_checkpoint(path).tensors.values()
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@EVERY
def test_a_missing_library_says_what_to_install(
    module: Any, library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = module("train")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = ["train.py", "fit", "--library", library, "--out", "nowhere"]
    monkeypatch.setattr("sys.argv", words)
    assert train.main() == 1
    requirement = train.LIBRARIES[library].requirement
    assert f"`pip install --no-deps {requirement}`" in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_an_unfinished_run_is_not_reported(module: Any, tmp_path: Path) -> None:
    report = module("report")
    settings = {"library": "torchbnn", "epochs": 3}
    torch.save({"settings": settings, "epochs": [{}]}, tmp_path / "checkpoint.pt")
    with pytest.raises(report.RunError, match=r"1 of 3 epochs are done; .* --resume"):
        report.measure(tmp_path, None, None, 0.004)


@pytest.fixture
def posterior(module: Any) -> tuple[Any, Any]:
    """A library of plain tensors, and a network: channel c of C has the ratio (c + 1) / C."""
    libraries, model = module("libraries"), module("model")
    trained = model.network()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in trained.children():
            mean = torch.randn(layer.weight.shape, generator=generator)
            layer.weight.copy_(mean)
            channels = torch.arange(len(mean)).add(1) / len(mean)
            layer.deviation = mean / channels.view(-1, *[1] * (mean.ndim - 1))
    return libraries.Library(
        package="torch",
        requirement="torch",
        build=model.network,
        divergence=lambda network: torch.zeros(()),
        kl_weight=0.0,
        weight=lambda layer: layer.weight,
        deviation=lambda layer: layer.deviation,
        bias=lambda layer: layer.bias,
    ), trained


def test_ratios_are_what_deploykit_prunes_by(module: Any, posterior: tuple[Any, Any]) -> None:
    found = module("pruning").ratios(*posterior)
    for name, ratios in found.items():
        layer = posterior[1].get_submodule(name)
        mean, deviation = layer.weight.detach().numpy(), layer.deviation.numpy()
        np.testing.assert_allclose(ratios.numpy(), channel_snr(mean, deviation**2), rtol=1e-6)
        np.testing.assert_allclose(ratios.numpy(), np.arange(1, len(mean) + 1) / len(mean))


def test_the_noisiest_channels_go_while_accuracy_allows_it(
    module: Any, posterior: tuple[Any, Any]
) -> None:
    pruning, (library, trained) = module("pruning"), posterior
    noise, plain = pruning.ratios(library, trained), library.mean(trained)

    def accuracy(network: nn.Module) -> float:
        closed = sum(
            int((network.get_parameter(f"{name}.weight").flatten(1) == 0).all(dim=1).sum())
            for name in noise
        )
        return 0.9 - 0.001 * closed

    chosen = pruning.choose_thresholds(plain, noise, accuracy, tolerance=0.0121)
    assert {name: int((noise[name] < chosen[name]).sum()) for name in noise} == {
        "conv1": 4,
        "conv2": 4,
        "conv3": 4,
    }
    pruned = pruning.closed(plain, noise, chosen)
    assert not pruned.conv2.weight[:4].any()
    assert torch.equal(pruned.conv2.weight[4:], plain.conv2.weight[4:])
    assert accuracy(plain) == 0.9
    nothing = pruning.choose_thresholds(plain, noise, accuracy, tolerance=0.0)
    assert set(nothing.values()) == {0.0}


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"rule": "family"}, {"prune_rule": "family"}),
        ({"rule": "none"}, {"prune_rule": "none"}),
        (
            {"rule": "snr", "thresholds": {"conv1": 1.5, "conv2": 0.25, "conv3": 0.0}},
            {"prune_rule": "snr", "threshold": {"conv1": 1.5, "conv2": 0.25, "conv3": 0.0}},
        ),
    ],
)
def test_the_options_say_what_was_chosen(
    module: Any, rule: dict[str, Any], told: dict[str, Any]
) -> None:
    report = module("report")
    assert tomllib.loads(report.options(rule)) == told


def test_two_runs_of_one_library_are_refused(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = module("report")
    images = SimpleNamespace(inputs=np.zeros((2, 1, 28, 28), np.float32), labels=np.zeros(2, int))
    monkeypatch.setattr(report, "training_images", lambda folder: images)
    monkeypatch.setattr(report, "test_images", lambda folder: images)
    monkeypatch.setattr(report, "split_for_validation", lambda images: (images, images))
    one = report.Measured("torchbnn", {}, "", {})
    monkeypatch.setattr(report, "measure", lambda *given: one)
    with pytest.raises(report.RunError, match="two runs are of one library: torchbnn, torchbnn"):
        report.write_report([tmp_path, tmp_path], tmp_path, tmp_path, 0.0)
    assert not list(tmp_path.iterdir())
