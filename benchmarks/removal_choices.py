"""What two choices of `prune` gain: layers narrowed, and groups split.

    python benchmarks/removal_choices.py [--networks a,b] [--kill 0.5,0.7] [--rounds N] [--json F]

Channels die freely in every layer ("after norm"), float32, one thread. `narrow` compares
`--narrow-layers` with layers as wide as their sums; `split` compares `--groups split` with
`--groups equal`, on the networks that have grouped convolutions. Time is the median over rounds of
the ratio within a round, with its 95 % interval; the choice may not lose by it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import onnx_ir as ir
from bounds import Bound, print_bounds
from removal_graph import graph_of
from removal_latency_forms import SUFFIX, model_file
from removal_latency_timing import Ratio, time_rounds
from removal_masks import Pattern, draw, masked
from removal_sources import unfolded
from removal_walk import walk

from deploykit.bench.summary import INTERVAL_MIN_ROUNDS
from deploykit.graph.cost import totals
from deploykit.graph.cut import Cut
from deploykit.graph.normalize import normalize
from deploykit.graph.options import Groups, RemovalOptions
from deploykit.graph.passes.groups import is_grouped
from deploykit.graph.removal import cut_channels
from deploykit.graph.widths.host import Element, Runtime, host_target
from deploykit.graph.widths.table import WidthTable
from deploykit.spec.network import Network

NETWORKS = ("resnet18", "resnet50", "mobilenet-v2", "mobilenet-v3-large", "resnext50")
MAX_SLOWER = 1.02


@dataclass(frozen=True)
class Row:
    """macs, time: with the choice, over without."""

    network: str
    runtime: str
    kill: float
    choice: str
    macs: float
    time: Ratio


def rows(name: str, kill: float, rounds: int) -> Iterator[Row]:
    """Both choices, where the network has them, in both runtimes."""
    graph = graph_of(unfolded(name))
    mask = draw(graph, walk(graph), kill, Pattern.AFTER_NORM)
    sparse = normalize(Network(ir.from_proto(masked(graph, mask)), {}))
    whole = cut_channels(sparse, RemovalOptions(groups=Groups.SPLIT))
    has_groups = any(is_grouped(node) for node in sparse.model.graph)
    equal = cut_channels(sparse, RemovalOptions()) if has_groups else None
    for runtime in Runtime:
        table = WidthTable.load(host_target(runtime, Element.FLOAT32))
        options = RemovalOptions(groups=Groups.SPLIT, narrow=table)
        narrow = cut_channels(sparse, options)
        pairs: list[tuple[str, Cut, Cut]] = [("narrow", narrow, whole)]
        if equal is not None:
            pairs.append(("split", whole, equal))
        for choice, chosen, other in pairs:
            time = _compare(chosen, other, runtime, rounds)
            yield Row(name, runtime.value, kill, choice, _macs(chosen) / _macs(other), time)


def _macs(made: Cut) -> int:
    return totals(made.pruned.model)[1]


def _compare(chosen: Cut, other: Cut, runtime: Runtime, rounds: int) -> Ratio:
    with tempfile.TemporaryDirectory(prefix="deploykit-choices-") as folder:
        files = {}
        for name, made in (("chosen", chosen), ("other", other)):
            files[name] = Path(folder) / f"{name}{SUFFIX[runtime]}"
            files[name].write_bytes(model_file(made.pruned, runtime))
        return time_rounds(files, rounds).ratio("chosen", "other")


def print_row(row: Row) -> None:
    """One line."""
    print(
        f"{row.network:<20}{row.runtime:<8}{row.kill:>5.0%}  {row.choice:<8}{row.macs:>6.2f}"
        f"{row.time.median:>8.3f}  {row.time.low:.3f} .. {row.time.high:.3f}",
        flush=True,
    )


def bounds(found: Sequence[Row]) -> list[Bound]:
    """The choice is never slower."""
    return [
        Bound(
            f"{row.network}, {row.runtime}, {row.kill:.0%}, {row.choice}: time over without",
            row.time.median,
            MAX_SLOWER,
        )
        for row in found
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="comma-separated")
    parser.add_argument("--kill", default="0.5,0.7", help="shares of channels, comma-separated")
    parser.add_argument("--rounds", type=int, default=INTERVAL_MIN_ROUNDS)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    if options.rounds < INTERVAL_MIN_ROUNDS:
        parser.error(f"--rounds {options.rounds}: {INTERVAL_MIN_ROUNDS} at least")
    shares = [float(share) for share in options.kill.split(",")]
    found = []
    print(f"{'network':<20}{'runtime':<8}{'kill':>5}  {'choice':<8}{'MACs':>6}{'time':>8}  95 %")
    for name, kill in product(options.networks.split(","), shares):
        for row in rows(name, kill, options.rounds):
            found.append(row)
            print_row(row)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")
    return print_bounds(bounds(found))


if __name__ == "__main__":
    sys.exit(main())
