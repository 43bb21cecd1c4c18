"""Confidence of every Bayesian sample: Monte Carlo, folded, int8 and 4 bits, without and with temperature.

    python benchmarks/confidence.py [--examples a,b] [--images FOLDER] [--splits 5] [--json FILE]

The checkpoints of families.py, pruned by the same rules. Each split halves the test images: on one
half a temperature is fitted to the labels (NLL) for every form, on the other all are judged; figures
are means of the splits. Of the integers a second temperature is fitted to the Monte-Carlo predictive
(KL) on the calibration images, without labels. Integers are those of model.tflite, whose logits equal
model.onnx's (but for float islands); a temperature changes none of them (checked on one export of each
example).

Bound: ECE of int8 with temperature at most 0.005 above that of Monte Carlo. ECE is itself an estimate,
and too high by what bins average of so many images: beside the difference stands its 95 % interval from
1,000 bootstrap samples of the judged images, drawn in pairs (both forms see the same images) and
reflected about the difference, which takes off the bias that resampling adds once more. The JSON also
has the difference of the adaptive ECE.
FOLDER holds the idx files of Fashion-MNIST, for all 10,000 test images instead of the first 2,000.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from demo import SAMPLE
from families import Example, examples, rule_of

import deploykit
from deploykit.bundle import Bundle
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.predictive import predictive_of
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.confidence import ECE_BINS, metrics, scores_of, softmax
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.progress import ignore
from deploykit.spec.temperature import fitted_temperature, one_hot

sys.path.insert(0, str(SAMPLE.parent.parent))
sys.path.insert(0, str(SAMPLE))
from data import test_images as all_test_images

from tests.libraries.images import Images, test_images

MONTE_CARLO = "monte carlo"
FOLDED = "folded"
INT8 = "int8"
FORMS: Mapping[str, Mapping[str, Any]] = {
    INT8: {},
    "W4 sequential": {"bits": 4, "rounding": "sequential"},
    "W4 compensated": {"bits": 4, "rounding": "compensated"},
}
"""Options of the integer forms."""
MOST_ABOVE = 0.005
RESAMPLES = 1000


@dataclass(frozen=True)
class Judged:
    """Means over splits, on the judged halves. temperature: mean of the fitted ones."""

    accuracy: float
    nll: float
    ece: float
    adaptive_ece: float
    temperature: float = 1.0


@dataclass(frozen=True)
class Form:
    """One way to evaluate an example. predictive: its temperature fitted to Monte Carlo."""

    without: Judged
    labels: Judged
    predictive: Judged | None = None


@dataclass(frozen=True)
class Row:
    """One example. above: ECE of int8 with temperature less that of Monte Carlo, and its interval.

    changed: integers that a temperature changed. differing: logits of the two files over all forms.
    islands: whether a part runs in float, where runtimes may differ by a step.
    """

    name: str
    images: int
    forms: Mapping[str, Form]
    above: float
    interval: tuple[float, float]
    adaptive_above: float
    changed: int
    differing: int
    islands: bool
    seconds: float


@dataclass(frozen=True)
class Split:
    """Indices of the images that fit, and of those that judge."""

    fit: AnyArray
    judge: AnyArray


def halves(count: int, splits: int) -> list[Split]:
    """Seeded halves."""
    found = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(count)
        found.append(Split(order[: count // 2], order[count // 2 :]))
    return found


def judged(
    scores: Float64Array, labels: AnyArray, splits: Sequence[Split], temperatures: Sequence[float]
) -> Judged:
    """Means of the metrics of softmax(z / T)."""
    found = [
        metrics(softmax(scores[one.judge] / temperature), labels[one.judge])
        for one, temperature in zip(splits, temperatures, strict=True)
    ]
    return Judged(
        float(np.mean([one.accuracy for one in found])),
        float(np.mean([one.nll for one in found])),
        float(np.mean([one.ece for one in found])),
        float(np.mean([one.adaptive_ece for one in found])),
        float(np.mean(temperatures)),
    )


def by_labels(scores: Float64Array, labels: AnyArray, splits: Sequence[Split]) -> list[float]:
    """A temperature for each split."""
    targets = one_hot(labels, scores.shape[1])
    return [fitted_temperature(scores[one.fit], targets[one.fit]) for one in splits]


def surplus_of(scores: Float64Array, labels: AnyArray) -> tuple[Float64Array, AnyArray]:
    """By image: right or not, less confidence; and its bin. (metrics has the formula.)"""
    values = softmax(scores)
    confidence = values.max(axis=1)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    return (values.argmax(axis=1) == labels) - confidence, bins


def interval(
    ours: Float64Array, theirs: Float64Array, labels: AnyArray, splits: Sequence[Split],
    temperatures: Sequence[float], above: float,
) -> tuple[float, float]:  # fmt: skip
    """The basic bootstrap's 95 % of a difference in ECE, over images drawn from each judged half.

    above: the difference. Source: Davison and Hinkley 1997, section 5.2.
    """
    generator = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for one, temperature in zip(splits, temperatures, strict=True):
        truth, count = labels[one.judge], len(one.judge)
        sides = (
            surplus_of(ours[one.judge] / temperature, truth),
            surplus_of(theirs[one.judge], truth),
        )
        for index in range(RESAMPLES):
            drawn = generator.integers(0, count, count)
            errors = [
                np.abs(np.bincount(bins[drawn], surplus[drawn], ECE_BINS)).sum() / count
                for surplus, bins in sides
            ]
            means[index] += (errors[0] - errors[1]) / len(splits)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(2 * above - high), float(2 * above - low)


def exported(example: Example, folder: Path, options: Mapping[str, Any]) -> Bundle:
    """A bundle, pruned as in families.py."""
    spec = rule_of(example)
    return deploykit.export(
        example.path, out=folder, model=example.model, input_shape=(1, 1, 28, 28),
        data=SAMPLE / "calibration.npz", prune_rule=spec.rule.value, threshold=spec.threshold,
        align="none", **options,
    )  # fmt: skip


def logits(bundle: Bundle, inputs: AnyArray) -> tuple[Float64Array, Float64Array]:
    """Of model.tflite and of model.onnx [N, K]."""
    (source,), (target,) = bundle.manifest["inputs"], bundle.manifest["outputs"]
    named = {source["name"]: inputs}
    onnx = ort.run(bundle.file("model.onnx").read_bytes(), named)[target["name"]]
    laid = {source["name"]: inputs.transpose(0, 2, 3, 1)}
    tflite = litert.run(bundle.file("model.tflite").read_bytes(), laid)[target["name"]]
    return scores_of(tflite), scores_of(onnx)


def monte_carlo_and_mean(
    example: Example, inputs: Sequence[AnyArray]
) -> tuple[list[Float64Array], Float64Array]:
    """Scores of the predictive for each of the inputs, and the folded mean's for the first."""
    checkpoint, twin = example.checkpoint(), load_factory(example.model)
    folded = fold_posterior(checkpoint, twin, inputs[0][:8], PruneSpec(PruneRule.NONE))
    predictive = predictive_of(folded, checkpoint)
    assert predictive is not None
    drawn = [scores_of(predictive(one, ignore)) for one in inputs]
    return drawn, scores_of(run(folded.unpruned, as_inputs(inputs[0])))


def as_inputs(values: AnyArray) -> GraphInputs:
    """The only input."""
    return values


def temperature_changes(example: Example, without: Bundle, folder: Path, temperature: float) -> int:
    """Integers that differ between exports with and without a temperature.

    Of outputs on all calibration images, as the export tells; of every tensor on the golden inputs.
    """
    with_it = exported(example, folder / "with", {"temperature": temperature})
    changed: int = with_it.manifest["temperature"]["integers_changed"]
    with np.load(with_it.file("golden.npz")) as ours, np.load(without.file("golden.npz")) as theirs:
        for name in ours.files:
            if name.startswith(("integers/", "outputs/")):
                changed += int(np.count_nonzero(ours[name] != theirs[name]))
    return changed


def row_of(example: Example, images: Images, splits: Sequence[Split]) -> Row:
    """Evaluate one example in every form."""
    start, labels = perf_counter(), images.labels
    with np.load(SAMPLE / "calibration.npz") as stored:
        unlabelled = stored["inputs"]
    (drawn, on_calibration), mean = monte_carlo_and_mean(example, (images.inputs, unlabelled))
    scores = {MONTE_CARLO: drawn, FOLDED: mean}
    taught: dict[str, float] = {}
    differing = 0
    with tempfile.TemporaryDirectory(prefix="deploykit-confidence-") as folder:
        bundles = {
            name: exported(example, Path(folder) / name.replace(" ", "-"), options)
            for name, options in FORMS.items()
        }
        for name, bundle in bundles.items():
            scores[name], other = logits(bundle, images.inputs)
            differing += int(np.count_nonzero(scores[name] != other))
            own, _ = logits(bundle, unlabelled)
            taught[name] = fitted_temperature(own, softmax(on_calibration))
        islands = any("in_float" in layer for layer in bundles[INT8].manifest["layers"])
        changed = temperature_changes(example, bundles[INT8], Path(folder), round(taught[INT8], 3))
    forms = {}
    for name, values in scores.items():
        predictive = None
        if name in taught:
            predictive = judged(values, labels, splits, [taught[name]] * len(splits))
        forms[name] = Form(
            judged(values, labels, splits, [1.0] * len(splits)),
            judged(values, labels, splits, by_labels(values, labels, splits)),
            predictive,
        )
    fitted = by_labels(scores[INT8], labels, splits)
    ours, theirs = forms[INT8].labels, forms[MONTE_CARLO].without
    return Row(
        example.name, len(labels), forms, ours.ece - theirs.ece,
        interval(scores[INT8], drawn, labels, splits, fitted, ours.ece - theirs.ece),
        ours.adaptive_ece - theirs.adaptive_ece, changed, differing, islands,
        perf_counter() - start,
    )  # fmt: skip


SHOWN = {MONTE_CARLO: "MC", FOLDED: "folded", INT8: "int8", "W4 sequential": "W4"}
TITLES = "".join(f"{title:<11}" for title in SHOWN.values())
HEADING = (
    f"{'':<28}{'NLL (nats), with temperature':<44}  {'ECE, with temperature':<44}\n"
    f"{'example':<28}{TITLES}  {TITLES}{'above MC':>8}"
)


def short(value: float) -> str:
    """short(0.4791) -> '.479'"""
    return f"{value:.3f}".removeprefix("0")


def line(row: Row) -> str:
    """One line of the table; W4: sequential."""
    shown = [row.forms[name] for name in SHOWN]
    pairs = [
        "".join(
            f"{short(getattr(one.without, name)) + ' ' + short(getattr(one.labels, name)):<11}"
            for one in shown
        )
        for name in ("nll", "ece")
    ]
    return f"{row.name:<28}{pairs[0]}  {pairs[1]}{row.above:>+8.4f}"


def mean_lines(rows: Sequence[Row]) -> Iterator[str]:
    """By form the means over all examples; `draws`: of a temperature fitted to Monte Carlo."""
    yield f"{'mean of examples':<26}{'accuracy':>9}{'NLL':>9}{'ECE':>9}{'temperature':>13}"
    for name in rows[0].forms:
        forms = [row.forms[name] for row in rows]
        kinds = {
            "": [one.without for one in forms],
            ", labels": [one.labels for one in forms],
            ", draws": [one.predictive for one in forms if one.predictive is not None],
        }
        for kind, found in kinds.items():
            if found:
                accuracy, nll, ece, temperature = (
                    float(np.mean([getattr(one, metric) for one in found]))
                    for metric in ("accuracy", "nll", "ece", "temperature")
                )
                yield f"{name + kind:<26}{accuracy:>9.4f}{nll:>9.4f}{ece:>9.4f}{temperature:>13.3f}"


def counts(rows: Sequence[Row]) -> Iterator[str]:
    """How many examples lie within the bound to either side, by what int8's T is fitted to."""
    for kind, title in (("labels", "labels"), ("predictive", "draws")):
        apart = [
            getattr(row.forms[INT8], kind).ece - row.forms[MONTE_CARLO].without.ece for row in rows
        ]
        near = sum(abs(one) <= MOST_ABOVE for one in apart)
        under = sum(one < -MOST_ABOVE for one in apart)
        yield (
            f"int8, {title}: ECE of {near} within {MOST_ABOVE:g} of Monte Carlo's, of {under} "
            f"further under, of {len(rows) - near - under} further above"
        )


def bounds(rows: Sequence[Row]) -> list[Bound]:
    """What is claimed of every row."""
    found = []
    for row in rows:
        found += [
            Bound(f"{row.name}: ECE of int8 with temperature above Monte Carlo's",
                  row.above, MOST_ABOVE),
            Bound(f"{row.name}: integers that a temperature changes", row.changed, 0),
        ]  # fmt: skip
        if not row.islands:
            title = f"{row.name}: logits that differ between the files"
            found.append(Bound(title, row.differing, 0))
    return found


def main() -> int:
    """Print the table and its bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", help="comma-separated; all without")
    parser.add_argument("--images", type=Path, help="idx files: all 10,000 test images")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    images = test_images()
    if arguments.images:
        every = all_test_images(arguments.images)
        images = Images(every.inputs, every.labels)
    chosen = examples()
    if arguments.examples:
        names = arguments.examples.split(",")
        unknown = [name for name in names if name not in {one.name for one in chosen}]
        if unknown:
            parser.error(f"no example is called {', '.join(unknown)}")
        chosen = [one for one in chosen if one.name in names]
    splits = halves(len(images.labels), arguments.splits)
    rows: list[Row] = []
    print(HEADING)
    for example in chosen:
        rows.append(row_of(example, images, splits))
        print(line(rows[-1]), f"{rows[-1].seconds:4.0f} s", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(*mean_lines(rows), *counts(rows), sep="\n")
    return print_bounds(bounds(rows))


if __name__ == "__main__":
    sys.exit(main())
