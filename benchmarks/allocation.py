"""Bits by layer at equal bytes: uniform, by second moments, by the posterior.

    python benchmarks/allocation.py [--seeds 5] [--images DIR] [--only NAME ...] [--json FILE]

Samples: the LeNet-5 of sample_models (gates and weights, group normal-Jeffreys, pruned as its
export.toml has it) and its ResNet-18 of width 16 (gates alone); the posteriors of
benchmarks/posteriors (IVON, by train.py beside them, on the first 55,000 images of Fashion-MNIST);
two small ones of tests/libraries (bayesian-torch, diagonal Laplace), which their libraries wrote.
200 of the last 4,000 training images calibrate, drawn anew by seed; 10,000 test images are judged
in ONNX Runtime (the other runtime gives the same integers). An allocation of b bits has a mean of b
at most over all weights, so that values take at most the
bytes of uniform b. Bound: the measure that --bits auto takes is at most 0.2 points under the best
rule of as many bytes; which measure that is, is reported. DIR: idx files of Fashion-MNIST (Debian:
package dataset-fashion-mnist).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from demo import SAMPLE

from deploykit.exporting.allocating import Writer, Writing, widths
from deploykit.exporting.allocation_record import evidence_record
from deploykit.exporting.options import ExportOptions, build_options
from deploykit.exporting.outcome import Planned
from deploykit.pipeline import plan_export
from deploykit.quantize.allocation import front
from deploykit.quantize.measuring import Asked, measured_choices, with_all_moments
from deploykit.quantize.planning import calibrate
from deploykit.quantize.rounded_layers import RoundedLayers
from deploykit.quantize.settling import Runners
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.allocation import LayerChoices, SensitivityChoice, TargetBits
from deploykit.spec.progress import ignore
from deploykit.spec.samples import Samples
from deploykit.verify.formats import formats_for, port_inputs, real_output
from deploykit.verify.metrics import accuracy

sys.path.insert(0, str(SAMPLE.parent.parent))
sys.path.insert(0, str(SAMPLE))
from data import DEBIAN_FOLDER, Images, test_images, training_images

from tests.libraries.frame import CHECKPOINTS

POSTERIORS = Path(__file__).parent / "posteriors"
UNIFORM = (8, 4, 3, 2)
MEANS = (4.0, 3.0, 2.5)
"""Bits of a weight on average."""
CALIBRATING = 200
HELD_OUT = 55_000
"""The first image of the training file that training did not see."""
JUDGES = 1000
"""Of the images behind, that judge draws from the posterior."""
RULES = ("uniform", "moments", "posterior")
MOST_LOST = 0.2
"""Points of top-1: two thirds of the standard error of 10,000 images at 0.9."""
MEASURES = (SensitivityChoice.MOMENTS, SensitivityChoice.POSTERIOR)


@dataclass(frozen=True)
class Source:
    """A checkpoint and how it is exported."""

    name: str
    path: Path
    config: Path | None
    given: Mapping[str, Any]


def posterior(name: str) -> Source:
    """One of benchmarks/posteriors: NETWORK_METHOD."""
    network = name.partition("_")[0]
    given = {
        "model": f"{POSTERIORS / 'small_networks.py'}:{network}", "input_shape": "1,1,28,28",
        "prune_rule": "none", "align": "none",
        "batchnorm": "reestimate" if network == "separable" else "keep",
    }  # fmt: skip
    return Source(name, POSTERIORS / f"{name}.pt", None, given)


def library(name: str) -> Source:
    """One of tests/libraries, as its library wrote it."""
    given = {
        "model": f"tests.libraries.examples.{name}:twin", "input_shape": "1,1,28,28",
        "prune_rule": "none", "align": "none",
    }  # fmt: skip
    return Source(name, CHECKPOINTS / f"{name}.pt", None, given)


SOURCES = (
    Source("sample LeNet-5", SAMPLE / "bayesian.pt", SAMPLE / "export.toml", {}),
    Source("sample ResNet-18", SAMPLE.parent / "resnet18" / "checkpoints" / "bayesian16-0.pt",
           SAMPLE.parent / "resnet18" / "export.toml", {}),
    *map(posterior, ("lenet5_ivon", "separable_ivon")),
    *map(library, ("bayesian_torch_layers", "laplace_all_weights")),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One plan. rule: uniform, moments or posterior; bits: uniform, or the mean allowed.

    weight_bytes: of the values themselves, whatever carries them.
    """

    source: str
    seed: int
    rule: str
    bits: float
    weight_bytes: int
    top1: float
    float_top1: float
    layers: Mapping[str, int]


@dataclass(frozen=True)
class Evidence:
    """Whether a posterior is informative, and how alike the two measures rank layers at 4 bits."""

    source: str
    posterior: Mapping[str, Any]
    rank_correlation: float


class Bench:
    """One checkpoint, folded and pruned once."""

    def __init__(self, source: Source, folder: Path, calibration: Path) -> None:
        self.source = source
        given = {**source.given, "data": calibration, "batch": "dynamic"}
        self.options: ExportOptions = build_options(given, source.config)
        self.planned: Planned = plan_export(source.path, self.options)
        self.test: Images = test_images(folder)
        self.runners = Runners(ort.OutputEvaluator(), ReferenceRunner(), [])
        (self.format,) = formats_for(("onnx",), self.options.tflite_layout)
        outputs = ort.evaluate(self.planned.lowered, self.test.inputs)
        name = str(self.planned.lowered.model.graph.outputs[0].name)
        self.float_top1 = accuracy(outputs[name], self.test.labels)

    def rows(self, seed: int, images: Images) -> Iterator[Row | Evidence]:
        """Every plan on the calibration images of one seed."""
        rng = np.random.default_rng(seed)
        chosen = HELD_OUT + JUDGES + rng.choice(5000 - JUDGES, CALIBRATING, replace=False)
        judges = images.take(np.arange(HELD_OUT, HELD_OUT + JUDGES))
        options = self.options.quantization
        calibrated = calibrate(
            self.planned.lowered, Samples(images.take(chosen).inputs), with_all_moments(options),
            self.runners,
        )  # fmt: skip
        rounded = RoundedLayers(calibrated, options)
        writer = Writer(rounded, Writing(self.runners, (self.format,), self.options.metadata))
        measured = [
            measured_choices(
                rounded, Asked(measure, widths(TargetBits(4.0)), (self.format.key,)),
                Samples(judges.inputs, judges.labels), self.planned.prepared.entered.network,
                self.runners.evaluate, ignore,
            )
            for measure in MEASURES
        ]  # fmt: skip
        names = [layer.name for layer in calibrated.weighted()]
        for wide in UNIFORM:
            yield self.row(
                writer, seed, "uniform", wide, dict.fromkeys(names, wide), measured[0].choices
            )
        for found in measured:
            for mean in MEANS:
                costs = [{b: one.weights * b for b in one.file_bytes} for one in found.choices]
                allocations = front(found.choices, costs)
                place = allocations.within(mean * sum(one.weights for one in found.choices))
                assert place is not None
                bits = allocations.bits(place)
                yield self.row(writer, seed, found.measure.value, mean, bits, found.choices)
        evidence = measured[1].evidence
        assert evidence is not None
        yield Evidence(
            self.source.name, evidence_record(evidence), correlation(*(m.choices for m in measured))
        )

    def row(
        self,
        writer: Writer,
        seed: int,
        rule: str,
        bits: float,
        by_layer: Mapping[str, int],
        choices: Sequence[LayerChoices],
    ) -> Row:
        """Plan, write, run; prints its line."""
        written = writer.write(by_layer)
        data = written.models[self.format]
        raw = self.format.run_outputs(
            data, written.network, port_inputs(written.network, self.test.inputs)
        )
        (port,) = written.network.outputs
        top1 = accuracy(real_output(written.network, port, raw), self.test.labels)
        size = sum(-(-one.weights * by_layer[one.name] // 8) for one in choices)
        row = Row(self.source.name, seed, rule, bits, size, top1, self.float_top1, dict(by_layer))
        told = ",".join(str(wide) for wide in by_layer.values())
        print(
            f"{row.source:<22}{seed:>4} {rule:<10}{bits:>5g}{size:>8}{top1:>8.4f}  {told}",
            flush=True,
        )
        return row


def correlation(first: Sequence[LayerChoices], second: Sequence[LayerChoices]) -> float:
    """Spearman's, of the layers' sensitivities per weight at 4 bits."""
    ranks = [
        np.argsort(np.argsort([one.sensitivity[4] / one.weights for one in choices]))
        for choices in (first, second)
    ]
    x, y = (rank.astype(np.float64) - rank.mean() for rank in ranks)
    return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))


def mean_of(rows: Sequence[Row], rule: str, bits: float) -> float:
    """Top-1 over seeds."""
    return float(np.mean([row.top1 for row in rows if (row.rule, row.bits) == (rule, bits)]))


def bounds_of(rows: Sequence[Row], evidence: Sequence[Evidence]) -> Iterator[Bound]:
    """By sample: what the measure that --bits auto takes loses to any other rule, in points.

    Means of all seeds. Rules of equal bytes differ by less than the test images can tell apart, up
    to MOST_LOST; which of the two measures is better is reported, and not bounded.
    """
    for told in evidence:
        own = [row for row in rows if row.source == told.source]
        taken = "moments" if told.posterior["why_not"] else "posterior"
        for bits in MEANS:
            rules = [rule for rule in RULES if bits in UNIFORM or rule != "uniform"]
            found = {rule: 100 * mean_of(own, rule, bits) for rule in rules}
            lost = max(found.values()) - found[taken]
            yield Bound(
                f"{told.source}, {bits:g} bits, {taken} (auto) under the best, points",
                lost,
                MOST_LOST,
            )


def write_json(path: Path, rows: Sequence[Row], evidence: Sequence[Evidence]) -> None:
    """Rows of samples that were not run now stay."""
    held = json.loads(path.read_text()) if path.is_file() else {"rows": [], "evidence": []}
    run = {row.source for row in rows}
    new = {"rows": [asdict(row) for row in rows], "evidence": [asdict(one) for one in evidence]}
    record = {
        key: [one for one in held[key] if one["source"] not in run] + found
        for key, found in new.items()
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> int:
    """One line per plan, means by sample, then the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=Path, default=DEBIAN_FOLDER)
    names = [source.name for source in SOURCES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--json", type=Path, help="write the figures here too, beside others'")
    options = parser.parse_args()
    images = training_images(options.images)
    rows: list[Row] = []
    evidence: list[Evidence] = []
    start = perf_counter()
    print(
        f"{'sample':<22}{'seed':>4} {'rule':<10}{'bits':>5}{'bytes':>8}{'top-1':>8}  bits by layer"
    )
    for source in SOURCES:
        if source.name not in options.only:
            continue
        bench = Bench(source, options.images, SAMPLE / "calibration.npz")
        for seed in range(1, options.seeds + 1):
            for found in bench.rows(seed, images):
                if isinstance(found, Row):
                    rows.append(found)
                elif seed == 1:
                    evidence.append(found)
        told = evidence[-1]
        verdict = told.posterior["why_not"] or "informative"
        print(
            f"{source.name}: {verdict}; rank correlation {told.rank_correlation:.2f}; "
            f"draws {json.dumps(told.posterior['draws'])}; "
            f"noise over spread {json.dumps(told.posterior['noise_over_spread'])}"
        )
    for name in dict.fromkeys(row.source for row in rows):
        own = [row for row in rows if row.source == name]
        cells = [f"float {own[0].float_top1:.4f}"]
        for rule, bits in dict.fromkeys((row.rule, row.bits) for row in own):
            cells.append(f"{rule} {bits:g}: {mean_of(own, rule, bits):.4f}")
        print(f"{name}, mean of {options.seeds} seeds: {', '.join(cells)}")
    if options.json:
        write_json(options.json, rows, evidence)
    print(f"{perf_counter() - start:.0f} s")
    return print_bounds(list(bounds_of(rows, evidence)))


if __name__ == "__main__":
    sys.exit(main())
