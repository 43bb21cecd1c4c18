"""TFLite Metadata: normalization and labels where Android's tools, and MediaPipe's, look for them.

A flatbuffer of its own in a buffer of the model, called TFLITE_METADATA; the label file is a ZIP
entry behind the model's last byte.
Source: metadata_schema.fbs of tflite-support, whose slots stand here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploykit.emit.tflite_flatbuffer import load_schema, pack_model
from deploykit.spec.model_metadata import ModelMetadata

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"
LABEL_FILE = "labels.txt"
TENSOR_AXIS_LABELS = 2
"""Of the schema's enum AssociatedFileType."""
NORMALIZATION = 1
"""Of the schema's union ProcessUnitOptions."""
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same bytes whenever the file is written."""


def with_metadata(data: bytes, metadata: ModelMetadata) -> bytes:
    """The same .tflite file, described; it runs as before. data: a file without metadata."""
    if not metadata:
        return data
    schema = load_schema()
    model = schema.ModelT.InitFromPackedBuf(bytearray(data))
    (subgraph,) = model.subgraphs
    inputs, outputs = (
        [str(subgraph.tensors[index].name.decode()) for index in side]
        for side in (subgraph.inputs, subgraph.outputs)
    )
    images = [
        len(inputs) == 1 or len(subgraph.tensors[index].shape) == 4 for index in subgraph.inputs
    ]
    content = _describe(metadata, dict(zip(inputs, images, strict=True)), outputs)
    model.buffers.append(schema.BufferT(data=np.frombuffer(content, dtype=np.uint8)))
    model.metadata.append(schema.MetadataT(name=NAME, buffer=len(model.buffers) - 1))
    packed = pack_model(model)
    if not metadata.labels:
        return packed
    file = io.BytesIO(packed)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        lines = "".join(f"{label}\n" for label in metadata.labels)
        archive.writestr(zipfile.ZipInfo(LABEL_FILE, ZIP_EPOCH), lines.encode())
    return file.getvalue()


def _describe(metadata: ModelMetadata, inputs: Mapping[str, bool], outputs: Sequence[str]) -> bytes:
    """The flatbuffer. inputs: names, and whether the normalization is this one's."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    read = [
        _tensor(builder, name, units=_units(builder, metadata) if image else None)
        for name, image in inputs.items()
    ]
    files = _files(builder) if metadata.labels else None
    written = [_tensor(builder, name, files=files) for name in outputs]
    subgraph = _table(builder, 9, {2: _vector(builder, read), 3: _vector(builder, written)})
    version = builder.CreateString(PARSER_VERSION)
    root = _table(builder, 8, {3: _vector(builder, [subgraph]), 7: version})
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _tensor(builder: Any, name: str, units: int | None = None, files: int | None = None) -> int:
    """TensorMetadata: name, process_units, associated_files."""
    return _table(builder, 7, {0: builder.CreateString(name), 4: units, 6: files})


def _units(builder: Any, metadata: ModelMetadata) -> int | None:
    """[ProcessUnit] of one NormalizationOptions."""
    if not metadata.mean:
        return None
    mean = builder.CreateNumpyVector(np.array(metadata.mean, np.float32))
    std = builder.CreateNumpyVector(np.array(metadata.std, np.float32))
    options = _table(builder, 2, {0: mean, 1: std})
    builder.StartObject(2)
    builder.PrependUint8Slot(0, NORMALIZATION, 0)
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    return _vector(builder, [builder.EndObject()])


def _files(builder: Any) -> int:
    """[AssociatedFile] of the labels."""
    name = builder.CreateString(LABEL_FILE)
    builder.StartObject(5)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependInt8Slot(2, TENSOR_AXIS_LABELS, 0)
    return _vector(builder, [builder.EndObject()])


def _table(builder: Any, slots: int, fields: dict[int, int | None]) -> int:
    """A table of offsets, those that are given."""
    builder.StartObject(slots)
    for slot, offset in fields.items():
        if offset is not None:
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
