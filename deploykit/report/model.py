"""What a written model file holds, and which kernel of its runtime runs each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.errors import DeploykitError, GraphError
from deploykit.graph.onnx_admission import is_quantized
from deploykit.graph.quantized.recover import take_grids
from deploykit.spec.given import Given
from deploykit.spec.network import static_shape
from deploykit.spec.operators import Conv, Linear, Operator
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.verify.formats import Format, OnnxFormat, TfliteFormat
from deploykit.verify.weight_only_files import FORMATS, weights_alone


@dataclass(frozen=True)
class OperatorRow:
    """One operator: the tensor it computes, its kind, that tensor's shape, the kernel if known.

    bits, carrier: of its weights, None where it has none. grid: on which a quantized file that is
    not deploykit's rounds the tensor.
    """

    output: str
    operator: str
    shape: tuple[int, ...]
    kernel: str | None
    bits: int | None = None
    carrier: str | None = None
    grid: str | None = None


@dataclass(frozen=True)
class ModelSummary:
    """A model file."""

    path: Path
    format: str
    runtime: str
    size_bytes: int
    operators: tuple[OperatorRow, ...]


def summarize_model(path: Path) -> ModelSummary:
    """Describe a .onnx or .tflite file; a float ONNX graph is listed node by node.

    Raises GraphError where the file is neither.
    """
    data = path.read_bytes()
    fmt: Format = TfliteFormat(TfliteLayout.NHWC) if path.suffix == ".tflite" else OnnxFormat()
    version = fmt.version()
    runtime = f"{fmt.runtime} {version}" if version else f"{fmt.runtime} is not installed"
    weights = FORMATS[fmt.key]
    held = weights_alone(weights, data)
    if held:
        kernels_of = weights.kernels(data) if version else {}
        rows = tuple(
            OperatorRow(
                layer, "Linear", one.values.shape, kernels_of.get(layer), one.bits,
                one.carrier.value,
            )
            for layer, one in held.items()
        )  # fmt: skip
        name = f"{'ONNX' if fmt.key == 'onnx' else 'TFLite'}, weights of linears alone in integers"
        return ModelSummary(path, name, runtime, len(data), rows)
    try:
        network = fmt.read(data)
    except DeploykitError as error:
        if path.suffix == ".tflite":
            raise GraphError(f"{path}: {error}") from error
        grids = _quantized(path)
        kind, rows = ("float ONNX", _nodes(path)) if grids is None else ("quantized ONNX", grids)
        return ModelSummary(path, kind, runtime, len(data), rows)
    kernels = fmt.kernels(data, network) if version else {}
    name = "int8 TFLite" if path.suffix == ".tflite" else "int8 ONNX (QDQ)"
    return ModelSummary(path, name, runtime, len(data), _rows(network, kernels, fmt.key))


def _rows(
    network: QuantizedNetwork, kernels: Mapping[str, str | None], key: str
) -> tuple[OperatorRow, ...]:
    return tuple(_row(operator, network, kernels, key) for operator in network.operators)


def _row(
    operator: Operator, network: QuantizedNetwork, kernels: Mapping[str, str | None], key: str
) -> OperatorRow:
    output = operator.output
    row = OperatorRow(output, type(operator).__name__, network.shape(output), kernels.get(output))
    if not isinstance(operator, Conv | Linear):
        return row
    carrier = operator.weight.carriers.of(key).value
    return replace(row, bits=operator.weight.bits, carrier=carrier)


def _quantized(path: Path) -> tuple[OperatorRow, ...] | None:
    """The float operators of a quantized file with the grids that `export` reads; None of others.

    Raises GraphError where export does not read it either.
    """
    try:
        model = onnx.load(path)
    except (OSError, ValueError, DecodeError):
        return None
    if not any(is_quantized(node) for node in model.graph.node):
        return None
    floats, given = take_grids(model)
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(floats)).graph
    return tuple(_on_grids(node, given) for node in graph)


def _on_grids(node: ir.Node, given: Given) -> OperatorRow:
    output = str(node.outputs[0].name)
    row = OperatorRow(output, node.op_type, static_shape(node.outputs[0]) or (), None)
    held = given.activations.get(output)
    if held is not None:
        steps = held.quantization
        told = f"{held.bits} bits, scale {steps.scale:.4g}, zero at {steps.zero_point}"
        row = replace(row, grid=told)
    for value in node.inputs:
        grid = given.weights.get("" if value is None else str(value.name))
        if grid is not None:
            scales = "one scale" if grid.scale.size == 1 else f"{grid.scale.size} scales"
            row = replace(row, bits=grid.bits, carrier=scales)
    return row


def _nodes(path: Path) -> tuple[OperatorRow, ...]:
    try:
        model = ir.load(path)
    except Exception as error:
        raise GraphError(f"{path} is not an ONNX file ({error}); write it again") from error
    if not model.graph.outputs:
        raise GraphError(f"{path} is not an ONNX file (it computes nothing); write it again")
    return tuple(
        OperatorRow(
            str(node.outputs[0].name), node.op_type, static_shape(node.outputs[0]) or (), None
        )
        for node in model.graph
    )
