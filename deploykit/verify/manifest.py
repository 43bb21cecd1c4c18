"""manifest.json against the bundle's other files: what they say too has to be the same.

Of what only data tell that no bundle holds (accuracy, confidence) see verify.answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deploykit.bundle import FLOAT_MODEL, HASHES, MANIFEST, ONNX_MODEL, PLAN, TFLITE_MODEL, Bundle
from deploykit.emit.onnx_file import parse_onnx
from deploykit.emit.onnx_format import RUNTIME_KEY
from deploykit.graph.cost import layer_costs, totals
from deploykit.spec.carriers import Version
from deploykit.spec.network import Network
from deploykit.spec.operators import Embedding
from deploykit.spec.pairs import LARGEST_PAIR
from deploykit.spec.parity import Step, Verdict
from deploykit.spec.quantized import QuantizedNetwork, weighted
from deploykit.verify.formats import Format
from deploykit.verify.opened import tflite_layout
from deploykit.verify.port_record import float_port_record, port_record
from deploykit.verify.weight_record import layer_storage, oldest_litert, oldest_ort, size_record

COMPARED = f"{MANIFEST} / files"
NOTHING = "nothing"
PORT_ENDS = ("scale", "zero_point", "below")
"""Keys of an input or output that not every one has."""
ONNX_KEYS, TFLITE_KEYS = ("dtype", "shape"), ("tflite_dtype", "tflite_shape")
ROUGH = 0.1
"""Builds of zlib deflate the same bytes to sizes that differ by so much at most."""
LONGEST = 80
"""Characters of a value that a sentence quotes."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """Part of a manifest, as another file gives it. None: there has to be no such key."""

    file: str
    fields: Mapping[str, Any]


def manifest_step(bundle: Bundle, given: Iterable[Given]) -> Step:
    """Failed with the first field that another file gives otherwise; passed where none does."""
    stated = {**bundle.manifest, "layers": _by_name(bundle.manifest.get("layers"))}
    held = 0
    for one in (*given, _sizes(bundle)):
        fields = json.loads(json.dumps(one.fields))
        held += _count(fields)
        for where, said, found in _differences("", stated, fields):
            detail = f"{where}: {MANIFEST} says {_told(said)}, and {one.file} gives {_told(found)}"
            return Step(4, COMPARED, Verdict.FAILED, detail)
    detail = f"{held:,} values as the files give them; all else is the export's own account"
    return Step(4, COMPARED, Verdict.PASSED, detail)


def given_by_integers(
    bundle: Bundle, plan: Mapping[str, Any], networks: Mapping[Format, QuantizedNetwork]
) -> Iterator[Given]:
    """Of the plan and of each integer model. networks: as read back, named as planned."""
    yield Given(PLAN, _planned(plan))
    sqnr = {
        str(plan["names"][tensor]): {"sqnr_db": value}
        for tensor, value in bundle.manifest["sqnr_db"].items()
        if tensor in plan["names"]
    }
    yield Given("its sqnr_db", {"layers": sqnr})
    for key, model in (("min_onnxruntime", ONNX_MODEL), ("min_litert", TFLITE_MODEL)):
        if model not in bundle.models():
            yield Given(f"a bundle without {model}", {key: None})
    for fmt, network in networks.items():
        data = bundle.file(fmt.file).read_bytes()
        yield Given(fmt.file, _read(bundle, plan, fmt, data, network))
        if fmt.file == ONNX_MODEL:
            yield Given(f"the metadata of {ONNX_MODEL}", _described(data))


def given_by_floats(plan: Mapping[str, Any], network: Network, lowered: Network) -> Given:
    """Of model.float.onnx. lowered: the same in operators that have integers.

    What is computed in an island is no layer of its own.
    """
    parameters, macs = totals(network.model)
    costs = {cost.name: cost.macs for cost in layer_costs(lowered.model)}
    layers = {name: {"macs": costs.get(name, 0)} for name in plan["layers"]}
    return Given(
        FLOAT_MODEL,
        {"removal": {"parameters_after": parameters, "macs_after": macs}, "layers": layers},
    )


def given_by_linears(bundle: Bundle, plan: Mapping[str, Any], network: Network) -> Iterator[Given]:
    """Where weights alone are integers: of the plan, and of the float network about ports."""
    layout = tflite_layout(bundle)
    layers = {
        name: {
            "bits": layer["weight"]["bits"],
            "weight_scale_min": min(map(min, layer["weight"]["scale"])),
            "weight_scale_max": max(map(max, layer["weight"]["scale"])),
        }
        for name, layer in plan["layers"].items()
    }
    yield Given(PLAN, {"calibration": {"samples": plan["calibration_samples"]}, "layers": layers})
    graph = network.model.graph
    parameters, macs = totals(network.model)
    yield Given(
        FLOAT_MODEL,
        {
            "inputs": [_port(float_port_record(value, layout)) for value in graph.inputs],
            "outputs": [_port(float_port_record(value, layout)) for value in graph.outputs],
            "removal": {"parameters_after": parameters, "macs_after": macs},
        },
    )


def _sizes(bundle: Bundle) -> Given:
    """Of every file but those that cannot say their own."""
    sizes = {
        item.name: item.stat().st_size
        for item in sorted(bundle.path.iterdir())
        if item.name not in (MANIFEST, HASHES)
    }
    return Given("the folder", {"sizes": sizes})


def _planned(plan: Mapping[str, Any]) -> Record:
    return {
        "calibration": {"method": plan["calibration"], "samples": plan["calibration_samples"]},
        "given": plan.get("given", []),
        "allocation": plan.get("allocation"),
        "layers": {
            name: {"operator": layer["operator"], "bits": layer.get("weight", {}).get("bits")}
            for name, layer in plan["layers"].items()
        },
        "int16_pairs": _pairs(plan),
    }


def _pairs(plan: Mapping[str, Any]) -> Record:
    held = {
        name: layer["weight"]["int16_pairs"]
        for name, layer in plan["layers"].items()
        if "weight" in layer
    }
    return {
        "target": plan.get("target"),
        "overflowing": [name for name, one in held.items() if one["largest"] > LARGEST_PAIR],
        "narrowed": sum(one["narrowed"] for one in held.values()),
        "growth": max((one["growth"] for one in held.values()), default=1.0),
    }


def _read(
    bundle: Bundle,
    plan: Mapping[str, Any],
    fmt: Format,
    data: bytes,
    network: QuantizedNetwork,
) -> Record:
    layout, oldest = tflite_layout(bundle), plan.get("min_ort")
    # Which form a stem has in the file depends on the releases that have to load it.
    network = replace(network, min_ort=None if oldest is None else Version.parse(oldest))
    found: Record = {
        "io": network.io.value,
        "batch": network.batch.value,
        "inputs": [
            _in_file(port_record(port, network, layout), fmt.file) for port in network.inputs
        ],
        "outputs": [
            _in_file(port_record(port, network, layout), fmt.file) for port in network.outputs
        ],
        "layers": _layers(plan, fmt, network),
        "stored": _stored(bundle, fmt, data, network),
    }
    models = {fmt: data}
    if fmt.file == ONNX_MODEL:
        return {**found, **oldest_ort(models, network)}
    return {**found, "min_litert": oldest_litert(models, network)}


def _port(record: Record) -> Record:
    return {**dict.fromkeys(PORT_ENDS), **record}


def _in_file(record: Record, file: str) -> Record:
    """What one of the files tells of a port: its own element type and layout."""
    others = TFLITE_KEYS if file == ONNX_MODEL else ONNX_KEYS
    return {key: value for key, value in _port(record).items() if key not in others}


def _layers(plan: Mapping[str, Any], fmt: Format, network: QuantizedNetwork) -> Record:
    """By layer: the grid of its output, its weight's scales, and how the file stores that."""
    stored = layer_storage(network, [fmt.key])
    found: Record = {}
    for operator in network.operators:
        tensor = network.tensors.get(operator.output)
        grid = None if tensor is None else tensor.quantization
        shape = network.shape(operator.output)
        channels = -1 if isinstance(operator, Embedding) else 1  # its rows lie last
        found[str(plan["names"].get(operator.output, operator.output))] = {
            "channels_after": shape[channels] if len(shape) > 1 else 1,
            "weight_scale_min": None,
            "weight_scale_max": None,
            "output_scale": None if grid is None else grid.scale,
            "output_zero_point": None if grid is None else grid.zero_point,
            "stored": stored.get(operator.output, {}),
        }
    for one in weighted(network):
        name = str(plan["names"].get(one.output, one.output))
        scale = one.weight.scale
        found[name]["weight_scale_min"] = float(scale.min())
        found[name]["weight_scale_max"] = float(scale.max())
    return found


def _stored(bundle: Bundle, fmt: Format, data: bytes, network: QuantizedNetwork) -> Record:
    found = dict(size_record({fmt: data}, network)[fmt.file])
    stated = bundle.manifest.get("stored", {}).get(fmt.file, {}).get("deflated_bytes")
    if isinstance(stated, int) and abs(stated - found["deflated_bytes"]) <= ROUGH * stated:
        found["deflated_bytes"] = stated
    return {fmt.file: found}


def _described(data: bytes) -> Record:
    """What model.onnx tells an app (emit.onnx_metadata)."""
    told = {str(entry.key): str(entry.value) for entry in parse_onnx(data).metadata_props}
    numbers = {
        key: [float(one) for one in told[key].split(",")] if key in told else []
        for key in ("mean", "std")
    }
    labels = len(told["labels"].split("\n")) if "labels" in told else 0
    return {"min_onnxruntime": told.get(RUNTIME_KEY), "metadata": {"labels": labels, **numbers}}


def _by_name(layers: Any) -> Any:
    """Layers by their names; what is no list of layers stays as it is."""
    try:
        return {str(layer["name"]): layer for layer in layers}
    except (LookupError, TypeError):
        return layers


def _differences(where: str, stated: Any, found: Any) -> Iterator[tuple[str, Any, Any]]:
    """(field, what is stated, what is found) wherever `found`, as far as it goes, is not stated."""
    if isinstance(found, dict) and isinstance(stated, dict):
        for key, value in found.items():
            yield from _differences(f"{where}.{key}" if where else key, stated.get(key), value)
    elif isinstance(found, list) and isinstance(stated, list) and len(found) == len(stated):
        for index, (said, value) in enumerate(zip(stated, found, strict=True)):
            yield from _differences(f"{where}[{index}]", said, value)
    elif stated != found:
        yield where, stated, found


def _count(found: Any) -> int:
    """Values that are no dict and no list."""
    if isinstance(found, dict):
        return sum(map(_count, found.values()))
    return sum(map(_count, found)) if isinstance(found, list) else 1


def _told(value: Any) -> str:
    text = NOTHING if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
