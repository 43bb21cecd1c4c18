"""What a written model file holds, and which kernel of its runtime runs each part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.errors import DeploykitError, GraphError
from deploykit.spec.network import static_shape
from deploykit.spec.operators import Conv, Linear, Operator
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.verify.formats import Format, OnnxFormat, TfliteFormat


@dataclass(frozen=True)
class OperatorRow:
    """One operator: the tensor it computes, its kind, that tensor's shape, the kernel if known.

    bits, carrier: of its weights, None where it has none.
    """

    output: str
    operator: str
    shape: tuple[int, ...]
    kernel: str | None
    bits: int | None = None
    carrier: str | None = None


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
    try:
        network = fmt.read(data)
    except DeploykitError as error:
        if path.suffix == ".tflite":
            raise GraphError(f"{path}: {error}") from error
        return ModelSummary(path, "float ONNX", runtime, len(data), _nodes(path))
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
