"""Changing one constant of a written model file, in its bytes, without the writers under test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.tflite_reader import read_tflite
from deploykit.spec.record import record_network
from tests.exported import mend

ONNX, TFLITE = "model.onnx", "model.tflite"
STORED = {
    (ONNX, "weight"): "conv2.weight",
    (ONNX, "bias"): "conv2.bias",
    (ONNX, "scale"): "conv2.weight.scale",
    (TFLITE, "weight"): "conv2.weight",
    (TFLITE, "bias"): "conv2/bias",
    (TFLITE, "scale"): "conv2.weight/scale",
}
"""Where each file keeps what belongs to the operator conv2."""


def change(bundle: Path, file: str, kind: str) -> None:
    """Change one number of conv2 in a model file and mend every hash."""
    path = bundle / file
    data = path.read_bytes()
    stored = stored_constants(path)[STORED[file, kind]]
    assert data.count(stored) == 1
    path.write_bytes(data.replace(stored, _changed(stored, kind)))
    mend(bundle)


def state_in_plan(bundle: Path, file: str) -> None:
    """Make plan.json say what a model file holds, and mend every hash."""
    data = (bundle / file).read_bytes()
    plan = json.loads((bundle / "plan.json").read_bytes())
    plan["network"] = record_network(read_onnx(data) if file == ONNX else read_tflite(data))
    (bundle / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    mend(bundle)


def stored_constants(path: Path) -> dict[str, bytes]:
    """The bytes of every constant as they stand in a model file."""
    if path.suffix == ".onnx":
        return {tensor.name: tensor.raw_data for tensor in onnx.load(path).graph.initializer}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    found: dict[str, bytes] = {}
    for tensor in model.subgraphs[0].tensors:
        name = tensor.name.decode()
        values = model.buffers[tensor.buffer].data
        if values is not None:
            found[name] = np.asarray(values, np.uint8).tobytes()
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            found[f"{name}/scale"] = tensor.quantization.scale.astype(np.float32).tobytes()
    return found


def _changed(stored: bytes, kind: str) -> bytes:
    """The largest weight with its sign turned, the first bias moved far, or one scale doubled."""
    if kind == "weight":
        weights = np.frombuffer(stored, np.int8).copy()
        largest = np.argmax(np.abs(weights.astype(int)))
        weights[largest] = -weights[largest]
        return weights.tobytes()
    if kind == "bias":
        biases = np.frombuffer(stored, np.int32).copy()
        biases[0] += 10_000
        return biases.tobytes()
    scales = np.frombuffer(stored, np.float32).copy()
    scales[0] *= 2
    return scales.tobytes()
