"""deploykit diagnose: what each layer of a bundle costs, and what helps the costliest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from deploykit.diagnose.causes import cause_of
from deploykit.diagnose.changes import State, observed
from deploykit.diagnose.contributions import INPUT, find_contributions
from deploykit.diagnose.findings import Advice, Diagnosis, LayerFinding, Remedy
from deploykit.diagnose.remedies import HELPS, Remedies
from deploykit.diagnose.subject import (
    Opened,
    Runs,
    choose_samples,
    decibels,
    open_subject,
    relative_error,
    run_both,
)
from deploykit.quantize.histogram import Histogram
from deploykit.spec.progress import Progress
from deploykit.verify.formats import port_inputs, real_output

NAMED = 3
"""How many layers get advice."""
SPREAD = 0.5
"""Share of the error under which the layers named are not the whole matter."""


def diagnose(path: Path, data: Path | None, samples: int, progress: Progress) -> Diagnosis:
    """Measure on `samples` inputs of `data`, or of those that the bundle keeps.

    Raises BundleError or IntegrityError where the bundle is not what was exported, DataError where
    the data do not fit it, UsageError where samples is under 1.
    """
    with progress.stage("read bundle"):
        opened = open_subject(path)
        chosen = choose_samples(opened, data, samples)
    measured = run_both(opened, chosen.measured, progress, "")
    with progress.stage("each layer alone") as advance:
        layers = find_contributions(opened, measured, advance)
    fitting = None
    if chosen.fitted is not None:
        fitting = run_both(opened, chosen.fitted, progress, ", to fit")
    worst, total = _worst(layers), sum(layer.error for layer in layers)
    seen: Mapping[str, Histogram] = {}
    if sum(layer.activations for layer in worst) > HELPS * total:
        with progress.stage("ranges of all samples") as advance:
            seen = observed(opened, chosen.every, advance)
    with progress.stage("try remedies") as advance:
        remedies = Remedies(State(opened, measured, fitting), data, seen)
        advice = []
        for place, finding in enumerate(worst):
            advice.append(_advice(opened, measured, remedies, finding, total))
            advance(place + 1, len(worst))
    everywhere: tuple[Remedy, ...] = ()
    untried: tuple[str, ...] = ()
    by_weights = sum(layer.weights for layer in layers)
    if sum(layer.error for layer in worst) < SPREAD * total < by_weights:
        with progress.stage("round all layers anew") as advance:
            everywhere = remedies.everywhere(advance)
            untried = remedies.untried()
    with progress.stage("model files"):
        runtimes = _measured(opened, measured)
    error = relative_error(measured.real, measured.quantized, opened.ends)
    return Diagnosis(
        decibels(error), runtimes, measured.count, 0 if fitting is None else fitting.count,
        layers, tuple(advice), remedies.together(), everywhere, untried, chosen.limited,
        str(opened.plan.get("allocation", {}).get("target", "")),
    )  # fmt: skip


def _worst(layers: tuple[LayerFinding, ...]) -> list[LayerFinding]:
    ordered = sorted(layers, key=lambda layer: -layer.error)
    return [layer for layer in ordered[:NAMED] if layer.error > 0.0]


def _advice(
    opened: Opened, runs: Runs, remedies: Remedies, finding: LayerFinding, total: float
) -> Advice:
    layers = {one.name: one for one in opened.simulation.layers}
    layer = None if finding.operator == INPUT else layers[finding.name]
    cause = cause_of(opened, runs, finding, layer)
    found = remedies.take_best(finding, layer)
    return Advice(finding.name, finding.error / total, cause, found.remedy, found.tried)


def _measured(opened: Opened, runs: Runs) -> dict[str, float]:
    """SQNR of model files' outputs by runtime, where all of them are what the integers mean."""
    network = opened.network
    if any(port.tail is not None or port.tensor in network.indices for port in network.outputs):
        return {}
    found = {}
    for fmt in opened.formats:
        if fmt.version() is None:
            continue
        data = opened.bundle.file(fmt.file).read_bytes()
        outputs = fmt.run_outputs(data, network, port_inputs(network, runs.inputs))
        real = {port.name: real_output(network, port, outputs) for port in network.outputs}
        error = relative_error(runs.real, real, [port.name for port in network.outputs])
        if math.isfinite(error):
            found[fmt.runtime] = decibels(error)
    return found
