"""Latency of pruned networks against dense ones, beside the ratio of their MACs.

    python benchmarks/removal_latency.py [--networks a,b] [--kill 0.45,0.5] [--pattern "after norm"]
        [--runtimes ort,litert] [--rounds N] [--explain] [--json FILE]

Every network of the zoo is killed as group-sparse training leaves it (removal_masks) and timed in
three forms, float32, one thread: dense, pruned as removal leaves the widths (none), and pruned with
the widths that this processor's measured table picks (auto). Each network has a process of its own;
its forms are timed in interleaved rounds, and a ratio is the median over rounds, with its 95 %
interval.

    efficiency = (dense time / pruned time) / (dense MACs / MACs of none)

Half of a power of two is a width that kernels like, so a share of 0.5 shows the good case; after
0.45 or 0.55 most widths are unlucky.

Under EXPLAIN_UNDER, or with --explain for all, follows where the time goes by kind of operator.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from children import run_children
from removal_latency_timing import Ratio

from deploykit.bench.summary import INTERVAL_MIN_ROUNDS

MIN_EFFICIENCY = 0.7
"""Geometric mean of auto over the networks, in LiteRT."""
EXPLAIN_UNDER = 0.6
MAX_SPREAD = 0.1
"""Of the dense rounds. Neighbours slow the network that needs more cache, and flatter the other."""
MAX_SLOWER, MAX_SLOWER_LOW = 1.02, 1.0
"""Of time_auto / time_none: the median, and the lower end of its interval."""


@dataclass(frozen=True)
class Row:
    """One network in one runtime.

    spread: of the dense rounds' times. none, auto: dense time over theirs. slower: time of auto
    over that of none. kept: channels that alignment kept. profiles: milliseconds by kind of
    operator, by form; empty where not asked for.
    """

    network: str
    runtime: str
    pattern: str
    kill: float
    dense_ms: float
    spread: float
    macs_dense: int
    macs_none: int
    macs_auto: int
    none: Ratio
    auto: Ratio
    slower: Ratio
    kept: int
    profiles: Mapping[str, Mapping[str, float]]

    @property
    def macs_ratio(self) -> float:
        """Dense over none."""
        return self.macs_dense / self.macs_none

    def efficiency(self, speedup: Ratio) -> float:
        """Share of the MACs' ratio that arrives."""
        return speedup.median / self.macs_ratio


def measure(name: str, kill: float, options: argparse.Namespace) -> Row:
    """Make the three forms of one network for the one runtime that is asked for, and time them."""
    from removal_latency_forms import SUFFIX, Form, forms, model_file
    from removal_latency_profile import profile
    from removal_latency_timing import time_rounds
    from removal_masks import Pattern

    from deploykit.graph.widths.host import Runtime

    runtime = Runtime(options.runtimes)
    wanted = None if options.pattern is None else Pattern(options.pattern)
    made = forms(name, kill, wanted, runtime)
    with tempfile.TemporaryDirectory(prefix="deploykit-latency-") as folder:
        files = {}
        for form, network in made.networks.items():
            files[form.value] = Path(folder) / f"{form.value}{SUFFIX[runtime]}"
            files[form.value].write_bytes(model_file(network, runtime))
        rounds = time_rounds(files, options.rounds)
    dense, none, auto = (form.value for form in (Form.DENSE, Form.NONE, Form.AUTO))
    none_ratio, auto_ratio, slower = (
        rounds.ratio(above, below) for above, below in ((dense, none), (dense, auto), (auto, none))
    )
    macs = {form: made.macs(form) for form in Form}
    efficiency = auto_ratio.median / (macs[Form.DENSE] / macs[Form.NONE])
    profiles = {}
    if options.explain or efficiency < EXPLAIN_UNDER:
        profiles = {
            form.value: {kind.value: ms for kind, ms in profile(network, runtime).items()}
            for form, network in made.networks.items()
        }
    return Row(
        name, runtime.value, made.pattern.value, kill, rounds.ms(dense), rounds.spread(dense),
        macs[Form.DENSE], macs[Form.NONE], macs[Form.AUTO],
        none_ratio, auto_ratio, slower, made.kept, profiles,
    )  # fmt: skip


def row_of(record: dict[str, Any]) -> Row:
    """A row from the JSON of `asdict`."""
    intervals = {name: Ratio(**record[name]) for name in ("none", "auto", "slower")}
    return Row(**{**record, **intervals})


def print_rows(rows: Sequence[Row]) -> None:
    """One line each, and behind it where the time went, where that is known."""
    print(
        f"{'network':<20}{'runtime':<8}{'pattern':<18}{'kill':>5}{'dense ms':>9}{'spread':>8}"
        f"{'MACs':>8}{'none':>8}{'auto':>8}{'eff none':>10}{'eff auto':>10}{'kept':>6}{'MACs+':>8}"
        f"{'auto/none':>11}  95 %"
    )
    for row in rows:
        print(
            f"{row.network:<20}{row.runtime:<8}{row.pattern:<18}{row.kill:>5.0%}{row.dense_ms:>9.2f}{row.spread:>8.1%}"
            f"{row.macs_ratio:>7.2f}x{row.none.median:>7.2f}x{row.auto.median:>7.2f}x"
            f"{row.efficiency(row.none):>10.2f}{row.efficiency(row.auto):>10.2f}"
            f"{row.kept:>6}{row.macs_auto / row.macs_none - 1:>8.1%}"
            f"{row.slower.median:>11.3f}  {row.slower.low:.3f} .. {row.slower.high:.3f}"
        )
        if row.profiles:
            print_profiles(row)


def print_profiles(row: Row) -> None:
    """Milliseconds by kind, then what the pruned network takes beyond its share of the MACs."""
    from removal_latency_kinds import Kind, beyond_share

    by_form = {
        form: {Kind(kind): ms for kind, ms in found.items()} for form, found in row.profiles.items()
    }
    for kind in Kind:
        times = {form: found.get(kind, 0.0) for form, found in by_form.items()}
        if any(times.values()):
            line = "  ".join(f"{form} {ms:8.3f} ms" for form, ms in times.items())
            print(f"    {kind.value:<24}{line}")
    beyond = beyond_share(by_form["dense"], by_form["auto"], row.macs_ratio)
    told = ", ".join(f"{one.kind.value} {one.ms:.3f} ms ({one.share:.0%})" for one in beyond)
    print(f"    auto beyond its share of the MACs: {told or 'nothing'}")


def bounds_of(rows: Sequence[Row]) -> list[Bound]:
    """What the project promises."""
    found = []
    for kill in sorted({row.kill for row in rows}):
        efficiencies = [
            row.efficiency(row.auto) for row in rows if (row.runtime, row.kill) == ("litert", kill)
        ]
        if efficiencies:
            mean = float(np.exp(np.mean(np.log(efficiencies))))
            name = f"litert, {kill:.0%}: efficiency of auto, geometric mean of {len(efficiencies)}"
            found.append(Bound(name, mean, MIN_EFFICIENCY, "at least"))
    for row in rows:
        name = f"{row.network}, {row.runtime}, {row.kill:.0%}: time of auto / none"
        found.append(Bound(f"{name}, median", row.slower.median, MAX_SLOWER))
        found.append(Bound(f"{name}, lower end of 95 %", row.slower.low, MAX_SLOWER_LOW))
        name = f"{row.network}, {row.runtime}, {row.kill:.0%}: spread of the dense rounds"
        found.append(Bound(name, row.spread, MAX_SPREAD))
    return found


def main() -> int:
    """Run every network in its own process, print the table, then the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", help="comma-separated; all of the zoo by default")
    parser.add_argument("--kill", default="0.5", help="shares of channels, comma-separated; 0.5")
    parser.add_argument("--pattern", help="where they die; what the network has of the tied ones")
    parser.add_argument("--runtimes", default="ort,litert")
    parser.add_argument("--rounds", type=int, default=11, help="6 at least")
    parser.add_argument("--explain", action="store_true", help="where the time goes, for all")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < INTERVAL_MIN_ROUNDS:
        parser.error(f"--rounds {options.rounds}: an interval needs {INTERVAL_MIN_ROUNDS}")
    if options.child:
        print(json.dumps(asdict(measure(options.child, float(options.kill), options))))
        return 0
    chosen = options.networks.split(",") if options.networks else zoo()
    cases = product(chosen, options.kill.split(","), options.runtimes.split(","))
    found, failed = run_children({", ".join(case): child(*case, options) for case in cases})
    rows = [row_of(record) for record in found]
    print_rows(rows)
    for name, reason in failed.items():
        print(f"{name} failed: {reason}")
    if options.json:
        whole = {"rows": [asdict(row) for row in rows], "failed": failed}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    bounds = [*bounds_of(rows), Bound("measurements that failed", len(failed), 0)]
    return print_bounds(bounds)


def zoo() -> list[str]:
    """The architectures and the pretrained EfficientNet-Lite0."""
    from networks import ARCHITECTURES
    from removal_sources import EFFICIENTNET

    return [*ARCHITECTURES, EFFICIENTNET]


def child(name: str, kill: str, runtime: str, options: argparse.Namespace) -> list[str]:
    """The command that measures one mask on one network in one runtime."""
    command = [sys.executable, __file__, "--child", name, "--runtimes", runtime]
    command += ["--kill", kill, "--rounds", str(options.rounds)]
    command += ["--pattern", options.pattern] if options.pattern else []
    command += ["--explain"] if options.explain else []
    return command


if __name__ == "__main__":
    sys.exit(main())
