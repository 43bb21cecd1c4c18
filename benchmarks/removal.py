"""Exact channel removal on the architectures people ship: what could go, what went, what changed.

    python benchmarks/removal.py [--networks a,b] [--kill 0.3,0.5,0.7] [--patterns "after norm"]
        [--images DIR] [--beside FILE] [--json FILE]

Networks: plain torch definitions (benchmarks/networks), the pretrained EfficientNet-Lite0 and real
ONNX files out of PyPI wheels. Each is captured once (build/removal), masked with random dead
channels (removal_masks), normalized and handed to deploykit; each network has its own process.
What is removable is measured (probing). The difference is that of torch in float64 on random, zero,
extreme and border-heavy inputs, and of ONNX Runtime in float32 on all but the extreme ones, each
output relative to its own largest value.

--images: a folder of 224x224 images named CLASS_*.jpg or .png, for what removal finds in the
pretrained EfficientNet-Lite0 with no channel killed. --beside: what removal_torch_pruning.py wrote.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx_ir as ir
from bounds import Bound, print_bounds
from probing import Removable
from removal_graph import Array, Graph, graph_of, random_input, session
from removal_masks import Pattern, draw, masked, patterns_for

MIN_SHARE = 0.99
MAX_FLOAT64 = 1e-9
MAX_FLOAT32 = 1e-4
MAX_SECONDS = {"resnet50": 5.0}
KILLS = (0.3, 0.5, 0.7)
TRAINED = frozenset(("efficientnet-lite0",))
"""Networks in which what float32 hides goes too: training left 127 channels numerically dead."""
EXTREME = 1e3
UNBOUNDED = frozenset((Pattern.FREE_DIMS.value,))
"""Reported only: a fused q, k, v reshape wants equal numbers of all three."""


@dataclass(frozen=True)
class Row:
    """One mask on one network.

    macs_ideal: with all gone that probing found removable. float64, float32: largest relative
    difference masked/pruned. certificate: the one deploykit reports. borders: where it stopped.
    short: layers left wider than probing found possible.
    """

    network: str
    pattern: str
    kill: float
    parameters: int
    parameters_after: int
    macs: int
    macs_after: int
    macs_ideal: int
    float64: float
    float32: float
    removal_s: float
    certificate_s: float | None
    certificate: float | None
    borders: tuple[str, ...]
    short: tuple[str, ...]
    peak_gb: float

    @property
    def share(self) -> float:
        """Of the removable MACs, what went; 1 where there were none."""
        removable = self.macs - self.macs_ideal
        return (self.macs - self.macs_after) / removable if removable else 1.0

    def bounds(self) -> list[Bound]:
        """What the issue promises."""
        name = f"{self.network}, {self.pattern}, {self.kill:.0%}"
        found = [
            Bound(f"{name}: float64 difference", self.float64, MAX_FLOAT64),
            Bound(f"{name}: float32 difference", self.float32, MAX_FLOAT32),
        ]
        if self.pattern not in UNBOUNDED:
            share = Bound(f"{name}: share of removable MACs", self.share, MIN_SHARE, "at least")
            found.insert(0, share)
        if self.network in MAX_SECONDS:
            limit = MAX_SECONDS[self.network]
            found.append(Bound(f"{name}: seconds of removal", self.removal_s, limit))
        return found


def measure(name: str, kills: Sequence[float], wanted: Sequence[str], certified: bool) -> list[Row]:
    """Every mask on one network."""
    from removal_sources import unfolded
    from removal_walk import walk

    graph = graph_of(unfolded(name))
    found = walk(graph)
    rows = []
    for pattern in patterns_for(graph, found):
        if wanted and pattern.value not in wanted:
            continue
        for kill in kills:
            mask = draw(graph, found, kill, pattern)
            row = _row(name, pattern.value, kill, ir.from_proto(masked(graph, mask)), certified)
            rows.append(row)
            print(json.dumps(asdict(row)), flush=True)
    return rows


def _row(name: str, pattern: str, kill: float, model: ir.Model, certified: bool) -> Row:
    from probing import macs, probe
    from removal_torch import largest_difference
    from removal_walk import walk

    from deploykit.exporting.removing import zero_hidden
    from deploykit.graph.certificate import certificate_inputs, certify
    from deploykit.graph.normalize import normalize
    from deploykit.graph.options import Groups, RemovalOptions, Tolerance
    from deploykit.graph.removal import cut_channels
    from deploykit.reference.float import evaluate_outputs
    from deploykit.spec.network import Network

    network = normalize(Network(model, {}))
    drawn = certificate_inputs(network)["random"]
    tolerance = Tolerance.FLOAT32 if name in TRAINED else Tolerance.EXACT
    quiet, _ = zero_hidden(network, drawn, tolerance)
    start = perf_counter()
    made = cut_channels(quiet, RemovalOptions(max_growth=math.inf, groups=Groups.SPLIT))
    removal_s = perf_counter() - start
    certificate_s = certificate = None
    if certified:
        start = perf_counter()
        proof = certify(quiet, made.exact, made.pruned, evaluate_outputs, made.rest_of)
        certificate_s, certificate = perf_counter() - start, proof.max_relative
    before = graph_of(ir.to_proto(network.model))
    exact = graph_of(ir.to_proto(made.exact.model))
    pruned = graph_of(ir.to_proto(made.pruned.model))
    removable = probe(before)
    inputs = test_inputs(before)
    return Row(
        name,
        pattern,
        kill,
        parameters(before),
        parameters(pruned),
        removable.macs,
        macs(walk(pruned), frozenset()),
        removable.macs_left,
        largest_difference(before, exact, inputs),
        float32_difference(before, pruned, inputs),
        removal_s,
        certificate_s,
        certificate,
        (*made.steps[0].found.structure.borders, *made.unarranged),
        too_wide(removable, pruned),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    )


def too_wide(removable: Removable, pruned: Graph) -> tuple[str, ...]:
    """Layers with more channels than had to stay, and the numbers."""
    from probing import widths
    from removal_walk import walk

    ideal = widths(removable.walk, removable.classes)
    left = widths(walk(pruned), frozenset())
    return tuple(
        f"{name}: reads {width.reads} for {ideal[name].reads}, "
        f"gives {width.gives} for {ideal[name].gives}"
        for name, width in left.items()
        if name in ideal and (width.reads > ideal[name].reads or width.gives > ideal[name].gives)
    )


def parameters(graph: Graph) -> int:
    """Numbers in float constants."""
    return sum(value.size for value in graph.constants.values() if value.dtype.kind == "f")


def test_inputs(graph: Graph) -> list[Array]:
    """Random, zero, extreme, and zero but for a frame one pixel wide."""
    generator = np.random.default_rng(99)
    shape = graph.input_shape
    border = generator.normal(size=shape).astype(np.float32)
    border[:, :, *(slice(1, -1),) * (len(shape) - 2)] = 0.0
    signs = generator.choice([-EXTREME, EXTREME], size=shape).astype(np.float32)
    return [random_input(graph, 99), np.zeros(shape, np.float32), signs, border]


def float32_difference(before: Graph, after: Graph, inputs: Sequence[Array]) -> float:
    """max |after - before| / max |before| in ONNX Runtime with all its optimizations.

    Not on the extreme inputs: there the masked network's own float32 error can be 1e-4 (MobileNetV3
    with random weights: 3.5e-5 at 1e3), which would be measured instead; float64 covers them.
    """
    sessions = (session(before.model), session(after.model))
    largest = 0.0
    for one in inputs:
        if np.abs(one).max() >= EXTREME:
            continue
        a, b = (runtime.run(None, {before.input_name: one}) for runtime in sessions)
        for x, y in zip(a, b, strict=True):
            if x.shape != y.shape:
                return float("inf")
            scale = float(np.abs(x).max()) or 1.0
            largest = max(largest, float(np.abs(x - y).max()) / scale)
    return largest


HEAD = (
    f"{'network':<20}{'pattern':<20}{'kill':>5}{'Mparams':>17}{'MMACs':>19}{'share':>8}"
    f"{'float64':>9}{'float32':>9}{'cut s':>7}{'proof s':>9}"
)


def line(row: Row) -> str:
    """Under HEAD."""
    proof = "-" if row.certificate_s is None else f"{row.certificate_s:.1f}"
    return (
        f"{row.network:<20}{row.pattern:<20}{row.kill:>5.0%}"
        f"{row.parameters / 1e6:>8.2f} >{row.parameters_after / 1e6:>7.2f}"
        f"{row.macs / 1e6:>9.1f} >{row.macs_after / 1e6:>8.1f}"
        f"{row.share:>8.4f}{row.float64:>9.1e}{row.float32:>9.1e}{row.removal_s:>7.2f}{proof:>9}"
    )


def summary(rows: Sequence[Row]) -> list[str]:
    """One line per network: the worst of all its masks, and what one of them left."""
    lines = [
        f"{'network':<20}{'masks':>6}{'MACs left':>16}{'least share':>12}{'float64':>9}"
        f"{'float32':>9}{'cut s':>7}{'proof s':>8}"
    ]
    for name in dict.fromkeys(row.network for row in rows):
        own = [row for row in rows if row.network == name]
        left = [row.macs_after / row.macs for row in own]
        proofs = [row.certificate_s for row in own if row.certificate_s is not None]
        lines.append(
            f"{name:<20}{len(own):>6}{f'{min(left):.1%} .. {max(left):.1%}':>16}"
            f"{min(row.share for row in own):>12.4f}{max(row.float64 for row in own):>9.1e}"
            f"{max(row.float32 for row in own):>9.1e}{max(row.removal_s for row in own):>7.2f}"
            f"{f'{max(proofs):.1f}' if proofs else '-':>8}"
        )
    return lines


def beside_line(found: Mapping[str, Any]) -> str:
    """torch-pruning's figures for one mask."""
    parts = []
    for rule, outcome in found.items():
        if outcome["error"] is not None:
            parts.append(f"{rule}: {outcome['error']}")
        else:
            left = outcome["macs_after"] / outcome["macs"]
            parts.append(f"{rule}: MACs left {left:.4f}, difference {outcome['difference']:.1e}")
    return "; ".join(parts)


def run(name: str, arguments: argparse.Namespace, beside: Mapping[str, Any]) -> Iterator[Row]:
    """One network in a process of its own, each row printed as it comes.

    Raises RuntimeError with the last line of what the process wrote where it failed.
    """
    command = [sys.executable, __file__, "--child", name, "--kill", arguments.kill]
    command += ["--patterns", arguments.patterns]
    command += ["--no-certificate"] if arguments.no_certificate else []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        for text in process.stdout:
            found = json.loads(text)
            row = Row(**{**found, **{key: tuple(found[key]) for key in ("borders", "short")}})
            left = row.macs_after / row.macs
            print(line(row), flush=True)
            other = beside.get(f"{row.network}, {row.pattern}, {row.kill:g}")
            if other is not None:
                print(f"    here: MACs left {left:.4f}; torch-pruning, {beside_line(other)}")
            yield row
        if process.wait():
            errors.seek(0)
            raise RuntimeError(errors.read().strip().splitlines()[-1])


def main() -> int:
    """Run every network in its own process, print the table, then the bounds."""
    from removal_sources import names

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", help="comma-separated; all by default, none for none")
    parser.add_argument("--kill", default=",".join(map(str, KILLS)))
    parser.add_argument("--patterns", default="", help="separated by ; all by default")
    parser.add_argument("--no-certificate", action="store_true", help="leave deploykit's proof out")
    parser.add_argument("--images", type=Path, help="for EfficientNet-Lite0 as it is")
    parser.add_argument("--beside", type=Path, help="JSON of removal_torch_pruning.py")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    kills = [float(kill) for kill in arguments.kill.split(",")]
    patterns = [pattern for pattern in arguments.patterns.split(";") if pattern]
    if arguments.child:
        measure(arguments.child, kills, patterns, not arguments.no_certificate)
        return 0
    chosen = arguments.networks.split(",") if arguments.networks else names()
    chosen = [name for name in chosen if name != "none"]
    beside = json.loads(arguments.beside.read_text()) if arguments.beside else {}
    rows: list[Row] = []
    failed: dict[str, str] = {}
    print(HEAD)
    for name in chosen:
        try:
            rows.extend(run(name, arguments, beside))
        except RuntimeError as error:
            failed[name] = str(error)
            print(f"{name} failed: {error}", flush=True)
    pretrained = _pretrained(arguments.images) if arguments.images else []
    if arguments.json:
        figures = {"rows": [{**asdict(row), "share": row.share} for row in rows]}
        whole = {**figures, "failed": failed, "efficientnet-lite0 as it is": pretrained}
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    print(*summary(rows), sep="\n")
    for row in rows:
        if row.share < MIN_SHARE:
            print(f"{row.network}, {row.pattern}, {row.kill:.0%}: borders {list(row.borders)}")
            print(*(f"    {text}" for text in row.short), sep="\n")
    bounds = [bound for row in rows for bound in row.bounds()]
    bounds.append(Bound("networks that failed", len(failed), 0))
    return print_bounds(bounds)


def _pretrained(images: Path) -> list[dict[str, Any]]:
    from removal_pretrained import find

    found = find(images)
    for one in found:
        print(
            f"efficientnet-lite0 as it is, {one.tolerance}: channels {one.channels} >"
            f" {one.channels_after}, Mparams {one.parameters / 1e6:.3f} >"
            f" {one.parameters_after / 1e6:.3f}, MMACs {one.macs / 1e6:.2f} >"
            f" {one.macs_after / 1e6:.2f}, largest change of a logit {one.logit_change:.2e} of"
            f" {one.largest_logit:.1f}, top-1 {one.top1:.3f} > {one.top1_after:.3f} on"
            f" {one.images} images, {one.seconds:.1f} s"
        )
    return [asdict(one) for one in found]


if __name__ == "__main__":
    sys.exit(main())
