"""A bundle under diagnosis: its float graph, its integers as forms of layers, and both run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.bundle import FLOAT_MODEL, GOLDEN, Bundle, load_golden, read_bundle
from deploykit.diagnose.simulation import Form, Parameters, Simulation, on_grid
from deploykit.emit.onnx_file import read_float_onnx
from deploykit.errors import BundleError, UsageError
from deploykit.exporting.data import load_samples
from deploykit.quantize.apply import regions_of
from deploykit.quantize.layer_plan import quantized_name
from deploykit.quantize.operators import Kind
from deploykit.quantize.sharing import find_groups
from deploykit.quantize.structure import Layer, build_structure, tails
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.inputs import (
    GraphInputs,
    InputSpec,
    count_samples,
    named_inputs,
    some_samples,
)
from deploykit.spec.network import Network, input_names
from deploykit.spec.operators import Conv, Island, Linear, Operator, operator_inputs
from deploykit.spec.progress import Progress
from deploykit.spec.quantized import ConstantTensor, Quantization, QuantizedNetwork
from deploykit.spec.whole_numbers import real_inputs
from deploykit.verify.formats import Format, named_as_planned
from deploykit.verify.integer_form import planned_form
from deploykit.verify.opened import formats_of, read_plan, with_bodies

BYTES_HELD = 2 * 2**30
"""Of tensors: float and integer network, on what is measured and on what is fitted."""
FITTED_BYTES = 2**28
"""Of tensors, up to which samples are fitted on that nothing is measured on; few say little."""
ROUNDED = 0.501
"""Steps that rounding to nearest moves a constant."""


@dataclass(frozen=True)
class Opened:
    """A bundle's network, as floats and as integers.

    lowered: layers' float graph. forms: by layer, what its integers stand for; grids: by float
    tensor. ends: the tensors whose error counts: the outputs', before what is computed in float
    behind them, and what answers are made of.
    """

    bundle: Bundle
    plan: Mapping[str, Any]
    formats: Sequence[Format]
    network: QuantizedNetwork
    lowered: Network
    layers: tuple[Layer, ...]
    simulation: Simulation
    forms: Mapping[str, Form]
    grids: Mapping[str, Quantization]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class Runs:
    """Every tensor for some samples: in the float network, and in the integer one."""

    inputs: GraphInputs
    count: int
    real: Tensors
    quantized: Tensors


def open_subject(path: Path) -> Opened:
    """Read a bundle.

    Raises BundleError or IntegrityError where it is none, or is not what was exported.
    """
    bundle = read_bundle(path)
    plan = read_plan(bundle)
    lowered = planned_form(read_float_onnx(bundle.file(FLOAT_MODEL).read_bytes()), plan)
    formats = formats_of(bundle)
    first = formats[0]
    read = named_as_planned(first.read(bundle.file(first.file).read_bytes()), plan)
    network = with_bodies(read, regions_of(lowered))
    layers = build_structure(lowered)
    operators = {operator.output: operator for operator in network.operators}
    grids = {
        name: network.tensors[quantized_name(lowered, name)].quantization
        for name in (*real_inputs(lowered), *(one.output for one in layers))
        if quantized_name(lowered, name) in network.tensors
    }
    unknown = [one.name for one in layers if quantized_name(lowered, one.output) not in operators]
    if unknown:
        raise BundleError(
            f"{path}: {first.file} has no operator for the layer {unknown[0]}; `deploykit verify` "
            "says what differs"
        )
    forms = {
        layer.name: Form(
            _parameters(operators[quantized_name(lowered, layer.output)], network, grids, layer),
            grids.get(layer.output),
        )
        for layer in layers
        if layer.kind is not Kind.ARG_MAX
    }
    simulation = Simulation(lowered, layers)
    return Opened(
        bundle, plan, formats, network, lowered, layers, simulation, forms, grids,
        _ends(lowered, layers),
    )  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """measured: on which errors are; fitted: on which weights are rounded anew, None of one sample.

    every: all there are, which ranges are chosen on. limited: fewer than asked for, as BYTES_HELD
    holds no more.
    """

    measured: GraphInputs
    fitted: GraphInputs | None
    every: GraphInputs
    limited: bool


def choose_samples(opened: Opened, data: Path | None, count: int) -> Chosen:
    """Up to `count` to measure on, and others to fit on, spread over all there are.

    data: an .npz as for export; without, what the bundle keeps.
    """
    if count < 1:
        raise UsageError(f"--samples {count}: give at least 1")
    if data is None:
        golden = load_golden(opened.bundle.file(GOLDEN))
        inputs = some_samples(golden.inputs, slice(golden.real))
    else:
        inputs = load_samples(data, _specs(opened.network)).inputs
    found, most = count_samples(inputs), max(1, BYTES_HELD // (4 * _bytes(opened)))
    held = min(count, most)
    measured = _spread(np.arange(found), min(held, -(-found // 2)))
    left = np.setdiff1d(np.arange(found), measured)
    fitted = _spread(left, min(max(held, FITTED_BYTES // (4 * _bytes(opened))), most))
    others = some_samples(inputs, fitted) if len(fitted) else None
    limited = held < min(count, -(-found // 2))
    return Chosen(some_samples(inputs, measured), others, inputs, limited)


def _spread(places: AnyArray, count: int) -> AnyArray:
    """Up to `count` of them, from the first to the last."""
    if len(places) <= count:
        return places
    return np.asarray(places[np.linspace(0, len(places) - 1, count).round().astype(int)])


def run_both(opened: Opened, inputs: GraphInputs, progress: Progress, purpose: str) -> Runs:
    """The float and the integer network on samples."""
    given = named_inputs(inputs, input_names(opened.lowered))
    quantized = {name: on_grid(values, opened.grids.get(name)) for name, values in given.items()}
    with progress.stage(f"float network{purpose}") as advance:
        real = opened.simulation.all_tensors(given, {}, advance)
    with progress.stage(f"integer network{purpose}") as advance:
        integers = opened.simulation.all_tensors(quantized, opened.forms, advance)
    return Runs(inputs, count_samples(inputs), real, integers)


def trained_tensors(opened: Opened) -> frozenset[str]:
    """Tensors on a grid that training chose, and those that share it."""
    kept = {
        use["name"]
        for use in opened.plan.get("given", [])
        if use["kind"] == "activation" and use["why"] is None
    }
    stated = opened.lowered.given.activations
    kept |= {name for name, grid in stated.items() if opened.grids.get(name) == grid.quantization}
    groups = find_groups(opened.layers, real_inputs(opened.lowered))
    held = (group.tensors for group in groups if kept.intersection(group.tensors))
    return frozenset(name for tensors in held for name in tensors)


def relative_error(real: Tensors, found: Tensors, ends: Sequence[str]) -> float:
    """sum (x - x')^2 / sum x^2, the mean over `ends`; where a signal is zero, the power itself."""
    errors = []
    for name in ends:
        noise = float(np.square(real[name].astype(np.float64) - found[name]).sum())
        signal = float(np.square(real[name].astype(np.float64)).sum())
        errors.append(noise / signal if signal > 0.0 else noise)
    return sum(errors) / max(1, len(errors))


def decibels(error: float) -> float:
    """SQNR of a relative error: -10 log10, infinite where there is none."""
    return -10.0 * math.log10(error) if error > 0.0 else math.inf


def _parameters(
    operator: Operator, network: QuantizedNetwork, grids: Mapping[str, Quantization], layer: Layer
) -> Parameters:
    """The numbers that a layer's integers stand for."""
    if isinstance(operator, Island):
        return Parameters(body=operator.body)
    if not isinstance(operator, Conv | Linear):
        held = [name for name in operator_inputs(operator) if name in network.constants]
        return _constant(network.constants[held[0]], layer) if held else Parameters()
    source = grids[layer.inputs[0]].scale
    return Parameters(real_parameters(operator.weight.values, operator.weight.scale,
                                      operator.bias, source))  # fmt: skip


def _constant(constant: ConstantTensor, layer: Layer) -> Parameters:
    """What the second operand of a sum, product or comparison is in integers.

    Where it holds the result at an end of its range, it is as large as that takes and no larger:
    there the float itself is meant.
    """
    for place, value in enumerate(layer.nodes[0].inputs):
        if value is None or value.const_value is None:
            continue
        real = np.asarray(value.const_value.numpy(), np.float32)
        if real.size != constant.values.size:
            break
        held = constant.quantization.dequantize(constant.values).reshape(real.shape)
        rounded = np.abs(held - real) <= ROUNDED * constant.quantization.scale
        return Parameters({place: np.where(rounded, held, real)})
    return Parameters()


def real_parameters(
    values: AnyArray, scale: AnyArray, bias: AnyArray, input_scale: float
) -> dict[int, AnyArray]:
    """Weight and bias in float32 by place. values: [O, ...]; scale, bias: [O]."""
    wide = scale.astype(np.float64)
    along = wide.reshape((-1,) + (1,) * (values.ndim - 1))
    step = wide * np.float64(np.float32(input_scale))
    return {1: (values * along).astype(np.float32), 2: (bias * step).astype(np.float32)}


def _ends(lowered: Network, layers: Sequence[Layer]) -> tuple[str, ...]:
    behind = tails(lowered)
    read_by = {layer.output: layer.inputs[0] for layer in layers if layer.kind is Kind.ARG_MAX}
    found = []
    for value in lowered.model.graph.outputs:
        node, name = value.producer(), str(value.name)
        if node is not None and node in behind and node.inputs[0] is not None:
            name = str(node.inputs[0].name)
        found.append(read_by.get(name, name))
    return tuple(dict.fromkeys(found))


def _bytes(opened: Opened) -> int:
    """Of one sample's tensors in float32."""
    batch = opened.network.shape(opened.network.inputs[0].tensor)[0]
    elements = sum(math.prod(tensor.shape) for tensor in opened.network.tensors.values())
    return max(1, 4 * elements // batch)


def _specs(network: QuantizedNetwork) -> tuple[InputSpec, ...]:
    found = []
    for port in network.inputs:
        held = network.indices.get(port.tensor)
        dtype = "float32" if held is None else held.dtype
        found.append(InputSpec(port.name, network.shape(port.tensor), dtype))
    return tuple(found)
