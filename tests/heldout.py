"""How close a bundle's ONNX file comes to the float network on inputs that nobody has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.spec.arrays import AnyArray
from tests.exported import save

CALIBRATION, HELD_OUT = 32, 8


def model_of(text: str, constants: Mapping[str, AnyArray]) -> onnx.ModelProto:
    """A network in ONNX text; nodes are called as what they compute."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]>\n{text}')
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    return model


def export_and_compare(model: onnx.ModelProto, folder: Path) -> tuple[Bundle, float]:
    """The bundle, and the SQNR in dB of its output on held-out normal inputs.

    The model has a batch of one, one input and one output.
    """
    onnx.save(model, folder / "net.onnx")
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    count = CALIBRATION + HELD_OUT
    inputs = np.random.default_rng(7).normal(size=(count, *shape[1:])).astype(np.float32)
    save(folder / "data.npz", inputs=inputs[:CALIBRATION])
    bundle = deploykit.export(folder / "net.onnx", data=folder / "data.npz", out=folder / "bundle")
    wanted = outputs(folder / "net.onnx", inputs[CALIBRATION:])
    found = outputs(bundle.file("model.onnx"), inputs[CALIBRATION:])
    noise = np.square(wanted - found).sum()
    return bundle, float(10 * np.log10(np.square(wanted - wanted.mean()).sum() / noise))


def outputs(path: Path, inputs: AnyArray) -> AnyArray:
    """What a file gives for each sample, in float64."""
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    samples: Sequence[AnyArray] = [session.run(None, {name: one[None]})[0] for one in inputs]
    return np.concatenate(samples).astype(np.float64)


def assert_exact(bundle: Bundle) -> None:
    """No runtime differs from the reference in any integer."""
    for found in bundle.manifest["parity"]:
        assert found["differing"] == 0
        assert found["integers"] > 0
