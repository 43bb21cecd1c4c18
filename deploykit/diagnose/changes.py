"""What an export with other flags would change in the integer network, and its error then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from deploykit.diagnose.simulation import OWN, Form, Parameters, on_grid
from deploykit.diagnose.subject import (
    Opened,
    Runs,
    real_parameters,
    relative_error,
    trained_tensors,
)
from deploykit.diagnose.weight_growth import Growth
from deploykit.quantize.calibration import Calibration
from deploykit.quantize.evidence import Evidence, InputMeans
from deploykit.quantize.histogram import Histogram
from deploykit.quantize.moments import compensates
from deploykit.quantize.nodes import parameter
from deploykit.quantize.observe import observe_tensors
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.passing import Passed
from deploykit.quantize.sequential import layer_evidence
from deploykit.quantize.sharing import find_groups
from deploykit.quantize.structure import Layer
from deploykit.quantize.tied import tied_layers
from deploykit.quantize.wanted import wanted_quantization
from deploykit.quantize.weighted import weighted_plan
from deploykit.quantize.whole_numbers import table_histograms
from deploykit.runtime.ort import OutputEvaluator
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import input_names
from deploykit.spec.plan import Rounding, WeightRange
from deploykit.spec.progress import Advance, ignore
from deploykit.spec.quantized import Quantization
from deploykit.spec.whole_numbers import real_inputs
from deploykit.verify.saturation import planned_target


@dataclass(frozen=True)
class Refit:
    """How the weights of a layer are rounded anew."""

    bits: int
    rounding: Rounding
    weight_range: WeightRange


@dataclass(frozen=True)
class Change:
    """flags: of the export. in_float: layers. refits: by layer. grids: by tensor, None: in float.

    weight_bytes: by layer and model file, more than before. of: what the estimate covers, where
    that is not everything that the flags do.
    """

    flags: tuple[str, ...]
    in_float: tuple[str, ...] = ()
    refits: Mapping[str, Refit] = field(default_factory=dict)
    grids: Mapping[str, Quantization | None] = field(default_factory=dict)
    weight_bytes: Mapping[str, Growth] = field(default_factory=dict)
    of: str = ""


@dataclass(frozen=True)
class State:
    """An integer network that was run: on what it is measured, and on what remedies are fitted."""

    opened: Opened
    measured: Runs
    fitting: Runs | None

    @property
    def error(self) -> float:
        """Relative, of the outputs."""
        found = self.measured
        return relative_error(found.real, found.quantized, self.opened.ends)


def combined(changes: Sequence[Change]) -> Change:
    """All of them; flags that are given twice count once, and what is in float stays there."""
    pairs: dict[tuple[str, str], None] = {}
    in_float: dict[str, None] = {}
    refits: dict[str, Refit] = {}
    grids: dict[str, Quantization | None] = {}
    weight_bytes: dict[str, Growth] = {}
    for change in changes:
        pairs |= dict.fromkeys(zip(change.flags[0::2], change.flags[1::2], strict=True))
        in_float |= dict.fromkeys(change.in_float)
        refits |= change.refits
        floats = {name for name, grid in grids.items() if grid is None}
        grids |= {name: grid for name, grid in change.grids.items() if name not in floats}
        weight_bytes |= change.weight_bytes
    # Which bits a layer gets is said once.
    stated = {f"{name}=float" for name in in_float}
    kept = [
        pair for pair in pairs if pair[1] in stated or pair[1].rpartition("=")[0] not in in_float
    ]
    flags = tuple(word for pair in kept for word in pair)
    left = {name: refit for name, refit in refits.items() if name not in in_float}
    of = next((change.of for change in changes if change.of), "")
    return Change(flags, tuple(in_float), left, grids, weight_bytes, of)


def changed_error(state: State, change: Change) -> float:
    """Relative error of the outputs with the change; only what it touches is run."""
    opened, runs = state.opened, state.measured
    forms = _forms(opened, change)
    if state.fitting is not None:
        for layer in opened.simulation.layers:
            if layer.name in change.refits:
                found = refitted(opened, state.fitting, layer, change.refits[layer.name])
                forms[layer.name] = replace(forms[layer.name], parameters=found)
    touched = [name for name, form in forms.items() if form != opened.forms[name]]
    known = _inputs(opened, runs.real, change)
    ends = opened.simulation.changed(runs.quantized, known, forms, opened.ends, touched)
    return relative_error(runs.real, ends, opened.ends)


def after(state: State, change: Change, progress: Advance = ignore) -> State:
    """The network with the change, each layer refitted on what those before it then give."""
    opened, fitting = state.opened, state.fitting
    forms = _forms(opened, change)
    kept = {**opened.grids, **change.grids}
    grids = {name: grid for name, grid in kept.items() if grid is not None}
    opened = replace(opened, grids=grids)
    if fitting is not None:
        tensors = {**fitting.quantized, **_inputs(opened, fitting.real, change)}
        for place, layer in enumerate(opened.simulation.layers):
            progress(place, len(opened.simulation.layers))
            if layer.name in change.refits:
                known = replace(fitting, quantized=tensors)
                found = refitted(opened, known, layer, change.refits[layer.name])
                forms[layer.name] = replace(forms[layer.name], parameters=found)
            tensors[layer.output] = opened.simulation.output(layer, tensors, forms[layer.name])
        fitting = replace(fitting, quantized=tensors)
    given = {name: state.measured.quantized[name] for name in input_names(opened.lowered)}
    given |= _inputs(opened, state.measured.real, change)
    quantized = opened.simulation.all_tensors(given, forms)
    measured = replace(state.measured, quantized=quantized)
    return State(replace(opened, forms=forms), measured, fitting)


def _forms(opened: Opened, change: Change) -> dict[str, Form]:
    """All but refits."""
    return {
        layer.name: Form(
            OWN if layer.name in change.in_float else opened.forms[layer.name].parameters,
            change.grids.get(layer.output, opened.forms[layer.name].grid),
        )
        for layer in opened.simulation.layers
    }


def _inputs(opened: Opened, real: Tensors, change: Change) -> dict[str, AnyArray]:
    """The network's inputs on other grids."""
    names = (name for name in real_inputs(opened.lowered) if name in change.grids)
    return {name: on_grid(real[name], change.grids[name]) for name in names}


def observed(opened: Opened, inputs: GraphInputs, progress: Advance) -> Mapping[str, Histogram]:
    """By tensor whose range is chosen, its float values over all samples."""
    groups = find_groups(opened.layers, real_inputs(opened.lowered))
    makers = [name for group in groups for name in group.makers]
    found = observe_tensors(
        opened.lowered, makers, (), (), inputs, OutputEvaluator(), progress
    ).histograms
    return {**found, **table_histograms(opened.layers)}


def recalibrated(
    opened: Opened, seen: Mapping[str, Histogram], method: Calibration
) -> Mapping[str, Quantization]:
    """The grid of every tensor, its range chosen anew; those that training chose stay."""
    layers, sources = opened.layers, real_inputs(opened.lowered)
    kept = trained_tensors(opened)
    found: dict[str, Quantization] = {}
    for group in find_groups(layers, sources):
        if kept.intersection(group.tensors):
            continue
        grid = wanted_quantization(group, layers, sources, seen, method)
        found.update(dict.fromkeys(group.tensors, grid))
    return found


def refitted(opened: Opened, fitting: Runs, layer: Layer, refit: Refit) -> Parameters:
    """The weights of a layer, rounded anew on the samples of `fitting`, as the planning does."""
    name = layer.inputs[0]
    grid = opened.grids[name]
    tied = tied_layers(opened.layers)[layer.name]
    real, weight = fitting.real[name], parameter(layer.nodes[0], 1)
    means = real.mean(axis=(0, *range(2, real.ndim)), dtype=np.float64).astype(np.float32)
    evidence = Evidence(None, weight, InputMeans(means))
    if refit.rounding is not Rounding.NEAREST:
        integers = grid.quantize(fitting.quantized[name])
        seen = layer_evidence(layer, Passed(real, integers, grid))
        moments = seen.moments if compensates(layer) else None
        own = seen if refit.rounding.in_sequence else evidence
        evidence = replace(own, moments=moments)
    options = QuantizationOptions(
        rounding=refit.rounding, weight_range=refit.weight_range,
        target=planned_target(opened.plan),
    )  # fmt: skip
    plan = weighted_plan(
        opened.lowered, layer, tied, opened.grids, evidence, options, None, refit.bits
    )
    assert plan.weight is not None and plan.bias is not None
    return Parameters(real_parameters(plan.weight.values, plan.weight.scale, plan.bias, grid.scale))
