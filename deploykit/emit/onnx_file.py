"""Parses an ONNX file."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from deploykit.errors import GraphError
from deploykit.spec.given import Given
from deploykit.spec.grid_record import GRIDS_KEY, grids_of_text
from deploykit.spec.network import Network


def read_float_onnx(data: bytes) -> Network:
    """The float graph in a file, without variances; whatever is wrong with it is a GraphError."""
    proto = parse_onnx(data)
    try:
        grids = {
            name: grid
            for entry in proto.metadata_props
            if entry.key == GRIDS_KEY
            for name, grid in grids_of_text(entry.value).items()
        }
        return Network(ir.from_proto(proto), {}, Given({}, grids))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(
            f"The ONNX file is damaged ({type(error).__name__}: {error}); write it again."
        ) from error


def parse_onnx(data: bytes) -> onnx.ModelProto:
    """The model in the bytes of a file, or a GraphError that says the file is damaged."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise GraphError(
            f"This is not an ONNX file, or it is cut off ({error}); write it again."
        ) from error
    if not model.graph.node:
        raise GraphError("The ONNX file holds no operators; write it again.")
    for initializer in model.graph.initializer:
        if initializer.data_location == onnx.TensorProto.EXTERNAL:
            raise GraphError(
                f"The ONNX file keeps {initializer.name} in another file; deploykit reads files "
                "that are whole."
            )
    return model
