"""Measure each library's run, choose what to prune, and write what is committed here.

NAME.pt        the network's state dict, as the library names its tensors
NAME.toml      options of `deploykit export`, the pruning rule and its thresholds among them
training.json  settings, every epoch, accuracies and thresholds of each run
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from libraries import LIBRARIES, Library
from model import HIDDEN, Network
from pruning import choose_thresholds, closed, ratios

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "lenet5"))
from data import split_for_validation, test_images, training_images
from labelled_samples import EVALUATION_BATCH, LabelledSamples, accuracy
from training_runs import RunError, load_run, save_atomically, write_atomically

DRAWS = 16
DIGITS = 5

EXPORT_TOML = """\
# Options of `deploykit export`: a flag on the command line overrides one, and what is not named
# here is the default. Paths are relative to this file.
model = "model.py:network" # of torch's layers: exporting needs no library of posteriors
input_shape = [1, 1, 28, 28]
data = "../lenet5/calibration.npz"
eval_data = "../lenet5/test-2000.npz"
to = ["onnx", "tflite"]
labels = "../lenet5/labels.txt"
mean = 0              # x = (pixel - mean) / std
std = 255
align = "none"        # what can go goes; "auto" keeps channels that kernels are faster with
"""


@dataclass(frozen=True)
class Measured:
    """A finished run: what NAME.pt, NAME.toml and training.json say."""

    library: str
    state: dict[str, Any]
    pruning: str
    described: dict[str, Any]


def write_report(runs: Sequence[Path], folder: Path, out: Path, tolerance: float) -> None:
    """All runs into `out`; nothing is written where one cannot be reported."""
    _, held_out = split_for_validation(training_images(folder))
    validation, test = LabelledSamples.of(held_out), LabelledSamples.of(test_images(folder))
    found = [measure(run, validation, test, tolerance) for run in runs]
    names = [one.library for one in found]
    if len(set(names)) != len(names):
        raise RunError(f"two runs are of one library: {', '.join(names)}; name one of each.")
    for one in found:
        save_atomically(out / f"{one.library}.pt", one.state)
        write_atomically(out / f"{one.library}.toml", (EXPORT_TOML + one.pruning).encode())
    log = {
        "torch": torch.__version__,
        "prune_tolerance": tolerance,
        "runs": {one.library: one.described for one in found},
    }
    write_atomically(out / "training.json", (json.dumps(log, indent=1) + "\n").encode())


def measure(
    run: Path, validation: LabelledSamples, test: LabelledSamples, tolerance: float
) -> Measured:
    """Accuracies of the mean, of random networks and of the pruned mean; choices on validation.

    Raises RunError where the run is not finished, LibraryError where its library is missing.
    """
    checkpoint = load_run(run)
    settings, epochs = checkpoint["settings"], checkpoint["epochs"]
    name = settings["library"]
    if len(epochs) != settings["epochs"]:
        raise RunError(
            f"{run}: {len(epochs)} of {settings['epochs']} epochs are done; go on with "
            f"`train.py fit --library {name} --epochs {settings['epochs']} --out {run} --resume`."
        )
    library = LIBRARIES[name]
    library.require()
    trained = library.build()
    trained.load_state_dict(checkpoint["model"])
    mean = library.mean(trained)
    rule, pruned = choose(library, trained, mean, validation, tolerance)
    torch.manual_seed(settings["seed"])
    described = {
        "settings": settings,
        "seconds": round(checkpoint["seconds"], 1),
        "validation_accuracy": accuracy(mean, validation),
        "test_accuracy": accuracy(mean, test),
        f"test_accuracy_of_{DRAWS}_draws": predictive_accuracy(trained, test),
        "pruned": {
            **rule,
            "weights_zero": sum(int((p == 0).sum()) for p in pruned.parameters()),
            "validation_accuracy": accuracy(pruned, validation),
            "test_accuracy": accuracy(pruned, test),
        },
        "by_epoch": {key: [round(one[key], DIGITS) for one in epochs] for key in epochs[0]},
    }
    print(summary(name, described))
    return Measured(name, checkpoint["model"], options(rule), described)


def predictive_accuracy(trained: Network, images: LabelledSamples) -> float:
    """Fraction classified correctly by class probabilities averaged over 16 random networks.

    In training mode, in which the layers of all libraries draw.
    """
    trained.train()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(images.labels), EVALUATION_BATCH):
            chosen = slice(start, start + EVALUATION_BATCH)
            inputs, labels = images.inputs[chosen], images.labels[chosen]
            draws = torch.stack([trained(inputs).softmax(dim=1) for _ in range(DRAWS)])
            correct += int((draws.mean(dim=0).argmax(dim=1) == labels).sum())
    return correct / len(images.labels)


def choose(
    library: Library, trained: Network, mean: Network, validation: LabelledSamples, tolerance: float
) -> tuple[dict[str, Any], Network]:
    """The rule with its thresholds, and the mean network that it leaves.

    Where the library's evaluation leaves weights out, that is the rule, and nothing is chosen.
    """
    if library.left_out is not None:
        return {"rule": "family"}, library.evaluated(trained)
    noise = ratios(library, trained)
    thresholds = choose_thresholds(mean, noise, lambda one: accuracy(one, validation), tolerance)
    shut = {name: int((noise[name] < thresholds[name]).sum()) for name in HIDDEN}
    rule = {
        "rule": "snr" if any(shut.values()) else "none",
        "thresholds": thresholds,
        "closed_channels": shut,
        "ratios": {
            name: [round(value, 3) for value in noise[name].sort().values.tolist()]
            for name in HIDDEN
        },
    }
    return rule, closed(mean, noise, thresholds)


def options(rule: Mapping[str, Any]) -> str:
    """The lines of NAME.toml about pruning."""
    match rule["rule"]:
        case "family":
            return 'prune_rule = "family" # leaves out what the library\'s own evaluation does\n'
        case "none":
            return 'prune_rule = "none"   # no channel can go within the tolerance\n'
        case _:
            rows = "".join(f"{name} = {rule['thresholds'][name]}\n" for name in HIDDEN)
            return (
                'prune_rule = "snr"\n\n[threshold]           # signal-to-noise ratio under which '
                f"a channel goes; chosen on validation images\n{rows}"
            )


def summary(name: str, described: Mapping[str, Any]) -> str:
    """One line per run, accuracies in percent."""
    pruned = described["pruned"]
    shut = pruned.get("closed_channels", "as the library drops weights")
    return (
        f"{name}, {described['settings']['epochs']} epochs, {described['seconds']} s: test "
        f"{100 * described['test_accuracy']:.2f} %, {DRAWS} draws "
        f"{100 * described[f'test_accuracy_of_{DRAWS}_draws']:.2f} %, pruned "
        f"{100 * pruned['test_accuracy']:.2f} % ({pruned['rule']}: {shut}; "
        f"{pruned['weights_zero']:,} zeros)"
    )
