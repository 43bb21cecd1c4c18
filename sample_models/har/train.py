"""Train the network with each subject left out in turn, choose penalties, and write the files.

fit     trains one network of one fold into a run folder; --resume goes on after the last epoch
all     trains every network of every fold under a folder of runs, going on where it stopped
report  chooses a penalty by size, measures each left-out subject, writes what is committed here
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from augment import turned
from data import SUBJECTS, DataError, Windows, cut, read_recordings, split
from model import HarNet, all_weights, expected_weights
from report import write_report
from runs import ARCHITECTURES, run_folder
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from labelled_samples import LabelledSamples, accuracy
from learning_rates import set_learning_rates
from training_runs import CHECKPOINT, RunError, begin, keep

PENALTIES = (2.0, 4.0, 8.0)
"""Nats that all weights cost: those that are trained in each fold."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes. penalty: nats for all weights; 0 for dense."""

    left_out: int
    kind: str
    penalty: float
    epochs: int = 30
    seed: int = 0
    batch: int = 64
    learning_rate: float = 2e-3
    gate_learning_rate: float = 2e-2
    weight_decay: float = 1e-4
    warmup_epochs: float = 5.0


def make_optimizer(network: HarNet, settings: Settings) -> torch.optim.AdamW:
    """AdamW in two groups: the gates' locations, and everything else."""
    named = list(network.named_parameters())
    gates = [p for name, p in named if name.endswith("qz_loga")]
    others = [p for name, p in named if not name.endswith("qz_loga")]
    groups: list[dict[str, Any]] = [
        {"params": others, "peak": settings.learning_rate, "weight_decay": settings.weight_decay}
    ]
    if gates:
        groups.append({"params": gates, "peak": settings.gate_learning_rate})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=0.0)


def batches(
    training: LabelledSamples, settings: Settings, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled whole batches of turned windows; all depends on the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
    for inputs, labels in training.shuffled(settings.batch, generator):
        yield turned(inputs, generator), labels


def train_epoch(
    network: HarNet,
    optimizer: torch.optim.Optimizer,
    training: LabelledSamples,
    settings: Settings,
    epoch: int,
) -> float:
    """One pass; returns the mean cross-entropy in nats.

    Loss: cross-entropy + penalty * warm-up * expected weights / all weights.
    """
    network.train()
    steps = len(training.labels) // settings.batch
    total = 0.0
    for step, (inputs, labels) in enumerate(batches(training, settings, epoch)):
        now = epoch + step / steps
        set_learning_rates(optimizer, now / settings.epochs)
        cross_entropy = functional.cross_entropy(network(inputs), labels)
        loss = cross_entropy
        if settings.kind == "gated":
            warmup = min(1.0, now / settings.warmup_epochs) if settings.warmup_epochs else 1.0
            share = expected_weights(network) / all_weights()
            loss = loss + settings.penalty * warmup * share
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(cross_entropy.detach())
    return total / steps


def fit(settings: Settings, run: Path, windows: Windows, *, resume: bool) -> None:
    """Train for settings.epochs, leaving run/checkpoint.pt after each of them."""
    torch.manual_seed(settings.seed)
    fold = split(windows, settings.left_out)
    training, validation = LabelledSamples.of(fold.training), LabelledSamples.of(fold.validation)
    network = ARCHITECTURES[settings.kind]()
    optimizer = make_optimizer(network, settings)
    epochs, seconds = begin(run, settings, network, optimizer, resume=resume)
    for epoch in range(len(epochs), settings.epochs):
        started = time.monotonic()
        loss = train_epoch(network, optimizer, training, settings, epoch)
        seconds += time.monotonic() - started
        measured = {"cross_entropy": loss, "validation_accuracy": accuracy(network, validation)}
        if settings.kind == "gated":
            measured["expected_weights"] = float(expected_weights(network).detach())
        epochs = [*epochs, measured]
        keep(run, settings, network, optimizer, epochs, seconds)
    print(
        f"subject {settings.left_out} left out, {settings.kind}, penalty {settings.penalty:g}: "
        f"validation {epochs[-1]['validation_accuracy']:.4f} after {len(epochs)} epochs, "
        f"{seconds:.0f} s",
        flush=True,
    )


def fit_all(
    runs: Path, windows: Windows, penalties: Sequence[float], epochs: int, seed: int
) -> None:
    """Every fold: the dense twin, then the gated network at every penalty."""
    for left_out in SUBJECTS:
        for kind, penalty in (("dense", 0.0), *(("gated", one) for one in penalties)):
            run = run_folder(runs, left_out, kind, penalty)
            settings = Settings(left_out, kind, penalty, epochs, seed)
            fit(settings, run, windows, resume=(run / CHECKPOINT).exists())


def parse_arguments() -> argparse.Namespace:
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", type=Path, help="watch_dataset.npy, if seglearn is not installed")
    common.add_argument("--threads", type=int, default=1, help="processor threads")

    def command(name: str, told: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], formatter_class=show_defaults, help=told)

    one = command("fit", "train one network of one fold")
    one.add_argument("--left-out", type=int, choices=SUBJECTS, required=True, help="subject")
    one.add_argument("--kind", choices=sorted(ARCHITECTURES), required=True, help="which twin")
    one.add_argument("--penalty", type=float, default=PENALTIES[-1], help="nats for all weights")
    one.add_argument("--out", type=Path, required=True, help="run folder")
    one.add_argument("--resume", action="store_true", help="go on after the last whole epoch")
    every = command("all", "train every network of every fold, going on where it stopped")
    every.add_argument("--runs", type=Path, required=True, help="folder of run folders")
    for trains in (one, every):
        trains.add_argument("--epochs", type=int, default=Settings.epochs, help="over all windows")
        trains.add_argument("--seed", type=int, default=Settings.seed, help="weights, order, noise")
    summary = command("report", "write training.json and the checkpoints")
    summary.add_argument("--runs", type=Path, required=True, help="folder of run folders")
    for several in (every, summary):
        several.add_argument(
            "--penalties", type=float, nargs="+", default=PENALTIES, help="nats for all weights"
        )
    summary.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    return parser.parse_args()


def run_command(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    windows = cut(read_recordings(arguments.data))
    match arguments.command:
        case "fit":
            penalty = arguments.penalty if arguments.kind == "gated" else 0.0
            settings = Settings(
                arguments.left_out, arguments.kind, penalty, arguments.epochs, arguments.seed
            )
            fit(settings, arguments.out, windows, resume=arguments.resume)
        case "all":
            fit_all(arguments.runs, windows, arguments.penalties, arguments.epochs, arguments.seed)
        case "report":
            write_report(arguments.runs, windows, SUBJECTS, arguments.penalties, arguments.out)


def main() -> int:
    try:
        run_command(parse_arguments())
    except (DataError, RunError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
