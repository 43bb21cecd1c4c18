"""Measure finished runs and write what is committed here.

checkpoints/dense{W}-{S}.pt      state dict of model.py's plain network of width W, seed S
checkpoints/bayesian{W}-{S}.pt   of the gated one: all channels, the closed ones too
checkpoints/magnitude{W}-{S}.pt  of the rival of as many weights; -macs: of as many MACs;
                                 -inner: of as many weights, streams whole; -50, -20: of that
                                 percentage of the weights
checkpoints/base{W}-{S}.pt       what these go on from, as long as one of the three is missing
training.json                    settings, every epoch, size and accuracies of each; which test
                                 images it gets right (base64 of a bit for each); by how many
                                 points it is under others, with the standard error of that
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compact import FAST, expanded, kept, opened, without_closed
from costs import cost
from model import ResNet18, Widths, gated, plain
from numpy.typing import NDArray
from table import markdown
from torch import Tensor

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
from labelled_samples import LabelledSamples, accuracy, hits
from training_runs import CHECKPOINT, RunError, halved, load_run, save_atomically, write_atomically

State = dict[str, Tensor]
_DIGITS = 5
_KIND = re.compile(r"^[a-z]+")
AGAIN = "-again"
"""How the run is called that took a finished one further."""
_FROM_BASE = ("dense", "bayesian", "magnitude")


def network_with(state: State) -> ResNet18:
    """The network that a checkpoint of this folder is of, plain or gated, whatever its widths."""
    build = gated if "blocks.0.gate.post_z_mu" in state else plain
    network = build(Widths.of(state))
    network.load_state_dict(state)
    return network


def described(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What training.json says about a run's training."""
    epochs = checkpoint["epochs"]
    curves = {key: [round(one[key], _DIGITS) for one in epochs] for key in epochs[0]}
    return {
        "settings": checkpoint["settings"],
        "seconds": round(checkpoint["seconds"], 1),
        "by_epoch": curves,
    }


def is_done(run: dict[str, Any]) -> bool:
    """Whether a run did all its epochs."""
    return len(run["epochs"]) == int(run["settings"]["epochs"])


def finished(runs: Path) -> dict[str, dict[str, Any]]:
    """The runs under a folder that did all their epochs, by name."""
    loaded = {path.parent.name: load_run(path.parent) for path in runs.glob(f"*/{CHECKPOINT}")}
    return {name: one for name, one in sorted(loaded.items()) if is_done(one)}


def taken_further(runs: dict[str, dict[str, Any]]) -> set[str]:
    """Runs with one that goes on from them, but none of a width and seed that has any without:
    networks that are compared had equally many epochs.
    """
    ready: dict[tuple[int, int], list[str]] = {}
    for name, run in runs.items():
        if run["settings"]["kind"] in ("dense", "settled", "magnitude"):
            group = (run["settings"]["width"], run["settings"]["seed"])
            ready.setdefault(group, []).append(name)
    whole = (names for names in ready.values() if all(name + AGAIN in runs for name in names))
    return {name for names in whole for name in names}


def results(runs: dict[str, dict[str, Any]]) -> Iterator[tuple[str, State, list[dict[str, Any]]]]:
    """Name, state dict and the trainings behind it, of every network that is to be committed.

    Where all runs of a width and seed were taken further, it is what came of that.

    Raises RunError where settled gates lack the run that chose them.
    """
    further = taken_further(runs)
    for name, run in runs.items():
        start, _, seed = name.partition("-")
        kind, width = run["settings"]["kind"], run["settings"]["width"]
        base = runs.get(f"base{width}-{run['settings']['seed']}")
        trainings = [] if base is None else [described(base)]
        last = runs[name + AGAIN] if name in further else run
        after = [described(run)] + ([] if last is run else [described(last)])
        match kind:
            case "base":
                yield name, run["model"], trainings
            case "dense" | "magnitude":
                yield name, last["model"], [*trainings, *after]
            case "settled":
                chose = start.replace("settled", "gates") + f"-{seed}"
                if chose not in runs:
                    raise RunError(f"{name} goes on from {chose}, which is not here, or not done.")
                gates = runs[chose]
                keep = kept(network_with(gates["model"]), FAST)
                state = expanded(gates["model"], last["model"], keep)
                called = start.replace("settled", "bayesian") + f"-{seed}"
                yield called, state, [*trainings, described(gates), *after]


def measured(state: State, validation: LabelledSamples, test: LabelledSamples) -> dict[str, Any]:
    """Size and accuracies; of a gated network when its closed channels are gone."""
    network = network_with({name: values.float() for name, values in state.items()})
    if opened(network):
        network = without_closed(network)
    widths = Widths.of(network.state_dict())
    right = hits(network, test)
    return {
        "widths": asdict(widths),
        **asdict(cost(widths)),
        "validation_accuracy": accuracy(network, validation),
        "test_accuracy": int(right.sum()) / len(right),
        "test_images": len(right),
        "test_hits": base64.b64encode(np.packbits(right.numpy()).tobytes()).decode(),
    }


def hits_of(entry: dict[str, Any]) -> NDArray[np.int8]:
    """Bits of `test_hits`; those after the last image are 0."""
    packed = np.frombuffer(base64.b64decode(entry["test_hits"]), np.uint8)
    return np.unpackbits(packed).astype(np.int8)


def points_under(entry: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Of test accuracy, on the same images; its standard error counts those that one alone knows.

    Of n images of which b are known to the other alone and c to the first alone: points
    100 (b - c) / n, standard error 100 sqrt(b + c - (b - c)^2 / n) / n (McNemar's pairs).
    """
    difference = hits_of(other) - hits_of(entry)
    images = entry["test_images"]
    lost = int(difference.sum())
    variance = int(np.abs(difference).sum()) - lost**2 / images
    return {
        "points": round(100 * lost / images, _DIGITS),
        "standard_error": round(100 * variance**0.5 / images, _DIGITS),
    }


def compared(networks: dict[str, dict[str, Any]]) -> None:
    """Say of every network by how much it is under the dense one and the rival of its seed."""
    for name, entry in networks.items():
        seed = _KIND.sub("", name).split("-")[:2]
        others = [f"{kind}{'-'.join(seed)}" for kind in ("dense", "magnitude")]
        entry["points_under"] = {
            other: points_under(entry, networks[other])
            for other in others
            if other != name and other in networks
        }


def write_report(runs: Path, validation: LabelledSamples, test: LabelledSamples, out: Path) -> None:
    """Every finished run under `runs`; what `out` has of others stays.

    Raises RunError where no run is finished.
    """
    done = finished(runs)
    checkpoints = out / "checkpoints"
    path = out / "training.json"
    log: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"networks": {}}
    found = list(results(done))
    if not found:
        raise RunError(f"{runs} holds no finished run: train with `train.py all --runs {runs}`.")
    checkpoints.mkdir(parents=True, exist_ok=True)
    networks: dict[str, Any] = log["networks"]
    names = networks.keys() | {name for name, _, _ in found}
    over = {f"base{one.removeprefix('dense')}" for one in names if one.startswith("dense")}
    over = {one for one in over if {one.replace("base", kind) for kind in _FROM_BASE} <= names}
    for name in over & networks.keys():
        (checkpoints / f"{name}.pt").unlink(missing_ok=True)
        del networks[name]
    for name, state, trainings in found:
        if name in over:
            continue
        small = halved(state)
        entry = measured(small, validation, test)
        file = checkpoints / f"{name}.pt"
        save_atomically(file, small)
        entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        networks[name] = entry | {"trainings": trainings}
        print(
            f"{name}: {entry['weights']:,} weights, {entry['macs'] / 1e6:.1f} million MACs, "
            f"validation {100 * entry['validation_accuracy']:.2f} %, "
            f"test {100 * entry['test_accuracy']:.2f} %",
            flush=True,
        )
    compared(networks)
    ordered = {"torch": torch.__version__, "networks": dict(sorted(networks.items()))}
    write_atomically(path, (json.dumps(ordered, indent=1) + "\n").encode())
    print(markdown({name: one for name, one in networks.items() if "trainings" in one}))
