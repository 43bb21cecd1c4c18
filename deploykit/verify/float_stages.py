"""Steps 1 to 3 of the ladder in float: folded, pruned, and lowered to what has an integer form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deploykit.bundle import GOLDEN, MANIFEST, Bundle, Golden
from deploykit.errors import GraphError, RemovalError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.by_sample import of_samples
from deploykit.spec.confidence import SMALLEST_PROBABILITY
from deploykit.spec.difference import relative_difference
from deploykit.spec.parity import Step, Verdict
from deploykit.spec.quantized import Tail
from deploykit.spec.temperature import tempered
from deploykit.verify.metrics import sqnr_db

FLOAT_ROUNDING = 1e-5
"""Largest relative difference that counts as float rounding."""

LEAST_LOWERED_DB = 30.0
"""SQNR of the lowered graph's outputs: slopes become whole numbers of 1/256, all else is exact."""

FOLDED = "Bayesian mean forward / folded"
TEMPERED = "folded, without temperature / with it"
PRUNED = "folded and masked / pruned"
LOWERED = "pruned / in operators that have integers"


def mean_forward_step(golden: Golden, bundle: Bundle) -> Step:
    """The Bayesian network's mean forward against the folded one, both as recorded at export."""
    if bundle.manifest.get("fold", {}) is None:
        reason = "no Bayesian mean forward: the export began at an ONNX file"
        return Step(1, FOLDED, Verdict.INAPPLICABLE, reason)
    if golden.mean_forward is None:
        reason = _why_unrecorded(bundle.manifest.get("fold", {}))
        return Step(1, FOLDED, Verdict.INAPPLICABLE, reason)
    difference = relative_difference(golden.mean_forward, golden.folded)
    detail = f"relative difference {difference:.1e}, as recorded at export"
    # float32 on both sides, through every layer: a little above the float64 comparison's bound.
    return Step(1, FOLDED, verdict(difference <= 10 * FLOAT_ROUNDING), detail)


def temperature_step(golden: Golden, bundle: Bundle, plan: Mapping[str, Any]) -> Iterator[Step]:
    """The stated temperature against recorded outputs with and without it; nothing without both."""
    stated, without = bundle.manifest.get("temperature"), golden.untempered
    value = None if stated is None else stated.get("value")
    if stated is None and without is None:
        return
    if not isinstance(value, float | int) or not value > 0 or without is None:
        said = "no temperature" if stated is None else f"the temperature {value}"
        records = "none" if without is None else "outputs without one"
        detail = f"temperature.value: {MANIFEST} says {said}, and {GOLDEN} records {records}"
        yield Step(1, TEMPERED, Verdict.FAILED, detail)
        return
    tail = next(map(Tail, plan["network"].get("tails", {}).values()), None)
    folded = of_samples(golden.folded, golden.full, golden.count)
    difference = relative_difference(folded, tempered(without, value, tail))
    if difference > FLOAT_ROUNDING:
        found = _temperature_between(without, folded, tail)
        detail = f"temperature.value: {MANIFEST} says {value}, and {GOLDEN} gives {found:.6g}"
        yield Step(1, TEMPERED, Verdict.FAILED, detail)
        return
    detail = f"{value:.4f} divides the outputs, relative difference {difference:.1e}"
    yield Step(1, TEMPERED, Verdict.PASSED, detail)


def _temperature_between(without: AnyArray, folded: AnyArray, tail: Tail | None) -> float:
    """T of least squares in z = T z' + c, from logits z, z' or what the tail made of them."""
    scores = [values.astype(np.float64) for values in (without, folded)]
    if tail is Tail.SOFTMAX:
        scores = [np.log(np.maximum(values, SMALLEST_PROBABILITY)) for values in scores]
    before, after = (values - values.mean(axis=1, keepdims=True) for values in scores)
    size = float(np.square(after).sum())
    return float((before * after).sum()) / size if size else 1.0


def _why_unrecorded(fold: Any) -> str:
    """Why a bundle keeps no outputs of the Bayesian network's own forward."""
    compared = fold.get("mean_difference")
    if compared is None:
        return "no Bayesian mean forward: --model named a deterministic twin"
    # A forward that rounds or closes gates by itself is not that of the unpruned network.
    changed = "batch norm changed after it" if fold["batchnorm"] != "keep" else "it closes gates"
    return f"relative difference {compared:.1e} at export, which recorded no outputs: {changed}"


def pruned_step(golden: Golden, output: AnyArray) -> Step:
    """output: of the pruned network for the golden inputs in `full`."""
    real = golden.full < golden.real
    if output.shape != golden.masked.shape:
        detail = f"output {list(output.shape)}, recorded {list(golden.masked.shape)}"
        return Step(2, PRUNED, Verdict.FAILED, detail)
    count = len(golden.full)
    differences = {
        kind: relative_difference(
            of_samples(golden.masked, part, count), of_samples(output, part, count)
        )
        for kind, part in (("samples", real), ("extremes", ~real))
    }
    detail = ", ".join(f"{value:.1e} on {kind}" for kind, value in differences.items())
    held = all(value <= FLOAT_ROUNDING for value in differences.values())
    return Step(2, PRUNED, verdict(held), f"relative difference {detail}")


def lowered_step(golden: Golden, output: AnyArray) -> Step:
    """output: of the lowered network for the golden inputs in `full`."""
    if output.shape != golden.masked.shape:
        detail = f"output {list(output.shape)}, recorded {list(golden.masked.shape)}"
        return Step(3, LOWERED, Verdict.FAILED, detail)
    real, count = golden.full < golden.real, len(golden.full)
    found = sqnr_db(of_samples(golden.masked, real, count), of_samples(output, real, count))
    return Step(3, LOWERED, verdict(found >= LEAST_LOWERED_DB), f"output SQNR {found:.1f} dB")


def check_float_stages(golden: Golden, pruned: AnyArray, lowered: AnyArray) -> None:
    """Raise RemovalError or GraphError where a bundle would not hold its own steps 2 and 3.

    pruned, lowered: the outputs of these networks for the golden inputs in `full`.
    """
    removal, lowering = pruned_step(golden, pruned), lowered_step(golden, lowered)
    if removal.verdict is Verdict.FAILED:
        raise RemovalError(
            f"removing what the calibration data leave idle changes the network ({removal.detail}):"
            " the data are not what it sees in use; preprocess them as in training, or keep all "
            "that float32 shows anywhere with --exact"
        )
    if lowering.verdict is Verdict.FAILED:
        raise GraphError(
            "the network computes something else in the operators that have integers "
            f"({lowering.detail}); this is a defect of deploykit: please report the network"
        )


def verdict(holds: bool) -> Verdict:
    """Passed, or failed."""
    return Verdict.PASSED if holds else Verdict.FAILED
