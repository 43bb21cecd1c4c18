"""The files of a bundle, from everything that the pipeline found out."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

from deploykit.bundle import (
    FLOAT_MODEL,
    GOLDEN,
    MANIFEST,
    PLAN,
    SCHEMA,
    golden_bytes,
    json_bytes,
)
from deploykit.exporting.allocation_record import allocation_record
from deploykit.exporting.constant_output import constant_output
from deploykit.exporting.equalizing import equalization_record
from deploykit.exporting.fold_record import fold_record
from deploykit.exporting.layer_record import decibels, layer_records, layer_sqnr
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.exporting.outcome import Outcome
from deploykit.exporting.removal_record import alignment_record, hiding_record, removal_record
from deploykit.exporting.temperature import Temperature
from deploykit.exporting.without_effect import without_effect
from deploykit.spec.allocation import Allocation
from deploykit.spec.arrays import AnyArray
from deploykit.spec.carriers import FORMATS
from deploykit.spec.pairs import LARGEST_PAIR
from deploykit.spec.parity import Answers
from deploykit.spec.plan import LayerPlan, QuantPlan
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.record import record_network
from deploykit.spec.stem import stem_forms
from deploykit.verify.metrics import agreement
from deploykit.verify.port_record import port_record
from deploykit.verify.weight_record import layer_storage, oldest_litert, oldest_ort, size_record

PACKAGES = (
    "ai-edge-litert", "deploykit", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript",
    "onnxsim", "torch",
)  # fmt: skip


def bundle_files(outcome: Outcome) -> dict[str, bytes]:
    """Content by file name. Equal outcomes give equal bytes: no times, no paths, no latencies."""
    files = {fmt.file: data for fmt, data in outcome.models.items()}
    files[FLOAT_MODEL] = model_bytes(outcome.planned.prepared.balanced)
    files[PLAN] = json_bytes(
        {
            **plan_record(outcome.planned.plan, outcome.network),
            **_allocation(outcome.planned.allocation),
        }
    )
    files[GOLDEN] = golden_bytes(outcome.golden)
    sizes = {name: len(data) for name, data in sorted(files.items())}
    files[MANIFEST] = json_bytes(manifest(outcome, sizes))
    return files


def plan_record(plan: QuantPlan, network: QuantizedNetwork) -> dict[str, Any]:
    """plan.json: every decision, and the integer network that it makes."""
    forms = stem_forms(network)
    stored = layer_storage(network, FORMATS)
    return {
        "schema": SCHEMA,
        "target": None if plan.target is None else plan.target.value,
        "min_ort": None if plan.min_ort is None else str(plan.min_ort),
        "calibration": plan.calibration,
        "calibration_samples": plan.calibration_samples,
        "rounding": plan.rounding.value,
        "weight_range": plan.weight_range.value,
        "names": {layer.output: layer.name for layer in plan.layers},
        "layers": {
            layer.name: _layer_decisions(layer, forms, stored.get(layer.output, {}))
            for layer in plan.layers
        },
        "proofs": [
            {
                "layer": proof.layer, "inputs_tried": proof.cases, "scale_nudges": proof.nudges,
                "agreed": list(proof.runners),
            }
            for proof in plan.proofs
        ],
        **({"given": _grids(plan)} if plan.given else {}),
        **({"in_float": list(plan.in_float)} if plan.in_float else {}),
        "network": record_network(network),
    }  # fmt: skip


def _allocation(found: Allocation | None) -> dict[str, Any]:
    return {} if found is None else {"allocation": allocation_record(found)}


def _layer_decisions(
    layer: LayerPlan, forms: Mapping[str, Mapping[str, str]], stored: Mapping[str, Any]
) -> dict[str, Any]:
    decisions: dict[str, Any] = {"operator": layer.operator, "nodes": list(layer.nodes)}
    if layer.output in forms:
        decisions["forms"] = dict(forms[layer.output])
    if layer.weight is not None:
        decisions["weight"] = {
            "name": layer.weight.name,
            "bits": layer.weight.bits,
            "granularity": layer.weight.granularity,
            "carrier": {key: held["carrier"] for key, held in stored.items()},
            "kernel": {key: held["kernel"] for key, held in stored.items()},
            "int16_pairs": asdict(layer.weight.pairs),
        }
    if layer.input_means is not None:
        decisions["bias_corrected_by_input_means"] = [float(mean) for mean in layer.input_means]
    if layer.output_shift is not None:
        decisions["bias_moved_by"] = [float(shift) for shift in layer.output_shift]
    return decisions


def _grids(plan: QuantPlan) -> list[dict[str, Any]]:
    """What became of the grids that training chose; `why` one was not kept, None where it was."""
    return [
        {"kind": use.kind, "name": use.name, "bits": use.bits, "why": use.why or None}
        for use in plan.given
    ]


def manifest(outcome: Outcome, sizes: Mapping[str, int]) -> dict[str, Any]:
    """manifest.json: what went in, what came out, and what was measured on the way."""
    planned, options, network = outcome.planned, outcome.options, outcome.network
    prepared, plan = planned.prepared, planned.plan
    removal, labelled = prepared.removal, prepared.labelled
    sqnr, golden, layout = layer_sqnr(outcome), outcome.golden, options.tflite_layout
    return {
        "schema": SCHEMA,
        "versions": versions(),
        "source": dict(prepared.entered.record),
        "io": options.quantization.io.value,
        "batch": network.batch.value,
        "tflite_layout": layout.value,
        "inputs": [port_record(port, network, layout) for port in network.inputs],
        "outputs": [port_record(port, network, layout) for port in network.outputs],
        "metadata": {
            "labels": len(options.metadata.labels), "mean": list(options.metadata.mean),
            "std": list(options.metadata.std),
        },
        "calibration": {
            "method": plan.calibration, "samples": plan.calibration_samples,
            "fit": None if prepared.fit is None else prepared.fit.record(),
        },
        "evaluation": None if labelled is None else {
            "samples": len(labelled), "labels": labelled.labels is not None,
            "in_calibration": prepared.in_calibration,
        },
        "fold": fold_record(prepared.entered.fold, options.entry),
        "removal": {
            **removal_record(removal),
            **hiding_record(prepared.hidden),
            **alignment_record(options.removal, removal),
        },
        "equalization": equalization_record(prepared.equalization),
        "int16_pairs": _pairs(plan),
        **_allocation(planned.allocation),
        "given": _grids(plan),
        "constant_output": constant_output(golden, _integers(plan)),
        "without_effect": without_effect(options.stated, plan),
        "layers": layer_records(outcome, sqnr),
        "sqnr_db": {name: decibels(value) for name, value in sqnr.items()},
        "agreement": agreement(
            network, golden.folded, golden.outputs, golden.count, golden.real
        ),
        "sizes": dict(sizes),
        "stored": size_record(outcome.models, network),
        **oldest_ort(outcome.models, network),
        "min_litert": oldest_litert(outcome.models, network),
        "dense_float32_bytes": 4 * removal.parameters_before,
        **answers_record(outcome.answers, planned.temperature),
        "parity": [
            {
                "runtime": found.runner, "samples": found.samples,
                "integers": found.total_compared, "differing": found.total_differing,
                "one_step_in_islands": found.total_one_step, "output_drift": found.drift,
            }
            for found in outcome.parity
        ],
    }  # fmt: skip


def _integers(plan: QuantPlan) -> dict[str, AnyArray]:
    """By layer with weights."""
    return {one.name: one.weight.values for one in plan.layers if one.weight is not None}


def answers_record(answers: Answers | None, temperature: Temperature | None) -> dict[str, Any]:
    """Accuracy, confidence and temperature; None where there were no labels, or no temperature."""
    accuracy = None if answers is None else answers.accuracy
    confidence = None if answers is None else answers.confidence
    after = None if confidence is None else confidence.by_stage
    without = None if confidence is None else confidence.without
    return {
        "accuracy": None if accuracy is None else {
            "samples": accuracy.samples, **accuracy.by_stage,
        },
        "confidence": None if confidence is None else {
            "samples": confidence.samples,
            "stages": {stage: asdict(found) for stage, found in confidence.by_stage.items()},
        },
        "temperature": None if temperature is None else temperature.record(without, after),
    }  # fmt: skip


def _pairs(plan: QuantPlan) -> dict[str, Any]:
    """What the plan is to processors that add two products in int16 (spec.pairs)."""
    weights = {layer.name: layer.weight for layer in plan.layers if layer.weight is not None}
    return {
        "target": None if plan.target is None else plan.target.value,
        "overflowing": [
            name for name, weight in weights.items() if weight.pairs.largest > LARGEST_PAIR
        ],
        "channels": sum(len(weight.scale) for weight in weights.values()),
        "narrowed": sum(weight.pairs.narrowed for weight in weights.values()),
        "growth": max((weight.pairs.growth for weight in weights.values()), default=1.0),
    }


def versions() -> dict[str, str]:
    """Of python and of every package that decides the bytes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
