"""A model file and the data files beside it, as one whole ONNX model in memory."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from deploykit.errors import GraphError
from deploykit.graph.onnx_admission import Admission
from deploykit.graph.onnx_walk import tensors

LARGEST_BYTES = 2**31 - 1
"""A protobuf message holds no more, and a model whose data lies inside is one message."""


def load_onnx(path: Path, admission: Admission) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
    """(model with every tensor inside it, the files it came from: itself, its data).

    Raises GraphError where the file is missing, empty, cut off or no ONNX, where `admission` does
    not take the network, where a data file is missing or too short, and where its path leads out
    of the model's own folder.
    """
    data = _bytes(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise GraphError(
            f"{path} is not an ONNX file, or it is cut off ({error}); export or copy it again"
        ) from error
    if not model.graph.node:
        raise GraphError(f"{path} is not an ONNX file, or its graph holds no operators")
    admission(path, model)
    beside: dict[Path, int] = {}
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _take_in(path, tensor, beside)
    _check_legal(path, model)
    return model, (path, *beside)


def _check_legal(path: Path, model: onnx.ModelProto) -> None:
    """Raise GraphError where onnx's checker does, save for ports without a shape, which run."""
    ports = [*model.graph.input, *model.graph.output]
    shapeless = [port for port in ports if not port.type.tensor_type.HasField("shape")]
    for port in shapeless:
        port.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise GraphError(
            f"{path} is not a legal ONNX model ({_first_line(error)}); export or copy it again"
        ) from error
    for port in shapeless:
        port.type.tensor_type.ClearField("shape")


def _bytes(path: Path) -> bytes:
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise GraphError(f"{path}: {what}; give the path of an .onnx file")
    if not path.stat().st_size:
        raise GraphError(f"{path} is empty; export or copy it again")
    if path.stat().st_size > LARGEST_BYTES:
        raise GraphError(f"{path} is over 2 GB, more than an ONNX file can hold in itself")
    return path.read_bytes()


def _take_in(path: Path, tensor: onnx.TensorProto, beside: dict[Path, int]) -> None:
    """Move a tensor's bytes from the file beside the model into the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    source = _data_file(path, tensor.name, entries.get("location", ""))
    beside[source] = source.stat().st_size
    if sum(beside.values()) > LARGEST_BYTES:
        raise GraphError(f"{path}: its data files are over 2 GB together, which is not supported")
    wanted = _size_bytes(path, tensor)
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", wanted))
    except ValueError as error:
        raise GraphError(
            f"{path}: offset and length of {tensor.name} are no numbers; export it again"
        ) from error
    if offset < 0 or length != wanted or offset + length > beside[source]:
        raise GraphError(
            f"{path}: {tensor.name} takes {wanted} bytes, and {source.name} does not hold them at "
            f"{offset} (+{length} of {beside[source]}); copy both files again"
        )
    with source.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def _data_file(path: Path, tensor: str, location: str) -> Path:
    """The file that `location` names, which has to lie in the model's folder or below it."""
    outside = (
        not location
        or "\\" in location
        or PurePosixPath(location).is_absolute()
        or PureWindowsPath(location).drive
        or ".." in PurePosixPath(location).parts
    )
    folder = path.parent.resolve()
    found = folder / location
    if outside or not found.resolve().is_relative_to(folder):
        raise GraphError(
            f"{path}: {tensor} points at the data file {location!r}, outside the model's folder, "
            "where a model has no business to read; put the data beside the model and name it there"
        )
    if not found.is_file():
        raise GraphError(f"{path}: its data file {location!r} is missing; copy it beside the model")
    return found


def _size_bytes(path: Path, tensor: onnx.TensorProto) -> int:
    count: int = math.prod(tensor.dims)
    if any(size < 0 for size in tensor.dims):
        raise GraphError(f"{path}: {tensor.name} has a negative size; export it again")
    try:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError) as error:
        raise GraphError(
            f"{path}: {tensor.name} is of the unknown element type {tensor.data_type}; "
            "export it again"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
