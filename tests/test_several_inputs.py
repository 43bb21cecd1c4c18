"""Networks of several inputs and outputs, from a checkpoint and from an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import deploykit
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from tests import small_models
from tests.cli.running import assert_refused, run
from tests.exported import save
from tests.onnx_files import normal

INPUTS, OUTPUTS = ["audio", "meta"], ["scores", "embedding"]
MODEL = "tests.small_models:two_towers"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, the same network as an ONNX file of open batch, and data for both."""
    folder = tmp_path_factory.mktemp("several")
    network = small_models.two_towers()
    small_models.save_random(network, folder / "net.pt")
    network.load_state_dict(torch.load(folder / "net.pt"))
    program = torch.onnx.export(
        network.eval(), (torch.zeros(2, 1, 12, 12), torch.zeros(2, 8)), dynamo=True, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},) * 2, input_names=INPUTS,
        output_names=OUTPUTS,
    )  # fmt: skip
    assert program is not None
    program.save(folder / "net.onnx")
    save(folder / "data.npz", audio=normal(40, 1, 12, 12), meta=3 * normal(40, 8, seed=1))
    return folder


SHAPES = ["--input-shape", "meta=1,8", "--input-shape", "audio=1,1,12,12"]


def words(folder: Path, kind: str, out: Path) -> list[str | Path]:
    """A line of `export`."""
    given: list[str | Path] = ["export", folder / f"net.{kind}", "--data", folder / "data.npz"]
    given += ["--out", out, "--align", "none"]
    return [*given, "--model", MODEL, "--prune-rule", "none", *SHAPES] if kind == "pt" else given


@pytest.mark.parametrize("batch", ["fixed", "dynamic"])
@pytest.mark.parametrize("kind", ["pt", "onnx"])
def test_the_command_line_exports_verifies_and_inspects_it(
    kind: str, batch: str, folder: Path, tmp_path: Path
) -> None:
    result = run(*words(folder, kind, tmp_path / "b"), "--batch", batch)
    assert result.exit_code == 0, result.stderr
    assert "input 'audio' float32 [1, 12, 12, 1], input 'meta' float32 [1, 8]" in result.stdout
    assert "output 'scores' float32 [1, 5], output 'embedding' float32 [1, 6]" in result.stdout
    checked = run("verify", tmp_path / "b")
    assert checked.exit_code == 0, checked.stdout
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert [port["name"] for port in manifest["inputs"]] == INPUTS
    assert [port["name"] for port in manifest["outputs"]] == OUTPUTS
    assert {found["differing"] for found in manifest["parity"]} == {0}
    assert run("inspect", tmp_path / "b").exit_code == 0


def test_both_files_give_the_same_from_the_inputs_by_name(folder: Path, tmp_path: Path) -> None:
    bundle = deploykit.export(
        folder / "net.pt", model=MODEL, prune_rule="none", data=folder / "data.npz",
        input_shape={"audio": (1, 1, 12, 12), "meta": (1, 8)}, out=tmp_path / "b",
    )  # fmt: skip
    with np.load(folder / "data.npz") as data:
        given: dict[str, AnyArray] = {name: data[name] for name in INPUTS}
    ours = ort.run(bundle.file("model.onnx").read_bytes(), given)
    laid = {**given, "audio": np.ascontiguousarray(given["audio"].transpose(0, 2, 3, 1))}
    theirs = litert.run(bundle.file("model.tflite").read_bytes(), laid)
    network = small_models.two_towers()
    network.load_state_dict(torch.load(folder / "net.pt"))
    with torch.no_grad():
        real = network.eval()(**{name: torch.tensor(values) for name, values in given.items()})
    for name in OUTPUTS:
        np.testing.assert_array_equal(ours[name], theirs[name])
        noise = np.square(ours[name] - real[name].numpy()).mean()
        assert noise < np.square(real[name].numpy()).mean() / 300
    measured = deploykit.bench_bundle(bundle.path, rounds=1, runs=2)
    assert len(measured.models) == 4


def test_it_is_pruned_on_data_of_several_inputs(folder: Path, tmp_path: Path) -> None:
    done = run("prune", folder / "net.onnx", "-o", tmp_path / "p.onnx",
               "--data", folder / "data.npz")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    ports = [port.name for port in onnx.load(tmp_path / "p.onnx").graph.input]
    assert ports == INPUTS
    assert "export" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (["--input-shape", "meta=1,8"], "the network's forward has an argument 'audio' too"),
        (["--input-shape", "1,1,12,12"], "forward takes audio, meta, and --input-shape gives one"),
        ([*SHAPES, "--input-shape", "mood=1,3"], "no argument 'mood': it takes audio, meta"),
        (["--input-shape", "audio=2,1,12,12", "--input-shape", "meta=1,8"],
         "different batches (audio [2, 1, 12, 12], meta [1, 8])"),
    ],
)  # fmt: skip
def test_shapes_that_the_network_does_not_take_are_refused(
    extra: list[str], told: str, folder: Path, tmp_path: Path
) -> None:
    arrays = {"audio": normal(8, 1, 12, 12), "meta": normal(8, 8), "mood": normal(8, 3)}
    named = {text.partition("=")[0] for text in extra if "=" in text}
    chosen = {name: arrays[name] for name in named} or {"inputs": arrays["audio"]}
    save(tmp_path / "data.npz", **chosen)
    line: list[str | Path] = ["export", folder / "net.pt", "--model", MODEL, "--prune-rule", "none"]
    line += ["--data", tmp_path / "data.npz", "--out", tmp_path / "b", *extra]
    assert_refused(run(*line), 3, told)
    assert not (tmp_path / "b").exists()


def test_labels_and_pixels_of_several_ports_are_refused(folder: Path, tmp_path: Path) -> None:
    with np.load(folder / "data.npz") as data:
        save(tmp_path / "labelled.npz", **data, labels=np.arange(40) % 5)
    for kind in ("pt", "onnx"):
        line = [*words(folder, kind, tmp_path / "b"), "--eval-data", tmp_path / "labelled.npz"]
        assert_refused(run(*line), 3, "has 2 outputs", "leave them out of --eval-data")


def test_one_image_among_the_inputs_is_the_one_that_is_normalized(
    folder: Path, tmp_path: Path
) -> None:
    line = [*words(folder, "onnx", tmp_path / "b"), "--mean", "0.5", "--std", "2"]
    assert run(*line).exit_code == 0
    data = (tmp_path / "b" / "model.tflite").read_bytes()
    assert data.count(b"TFLITE_METADATA") == 1
    assert run("verify", tmp_path / "b").exit_code == 0
