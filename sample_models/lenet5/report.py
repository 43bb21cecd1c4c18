"""Evaluate run folders of LeNet-5, choose thresholds, and write what is committed here."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from data import split_for_validation, test_images, training_images
from model import LeNet5, bayesian_lenet5, lenet5
from pruning import LAYERS, choose_thresholds, kept_gates, prune, remaining_widths

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from labelled_samples import LabelledSamples, accuracy
from training_runs import RunError, halved, load_run, save_atomically, write_atomically

ARCHITECTURES = {"dense": lenet5, "bayesian": bayesian_lenet5}
TOLERANCE = 0.004
"""Share of the validation images that pruning may cost."""

EXPORT_TOML = """\
# Every option of `deploykit export`; a flag on the command line overrides it. \
Paths are relative to this file.
model = "model.py:bayesian_lenet5"
input_shape = [1, 1, 28, 28]
data = "calibration.npz"
eval_data = "test-2000.npz"
bits = 8
to = ["onnx", "tflite"]
prune_rule = "family"
batchnorm = "keep"
calibration = "mse"
rounding = "compensated"
io = "float"
tflite_layout = "nhwc"

[threshold]          # log alpha at and above which a gate is closed; chosen on validation images
"""


def describe_pruned(
    model: LeNet5, validation: LabelledSamples, test: LabelledSamples, tolerance: float
) -> dict[str, Any]:
    """Choose thresholds on the validation images and measure the pruned posterior mean."""
    thresholds = choose_thresholds(model, lambda m: accuracy(m, validation), tolerance)
    pruned = prune(model, thresholds)
    kept = kept_gates(model, thresholds)
    widths = remaining_widths(kept)
    return {
        "thresholds": thresholds,
        "kept_gates": {name: int(kept[name].sum()) for name in LAYERS},
        "widths": asdict(widths),
        "weights": widths.weights,
        "percent_removed": round(widths.percent_removed, 3),
        "validation_accuracy": accuracy(pruned, validation),
        "test_accuracy": accuracy(pruned, test),
    }


def describe_checkpoint(
    checkpoint: dict[str, Any], validation: LabelledSamples, test: LabelledSamples, tolerance: float
) -> dict[str, Any]:
    """What training.json says about one run; accuracies are fractions."""
    settings = checkpoint["settings"]
    model = ARCHITECTURES[settings["kind"]]()
    model.load_state_dict(checkpoint["model"])
    description = {
        "settings": settings,
        "epochs_done": len(checkpoint["epochs"]),
        "seconds": round(checkpoint["seconds"], 1),
        "validation_accuracy": accuracy(model, validation),
        "test_accuracy": accuracy(model, test),
    }
    if settings["kind"] == "bayesian":
        pruned = describe_pruned(model, validation, test, tolerance)
        description |= {"prune_tolerance": tolerance, "pruned": pruned}
    return description | {"epochs": checkpoint["epochs"]}


def report(
    dense: Path, shipped: Path, others: list[Path], folder: Path, out: Path, tolerance: float
) -> None:
    """Evaluate the runs and write the four files that come from them into `out`."""
    _, held_out = split_for_validation(training_images(folder))
    validation, test = LabelledSamples.of(held_out), LabelledSamples.of(test_images(folder))
    loaded = [load_run(run) for run in (dense, shipped, *others)]
    runs = [describe_checkpoint(one, validation, test, tolerance) for one in loaded]
    kinds = [run["settings"]["kind"] for run in runs[:2]]
    if kinds != ["dense", "bayesian"]:
        raise RunError(f"--dense and --shipped name runs of the kinds {' and '.join(kinds)}.")
    for description in runs:
        print(summary_line(description))
    log = {"torch": torch.__version__, "dense": runs[0], "shipped": runs[1], "others": runs[2:]}
    write_atomically(out / "training.json", (json.dumps(log, indent=1) + "\n").encode())
    save_atomically(out / "dense.pt", load_run(dense)["model"])
    save_atomically(out / "bayesian.pt", load_run(shipped)["model"])
    thresholds = runs[1]["pruned"]["thresholds"]
    rows = "".join(f"{name} = {thresholds[name]}\n" for name in LAYERS)
    write_atomically(out / "export.toml", (EXPORT_TOML + rows).encode())


def also(run: Path, folder: Path, out: Path, tolerance: float) -> None:
    """Put one more Bayesian run beside the shipped one, with export.toml's options.

    Writes bayesian-kl1.pt (kernels and matrices in float16), export-kl1.toml, and the run into
    training.json, in the place of another of the same KL weight.

    Raises RunError where the run is none of KL weight 1.
    """
    checkpoint = load_run(run)
    if checkpoint["settings"]["kl_weight"] != 1.0:
        raise RunError(f"{run} was trained at KL weight {checkpoint['settings']['kl_weight']:g}.")
    _, held_out = split_for_validation(training_images(folder))
    validation, test = LabelledSamples.of(held_out), LabelledSamples.of(test_images(folder))
    small = halved(checkpoint["model"])
    rounded = {name: values.float() for name, values in small.items()}
    described = describe_checkpoint(checkpoint | {"model": rounded}, validation, test, tolerance)
    print(summary_line(described))
    log = json.loads((out / "training.json").read_text())
    others = [one for one in log["others"] if one["settings"]["kl_weight"] != 1.0]
    log["others"] = [*others, described]
    options = (out / "export.toml").read_text().partition("[threshold]")[0]
    thresholds = described["pruned"]["thresholds"]
    rows = "".join(f"{name} = {thresholds[name]}\n" for name in LAYERS)
    heading = "[threshold]          # chosen as export.toml's\n"
    write_atomically(out / "training.json", (json.dumps(log, indent=1) + "\n").encode())
    save_atomically(out / "bayesian-kl1.pt", small)
    write_atomically(out / "export-kl1.toml", (options + heading + rows).encode())


def summary_line(run: dict[str, Any]) -> str:
    """One line per run: accuracies in percent, widths, percent removed."""
    settings = run["settings"]
    line = (
        f"{settings['kind']}, KL weight {settings['kl_weight']}, {run['epochs_done']} epochs, "
        f"{run['seconds']} s: test {100 * run['test_accuracy']:.2f} %"
    )
    if "pruned" not in run:
        return line
    pruned = run["pruned"]
    widths = "-".join(str(width) for width in pruned["widths"].values())
    return (
        f"{line}, pruned {100 * pruned['test_accuracy']:.2f} %, widths {widths}, "
        f"{pruned['percent_removed']:.2f} % removed, thresholds {pruned['thresholds']}"
    )
