"""deploykit export --dry-run: accuracy and size along a threshold, nothing written."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from deploykit.exporting.threshold_curve import CurvePoint, ThresholdCurve
from deploykit_cli.curve import bars, curve_lines, curve_table
from tests.cli.running import assert_refused, run
from tests.exported import ROOT, save
from tests.posterior.gnj_layers import bayesian_net

MODEL = f"{ROOT}/tests/posterior/gnj_layers.py:bayesian_net"


def words(folder: Path, *more: str | Path) -> tuple[str | Path, ...]:
    """A command line for a small network and its own answers as labels."""
    torch.manual_seed(0)
    network = bayesian_net().eval()
    for name, parameter in network.named_parameters():
        if name.endswith("z_logvar"):
            nn.init.uniform_(parameter, -6.0, 0.0)
        elif name.endswith("weight_mu"):
            nn.init.normal_(parameter, std=0.5)
    torch.save(network.state_dict(), folder / "net.pt")
    inputs = np.random.default_rng(0).standard_normal((40, 1, 8, 8)).astype(np.float32)
    labels = network(torch.tensor(inputs)).argmax(1).numpy()
    save(folder / "data.npz", inputs=inputs, labels=labels)
    return (
        "export", folder / "net.pt", "--model", MODEL, "--input-shape", "1,1,8,8", "--data",
        folder / "data.npz", "--eval-data", folder / "data.npz", "--dry-run", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("curve")
    result = run(*words(folder, "--json"))
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "net.pt"]
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_it_begins_with_the_whole_network(curve: dict[str, Any]) -> None:
    first = curve["points"][0]
    assert (first["threshold"], first["closed"], first["accuracy"]) == (None, 0, 1.0)
    assert curve["gates"] == 4 + 6 + 6 + 5
    assert (curve["rule"], curve["statistic"]) == ("family", "log alpha")


def test_each_threshold_closes_more_and_leaves_less(curve: dict[str, Any]) -> None:
    points = curve["points"][1:]
    assert len(points) > 2
    closed = [point["closed"] for point in points]
    assert closed == sorted(closed)
    assert closed[0] == 2
    for name in ("parameters", "macs"):
        sizes = [point[name] for point in points]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] < curve["points"][0][name]


def test_a_point_is_what_the_export_gives(curve: dict[str, Any], tmp_path: Path) -> None:
    import deploykit

    point = curve["points"][3]
    command = words(tmp_path)
    made = deploykit.export(
        command[1], model=MODEL, input_shape=(1, 1, 8, 8), data=tmp_path / "data.npz",
        eval_data=tmp_path / "data.npz", threshold=point["threshold"], out=tmp_path / "b",
    )  # fmt: skip
    assert made.manifest["accuracy"]["pruned"] == pytest.approx(point["accuracy"])
    assert made.manifest["removal"]["parameters_after"] == point["parameters"]


def test_a_table_says_what_to_do_next(tmp_path: Path) -> None:
    result = run(*words(tmp_path))
    assert result.exit_code == 0, result.stderr
    for told in ("threshold", "▣", "nothing was written", "within one point"):
        assert told in result.stdout


def test_the_next_command_can_be_pasted(tmp_path: Path) -> None:
    result = run(*words(tmp_path, "--align", "none", "--exact"))
    line = next(line for line in result.stdout.splitlines() if line.startswith("Next: "))
    command = shlex.split(line.removeprefix("Next: "))
    assert command[:3] == ["deploykit", "export", str(tmp_path / "net.pt")]
    assert "--exact" in command
    assert command[command.index("--align") + 1] == "none"
    place = command.index("--out") + 1
    assert command[place] == "bundle"
    command[place] = str(tmp_path / "bundle")
    done = run(*command[1:])
    assert done.exit_code == 0, done.stderr
    made = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    threshold = float(command[command.index("--threshold") + 1])
    assert {gate["threshold"] for gate in made["fold"]["gates"]} == {threshold}


def made_curve(
    accuracies: tuple[float, ...], default: float | None, ended: str = ""
) -> ThresholdCurve:
    """Thresholds 1, 2, ... behind the unpruned network."""
    points = [
        CurvePoint(float(place) if place else None, place, 100 - place, 1000, accuracy)
        for place, accuracy in enumerate(accuracies)
    ]
    return ThresholdCurve(
        Path("net.pt"), "snr", "signal-to-noise", 9, 50, tuple(points), ended, default
    )


def test_no_threshold_within_one_point_is_said() -> None:
    lines = curve_lines(made_curve((0.9, 0.8, 0.5), None), "deploykit export net.pt")
    assert "none, every threshold costs more than one point" in lines[1]
    assert lines[2] == "Next: deploykit export net.pt --prune-rule none"


def test_the_default_is_marked_or_told_to_lie_beyond() -> None:
    curve = made_curve((0.9, 0.9, 0.5), 2.0)
    assert "* 2" in rendered(curve)
    assert "* 1" not in rendered(curve)
    assert curve_lines(curve, "")[1].startswith("*: the default of the rule")
    beyond = made_curve((0.9, 0.9, 0.5), 3.0, "layer 'a': closes all")
    assert "*" not in rendered(beyond)
    assert curve_lines(beyond, "")[1] == "The default of the rule, 3, lies beyond the last row."


def test_the_default_of_the_rule_is_tried(tmp_path: Path) -> None:
    result = run(*words(tmp_path, "--prune-rule", "savage-dickey", "--json"))
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["default"] == 0.0
    tried = [point["threshold"] for point in found["points"][1:]]
    assert 0.0 in tried
    assert tried == sorted(tried, reverse=True)


def rendered(curve: ThresholdCurve) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(curve_table(curve))
    return captured.get()


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (("--prune-rule", "none"), 3, "which --prune-rule none has not"),
        (("--batchnorm", "no"), 2, "batchnorm"),
    ],
)
def test_what_has_no_curve_is_refused(
    more: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    assert_refused(run(*words(tmp_path, *more)), code, told)


def test_labels_are_needed(tmp_path: Path) -> None:
    command = words(tmp_path)
    with np.load(tmp_path / "data.npz") as stored:
        save(tmp_path / "data.npz", inputs=stored["inputs"])
    assert_refused(run(*command), 3, "give --eval-data with `inputs` and `labels`")


def test_without_it_a_folder_is_needed(tmp_path: Path) -> None:
    assert_refused(run(*words(tmp_path)[:-1]), 2, "give --out FOLDER")


@pytest.mark.parametrize(
    ("accuracy", "size", "told"),
    [(1.0, 0.5, "▣" * 10 + "▪" * 10), (0.5, 1.0, "▣" * 10 + "▫" * 10), (0.0, 0.0, "")],
)
def test_bars(accuracy: float, size: float, told: str) -> None:
    assert bars(accuracy, size) == told
