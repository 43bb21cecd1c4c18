"""plan.json and manifest.json of a bundle whose weights alone are integers.

They have the keys that others have, as far as there is something to say.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from deploykit.bundle import FLOAT_MODEL, GOLDEN, MANIFEST, PLAN, SCHEMA, golden_bytes, json_bytes
from deploykit.exporting.constant_output import constant_output
from deploykit.exporting.contents import answers_record, versions
from deploykit.exporting.fold_record import fold_record
from deploykit.exporting.layer_record import decibels
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.exporting.options import ExportOptions
from deploykit.exporting.preparing import Prepared
from deploykit.exporting.removal_record import alignment_record, hiding_record, removal_record
from deploykit.exporting.weight_only import Evidence, Written
from deploykit.graph.cost import layer_costs
from deploykit.graph.edit import output_names
from deploykit.reference.float import evaluate_outputs
from deploykit.runtime import ort
from deploykit.spec.inputs import some_samples
from deploykit.spec.joined import joined_outputs
from deploykit.spec.linears import linear_weight, linears
from deploykit.spec.network import Network, static_shape
from deploykit.spec.record import digest
from deploykit.spec.weight_only import Activations, LowBitLinear
from deploykit.verify.metrics import sqnr_db
from deploykit.verify.port_record import float_port_record
from deploykit.verify.weight_only_files import WeightOnlyFormat
from deploykit.verify.weight_only_nearness import first_samples
from deploykit.verify.weight_record import STRONGEST

FLOAT_BYTES = 4


def bundle_files(
    prepared: Prepared, options: ExportOptions, written: Written, proved: Evidence
) -> dict[str, bytes]:
    """Content by file name. Equal outcomes give equal bytes."""
    files = {fmt.file: data for fmt, data in written.models.items()}
    files[FLOAT_MODEL] = model_bytes(prepared.balanced)
    files[PLAN] = json_bytes(plan_record(written))
    files[GOLDEN] = golden_bytes(proved.golden)
    sizes = {name: len(data) for name, data in sorted(files.items())}
    files[MANIFEST] = json_bytes(manifest(prepared, options, written, proved, sizes))
    return files


def plan_record(written: Written) -> dict[str, Any]:
    """Every decision; integers by SHA-256, scales in full."""
    plan, formats = written.plan, [fmt.key for fmt in written.models]
    return {
        "schema": SCHEMA,
        "activations": Activations.FLOAT.value,
        "calibration_samples": plan.samples,
        "rounding": plan.rounding.value,
        "weight_range": plan.weight_range.value,
        **({} if plan.block is None else {"block_size": plan.block}),
        "layers": {
            name: {
                "weight": {
                    "name": layer.weight,
                    "bits": layer.bits,
                    "granularity": _granularity(layer),
                    "carrier": {key: layer.carrier(key).value for key in formats},
                    "values_sha256": digest(layer.values),
                    "scale": layer.scale.tolist(),
                },
            }
            for name, layer in plan.layers.items()
        },
        **({"in_float": list(plan.in_float)} if plan.in_float else {}),
    }


def manifest(
    prepared: Prepared,
    options: ExportOptions,
    written: Written,
    proved: Evidence,
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """What went in, what came out, and what was measured on the way."""
    removal, network, layout = prepared.removal, prepared.balanced, options.tflite_layout
    return {
        "schema": SCHEMA,
        "activations": Activations.FLOAT.value,
        "versions": versions(),
        "source": dict(prepared.entered.record),
        "io": options.quantization.io.value,
        "batch": options.quantization.batch.value,
        "tflite_layout": layout.value,
        "inputs": [float_port_record(value, layout) for value in network.model.graph.inputs],
        "outputs": [float_port_record(value, layout) for value in network.model.graph.outputs],
        "metadata": {
            "labels": len(options.metadata.labels), "mean": list(options.metadata.mean),
            "std": list(options.metadata.std),
        },
        "calibration": {
            "method": None, "samples": written.plan.samples,
            "fit": None if prepared.fit is None else prepared.fit.record(),
        },
        "evaluation": None if prepared.labelled is None else {
            "samples": len(prepared.labelled), "labels": prepared.labelled.labels is not None,
            "in_calibration": prepared.in_calibration,
        },
        "fold": fold_record(prepared.entered.fold, options.entry),
        "removal": {
            **removal_record(removal),
            **hiding_record(prepared.hidden),
            **alignment_record(options.removal, removal),
        },
        "equalization": None,
        "constant_output": constant_output(
            proved.golden, {one.name: one.values for one in written.plan.layers.values()}
        ),
        "layers": _layers(prepared, written, proved),
        "weights_sqnr_db": decibels(_weights_sqnr(prepared, proved)),
        "sizes": dict(sizes),
        "stored": {
            fmt.file: {
                "deflated_bytes": len(zlib.compress(data, STRONGEST)),
                "weight_bytes": _weight_bytes(written, fmt, data),
            }
            for fmt, data in written.models.items()
        },
        "dense_float32_bytes": FLOAT_BYTES * removal.parameters_before,
        **answers_record(proved.answers, None),
        "float_weights": _float_weights(written, network),
        "parity": [
            {
                "runtime": fmt.runtime, "samples": proved.golden.real,
                "sqnr_db": decibels(proved.near[fmt.file].sqnr_db),
                "expected_db": decibels(proved.near[fmt.file].expected_db),
                **({"output": proved.near[fmt.file].output}
                   if len(network.model.graph.outputs) > 1 else {}),
                **({"coarse_rows": proved.coarse[fmt.file]}
                   if fmt.file in proved.coarse else {}),
            }
            for fmt in written.models
        ],
    }  # fmt: skip


def _granularity(layer: LowBitLinear) -> str:
    return "per_channel" if layer.block is None else f"blocks of {layer.block}"


def _weight_bytes(written: Written, fmt: WeightOnlyFormat, data: bytes) -> int:
    """Of all integers in a file; layers of one weight share them, where in the same order."""
    held = {
        (written.plan.layers[name].weight, one.values.tobytes()): one
        for name, one in fmt.read(data).items()
    }
    return sum(one.carrier.size_bytes(one.values.size) for one in held.values())


def _float_weights(written: Written, network: Network) -> list[dict[str, Any]]:
    """Matrices that stay float32: of linears left so, tables, constants of other products."""
    found = []
    for node in network.model.graph:
        if str(node.name) in written.plan.layers:
            continue
        size = sum(_matrix_bytes(one) for one in node.inputs if one is not None)
        if size:
            found.append({"name": node.name, "operator": node.op_type, "bytes": size})
    return found


def _matrix_bytes(value: ir.Value) -> int:
    """Of a float32 constant with more than one axis that is longer than 1."""
    held, shape = value.const_value, static_shape(value)
    if held is None or shape is None or held.dtype != ir.DataType.FLOAT:
        return 0
    return held.nbytes if sum(size > 1 for size in shape) > 1 else 0


def _weights_sqnr(prepared: Prepared, proved: Evidence) -> float:
    """What rounding the weights does to the outputs, on the real golden inputs."""
    golden, names = proved.golden, output_names(prepared.balanced)
    floats = evaluate_outputs(prepared.balanced, golden.inputs)
    real, rounded = (
        joined_outputs(first_samples(values, golden), names, golden.real)
        for values in (floats, golden.outputs)
    )
    return sqnr_db(real, rounded)


def _layers(prepared: Prepared, written: Written, proved: Evidence) -> list[dict[str, Any]]:
    """One entry per linear, in graph order."""
    golden, network = proved.golden, prepared.balanced
    some = some_samples(golden.inputs, golden.full[golden.full < golden.real])
    floats, rounded = ort.evaluate(network, some), ort.evaluate(written.restored, some)
    kernels = {fmt.runtime: fmt.kernels(data) for fmt, data in written.models.items()}
    costs = {cost.name: cost for cost in layer_costs(network.model)}
    removals = {entry.operator: entry for entry in prepared.removal.tensors}
    keys = [fmt.key for fmt in written.models]
    found = []
    for name, node in linears(network).items():
        weight, output = linear_weight(node), str(node.outputs[0].name)
        assert weight is not None
        layer, removal = written.plan.layers.get(name), removals.get(name)
        touched = sum(
            math.prod(static_shape(value) or (0,)) for value in (node.inputs[0], node.outputs[0])
        )
        bias = FLOAT_BYTES * len(weight)
        found.append(
            {
                "name": name,
                "operator": "Linear",
                "channels_before": len(weight) if removal is None else removal.channels_before,
                "channels_after": len(weight),
                "bits": None if layer is None else layer.bits,
                **({"left_in_float": [name]} if layer is None else {}),
                "weight_scale_min": None if layer is None else float(layer.scale.min()),
                "weight_scale_max": None if layer is None else float(layer.scale.max()),
                "macs": costs[name].macs if name in costs else 0,
                "bytes": FLOAT_BYTES * touched + bias + _read(layer, weight.size),
                "float_bytes": FLOAT_BYTES * (touched + weight.size) + bias,
                **({} if layer is None or layer.block is None else {"block": layer.block}),
                "sqnr_db": decibels(sqnr_db(floats[output], rounded[output])),
                "stored": {} if layer is None else _stored(layer, keys),
                "kernels": {runtime: by.get(name) for runtime, by in kernels.items()},
            }
        )
    return found


def _read(layer: LowBitLinear | None, count: int) -> int:
    """Bytes of a weight that one inference reads."""
    return FLOAT_BYTES * count if layer is None else -(-count * layer.bits // 8)


def _stored(layer: LowBitLinear, keys: list[str]) -> dict[str, dict[str, Any]]:
    return {
        key: {
            "carrier": layer.carrier(key).value,
            "bytes": layer.carrier(key).size_bytes(layer.values.size),
        }
        for key in keys
    }
