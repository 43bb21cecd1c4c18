"""deploykit inspect of checkpoints: with the network, by layer, and with a command that works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.cli.running import assert_refused, run
from tests.exported import CHECKPOINT, ROOT, save
from tests.libraries.frame import CHECKPOINTS, EXAMPLES
from tests.posterior.gnj_layers import bayesian_net, randomised
from tests.posterior.test_file_formats import WRITERS, network, spread, vector

HERE = f"{ROOT}/tests/cli/test_inspect_checkpoint.py"
FORMATS = f"{ROOT}/tests/posterior/test_file_formats.py:network"
FILES = [CHECKPOINT, *sorted(CHECKPOINTS.glob("*.pt"))]
WIDTH = 80


class Heads(nn.Module):
    """Two outputs of one shape from the same layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.mean, self.spread = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.trunk(x).relu()
        return self.mean(x), self.spread(x)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tables_fit_the_terminal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    lines = run("inspect", path).stdout.splitlines()
    ends = [line.startswith("|mean|") or line.endswith(" numbers read") for line in lines]
    table = lines[: ends.index(True)]
    alone = any("one vector of" in line for line in lines)
    assert len(table) > 4 or (alone and not table)
    assert max(map(len, table), default=0) <= WIDTH


@pytest.mark.parametrize("name", WRITERS)
def test_a_whole_file_s_posterior_is_shown_by_layer(name: str, tmp_path: Path) -> None:
    torch.save(WRITERS[name](network())[0], tmp_path / "c.pt")
    result = run("inspect", tmp_path / "c.pt", "--model", FORMATS, "--json")
    assert result.exit_code == 0, result.stderr
    layers, family = json.loads(result.stdout)["layers"], name.partition(",")[0]
    named = [layer["name"] for layer in layers]
    assert named == ["0", "1", "4"]
    assert [layer["family"] for layer in layers] == [family, "deterministic", family]
    assert layers[0]["snr_quantiles"] is not None
    assert layers[2]["shapes"]["weight_variance"] == [3, 16]


@pytest.mark.parametrize("name", ["IVON", "Laplace"])
def test_a_vector_says_that_it_needs_the_network(name: str, tmp_path: Path) -> None:
    torch.save(WRITERS[name](network())[0], tmp_path / "c.pt")
    shown = run("inspect", tmp_path / "c.pt").stdout
    assert f"in the vector of {name}" in shown
    assert "one vector of 99 variances for all parameters; --model FILE.py:FACTORY shows" in shown
    assert "deterministic" not in shown


def test_a_guide_s_vector_alone(tmp_path: Path) -> None:
    content = {"loc": vector(network()), "scale_unconstrained": spread(network())}
    torch.save(content, tmp_path / "c.pt")
    result = run("inspect", tmp_path / "c.pt")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("198 numbers read\n")
    assert "AutoDiagonalNormal" in run("inspect", tmp_path / "c.pt", "--model", FORMATS).stdout


def suggestion(*words: str | Path) -> list[str]:
    """Words of the command that `inspect` ends with."""
    result = run("inspect", *words)
    assert result.exit_code == 0, result.stderr
    line = next(line for line in result.stdout.splitlines() if line.startswith("Next: "))
    command, *rest = shlex.split(line.removeprefix("Next: "))
    assert command == "deploykit"
    return rest


def write_data(folder: Path, shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((16, *shape)).astype(np.float32)
    labels = generator.integers(0, 3, 16)
    save(folder / "calibration.npz", inputs=inputs)
    save(folder / "labelled.npz", inputs=inputs, labels=labels)


def test_the_command_for_a_mean_field_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, (1, 28, 28))
    path, model = CHECKPOINTS / "torchbnn_layers.pt", f"{EXAMPLES}/torchbnn_layers.py:twin"
    words = suggestion(path, "--model", model, "--input-shape", "1,1,28,28")
    done = run(*words)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_the_command_for_gates_without_a_threshold_shows_what_each_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, (1, 8, 8))
    torch.save(randomised(bayesian_net()).state_dict(), tmp_path / "a net.pt")
    model = f"{ROOT}/tests/posterior/gnj_layers.py:bayesian_net"
    done = run(*suggestion(tmp_path / "a net.pt", "--model", model, "--input-shape", "1,1,8,8"))
    assert done.exit_code == 0, done.stderr
    assert "nothing was written" in done.stdout


@pytest.mark.parametrize(
    ("name", "shape"),
    [("bayesian_torch_layers", "1,1,HEIGHT,WIDTH"), ("bayesian_torch_lstm", "1,LENGTH,14")],
)
def test_the_command_without_a_network_says_what_is_missing(name: str, shape: str) -> None:
    words = suggestion(CHECKPOINTS / f"{name}.pt")
    assert words[words.index("--input-shape") + 1] == shape
    assert words[words.index("--model") + 1] == "FILE.py:FACTORY"


def test_a_matrix_does_not_tell_the_shape_of_the_input(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).state_dict(), tmp_path / "mlp.pt")
    words = suggestion(tmp_path / "mlp.pt")
    assert words[words.index("--input-shape") + 1] == "1,SIZES"
    shown = run("inspect", tmp_path / "mlp.pt").stdout
    assert "(the first linear layer reads 784 numbers; give the shape of your data)" in shown


def test_the_lstm_of_a_library_is_among_the_layers() -> None:
    shown = run("inspect", CHECKPOINTS / "bayesian_torch_lstm.pt", "--json").stdout
    assert [layer["name"] for layer in json.loads(shown)["layers"]] == ["lstm", "fc"]


def heads(folder: Path) -> tuple[str | Path, ...]:
    """A checkpoint of `Heads` under other names, and the words that name its network."""
    names = {"trunk": "a", "mean": "b", "spread": "c"}
    state = {
        f"{names[layer]}.{key}": value
        for full, value in Heads().state_dict().items()
        for layer, key in (full.split("."),)
    }
    torch.save(state, folder / "c.pt")
    return folder / "c.pt", "--model", f"{HERE}:Heads"


def test_an_open_map_is_written_and_refused_until_it_is_decided(tmp_path: Path) -> None:
    given = heads(tmp_path)
    out = tmp_path / "map.json"
    shape = ("--input-shape", "1,8")
    written = run("inspect", *given, *shape, "--write-layer-map", out)
    assert written.exit_code == 0, written.stderr
    assert "nothing tells which of several equal layers 'b', 'c' are; edit" in written.stdout
    assert json.loads(out.read_text())["b"] == ["mean", "spread"]
    assert_refused(run("inspect", *given, "--layer-map", out), 3, "'b' is open", "mean, spread")
    out.write_text(json.dumps({"a": "trunk", "b": "spread", "c": "mean"}))
    found = run("inspect", *given, "--layer-map", out, "--json")
    assert found.exit_code == 0, found.stderr
    assert [one["name"] for one in json.loads(found.stdout)["layers"]] == [
        "trunk",
        "spread",
        "mean",
    ]


def test_what_a_map_needs(tmp_path: Path) -> None:
    given = heads(tmp_path)
    out = tmp_path / "map.json"
    assert_refused(run("inspect", *given, "--write-layer-map", out), 2, "give --model", "--input-s")
    assert_refused(run("inspect", *given), 2, "other names than the network's; give --input-shape")
    out.write_text("{}")
    words = (*given, "--input-shape", "1,8", "--write-layer-map", out)
    assert_refused(run("inspect", *words), 3, "map.json is there already")
    assert_refused(run("inspect", *words, "--layer-map", out), 2, "not both")
    assert out.read_text() == "{}"


def test_a_network_of_other_shapes_gets_no_map(tmp_path: Path) -> None:
    path, *_ = heads(tmp_path)
    words = ("--model", FORMATS, "--input-shape", "1,1,4,4")
    out = tmp_path / "map.json"
    refused = run("inspect", path, *words, "--write-layer-map", out)
    assert_refused(refused, 3, "no layer of the network has the shapes of 'a' (weight 6x8, bias 6)")
    assert not out.exists()


def test_options_of_checkpoints_are_refused_for_anything_else(
    sample_bundle: Path, tmp_path: Path
) -> None:
    told = "--model belongs to checkpoints"
    assert_refused(run("inspect", sample_bundle, "--model", FORMATS), 2, told)
    assert_refused(run("inspect", sample_bundle / "model.onnx", "--model", FORMATS), 2, told)
    assert_refused(run("inspect", CHECKPOINT, "--input-shape", "1,8"), 2, "--input-shape is about")


def test_what_the_real_libraries_files_need_told() -> None:
    masked = json.loads(run("inspect", CHECKPOINTS / "cplxmodule_masked.pt", "--json").stdout)
    assert all(layer["bits"] is None for layer in masked["layers"])
    assert all(layer["snr_quantiles"] is None for layer in masked["layers"])
    fit = json.loads(run("inspect", CHECKPOINTS / "laplace_last_layer.pt", "--json").stdout)
    assert any("keeps a batch of training data" in trap for trap in fit["traps"])
    swag = json.loads(run("inspect", CHECKPOINTS / "torch_uncertainty_swag.pt", "--json").stdout)
    assert "--batchnorm reestimate" in swag["suggested_command"]
    plain = json.loads(run("inspect", CHECKPOINTS / "swag.pt", "--json").stdout)
    assert "--batchnorm" not in plain["suggested_command"]
    assert "32x196" in run("inspect", CHECKPOINTS / "cplxmodule_l0.pt").stdout
