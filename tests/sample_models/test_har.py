"""The wrist sample: folds share nobody, training resumes, the committed fold exports and holds."""

from __future__ import annotations

import importlib.util
import json
import pickle
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deploykit
from deploykit.bundle import Bundle
from deploykit.posterior import hard_concrete
from tests.sample_models.loading import interrupt_second_epoch, modules_of

SAMPLE = Path(__file__).parents[2] / "sample_models" / "har"
NAMES = ("augment", "data", "l0_gates", "make_data", "model", "report", "runs", "train")
SUBJECTS = tuple(range(1, 11))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports the sample's modules."""
    with modules_of(SAMPLE, NAMES, monkeypatch) as load:
        yield load


def recordings(data: Any) -> list[Any]:
    """Two of each subject, of other lengths; every number of a signal tells its recording."""
    return [
        data.Recording(np.full((256 + 50 * (place % 3), 6), float(place)), place % 7, subject)
        for place, subject in enumerate(SUBJECTS * 2)
    ]


def noise(data: Any) -> Any:
    """Windows of random signals, two recordings of each subject."""
    generator = np.random.default_rng(0)
    return data.cut([
        data.Recording(generator.standard_normal((256, 6)), place % 7, subject)
        for place, subject in enumerate(SUBJECTS * 2)
    ])  # fmt: skip


@pytest.mark.parametrize("left_out", SUBJECTS)
def test_no_subject_and_no_recording_is_on_two_sides(module: Any, left_out: int) -> None:
    data = module("data")
    windows = data.cut(recordings(data))
    fold = data.split(windows, left_out)
    sides = (fold.training, fold.validation, fold.test)
    for found, expected in ((fold.test, left_out), (fold.validation, left_out % 10 + 1)):
        assert set(found.subjects.tolist()) == {expected}
    for key in ("subjects", "recordings"):
        groups = [set(getattr(side, key).tolist()) for side in sides]
        assert sum(map(len, groups)) == len(set.union(*groups)) == len(set(getattr(windows, key)))
    values = [set(np.unique(side.inputs[:, 0]).tolist()) for side in sides]
    assert sum(map(len, values)) == len(set.union(*values)) == 20
    assert sum(map(len, sides)) == len(windows)


def test_a_window_is_of_one_recording_and_in_its_units(module: Any) -> None:
    data = module("data")
    signal = np.arange(6 * 256.0).reshape(256, 6)
    windows = data.cut([data.Recording(signal, 3, 1), data.Recording(-signal[:128], 4, 2)])
    assert windows.recordings.tolist() == [0, 0, 0, 1]
    assert windows.labels.tolist() == [3, 3, 3, 4]
    np.testing.assert_array_equal(windows.inputs[1, :3], signal[64:192, :3].T)
    np.testing.assert_array_equal(windows.inputs[1, 3:], signal[64:192, 3:].T / 4)
    config = tomllib.loads((SAMPLE / "export.toml").read_text())
    assert (config["mean"], config["std"]) == (list(data.MEAN), list(data.STD))


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_file_that_is_not_the_published_one_is_not_unpickled(module: Any, tmp_path: Path) -> None:
    data = module("data")
    trace = tmp_path / "ran"
    content = tmp_path / "watch_dataset.npy"
    with content.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        pickle.dump(np.array(Runs(trace), dtype=object), file)
    with pytest.raises(data.DataError, match="not the file of seglearn"):
        data.read_recordings(content)
    assert not trace.exists()
    np.load(content, allow_pickle=True)
    assert trace.exists()


def test_a_missing_file_or_package_says_how_to_get_it(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module("data")
    with pytest.raises(data.DataError, match=r"pip install --no-deps seglearn==1\.2\.5"):
        data.read_recordings(tmp_path / "absent.npy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match="seglearn is not installed"):
        data.read_recordings()


@pytest.mark.parametrize(("kind", "penalty"), [("dense", 0.0), ("gated", 4.0)])
def test_interrupted_training_resumes_to_the_same_bytes(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, penalty: float
) -> None:
    train, windows = module("train"), noise(module("data"))
    settings = train.Settings(3, kind, penalty, epochs=2, batch=16, warmup_epochs=1.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.fit(settings, whole, windows, resume=False)
    interrupt_second_epoch(
        train, lambda: train.fit(settings, broken, windows, resume=False), monkeypatch
    )
    train.fit(settings, broken, windows, resume=True)
    expected, found = (torch.load(run / "checkpoint.pt") for run in (whole, broken))
    assert expected["epochs"] == found["epochs"]
    assert tensor_bytes(expected["model"]) == tensor_bytes(found["model"])
    with pytest.raises(train.RunError, match="resume with the same settings"):
        train.fit(replace(settings, seed=1), broken, windows, resume=True)
    with pytest.raises(train.RunError, match="add --resume"):
        train.fit(settings, broken, windows, resume=False)


def tensor_bytes(model: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.items()}


def test_training_sees_neither_the_left_out_nor_the_validation_subject(
    module: Any, tmp_path: Path
) -> None:
    train, windows = module("train"), noise(module("data"))
    settings = train.Settings(3, "gated", 4.0, epochs=1, batch=16)
    spoilt = replace(windows, inputs=windows.inputs.copy(), labels=windows.labels.copy())
    unseen = np.isin(windows.subjects, (3, 4))
    spoilt.inputs[unseen] = 100.0
    spoilt.labels[unseen] = 0
    models = []
    for name, given in (("as it is", windows), ("spoilt", spoilt)):
        train.fit(settings, tmp_path / name, given, resume=False)
        models.append(tensor_bytes(torch.load(tmp_path / name / "checkpoint.pt")["model"]))
    assert models[0] == models[1]


def test_gates_are_what_deploykit_reads(module: Any) -> None:
    gate = module("l0_gates").L0Gate(9)
    location = np.linspace(-4, 4, 9)
    with torch.no_grad():
        gate.qz_loga.copy_(torch.from_numpy(location))
    np.testing.assert_allclose(
        gate.evaluated().detach().numpy(), hard_concrete.evaluated_gate(location), atol=1e-6
    )
    draws = np.tile(location, (20_000, 1))
    drawn = hard_concrete.draw(draws, np.random.default_rng(0)) > 0
    torch.manual_seed(0)
    own = gate(torch.ones(20_000, 9, 1)) > 0
    for share in (drawn.mean(axis=0), own.double().mean(dim=(0, 2)).numpy()):
        np.testing.assert_allclose(gate.open_probability().detach().numpy(), share, atol=0.02)


def test_expected_weights_count_what_is_left_when_gates_are_certain(module: Any) -> None:
    model = module("model")
    network = model.gated_har()
    for place, kept in enumerate((3, 5, 7, 9), start=1):
        gate = network.get_submodule(f"gate{place}")
        with torch.no_grad():
            gate.qz_loga.fill_(-50.0)[:kept] = 50.0
    assert model.widths(network) == (3, 5, 7, 9)
    by_hand = 6 * 3 * 9 + 3 * 5 * 5 + 5 * 7 * 5 + 7 * 9 * 3 + 9 * 7
    assert model.kept_weights(network) == by_hand
    assert float(model.expected_weights(network).detach()) == pytest.approx(by_hand)
    convolutions = [p for name, p in model.dense_har().named_parameters() if p.ndim > 1]
    assert model.all_weights() == sum(p.numel() for p in convolutions)


def test_augmentation_turns_and_keeps_lengths_in_proportion(module: Any) -> None:
    augment = module("augment")
    inputs = torch.randn(50, 6, 128, generator=torch.Generator().manual_seed(0))
    turned = augment.turned(inputs, torch.Generator().manual_seed(1))
    for sensor in (slice(0, 3), slice(3, 6)):
        ratio = turned[:, sensor].norm(dim=1) / inputs[:, sensor].norm(dim=1)
        assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4)
    assert (turned - inputs).abs().amax(dim=(1, 2)).min() > 1e-3


def test_the_lightest_penalty_that_takes_half_of_the_weights_is_chosen(module: Any) -> None:
    report, everything = module("report"), module("model").all_weights()
    shares = {2.0: 0.51, 4.0: 0.5, 8.0: 0.1}
    candidates = [
        {"settings": {"penalty": penalty, "left_out": 3}, "weights": share * everything}
        for penalty, share in shares.items()
    ]
    assert report.choose(candidates)["settings"]["penalty"] == 4.0
    with pytest.raises(report.RunError, match=r"subject 3: no penalty takes 50% .* a larger one"):
        report.choose(candidates[:1])


def test_committed_networks_are_the_chosen_ones(module: Any) -> None:
    model, report = module("model"), module("report")
    training = json.loads((SAMPLE / "training.json").read_text())
    assert [fold["left_out"] for fold in training["folds"]] == list(SUBJECTS)
    for fold in training["folds"]:
        chosen = report.choose(fold["gated"])
        assert chosen["settings"]["penalty"] == fold["penalty"]
        prefix = SAMPLE / "checkpoints" / f"subject-{fold['left_out']:02}"
        network = model.gated_har()
        network.load_state_dict(torch.load(f"{prefix}.gated.pt", weights_only=True))
        assert list(model.widths(network)) == chosen["widths"]
        model.dense_har().load_state_dict(torch.load(f"{prefix}.dense.pt", weights_only=True))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The committed fold, as its export.toml has it."""
    return deploykit.export(
        SAMPLE / "checkpoints" / "subject-10.gated.pt",
        config=SAMPLE / "export.toml",
        out=tmp_path_factory.mktemp("har") / "bundle",
    )


def test_the_committed_fold_exports_and_every_step_verifies(bundle: Bundle) -> None:
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed
    assert all(one["differing"] == 0 for one in bundle.manifest["parity"])


def test_half_of_the_parameters_go_and_accuracy_stays(bundle: Bundle) -> None:
    removal, shares = bundle.manifest["removal"], bundle.manifest["accuracy"]
    assert removal["parameters_after"] <= removal["parameters_before"] / 2
    assert shares["pruned"] == shares["mean"]
    assert min(shares[file] for file in ("model.onnx", "model.tflite")) >= 0.8
