"""Any ONNX file as a float Network: where networks of any origin enter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import constant
from deploykit.graph.onnx_admission import Admission, check_float
from deploykit.graph.onnx_load import load_onnx
from deploykit.graph.opset import modernize, opset_of
from deploykit.graph.ports import Port, Shape, fix_shapes, read_port, settle
from deploykit.graph.quantized.integer_ports import float_ports
from deploykit.graph.quantized.recover import take_grids
from deploykit.spec.inputs import InputSpec
from deploykit.spec.network import Network


@dataclass(frozen=True)
class OnnxSource:
    """An ONNX file. network: with no variance, static at `shapes`, in one spelling, in floats.

    shapes: by input, where an open batch is 1. model: the file's own graph, its data files inside;
    modern: the same in the network's spelling, open sizes still open; nobody changes either. Of a
    quantized file both state its integers, and network.given the grids that they lie on; its inputs
    and outputs are floats in both.
    files: `path` itself, then its data files.
    """

    path: Path
    files: tuple[Path, ...]
    network: Network
    shapes: Mapping[str, Shape]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    opset: int
    model: onnx.ModelProto
    modern: onnx.ModelProto

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """Its inputs at `shapes`."""
        return tuple(
            InputSpec(port.name, self.shapes[port.name], port.dtype) for port in self.inputs
        )

    def symbols(self) -> dict[str, int]:
        """The size that `network` has for each size that the file leaves open."""
        return {
            str(port.axes[axis]): self.shapes[port.name][axis]
            for port in self.inputs
            if port.axes is not None
            for axis in port.open_axes()
        }


def read_onnx(
    path: Path,
    input_shapes: Mapping[str | None, Shape] | None = None,
    admission: Admission = check_float,
) -> OnnxSource:
    """Read an ONNX model of opset 9 or later, whose operators are those that `admission` takes.

    input_shapes: as `parse_input_shapes` gives them, for sizes that the file leaves open.

    Raises GraphError where the file is damaged, not admitted, of half precision or too old, and
    ConfigError where an open size is missing or a given one does not fit.
    """
    model, files = load_onnx(path, admission)
    model = float_ports(model)
    modern = modernize(path, model)
    inputs = tuple(read_port(port) for port in modern.graph.input)
    outputs = tuple(read_port(port) for port in modern.graph.output)
    if not inputs or not outputs:
        raise GraphError(f"{path} computes nothing from an input; give a network")
    shapes = settle(path, inputs, input_shapes or {})
    try:
        in_floats, given = take_grids(modern)
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from error
    fixed = fix_shapes(in_floats, shapes)
    try:
        network = Network(ir.from_proto(fixed), {}, given)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(
            f"{path} is damaged ({type(error).__name__}: {error}); export or copy it again"
        ) from error
    _check_numbers(path, network)
    opset = opset_of(model)
    return OnnxSource(path, files, network, shapes, inputs, outputs, opset, model, modern)


def _check_numbers(path: Path, network: Network) -> None:
    """Raise GraphError where a weight is no number; an infinite bound or mask may be meant."""
    layers = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    for name, value in network.model.graph.initializers.items():
        array = constant(value)
        if array is None or array.dtype.kind != "f":
            continue
        is_weight = any(use.node.op_type in layers for use in value.uses())
        if np.isnan(array).any() or (is_weight and not np.isfinite(array).all()):
            raise GraphError(
                f"{path}: {name} holds NaN or infinity; the training diverged or the file is "
                "damaged: export it from a good checkpoint"
            )
