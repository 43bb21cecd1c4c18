"""Train LeNet-5 on Fashion-MNIST, choose thresholds, and write the files of this folder.

fit     trains one model into a run folder; --resume goes on after the last whole epoch
report  evaluates run folders and writes training.json, dense.pt, bayesian.pt, export.toml
also    evaluates one more run and writes it beside those: bayesian-kl1.pt, export-kl1.toml
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from data import (
    DEBIAN_FOLDER,
    DataError,
    split_for_validation,
    training_images,
)
from group_normal_jeffreys import GroupNormalJeffreys
from model import LeNet5
from report import ARCHITECTURES, TOLERANCE, also, report
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from labelled_samples import LabelledSamples, accuracy
from learning_rates import set_learning_rates
from training_runs import RunError, begin, keep


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes."""

    kind: str
    epochs: int
    seed: int
    batch: int
    learning_rate: float
    logvar_learning_rate: float
    kl_weight: float
    warmup_epochs: float


def kl_divergence(model: LeNet5) -> Tensor:
    """KL of all Bayesian layers in nats; 0 for the dense model."""
    layers = (m for m in model.modules() if isinstance(m, GroupNormalJeffreys))
    return sum((layer.kl_divergence() for layer in layers), start=torch.zeros(()))


def make_optimizer(model: LeNet5, settings: Settings) -> torch.optim.Adam:
    """Adam in two groups: the log-variances, and everything else."""
    named = list(model.named_parameters())
    groups = [
        {
            "params": [p for name, p in named if not name.endswith("_logvar")],
            "peak": settings.learning_rate,
        },
        {
            "params": [p for name, p in named if name.endswith("_logvar")],
            "peak": settings.logvar_learning_rate,
        },
    ]
    return torch.optim.Adam([g for g in groups if g["params"]], lr=settings.learning_rate)


def train_epoch(
    model: LeNet5,
    optimizer: torch.optim.Optimizer,
    split: LabelledSamples,
    settings: Settings,
    epoch: int,
) -> float:
    """One pass over the training images; returns the mean cross-entropy in nats.

    Loss per example: cross-entropy + kl_weight * warm-up * KL / number of training images.
    """
    model.train()
    steps = len(split.labels) // settings.batch
    total = 0.0
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
    batches = split.shuffled(settings.batch, generator)
    for step, (inputs, labels) in enumerate(batches):
        now = epoch + step / steps
        set_learning_rates(optimizer, now / settings.epochs)
        warmup = min(1.0, now / settings.warmup_epochs) if settings.warmup_epochs else 1.0
        cross_entropy = functional.cross_entropy(model(inputs), labels)
        loss = cross_entropy
        if settings.kind == "bayesian":
            loss = loss + settings.kl_weight * warmup / len(split.labels) * kl_divergence(model)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(cross_entropy.detach())
    return total / steps


def fit(settings: Settings, run: Path, folder: Path, *, resume: bool) -> None:
    """Train for settings.epochs, leaving run/checkpoint.pt after each of them."""
    torch.manual_seed(settings.seed)
    rest, held_out = split_for_validation(training_images(folder))
    training, validation = LabelledSamples.of(rest), LabelledSamples.of(held_out)
    model = ARCHITECTURES[settings.kind]()
    optimizer = make_optimizer(model, settings)
    epochs, seconds = begin(run, settings, model, optimizer, resume=resume)
    for epoch in range(len(epochs), settings.epochs):
        started = time.monotonic()
        loss = train_epoch(model, optimizer, training, settings, epoch)
        seconds += time.monotonic() - started
        measured = {
            "cross_entropy": loss,
            "kl": float(kl_divergence(model).detach()),
            "validation_accuracy": accuracy(model, validation),
        }
        epochs = [*epochs, measured]
        keep(run, settings, model, optimizer, epochs, seconds)
        print(
            f"epoch {epoch + 1}/{settings.epochs}  cross-entropy {loss:.4f} nats  "
            f"KL {measured['kl']:,.0f} nats  "
            f"validation {100 * measured['validation_accuracy']:.2f} %  {seconds:.0f} s",
            flush=True,
        )


def parse_arguments() -> argparse.Namespace:
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data-dir", type=Path, default=DEBIAN_FOLDER, help="folder of the idx files"
    )
    common.add_argument("--threads", type=int, default=1, help="processor threads")

    train = commands.add_parser(
        "fit", parents=[common], formatter_class=show_defaults, help="train one model"
    )
    train.add_argument("--kind", choices=sorted(ARCHITECTURES), required=True, help="which twin")
    train.add_argument("--out", type=Path, required=True, help="run folder")
    train.add_argument("--resume", action="store_true", help="go on after the last whole epoch")
    train.add_argument("--epochs", type=int, default=40, help="passes over 55,000 images")
    train.add_argument("--seed", type=int, default=0, help="initialisation, order, noise")
    train.add_argument("--batch", type=int, default=128, help="images per step")
    train.add_argument("--learning-rate", type=float, default=1e-3, help="of means, at its peak")
    train.add_argument(
        "--logvar-learning-rate", type=float, default=1e-2, help="of log-variances, at its peak"
    )
    train.add_argument("--kl-weight", type=float, default=1.0, help="1 is the variational bound")
    train.add_argument("--warmup-epochs", type=float, default=5.0, help="KL weight rises from 0")

    summary = commands.add_parser(
        "report", parents=[common], formatter_class=show_defaults, help="write the shipped files"
    )
    summary.add_argument("--dense", type=Path, required=True, help="run folder of the dense twin")
    summary.add_argument("--shipped", type=Path, required=True, help="run folder to ship")
    summary.add_argument(
        "--also", type=Path, action="append", default=[], help="run folder to log only; repeatable"
    )
    more = commands.add_parser(
        "also", parents=[common], formatter_class=show_defaults, help="write another posterior"
    )
    more.add_argument("--run", type=Path, required=True, help="run folder of KL weight 1")
    for writes in (summary, more):
        writes.add_argument(
            "--out", type=Path, default=Path(__file__).parent, help="folder to write into"
        )
        writes.add_argument(
            "--tolerance",
            type=float,
            default=TOLERANCE,
            help="validation accuracy pruning may cost",
        )
    return parser.parse_args()


def run_command(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    if arguments.command == "report":
        report(
            arguments.dense,
            arguments.shipped,
            arguments.also,
            arguments.data_dir,
            arguments.out,
            arguments.tolerance,
        )
        return
    if arguments.command == "also":
        also(arguments.run, arguments.data_dir, arguments.out, arguments.tolerance)
        return
    settings = Settings(
        kind=arguments.kind,
        epochs=arguments.epochs,
        seed=arguments.seed,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        logvar_learning_rate=arguments.logvar_learning_rate,
        kl_weight=arguments.kl_weight if arguments.kind == "bayesian" else 0.0,
        warmup_epochs=arguments.warmup_epochs if arguments.kind == "bayesian" else 0.0,
    )
    fit(settings, arguments.out, arguments.data_dir, resume=arguments.resume)


def main() -> int:
    try:
        run_command(parse_arguments())
    except (DataError, RunError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
