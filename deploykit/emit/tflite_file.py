"""A .tflite file taken apart: tensors, operators and ports, still in the file's terms.

Field slots are those of tensorflow/lite/schema/schema.fbs, written here so that reading needs no
package but numpy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from deploykit.emit.tflite_parts import FileOperator, FilePort, FileTensor, TfliteFile
from deploykit.emit.tflite_tables import Table, root_table
from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray, Int8Array
from deploykit.spec.carriers import Carrier

OPERATOR_NAMES = {
    0: "ADD",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    5: "DEPTH_TO_SPACE",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    17: "MAX_POOL_2D",
    18: "MUL",
    22: "RESHAPE",
    25: "SOFTMAX",
    26: "SPACE_TO_DEPTH",
    28: "TANH",
    34: "PAD",
    36: "GATHER",
    39: "TRANSPOSE",
    40: "MEAN",
    41: "SUB",
    45: "STRIDED_SLICE",
    47: "EXP",
    50: "LOG_SOFTMAX",
    53: "CAST",
    55: "MAXIMUM",
    56: "ARG_MAX",
    57: "MINIMUM",
    60: "PADV2",
    65: "SLICE",
    97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU",
    111: "ELU",
    114: "QUANTIZE",
    150: "GELU",
}
STEMS = "deploykit.stems"
"""Name of the metadata that says of a convolution over blocks of pixels what it was (spec.stem)."""

BITS = "deploykit.bits"
"""Name of the metadata that says of a weight how many bits its integers take, where that is fewer
than 8: JSON, by tensor name."""

REARRANGED = "deploykit.rearranged"
"""Name of the metadata entry that maps each tensor that a chain of RESHAPEs and TRANSPOSEs gives to
the one that it starts from: JSON, tensor names."""

ELEMENT_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "|u1", 4: "<i8", 6: "|b1", 9: "|i1"}

BLOCKWISE = 2
"""Of the schema's union QuantizationDetails."""

PACKED = {17: Carrier.INT4, 19: Carrier.INT2}
"""Element types of several integers in a byte; only weights have them."""


def parse_tflite(data: bytes) -> TfliteFile:
    """Take a file apart; everything in it is checked against the file's length."""
    model = root_table(data, b"TFL3")
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise GraphError(
            f"The .tflite file holds {len(subgraphs)} subgraphs where deploykit reads one; "
            "export the model without control flow."
        )
    (subgraph,) = subgraphs
    buffers = model.tables(4)
    names = _operator_names(model.tables(1))
    tensors = tuple(
        _tensor(table, index, buffers) for index, table in enumerate(subgraph.tables(0))
    )
    operators = tuple(
        _operator(table, position, names, tensors)
        for position, table in enumerate(subgraph.tables(3))
    )
    signatures = model.tables(7)
    if len(signatures) > 1:
        raise GraphError(
            f"The .tflite file holds {len(signatures)} signatures where deploykit reads one."
        )
    signature = signatures[0] if signatures else None
    return TfliteFile(
        tensors,
        operators,
        _ports(signature, 0, _indices(subgraph, 1), tensors),
        _ports(signature, 1, _indices(subgraph, 2), tensors),
        _notes(model, buffers, REARRANGED),
        _notes(model, buffers, STEMS),
        _notes(model, buffers, BITS),
    )


def _notes(model: Table, buffers: Sequence[Table], name: str) -> Mapping[str, str]:
    """What the file's metadata of this name says, by tensor."""
    for entry in model.tables(6):
        if entry.text(0) != name:
            continue
        place = entry.integer(1, "<I")
        stored = buffers[place].array(0, "|u1") if place < len(buffers) else None
        try:
            found = json.loads(b"" if stored is None else stored.tobytes())
            return {str(tensor): str(text) for tensor, text in found.items()}
        except (ValueError, AttributeError) as error:
            raise GraphError(
                f"The .tflite file's metadata {name!r} is damaged ({error}); write it again."
            ) from error
    return {}


def _operator_names(codes: Sequence[Table]) -> list[str]:
    names: list[str] = []
    for code in codes:
        builtin = max(code.integer(0, "<b"), code.integer(3))
        custom = code.text(1)
        names.append(OPERATOR_NAMES.get(builtin, custom or f"operator code {builtin}"))
    return names


def _tensor(table: Table, index: int, buffers: Sequence[Table]) -> FileTensor:
    name = table.text(3) or f"tensor_{index}"
    kind = table.integer(1, "<b")
    carrier = PACKED.get(kind, Carrier.INT8)
    if kind not in ELEMENT_TYPES and carrier is Carrier.INT8:
        raise GraphError(
            f"Tensor {name!r} has element type number {kind}; deploykit reads float32, float16, "
            "int32, int64, uint8, int8, and weights of int4 and int2."
        )
    shape_array = table.array(0, "<i4")
    shape = () if shape_array is None else tuple(map(int, shape_array))
    if any(length < 1 for length in shape):
        raise GraphError(f"Tensor {name!r} has shape {list(shape)}; every length must be positive.")
    dtype = np.dtype(ELEMENT_TYPES.get(kind, "|i1"))
    scale = zero_point = None
    dimension, blocks = 0, None
    quantization = table.table(4)
    if quantization is not None:
        scale = quantization.array(2, "<f4")
        zero_point = quantization.array(3, "<i8")
        dimension = quantization.integer(6)
        details = quantization.table(5)
        if quantization.integer(4, "<B") == BLOCKWISE and details is not None:
            blocks = details.integer(0), details.integer(2)
    return FileTensor(
        index,
        name,
        shape,
        dtype,
        np.zeros(0, dtype=np.float32) if scale is None else scale,
        np.zeros(0, dtype=np.int64) if zero_point is None else zero_point,
        dimension,
        _values(name, shape, dtype, carrier, table.integer(2, "<I"), buffers),
        _signature(name, shape, table),
        carrier,
        blocks,
    )


def _signature(name: str, shape: tuple[int, ...], table: Table) -> tuple[int, ...]:
    """The shape with -1 for the batch, which may lie anywhere inside of a region."""
    array = table.array(7, "<i4")
    signature = shape if array is None or not array.size else tuple(map(int, array))
    open_along = [(*shape[:axis], -1, *shape[axis + 1 :]) for axis in range(len(shape))]
    if signature != shape and signature not in open_along:
        raise GraphError(
            f"Tensor {name!r} of shape {list(shape)} has the signature {list(signature)}; "
            "deploykit reads files of which the batch alone is dynamic."
        )
    return signature


def _values(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[np.generic],
    carrier: Carrier,
    buffer: int,
    buffers: Sequence[Table],
) -> AnyArray | None:
    """A constant's data; buffer 0 and empty buffers mean that the tensor is computed."""
    if buffer >= len(buffers):
        raise GraphError(f"Tensor {name!r} refers to buffer {buffer} of {len(buffers)}.")
    stored = buffers[buffer].array(0, "|u1")
    if stored is None or not stored.size:
        if carrier is not Carrier.INT8:
            raise GraphError(f"Tensor {name!r} is {carrier.value}, and no constant.")
        return None
    count = prod(shape)
    needed = carrier.size_bytes(count) * dtype.itemsize
    if stored.size != needed:
        raise GraphError(
            f"Tensor {name!r} of shape {list(shape)} holds {stored.size} bytes where {needed} are "
            "needed."
        )
    if carrier is not Carrier.INT8:
        return _unpacked(stored, carrier)[:count].reshape(shape)
    return np.frombuffer(stored.tobytes(), dtype=dtype).reshape(shape)


def _unpacked(stored: AnyArray, carrier: Carrier) -> Int8Array:
    """Every integer of packed bytes: shifted to the top of an int8, and back with its sign."""
    bits = carrier.bits
    lifts = np.array([8 - bits * (place + 1) for place in range(carrier.per_byte)], np.uint8)
    lifted = np.left_shift(stored[:, None], lifts, dtype=np.uint8).view(np.int8)
    return np.asarray(lifted >> (8 - bits), np.int8).reshape(-1)


def _operator(
    table: Table, position: int, names: Sequence[str], tensors: Sequence[FileTensor]
) -> FileOperator:
    code = table.integer(0, "<I")
    if code >= len(names):
        raise GraphError(f"Operator {position} has code {code} of {len(names)}.")
    inputs = tuple(None if index == -1 else _pick(tensors, index) for index in _indices(table, 1))
    outputs = tuple(_pick(tensors, index) for index in _indices(table, 2))
    if not outputs:
        raise GraphError(f"Operator {position} ({names[code]}) has no outputs.")
    return FileOperator(position, names[code], inputs, outputs, table.table(4))


def _ports(
    signature: Table | None, slot: int, indices: Sequence[int], tensors: Sequence[FileTensor]
) -> tuple[FilePort, ...]:
    """Ports by the names of the signature, or by their tensors' names where there is none."""
    if signature is None:
        picked = [_pick(tensors, index) for index in indices]
        return tuple(FilePort(tensor.name, tensor) for tensor in picked)
    ports = tuple(
        FilePort(entry.text(0), _pick(tensors, entry.integer(1, "<I")))
        for entry in signature.tables(slot)
    )
    own = list(dict.fromkeys(port.tensor.index for port in ports))
    if own != list(indices[: len(own)]):
        raise GraphError(
            "The .tflite file's signature and its subgraph name other inputs or outputs, so that "
            "callers by name and by index would get different tensors."
        )
    return ports


def _indices(table: Table, slot: int) -> list[int]:
    array = table.array(slot, "<i4")
    return [] if array is None else [int(index) for index in array]


def _pick(tensors: Sequence[FileTensor], index: int) -> FileTensor:
    if not 0 <= index < len(tensors):
        raise GraphError(f"The .tflite file refers to tensor {index} of {len(tensors)}.")
    return tensors[index]
