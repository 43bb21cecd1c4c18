"""deploykit export --bits auto and --plan: the table, a plan to edit, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from rich.console import Console

from deploykit_cli.allocation import allocation_lines, allocation_table
from tests.cli.running import assert_refused, run
from tests.cli.test_dry_run import words
from tests.exported import save
from tests.quantize.graphs import seeded
from tests.quantize.test_sensitivity import small_network

ROWS = [
    {"layers": ["features.conv1"], "weights": 450, "bits": 8, "bytes": 450, "sensitivity": 43.8,
     "share": 0.0171, "fixed": None},
    {"layers": ["up", "down"], "weights": 26_880, "bits": 4, "bytes": 13_440, "sensitivity": 2520.0,
     "share": 0.9829, "fixed": None},
    {"layers": ["fc2"], "weights": 560, "bits": 4, "bytes": 280, "sensitivity": None, "share": None,
     "fixed": "trained"},
]  # fmt: skip
TABLE = """\
layer           weights  bits   bytes  sensitivity  share
─────────────────────────────────────────────────────────
features.conv1      450     8     450         43.8   1.7%
up, down         26,880     4  13,440     2.52e+03  98.3%
fc2                 560     4     280      trained

all              27,890  4.06  14,170
"""


def test_a_table_shows_what_every_weight_takes_and_costs() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(allocation_table(ROWS))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert "\n".join(lines) + "\n" == TABLE


def test_lines_say_what_the_posterior_is_good_for() -> None:
    draws = {
        "judged_by": "accuracy", "samples": 1000, "draws": 8, "mean": 0.91,
        "by_scale": {"1": 0.85, "0.5": 0.907}, "scale": 0.5,
    }  # fmt: skip
    record: dict[str, Any] = {
        "target": "--target-bits 4.5", "sensitivity": "posterior", "float_accuracy": None,
        "tried": [],
        "posterior": {
            "informative": True, "why_not": None, "spread_quartile_ratio": 2.0461,
            "draws": draws, "noise_over_spread": {"4": 2.9},
        },
    }  # fmt: skip
    assert list(allocation_lines(record)) == [
        "--target-bits 4.5: bits by posterior; sensitivity in nats.",
        "The posterior is informative.",
        "Spread s: third quartile over first 2.046.",
        "Draws w + k s eps (accuracy, 1,000 samples, 8 draws): 0.8500 at 1 s, 0.9070 at 0.5 s; "
        "at the mean 0.9100.",
        "Rounding errors over 0.5 s: 2.9 at 4 bits.",
    ]
    without = {
        **record, "target": "--max-accuracy-drop 1", "sensitivity": "moments",
        "float_accuracy": 0.9, "tried": [{"accuracy": 0.89, "largest_file": 1234}],
        "posterior": {
            "informative": False, "why_not": "no variance is known for the weights of a",
            "draws": None, "noise_over_spread": None,
        },
    }  # fmt: skip
    assert list(allocation_lines(without)) == [
        "--max-accuracy-drop 1: bits by moments; sensitivity in change of the output.",
        "The posterior is not informative: no variance is known for the weights of a.",
        "Top-1 of the float network 0.9000; tried: 0.8900 at 1,234 bytes",
    ]


def test_a_posterior_guides_the_bits_of_a_checkpoint(tmp_path: Path) -> None:
    command = words(tmp_path, "--prune-rule", "none", "--align", "none")
    shown = run(*command, "--bits", "auto", "--target-bits", "4", "--json")
    assert shown.exit_code == 0, shown.stderr
    record = json.loads(shown.stdout)
    assert record["mean_bits"] <= 4
    posterior = record["posterior"]
    assert posterior["without_variance"] == []
    assert posterior["draws"]["judged_by"] == "accuracy"
    assert posterior["informative"] == (record["sensitivity"] == "posterior")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "net.pt"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "net.onnx").write_bytes(ir.to_proto(small_network().model).SerializeToString())
    save(folder / "data.npz", inputs=seeded(16, 3, 8, 8, seed=3))
    return ("export", folder / "net.onnx", "--data", folder / "data.npz")


def test_a_dry_run_saves_the_plan_and_an_edited_one_is_taken(
    command: tuple[str | Path, ...], tmp_path: Path
) -> None:
    plan = tmp_path / "bits.json"
    asked = ("--bits", "auto", "--target-bits", "4", "--dry-run")
    shown = run(*command, *asked, "--save-plan", plan, "--json")
    assert shown.exit_code == 0, shown.stderr
    record = json.loads(shown.stdout)
    assert list(tmp_path.iterdir()) == [plan]
    saved = json.loads(plan.read_text(encoding="utf-8"))
    assert {name: one["weight"]["bits"] for name, one in saved["layers"].items()} == {
        name: one["bits"] for one in record["layers"] for name in one["layers"]
    }
    assert (saved["calibration"], saved["rounding"]) == ("mse", "sequential")

    taken = tmp_path / "notes.txt"
    taken.write_text("precious", encoding="utf-8")
    assert_refused(run(*command, *asked, "--save-plan", taken), 3, "exists and is no plan")
    assert taken.read_text(encoding="utf-8") == "precious"

    more = {**saved["layers"], "steam": {"weight": {"bits": 2}}}
    for entry, wrong in (
        ("in_float lists steam", {**saved, "in_float": ["steam"]}),
        ("layers.steam.weight.bits = 2", {**saved, "layers": more}),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(wrong), encoding="utf-8")
        refused = run(*command, "--plan", tmp_path / "wrong.json", "--dry-run")
        assert_refused(refused, 3, f"wrong.json: {entry}: no layer has this name", "are stem")

    saved["layers"]["stem"]["weight"]["bits"] = 6
    plan.write_text(json.dumps(saved), encoding="utf-8")
    edited = run(*command, "--plan", plan, "--dry-run")
    assert edited.exit_code == 0, edited.stderr
    rows = {line.split()[0]: line.split() for line in edited.stdout.splitlines() if line.strip()}
    assert rows["stem"][2] == "6"
    assert "Nothing was written" in edited.stdout

    again, bundle = tmp_path / "again.json", tmp_path / "bundle"
    done = run(*command, "--plan", plan, "--out", bundle, "--save-plan", again)
    assert done.exit_code == 0, done.stderr
    assert json.loads(again.read_text(encoding="utf-8")) == saved


def test_uniform_bits_are_a_plan_to_edit_too(
    command: tuple[str | Path, ...], tmp_path: Path
) -> None:
    plan = tmp_path / "bits.json"
    words = ("--bits", "4", "--layer-bits", "stem=8", "--dry-run", "--save-plan", plan)
    shown = run(*command, *words)
    assert shown.exit_code == 0, shown.stderr
    assert f"--plan {plan} --out BUNDLE" in shown.stdout
    layers = json.loads(plan.read_text(encoding="utf-8"))["layers"]
    bits = {name: one["weight"]["bits"] for name, one in layers.items()}
    assert bits.pop("stem") == 8 and set(bits.values()) == {4}
    taken = run(*command, "--plan", plan, "--dry-run", "--json")
    rows = json.loads(taken.stdout)["layers"]
    assert {name: row["bits"] for row in rows for name in row["layers"]} == {"stem": 8, **bits}


def test_contradictions_are_told(command: tuple[str | Path, ...], tmp_path: Path) -> None:
    auto = ("--bits", "auto")
    command = (*command, "--dry-run")
    assert_refused(run(*command, *auto), 2, "--bits auto needs one limit")
    assert_refused(run(*command, "--bits", "7"), 2, "--bits 7: weights are quantized to")
    assert_refused(run(*command, "--bits", "x"), 2, "--bits x: weights are quantized to")
    assert_refused(run(*command, "--target-bits", "4"), 2, "--target-bits belongs to --bits auto")
    data = tmp_path / "labelled.npz"
    save(data, inputs=seeded(16, 3, 8, 8, seed=3), labels=np.zeros(16, np.int64))
    drop = ("--max-accuracy-drop", "1", "--eval-data", data)
    assert_refused(run(*command, *auto, *drop), 3, "16 of the 16 samples in")
    assert_refused(run(*command, "--plan", tmp_path / "none.json"), 3, "No such file")
