"""Packing of a TfliteGraph into the bytes of a .tflite file.

The tables come from the schema that ai-edge-litert generates; only the files of this package that
write import it, and inside functions, because it takes 0.1 s. It does not load the native runtime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deploykit.emit.packing import pack
from deploykit.emit.tflite_graph import TfliteGraph, TfliteOperator, TfliteTensor
from deploykit.emit.tflite_versions import (
    OperatorVersion,
    age,
    oldest_runtime,
    operator_version,
)
from deploykit.errors import RuntimeUnavailableError
from deploykit.spec.carriers import Carrier

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16

SPACE_FOR_TABLES = 1 << 16
"""Bytes that a builder starts with beside the constants; it copies all of them when it grows."""


class FilePort(NamedTuple):
    """A graph input or output: its public name and its tensor's index."""

    name: str
    tensor: int


def load_schema() -> Any:
    """The generated schema module; its classes are untyped."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise RuntimeUnavailableError(
            "Writing TFLite needs the schema that ai-edge-litert ships; "
            "install it with `pip install ai-edge-litert`."
        ) from error
    return schema_py_generated


def pack_graph(
    graph: TfliteGraph,
    inputs: Sequence[FilePort],
    outputs: Sequence[FilePort],
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> bytes:
    """The file's bytes. Several ports may name one tensor; they become signature entries.

    notes: what the file's metadata says of tensors, by its name (tflite_file.REARRANGED, STEMS).
    """
    schema = load_schema()
    buffers: list[Any] = [schema.BufferT()]
    places: dict[tuple[int, Carrier], int] = {}
    tensors = [_tensor(schema, tensor, graph, buffers, places) for tensor in graph.tensors]
    versions: dict[str, OperatorVersion] = {}
    for operator in sorted(graph.operators, key=lambda operator: operator.code):
        # A code has one version in a file, the newest that any of its operators needs.
        found = operator_version(operator, graph.tensors)
        versions[operator.code] = max(versions.get(operator.code, found), found, key=age)
    codes = tuple(versions)
    subgraph = schema.SubGraphT(
        name="main",
        tensors=tensors,
        inputs=_distinct(inputs),
        outputs=_distinct(outputs),
        operators=[_operator(schema, operator, codes) for operator in graph.operators],
    )
    signature = schema.SignatureDefT(
        inputs=[schema.TensorMapT(name=name, tensorIndex=index) for name, index in inputs],
        outputs=[schema.TensorMapT(name=name, tensorIndex=index) for name, index in outputs],
        signatureKey="serving_default",
        subgraphIndex=0,
    )
    stored = {"min_runtime_version": oldest_runtime(versions.values()).encode().ljust(16, b"\0")}
    for name, said in (notes or {}).items():
        if said:
            stored[name] = json.dumps(said).encode()
    metadata = []
    for name, content in stored.items():
        buffers.append(schema.BufferT(data=np.frombuffer(content, dtype=np.uint8)))
        metadata.append(schema.MetadataT(name=name, buffer=len(buffers) - 1))
    model = schema.ModelT(
        version=SCHEMA_VERSION,
        operatorCodes=[_operator_code(schema, *entry) for entry in versions.items()],
        subgraphs=[subgraph],
        description="deploykit",
        buffers=buffers,
        metadata=metadata,
        signatureDefs=[signature],
    )
    return pack_model(model)


def pack_model(model: Any) -> bytes:
    """Bytes of a schema.ModelT. Constants are aligned to 16 bytes, as the runtimes expect."""
    import flatbuffers

    schema = load_schema()

    class AlignedBuffer:
        """BufferT.Pack with the alignment that the schema demands and its Python packer omits."""

        def __init__(self, data: Any) -> None:
            self.data = data

        def Pack(self, builder: Any) -> int:  # noqa: N802 (flatbuffers calls it by this name)
            position = None
            if self.data is not None and len(self.data):
                payload = np.asarray(self.data, dtype=np.uint8).tobytes()
                builder.StartVector(1, len(payload), BUFFER_ALIGNMENT)
                builder.head -= len(payload)
                builder.Bytes[builder.head : builder.head + len(payload)] = payload
                position = builder.EndVector()
            schema.BufferStart(builder)
            if position is not None:
                schema.BufferAddData(builder, position)
            return int(schema.BufferEnd(builder))

    unaligned = model.buffers
    model.buffers = [AlignedBuffer(buffer.data) for buffer in unaligned]
    try:
        constants = sum(len(buffer.data) for buffer in unaligned if buffer.data is not None)
        builder = flatbuffers.Builder(constants + SPACE_FOR_TABLES)
        builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())
    finally:
        model.buffers = unaligned


def _distinct(ports: Sequence[FilePort]) -> Any:
    indices = list(dict.fromkeys(index for _, index in ports))
    return np.array(indices, dtype=np.int32)


def _tensor(
    schema: Any,
    tensor: TfliteTensor,
    graph: TfliteGraph,
    buffers: list[Any],
    places: dict[tuple[int, Carrier], int],
) -> Any:
    """places: of the buffers so far, by the array's identity: tensors of one array share it."""
    key = id(tensor.values), tensor.carrier
    buffer = 0 if tensor.values is None else places.get(key, 0)
    if tensor.values is not None and not buffer:
        data = np.ascontiguousarray(tensor.values)
        if tensor.carrier is not Carrier.INT8:
            data = pack(data, tensor.carrier)
        little = data.astype(data.dtype.newbyteorder("<"), copy=False)
        buffer = places[key] = len(buffers)
        buffers.append(schema.BufferT(data=np.frombuffer(little.tobytes(), dtype=np.uint8)))
    quantization = None
    if tensor.quantization is not None:
        scale = tensor.quantization.scale
        quantization = schema.QuantizationParametersT(
            scale=scale,
            zeroPoint=np.full(scale.shape, tensor.quantization.zero_point, dtype=np.int64),
            quantizedDimension=tensor.quantization.dimension,
        )
    if tensor.blocks is not None:
        quantization = schema.QuantizationParametersT(
            detailsType=schema.QuantizationDetails.BlockwiseQuantization,
            details=schema.BlockwiseQuantizationT(
                scales=tensor.blocks.scales, zeroPoints=-1, blockSize=tensor.blocks.size
            ),
        )
    signature = graph.signature(tensor)
    return schema.TensorT(
        shapeSignature=None if signature is None else np.array(signature, np.int32),
        shape=np.array(tensor.shape, dtype=np.int32),
        type=getattr(schema.TensorType, _type_name(tensor)),
        buffer=buffer,
        name=tensor.name,
        quantization=quantization,
        hasRank=True,
    )


def _type_name(tensor: TfliteTensor) -> str:
    """As the schema's enum TensorType has it."""
    held = tensor.dtype.name if tensor.carrier is Carrier.INT8 else tensor.carrier.value
    return held.upper()


def _operator(schema: Any, operator: TfliteOperator, codes: Sequence[str]) -> Any:
    packed = schema.OperatorT(
        opcodeIndex=codes.index(operator.code),
        inputs=np.array(operator.inputs, dtype=np.int32),
        outputs=np.array(operator.outputs, dtype=np.int32),
    )
    if operator.options is not None:
        kind = operator.options.kind
        fields = {
            name: np.array(value, dtype=np.int32) if isinstance(value, tuple) else value
            for name, value in operator.options.fields.items()
        }
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        packed.builtinOptions = getattr(schema, f"{kind}T")(**fields)
    return packed


def _operator_code(schema: Any, code: str, version: OperatorVersion) -> Any:
    builtin = getattr(schema.BuiltinOperator, code.partition("/")[0])
    # Readers older than schema 3a look only at the first field, which ends at 127.
    return schema.OperatorCodeT(
        deprecatedBuiltinCode=min(builtin, 127),
        builtinCode=builtin,
        version=version.version,
    )
