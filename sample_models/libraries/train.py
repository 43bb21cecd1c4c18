"""Train the network with one library after the other, and write the files of this folder.

fit     trains with one library into a run folder; --resume goes on after the last whole epoch
report  measures run folders and writes NAME.pt and NAME.toml of each library, and training.json
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from libraries import BATCH, LIBRARIES, Library, LibraryError
from model import Network
from report import write_report
from torch.nn import functional

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "lenet5"))
from data import DEBIAN_FOLDER, DataError, split_for_validation, training_images
from labelled_samples import LabelledSamples, accuracy
from learning_rates import set_learning_rates
from training_runs import RunError, begin, keep

SPREADS = ("rho_kernel", "rho_weight", "rho_bias", "log_sigma", "log_sigma2")
"""How the names of the libraries' spreads end."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes.

    kl_weight: of the library's own divergence, which each scales in its own way.
    """

    library: str
    kl_weight: float
    epochs: int = 12
    seed: int = 0
    batch: int = BATCH
    learning_rate: float = 3e-3
    spread_learning_rate: float = 1e-2
    warmup_epochs: float = 4.0


def make_optimizer(network: Network, settings: Settings) -> torch.optim.Adam:
    """Adam in two groups: the spreads of weights, and their means."""
    named = list(network.named_parameters())
    groups = [
        {
            "params": [p for name, p in named if not name.endswith(SPREADS)],
            "peak": settings.learning_rate,
        },
        {
            "params": [p for name, p in named if name.endswith(SPREADS)],
            "peak": settings.spread_learning_rate,
        },
    ]
    return torch.optim.Adam(groups, lr=settings.learning_rate)


def train_epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    training: LabelledSamples,
    library: Library,
    settings: Settings,
    epoch: int,
) -> float:
    """One pass over the training images; returns the mean cross-entropy in nats.

    Loss: mean cross-entropy of the batch + kl_weight * warm-up * the library's divergence.
    """
    network.train()
    steps = len(training.labels) // settings.batch
    total = 0.0
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
    for step, (inputs, labels) in enumerate(training.shuffled(settings.batch, generator)):
        now = epoch + step / steps
        set_learning_rates(optimizer, now / settings.epochs)
        warmup = min(1.0, now / settings.warmup_epochs) if settings.warmup_epochs else 1.0
        cross_entropy = functional.cross_entropy(network(inputs), labels)
        loss = cross_entropy + settings.kl_weight * warmup * library.divergence(network)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(cross_entropy.detach())
    return total / steps


def fit(settings: Settings, run: Path, folder: Path, *, resume: bool) -> None:
    """Train for settings.epochs, leaving run/checkpoint.pt after each of them."""
    library = LIBRARIES[settings.library]
    library.require()
    torch.manual_seed(settings.seed)
    rest, held_out = split_for_validation(training_images(folder))
    training, validation = LabelledSamples.of(rest), LabelledSamples.of(held_out)
    network = library.build()
    optimizer = make_optimizer(network, settings)
    epochs, seconds = begin(run, settings, network, optimizer, resume=resume)
    for epoch in range(len(epochs), settings.epochs):
        started = time.monotonic()
        loss = train_epoch(network, optimizer, training, library, settings, epoch)
        seconds += time.monotonic() - started
        measured = {
            "cross_entropy": loss,
            "divergence": float(library.divergence(network).detach()),
            "validation_accuracy": accuracy(library.evaluated(network), validation),
        }
        epochs = [*epochs, measured]
        keep(run, settings, network, optimizer, epochs, seconds)
        print(
            f"epoch {epoch + 1}/{settings.epochs}  cross-entropy {loss:.4f} nats  "
            f"divergence {measured['divergence']:.4g}  "
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
        "fit", parents=[common], formatter_class=show_defaults, help="train with one library"
    )
    train.add_argument("--library", choices=sorted(LIBRARIES), required=True, help="which one")
    train.add_argument("--out", type=Path, required=True, help="run folder")
    train.add_argument("--resume", action="store_true", help="go on after the last whole epoch")
    train.add_argument(
        "--kl-weight", type=float, help="of the library's divergence; None: as its users set it"
    )
    train.add_argument("--epochs", type=int, default=Settings.epochs, help="over 55,000 images")
    train.add_argument("--seed", type=int, default=Settings.seed, help="weights, order, noise")

    summary = commands.add_parser(
        "report", parents=[common], formatter_class=show_defaults, help="write the committed files"
    )
    summary.add_argument("runs", type=Path, nargs="+", help="run folders, one of each library")
    summary.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    summary.add_argument(
        "--tolerance", type=float, default=0.004, help="validation accuracy pruning may cost"
    )
    return parser.parse_args()


def run_command(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    if arguments.command == "report":
        write_report(arguments.runs, arguments.data_dir, arguments.out, arguments.tolerance)
        return
    kl_weight = arguments.kl_weight
    if kl_weight is None:
        kl_weight = LIBRARIES[arguments.library].kl_weight
    settings = Settings(arguments.library, kl_weight, arguments.epochs, arguments.seed)
    fit(settings, arguments.out, arguments.data_dir, resume=arguments.resume)


def main() -> int:
    try:
        run_command(parse_arguments())
    except (DataError, LibraryError, RunError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
