"""Which widths a runtime's kernels like on this processor: measures a width table, or checks one.

    python benchmarks/widths.py measure --runtime litert --element int8 [--passes N] [--out FOLDER]
    python benchmarks/widths.py moves --table FILE [--rounds N]
    python benchmarks/widths.py validate --table FILE [--cases N] [--json FILE]

`measure` times layers of every width up to 96, and of more up to 256 (see width_curves.py), one
thread, in short interleaved rounds from new sessions in every pass, and keeps the least time of
each model. It does so twice: the two runs give the noise, and how many widths would be decided
differently. The table of both goes to deploykit/graph/widths/tables, which `--align auto` reads.

`moves` measures what copies between layers cost and puts it into a float table that is there, for
`prune --narrow-layers`.

`validate` times rows of layers with random widths against the same rows aligned by the table, and
against the same rows with every width rounded up, which tells how well times are predicted.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from width_curves import WIDTHS, kinds_record, model_groups
from width_moves import measure_moves
from width_timing import Bench, Times, least_of
from width_validation import validate

from deploykit.bench.linux import read_processor
from deploykit.graph.widths.choose import Use, best_width
from deploykit.graph.widths.host import CPUINFO, Element, Runtime, instruction_sets, processor_flags
from deploykit.graph.widths.table import SCHEMA, LayerKind, Side, WidthTable

TABLES = Path(__file__).parents[1] / "deploykit" / "graph" / "widths" / "tables"
PACKAGES = {Runtime.LITERT: "ai-edge-litert", Runtime.ORT: "onnxruntime"}
MEASURED_BY = "python benchmarks/widths.py"
RUNS = 2
LEAST_MARGIN = 0.02
"""Gains below are not worth a wider tensor, however quiet the machine was."""
NOISE_QUANTILE = 0.95
MARGIN_OVER_NOISE = 2.0
ISA_NAMES = (
    ("amx_int8", "x86-amx"),
    ("avx512_vnni", "x86-avx512vnni"),
    ("avx512f", "x86-avx512"),
    ("avx_vnni", "x86-avxvnni"),
    ("avx2", "x86-avx2"),
    ("avx", "x86-avx"),
    ("sme", "arm64-sme"),
    ("sve", "arm64-sve"),
    ("i8mm", "arm64-i8mm"),
    ("asimddp", "arm64-dotprod"),
    ("asimd", "arm64-neon"),
)
"""What a target is called by the first of these flags that it has."""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    measuring = commands.add_parser("measure", help="write the table of this processor")
    measuring.add_argument("--runtime", type=Runtime, required=True)
    measuring.add_argument("--element", type=Element, required=True)
    measuring.add_argument("--passes", type=int, default=3, help="over all models, in each run")
    measuring.add_argument("--rounds", type=int, default=4, help="interleaved, in each pass")
    measuring.add_argument("--out", type=Path, default=TABLES)
    measuring.set_defaults(command=measure)
    moving = commands.add_parser("moves", help="add the cost of copies to a float table")
    moving.add_argument("--table", type=Path, required=True)
    moving.add_argument("--rounds", type=int, default=6)
    moving.set_defaults(command=moves)
    validating = commands.add_parser("validate", help="time what the table predicts")
    validating.add_argument("--table", type=Path, required=True)
    validating.add_argument("--cases", type=int, default=40, help="rows of each kind")
    validating.add_argument("--seed", type=int, default=0)
    validating.add_argument("--json", type=Path)
    validating.add_argument(
        "--raise-margins", action="store_true", help="to the 95 %% error of the predictions"
    )
    validating.set_defaults(command=validate)
    arguments = parser.parse_args()
    return int(arguments.command(arguments))


def measure(arguments: argparse.Namespace) -> int:
    """Measure twice, compare, write the table."""
    runtime, element = arguments.runtime, arguments.element
    command = (
        f"measure --runtime {runtime.value} --element {element.value} "
        f"--passes {arguments.passes} --rounds {arguments.rounds}"
    )
    with tempfile.TemporaryDirectory(prefix="deploykit-widths-") as folder:
        bench = Bench(runtime, element, Path(folder), arguments.rounds)
        runs = [
            least_of(*(one_pass(bench, f"run {run + 1} pass {turn + 1}") for turn in range(passes)))
            for run, passes in enumerate([arguments.passes] * RUNS)
        ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    no_margins = dict.fromkeys(LayerKind, 0.0)
    halves = [
        write(arguments.out, table_record(runtime, element, run, no_margins, command))
        for run in runs
    ]
    noise = disagreement(*halves)
    margins = {kind: max(LEAST_MARGIN, MARGIN_OVER_NOISE * value) for kind, value in noise.items()}
    records = [
        table_record(runtime, element, times, margins, command)
        for times in (*runs, least_of(*runs))
    ]
    report(*(write(arguments.out, record) for record in records))
    return 0


def moves(arguments: argparse.Namespace) -> int:
    """Put the costs of copies into a table of this processor."""
    record = json.loads(arguments.table.read_text(encoding="utf-8"))
    runtime, element = (record["target"].split("-")[place] for place in (0, -1))
    if Element(element) is not Element.FLOAT32:
        raise SystemExit(f"{arguments.table}: copies are measured in float32; give a float32 table")
    print(f"{record['target']}: {record['runtime']}, {record['processor']}")
    record["moves"] = measure_moves(Runtime(runtime), arguments.rounds)
    arguments.table.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(WidthTable.read(arguments.table).moves)
    return 0


def one_pass(bench: Bench, label: str) -> Times:
    """Least times of all models."""
    times: Times = {}
    for name, models in model_groups():
        print(f"{label}: {name}", file=sys.stderr, flush=True)
        times |= bench.least(models)
    return times


def table_record(
    runtime: Runtime,
    element: Element,
    times: Times,
    margins: Mapping[LayerKind, float],
    command: str,
) -> dict[str, object]:
    """The JSON of a table."""
    isa = instruction_sets(element, processor_flags())
    package = PACKAGES[runtime]
    return {
        "schema": SCHEMA,
        "target": f"{runtime.value}-{isa_name(isa)}-{element.value}",
        "runtime": f"{package} {version(package)}",
        "element": element.value,
        "processor": processor(),
        "isa": sorted(isa),
        "threads": 1,
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"{MEASURED_BY} {command}",
        "kinds": kinds_record(times, margins),
    }


def processor() -> str:
    """Its name, with the family and model numbers that x86 has: virtual machines cut the name."""
    name = read_processor(Path("/")) or platform.processor()
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    numbers = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    if "cpu family" not in numbers:
        return name
    return f"{name} (family {numbers['cpu family']}, model {numbers['model']})"


def isa_name(isa: frozenset[str]) -> str:
    """Short name of a set of instruction sets."""
    for flag, name in ISA_NAMES:
        if flag in isa:
            return name
    raise SystemExit(f"no name for the instruction sets {sorted(isa)}: add one to ISA_NAMES")


def write(folder: Path, record: Mapping[str, object]) -> WidthTable:
    """Write a table and read it as the product does."""
    path = folder / f"{record['target']}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return WidthTable.read(path)


def between_references(kind: LayerKind, reference: int = 64) -> tuple[Use, ...]:
    """A tensor in the middle of reference -> c -> reference."""
    if kind is LayerKind.DEPTHWISE:
        return (Use(kind, Side.OUTPUTS, reference, 9.0),)
    return tuple(Use(kind, side, reference, 1.0) for side in (Side.OUTPUTS, Side.INPUTS))


def disagreement(first: WidthTable, second: WidthTable) -> dict[LayerKind, float]:
    """By kind, the 95 % quantile over widths of |ln(time / time)| of the two runs."""
    return {
        kind: float(
            np.quantile(
                [
                    abs(np.log(pair_cost(first, kind, c) / pair_cost(second, kind, c)))
                    for c in WIDTHS
                ],
                NOISE_QUANTILE,
            )
        )
        for kind in LayerKind
    }


def pair_cost(table: WidthTable, kind: LayerKind, width: int) -> float:
    """Predicted time of R -> width -> R in units of R -> R -> R."""
    uses = between_references(kind)
    here, there = (sum(use.cost(c, table) for use in uses) for c in (width, 64))
    return here / there


def report(first: WidthTable, second: WidthTable, table: WidthTable) -> None:
    """How many widths grow, how stable that is, and effective widths between two layers."""
    print(f"{table.target}: {table.runtime}, {table.processor}")
    for kind in LayerKind:
        uses = between_references(kind)
        widths = range(1, WIDTHS[-1] + 1)
        chosen, again = (
            [best_width(c, None, uses, one) for c in widths] for one in (first, second)
        )
        grown = sum(best_width(c, None, uses, table) != c for c in widths)
        changed = sum(one != other for one, other in zip(chosen, again, strict=True))
        regret = max(
            pair_cost(second, kind, one) / pair_cost(second, kind, other) - 1
            for one, other in zip(chosen, again, strict=True)
        )
        print(
            f"  {kind.value}: margin {table.costs[kind].margin:.1%}; of {len(widths)} widths "
            f"{grown} grow; {changed} are decided differently by the second run, to which the "
            f"first's choice costs at most {regret:.1%}"
        )
        shown = (1, 3, 4, 8, 12, 15, 16, 17, 24, 31, 32, 36, 48, 60, 63, 64, 65, 72, 96, 128, 256)
        print("    " + "  ".join(f"{c}:{64 * pair_cost(table, kind, c):.0f}" for c in shown))


if __name__ == "__main__":
    raise SystemExit(main())
