"""Dense, Bayesian and pruned by magnitude, in float32, int8, 4 bits and bits `auto`: one table.

    python benchmarks/headline.py [--only lenet5 resnet18-32-0 ...] [--images FOLDER] [--rounds 12]
                                  [--json FILE] [--svg FILE] [--from FILE]

From the committed checkpoints. By network and form: accuracy on all 10,000 test images, parameters,
MACs, bytes of model.onnx and model.tflite, as they are and deflated, latency in both runtimes (one
thread; in each round, at least 6, new sessions take turns and the least time of each counts: the
median of those, and how many times faster than dense float32, with its 95 % interval), what a
process that loads and runs the file takes at its peak over Python itself, the runtime's libraries
among it, and energy by inference: estimated (energy_estimate.py), and read where this machine lets
its counter be read. *auto*: bits that cost at most 0.2 points on 5,000 validation images, found by
`--bits auto --max-accuracy-drop 0.2 --to onnx`; *small*: the same in `--tflite-lowbit small`. With
--json, subjects that this run does not measure keep the figures that FILE has of them, and are
judged with the others; --from reads figures instead of measuring them. FOLDER holds the idx files
of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bounds import print_bounds
from children import run_children
from demo import SAMPLE as LENET5
from energy_counter import joules, readable
from headline_bounds import bounds_of, unjudged
from headline_forms import FLOAT, INT8, RUNTIMES, Exported, data_files, exports
from headline_plot import drawn
from headline_subjects import Subject, lenet5, resnet18, resnets
from headline_summary import seed_summary, summary
from headline_table import SEED_WIDTH, Row, Table, Timing, printed, seeds
from removal_latency_timing import time_rounds

from deploykit.bench import runner
from deploykit.bench.summary import INTERVAL_MIN_ROUNDS
from deploykit.graph.widths.host import CPUINFO, processor_flags
from deploykit.spec.pairs import VNNI

sys.path.insert(0, str(LENET5))
from data import DEBIAN_FOLDER, DataError, split_for_validation, test_images, training_images

PUBLISHED = (
    "published for LeNet-5 on MNIST, weights counted on paper: group normal-Jeffreys 108 times by",
    "pruning, 361 with bits (Louizos et al. 2017). Here: Fashion-MNIST, which is harder, and the",
    "bytes of a file that runs, its header and scales among them.",
)


@dataclass(frozen=True)
class Images:
    """What subjects are measured with, and where: anything with inputs and labels, twice."""

    validation: Any
    test: Any
    processor: str

    @classmethod
    def of(cls, folder: Path) -> Images:
        """Raises DataError where the folder lacks a file, or this is not Linux."""
        _, validation = split_for_validation(training_images(folder))
        return cls(validation, test_images(folder), processor())


def measured(subject: Subject, images: Images, rounds: int, folder: Path) -> Table:
    """Export everything, then time all files of a runtime against each other."""
    data = data_files(folder, images.validation, images.test)
    found: list[Exported] = []
    for place, network in enumerate(subject.networks):
        home = folder / str(place)
        home.mkdir()
        for one in exports(network, data, home):
            found.append(one)
            print(f"{subject.name}: {one.network}, {one.form}", file=sys.stderr, flush=True)
    timing = {runtime: timed(found, runtime, rounds) for runtime in RUNTIMES}
    rows = []
    for place, one in enumerate(found):
        record = {key: value for key, value in vars(one).items() if key != "files"}
        rows.append(Row(**record, timing={name: by[place] for name, by in timing.items()}))
    return Table(subject.name, subject.width, subject.seed, images.processor, tuple(rows))


def timed(found: Sequence[Exported], runtime: str, rounds: int) -> list[Timing]:
    """Of each, in order; the first is dense float32."""
    files = {str(place): one.files[runtime] for place, one in enumerate(found)}
    clock = time_rounds(files, rounds)
    peaks = peak_mb(files)
    timings = []
    for name, path in files.items():
        ratio = clock.ratio("0", name)
        timings.append(
            Timing(clock.ms(name), ratio.median, ratio.low, ratio.high, peaks[name],
                   energy_of(path))
        )  # fmt: skip
    return timings


def energy_of(path: Path) -> float | None:
    """Joules of one inference, where a counter can be read."""
    counter = readable()
    if counter is None:
        return None
    session = runner.RUNTIMES[path.suffix]().load(path, 1)
    (batch,) = runner.batches(session, None)
    return joules(counter, lambda: session.infer(batch))


def peak_mb(files: Mapping[str, Path]) -> dict[str, float]:
    """What a process that loads and runs each file takes at its peak, over Python itself."""
    commands = {
        name: [sys.executable, runner.__file__, "--runs", "20", "--model", str(path)]
        for name, path in files.items()
    }
    records, failed = run_children(commands)
    if failed:
        raise RuntimeError(f"the runner failed: {failed}")
    memory = [record["memory"] for record in records]
    peaks = [(one["peak_bytes"] - one["start_bytes"]) / 1e6 for one in memory]
    return dict(zip(files, peaks, strict=True))


def processor() -> str:
    """Its name, and whether it multiplies int8 by dot products. Raises DataError off Linux."""
    if not CPUINFO.is_file():
        raise DataError(f"{CPUINFO} is not there: figures are taken on Linux.")
    lines = CPUINFO.read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in told.items()}
    vnni = ", ".join(sorted(processor_flags() & VNNI)) or "no VNNI"
    return f"{facts.get('model name', 'unknown')}, {vnni}"


def subjects(factories: Path) -> dict[str, Subject]:
    """Everything that is committed, by the name that --only takes."""
    found = {"lenet5": lenet5()}
    for width, seed in resnets():
        found[f"resnet18-{width}-{seed}"] = resnet18(width, seed, factories)
    return found


def load(path: Path) -> dict[str, Table]:
    """Tables by subject's name."""
    return {one["subject"]: Table.of(one) for one in json.loads(path.read_text())}


def keep(path: Path, tables: Sequence[Table]) -> None:
    """Replace a file of figures in one step."""
    records = [asdict(one) for one in tables]
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(records, indent=1) + "\n")
    partial.replace(path)


def show(tables: Sequence[Table]) -> None:
    """Everything, as tables."""
    for table in tables:
        print("\n".join(printed(table)) + "\n")
    for form in (FLOAT, INT8):
        for name, (mean, deviation) in seeds(tables, form).items():
            print(
                f"width {SEED_WIDTH}, seeds, {form}: {name} {mean:.4f}, deviation {deviation:.4f}"
            )
    print("\n".join(PUBLISHED) + "\n")
    print("\n\n".join(filter(None, [*map(summary, tables), seed_summary(tables)])) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--only", nargs="+", help="lenet5, or resnet18-WIDTH-SEED")
    what.add_argument("--from", type=Path, dest="stored", help="read figures, measure nothing")
    parser.add_argument("--images", "--data-dir", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    parser.add_argument("--svg", type=Path, help="draw the widest network here")
    arguments = parser.parse_args()
    if arguments.rounds < INTERVAL_MIN_ROUNDS:
        parser.error(f"--rounds {arguments.rounds}: an interval needs {INTERVAL_MIN_ROUNDS}")
    if arguments.stored and not arguments.stored.is_file():
        parser.error(f"{arguments.stored} does not exist: write it with --json")
    return arguments


def measure(arguments: argparse.Namespace) -> dict[str, Table]:
    """What is asked for, each written as soon as it is there, and what --json has already."""
    kept: Path | None = arguments.json
    tables = load(kept) if kept and kept.is_file() else {}
    images = Images.of(arguments.images)
    with tempfile.TemporaryDirectory(prefix="deploykit-headline-") as scratch:
        known = subjects(Path(scratch))
        unknown = set(arguments.only or ()) - set(known)
        if unknown:
            raise DataError(f"{', '.join(sorted(unknown))}: there are {', '.join(known)}")
        for name in arguments.only or known:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                table = measured(known[name], images, arguments.rounds, Path(folder))
            tables[table.subject] = table
            if kept:
                keep(kept, sorted(tables.values(), key=place))
    return tables


def main() -> int:
    """Measure, print, write, judge."""
    arguments = parse_arguments()
    try:
        tables = load(arguments.stored) if arguments.stored else measure(arguments)
    except DataError as error:
        print(f"headline.py: {error}", file=sys.stderr)
        return 2
    ordered = sorted(tables.values(), key=place)
    show(ordered)
    if arguments.svg:
        arguments.svg.write_text(drawn(ordered[-1]))
    for name in unjudged(ordered):
        print(f"no figures of {name}: what is claimed of it is not judged")
    return print_bounds(bounds_of(ordered))


def place(table: Table) -> tuple[int, int]:
    """LeNet-5 first, then by width and seed."""
    return table.width, table.seed


if __name__ == "__main__":
    sys.exit(main())
