"""Dense, Bayesian and pruned by magnitude, in float32, int8, 4 bits and bits `auto`: one table.

    python benchmarks/headline.py [--only lenet5 resnet18-32-0 ...] [--images FOLDER] [--rounds 12]
                                  [--json FILE] [--svg FILE] [--from FILE]

From the committed checkpoints. By network and form: accuracy on all 10,000 test images, parameters,
MACs, bytes of model.onnx and model.tflite, as they are and deflated, latency in both runtimes (one
thread; median over rounds, at least 6, of new sessions whose inferences take turns, and how many
times faster than the dense float32 network with its 95 % interval), what a process that loads and
runs the file takes at its peak over Python itself, and energy by inference: estimated
(energy_estimate.py), unless this machine lets its counter be read. *auto*: bits that cost at most
0.2 points on 5,000 validation images, found by `--bits auto --max-accuracy-drop 0.2 --to onnx`;
*small*: the same in `--tflite-lowbit small`. With --json, subjects that this run does not measure
keep the figures that FILE has of them; --from reads figures instead of measuring them. FOLDER holds
the idx files of Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bounds import print_bounds
from children import run_children
from demo import SAMPLE as LENET5
from energy_counter import joules, readable
from headline_bounds import bounds_of
from headline_forms import FLOAT, INT8, RUNTIMES, Exported, data_files, exports
from headline_plot import drawn
from headline_subjects import Subject, lenet5, resnet18, resnets
from headline_summary import seed_summary, summary
from headline_table import SEED_WIDTH, Row, Table, Timing, printed, seeds
from removal_latency_timing import time_rounds

from deploykit.bench import runner
from deploykit.graph.widths.host import processor_flags
from deploykit.spec.pairs import VNNI

sys.path.insert(0, str(LENET5))
from data import DEBIAN_FOLDER, split_for_validation, test_images, training_images

PUBLISHED = (
    "published for LeNet-5 on MNIST, weights counted on paper: group normal-Jeffreys 108 times by",
    "pruning, 361 with bits (Louizos et al. 2017). Here: Fashion-MNIST, which is harder, and the",
    "bytes of a file that runs, its header and scales among them.",
)


def measured(subject: Subject, images: Path, rounds: int, folder: Path) -> Table:
    """Export everything, then time all files of a runtime against each other."""
    _, validation = split_for_validation(training_images(images))
    data = data_files(folder, validation, test_images(images))
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
    return Table(subject.name, subject.width, subject.seed, processor(), tuple(rows))


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
    """Its name, and whether it multiplies int8 by dot products."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
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
    """Tables by subject's name; none where the file is not there."""
    if not path.is_file():
        return {}
    return {one["subject"]: Table.of(one) for one in json.loads(path.read_text())}


def main() -> int:
    """Measure, print, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", help="lenet5, or resnet18-WIDTH-SEED")
    parser.add_argument("--images", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    parser.add_argument("--svg", type=Path, help="draw the widest network here")
    parser.add_argument("--from", type=Path, dest="stored", help="read figures, measure nothing")
    arguments = parser.parse_args()
    tables: dict[str, Table] = load(arguments.stored) if arguments.stored else {}
    with tempfile.TemporaryDirectory(prefix="deploykit-headline-") as scratch:
        known = {} if arguments.stored else subjects(Path(scratch))
        unknown = set(arguments.only or ()) - set(known)
        if unknown and not arguments.stored:
            parser.error(f"{', '.join(sorted(unknown))}: there are {', '.join(known)}")
        for name in arguments.only or known:
            if name not in known:
                continue
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                table = measured(known[name], arguments.images, arguments.rounds, Path(folder))
            tables[table.subject] = table
            if arguments.json:
                every = load(arguments.json) | {table.subject: table}
                records = [asdict(one) for one in sorted(every.values(), key=place)]
                arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    ordered = sorted(tables.values(), key=place)
    for table in ordered:
        print("\n".join(printed(table)) + "\n")
    for form in (FLOAT, INT8):
        for name, (mean, deviation) in seeds(ordered, form).items():
            print(
                f"width {SEED_WIDTH}, seeds, {form}: {name} {mean:.4f}, deviation {deviation:.4f}"
            )
    print("\n".join(PUBLISHED) + "\n")
    print("\n\n".join(filter(None, [*map(summary, ordered), seed_summary(ordered)])) + "\n")
    if arguments.svg:
        arguments.svg.write_text(drawn(ordered[-1]))
    return print_bounds(bounds_of(ordered))


def place(table: Table) -> tuple[int, int]:
    """LeNet-5 first, then by width and seed."""
    return table.width, table.seed


if __name__ == "__main__":
    sys.exit(main())
