"""Train ResNet-18 dense, gated and pruned by magnitude, and write the checkpoints of this folder.

fit     trains one network into a run folder; --resume goes on after the last whole epoch
all     trains every network of a width and its seeds, going on where it stopped
report  measures the runs of `all` and writes checkpoints/ and training.json
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from augment import moved, resized
from compact import FAST, compacted, kept
from costs import channel_shares, cost, kept_inner, weighted_kl
from magnitude import INNER, SCOPES, need_torch_pruning, pruned_to_macs, pruned_to_weights
from model import ResNet18, Widths, gated, gates, plain
from optimizers import Optimizers
from report import AGAIN, is_done, network_with, write_report
from torch.nn import functional

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "lenet5"))
from data import DEBIAN_FOLDER, DataError, split_for_validation, test_images, training_images
from labelled_samples import LabelledSamples, accuracy
from learning_rates import set_learning_rates
from training_runs import CHECKPOINT, RunError, begin, keep, load_run

_SMALL_SIDE = 20


SCHEDULES = {
    "base": (6, 4, 0.1),
    "dense": (6, 2, 0.05),
    "gates": (2, 2, 0.05),
    "settled": (4, 0, 0.05),
    "magnitude": (6, 2, 0.05),
    "again": (6, 0, 0.05),
}
"""By kind: passes over 55,000 images, how many of them at 20x20, SGD's peak rate.

All go on from base, for six epochs each: gates and settled share theirs. Where a width is trained
again, each of its networks goes on for six more.
"""
KINDS = tuple(SCHEDULES)
GOES_ON_FROM = {
    "base": (),
    "dense": ("base",),
    "gates": ("base",),
    "settled": ("gates",),
    "magnitude": ("base",),
    "again": ("dense", "settled", "magnitude"),
}
TRAINED_AGAIN = (32,)
"""Widths that six epochs after base are too few for."""
KL_WEIGHTS = {16: 0.2, 32: 0.11}
"""By width; chosen for the size that comes out, on no accuracy."""
MORE_RIVALS = (16, 0)
"""Width and seed that get a rival of as many MACs, one that removes what gates can, and those of
PERCENT.
"""
PERCENT = (50, 20)
"""Of the weights, that they keep."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes.

    kind           base: from random weights; dense: trained on; gates: trained on with noise and
                   KL; settled: after gates, without noise and without closed channels, but for a
                   few that keep widths at multiples of 8; magnitude: pruned, then trained on;
                   again: any network that is done, trained on as it is
    small_epochs   how many of the epochs, the first ones, see images of 20x20
    learning_rate  of SGD, at its peak
    kl_weight      nats of loss for a nat of every gate
    macs_share     share of MACs in what a gate costs; the rest is weights
    weights, macs  what magnitude pruning may leave; 0: no bound
    scope          whether it takes the same share of each layer, or the least of all
    """

    kind: str
    width: int
    seed: int
    epochs: int
    small_epochs: int
    learning_rate: float
    batch: int = 128
    gate_learning_rate: float = 5e-2
    kl_weight: float = 0.0
    macs_share: float = 0.6
    weights: int = 0
    macs: int = 0
    scope: str = "global"


def network_of(settings: Settings, start: Path | None) -> ResNet18:
    """What a run begins with. Raises RunError where `start` is not a run to go on from."""
    regular = Widths.regular(settings.width)
    expected = GOES_ON_FROM[settings.kind]
    if not expected:
        return plain(regular)
    before = load_run(start) if start else None
    if before is None or before["settings"]["kind"] not in expected:
        kinds = " or ".join(expected)
        raise RunError(f"{settings.kind}: name a run of the kind {kinds} with --start.")
    if not is_done(before):
        raise RunError(f"{start} is not done: resume it first.")
    for name in ("width", "seed"):
        if before["settings"][name] != getattr(settings, name):
            raise RunError(f"{start} is of another {name} than {getattr(settings, name)}.")
    network = network_with(before["model"])
    match settings.kind:
        case "gates":
            return _with_gates(network, regular)
        case "settled":
            return compacted(network, kept(network, FAST))
        case "magnitude" if settings.macs:
            return pruned_to_macs(network, settings.macs, settings.scope)
        case "magnitude":
            return pruned_to_weights(network, settings.weights, settings.scope)
    return network


def _with_gates(network: ResNet18, widths: Widths) -> ResNet18:
    """The same network behind gates of mean 1."""
    wanted = gated(widths)
    wanted.load_state_dict(wanted.state_dict() | network.state_dict())
    return wanted


def layout_for(network: ResNet18) -> torch.memory_format:
    """Channels last where every width is a multiple of 8, which trains a sixth faster.

    At other widths the backward pass of torch 2.13 writes past its buffers there (seen on AVX2).
    """
    widths = Widths.of(network.state_dict())
    whole = all(width % 8 == 0 for width in (*widths.streams, *widths.inner))
    return torch.channels_last if whole else torch.contiguous_format


def train_epoch(
    network: ResNet18,
    optimizers: Optimizers,
    split: LabelledSamples,
    settings: Settings,
    epoch: int,
) -> float:
    """One pass over the training images; returns the mean cross-entropy in nats.

    Loss per image: cross-entropy + kl_weight * sum over channels of share of cost * KL.
    """
    network.train()
    layout = layout_for(network)
    steps = len(split.labels) // settings.batch
    side = _SMALL_SIDE if epoch < settings.small_epochs else split.inputs.shape[-1]
    shares = channel_shares(Widths.regular(settings.width), settings.macs_share)
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
    total = 0.0
    for step, (inputs, labels) in enumerate(split.shuffled(settings.batch, generator)):
        for part in optimizers.parts:
            set_learning_rates(part, (epoch + step / steps) / settings.epochs)
        images = resized(moved(inputs, generator), side)
        logits = network(images.contiguous(memory_format=layout))
        cross_entropy = functional.cross_entropy(logits, labels)
        loss = cross_entropy
        if settings.kind == "gates":
            loss = loss + settings.kl_weight * weighted_kl(network, shares)
        optimizers.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizers.step()
        total += float(cross_entropy.detach())
    return total / steps


def fit(
    settings: Settings, run: Path, start: Path | None, folder: Path, *, resume: bool
) -> dict[str, float]:
    """Train for settings.epochs, leaving run/checkpoint.pt after each; the last one's figures."""
    torch.manual_seed(settings.seed)
    network = network_of(settings, start)
    network.to(memory_format=layout_for(network))  # type: ignore[call-overload]
    if settings.kind != "gates":
        for gate in gates(network):
            gate.settle()
    optimizers = Optimizers(network, settings.learning_rate, settings.gate_learning_rate)
    epochs, seconds = begin(run, settings, network, optimizers, resume=resume)
    if len(epochs) == settings.epochs:
        return epochs[-1]
    rest, held_out = split_for_validation(training_images(folder))
    training, validation = LabelledSamples.of(rest), LabelledSamples.of(held_out)
    for epoch in range(len(epochs), settings.epochs):
        started = time.monotonic()
        loss = train_epoch(network, optimizers, training, settings, epoch)
        seconds += time.monotonic() - started
        widths = Widths.of(network.state_dict())
        left = cost(widths.with_inner(kept_inner(network)) if gates(network) else widths)
        measured = {
            "cross_entropy": loss,
            "validation_accuracy": accuracy(network, validation),
            "weights": left.weights,
            "macs": left.macs,
        }
        epochs = [*epochs, measured]
        keep(run, settings, network, optimizers, epochs, seconds)
        print(
            f"{run.name} {epoch + 1}/{settings.epochs}  cross-entropy {loss:.4f} nats  "
            f"{left.weights:,} weights, {left.macs / 1e6:.1f} million MACs  "
            f"validation {100 * measured['validation_accuracy']:.2f} %  {seconds:.0f} s",
            flush=True,
        )
    return epochs[-1]


def settings_of(kind: str, width: int, seed: int, **more: Any) -> Settings:
    """By the kind's schedule."""
    return Settings(kind, width, seed, *SCHEDULES[kind], **more)


def fit_all(runs: Path, folder: Path, width: int, seed: int, kl_weight: float) -> None:
    """Base, then the gated network, its dense twin and rivals of its size."""
    ending = f"{width}-{seed}"

    def done(kind: str, start: str, name: str = "", **more: Any) -> dict[str, Any]:
        run = runs / (name or f"{kind}{ending}")
        settings = settings_of(kind, width, seed, **more)
        exists = (run / CHECKPOINT).exists()
        if exists and is_done(before := load_run(run)) and before["settings"] == asdict(settings):
            last: dict[str, Any] = before["epochs"][-1]
            return last
        return fit(settings, run, runs / start if start else None, folder, resume=exists)

    base = f"base{ending}"
    done("base", "")
    done("gates", base, kl_weight=kl_weight)
    size = done("settled", f"gates{ending}")
    done("dense", base)
    done("magnitude", base, weights=size["weights"])
    if (width, seed) == MORE_RIVALS:
        done("magnitude", base, f"magnitude{ending}-macs", macs=size["macs"])
        done("magnitude", base, f"magnitude{ending}-inner", weights=size["weights"], scope=INNER)
        for percent in PERCENT:
            kept = cost(Widths.regular(width)).weights * percent // 100
            done("magnitude", base, f"magnitude{ending}-{percent}", weights=kept)
    if width in TRAINED_AGAIN:
        for kind in GOES_ON_FROM["again"]:
            done("again", f"{kind}{ending}", f"{kind}{ending}{AGAIN}")


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

    def command(name: str, told: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], formatter_class=show_defaults, help=told)

    one = command("fit", "train one network")
    one.add_argument("--kind", choices=KINDS, required=True, help="what to train")
    one.add_argument("--seed", type=int, default=0, help="initialisation, order, noise")
    one.add_argument("--start", type=Path, help="run folder to go on from")
    one.add_argument("--out", type=Path, required=True, help="run folder")
    one.add_argument("--resume", action="store_true", help="go on after the last whole epoch")
    one.add_argument("--weights", type=int, default=0, help="that kind magnitude leaves")
    one.add_argument("--macs", type=int, default=0, help="that kind magnitude leaves")
    one.add_argument("--scope", choices=SCOPES, default=SCOPES[-1], help="of kind magnitude")
    every = command("all", "train every network of a width, going on where it stopped")
    every.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="of each network")
    for trains in (one, every):
        trains.add_argument("--width", type=int, choices=sorted(KL_WEIGHTS), default=16)
        trains.add_argument("--kl-weight", type=float, help="of gates, if not the width's own")
    summary = command("report", "write training.json and the checkpoints")
    for several in (every, summary):
        several.add_argument("--runs", type=Path, required=True, help="folder of run folders")
    summary.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    return parser.parse_args()


def fit_one(arguments: argparse.Namespace, kl_weight: float) -> None:
    """What `fit` asks for."""
    kind = arguments.kind
    more = {"kl_weight": kl_weight} if kind == "gates" else {}
    if kind == "magnitude":
        bounds = {"weights": arguments.weights, "macs": arguments.macs}
        if sum(bound > 0 for bound in bounds.values()) != 1:
            raise RunError("magnitude: say how much is left with --weights or with --macs.")
        more = {**bounds, "scope": arguments.scope}
    settings = settings_of(kind, arguments.width, arguments.seed, **more)
    fit(settings, arguments.out, arguments.start, arguments.data_dir, resume=arguments.resume)


def run_command(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.data_dir
    if arguments.command == "report":
        _, held_out = split_for_validation(training_images(folder))
        validation, test = LabelledSamples.of(held_out), LabelledSamples.of(test_images(folder))
        write_report(arguments.runs, validation, test, arguments.out)
        return
    kl_weight = arguments.kl_weight
    if kl_weight is None:
        kl_weight = KL_WEIGHTS[arguments.width]
    if arguments.command == "fit":
        fit_one(arguments, kl_weight)
        return
    need_torch_pruning()
    for seed in arguments.seeds:
        fit_all(arguments.runs, folder, arguments.width, seed, kl_weight)


def main() -> int:
    try:
        run_command(parse_arguments())
    except (DataError, RunError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
