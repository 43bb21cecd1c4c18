"""Choose a penalty in each fold by size, measure every run on the subject left out, write files.

training.json                     settings, every epoch, accuracies and widths of every run
checkpoints/subject-NN.dense.pt   state dict of the plain twin of the fold that leaves NN out
checkpoints/subject-NN.gated.pt   of the gated network at the chosen penalty
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from data import Fold, Windows, split
from model import all_weights, kept_weights, widths
from runs import network_of, run_folder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from labelled_samples import LabelledSamples, accuracy
from training_runs import RunError, load_run, save_atomically, write_atomically

GOAL = 0.5
"""Share of the weights that a network has to lose."""
DIGITS = 5


def describe(checkpoint: dict[str, Any], fold: Fold) -> dict[str, Any]:
    """What training.json says about a run; accuracies are fractions."""
    settings, epochs = checkpoint["settings"], checkpoint["epochs"]
    if len(epochs) != settings["epochs"]:
        raise RunError(
            f"subject {settings['left_out']}, {settings['kind']}, penalty {settings['penalty']:g}: "
            f"{len(epochs)} of {settings['epochs']} epochs are done; go on with `train.py all`."
        )
    network = network_of(checkpoint)
    described: dict[str, Any] = {
        "settings": settings,
        "seconds": round(checkpoint["seconds"], 1),
        "validation_accuracy": accuracy(network, LabelledSamples.of(fold.validation)),
        "test_accuracy": accuracy(network, LabelledSamples.of(fold.test)),
    }
    if settings["kind"] == "gated":
        left = kept_weights(network)
        described |= {
            "widths": list(widths(network)),
            "weights": left,
            "percent_removed": round(100 * (1 - left / all_weights()), 2),
        }
    curves = {key: [round(one[key], DIGITS) for one in epochs] for key in epochs[0]}
    return described | {"by_epoch": curves}


def choose(candidates: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The lightest penalty at which GOAL of the weights go; no accuracy is looked at."""
    reached = [one for one in candidates if one["weights"] <= (1 - GOAL) * all_weights()]
    if not reached:
        raise RunError(
            f"subject {candidates[0]['settings']['left_out']}: no penalty takes {GOAL:.0%} of the "
            "weights out; train at a larger one."
        )
    return min(reached, key=lambda one: float(one["settings"]["penalty"]))


def report_fold(
    runs: Path, windows: Windows, left_out: int, penalties: Sequence[float]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """One fold's entry of training.json; the dense and the chosen gated state dict."""
    fold = split(windows, left_out)
    dense = load_run(run_folder(runs, left_out, "dense", 0.0))
    gated = {p: load_run(run_folder(runs, left_out, "gated", p)) for p in penalties}
    candidates = {penalty: describe(run, fold) for penalty, run in gated.items()}
    chosen = choose(list(candidates.values()))
    penalty = chosen["settings"]["penalty"]
    entry = {
        "left_out": left_out,
        "penalty": penalty,
        "dense": describe(dense, fold),
        "gated": list(candidates.values()),
    }
    others = ", ".join(f"{p:g}: {one['test_accuracy']:.4f}" for p, one in candidates.items())
    print(
        f"subject {left_out:>2} left out: dense {entry['dense']['test_accuracy']:.4f}, by penalty "
        f"{others}; chosen {penalty:g}, widths {chosen['widths']}, "
        f"{chosen['percent_removed']:.1f} % of weights removed"
    )
    return entry, {"dense": dense["model"], "gated": gated[penalty]["model"]}


def write_report(
    runs: Path,
    windows: Windows,
    subjects: Sequence[int],
    penalties: Sequence[float],
    out: Path,
) -> None:
    """All folds into `out`; nothing is written where a run is missing."""
    folds = [report_fold(runs, windows, one, penalties) for one in subjects]
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    for entry, models in folds:
        for kind, model in models.items():
            name = f"subject-{entry['left_out']:02}.{kind}.pt"
            save_atomically(checkpoints / name, model)
    log = {
        "torch": torch.__version__,
        "all_weights": all_weights(),
        "folds": [entry for entry, _ in folds],
    }
    write_atomically(out / "training.json", (json.dumps(log, indent=1) + "\n").encode())
