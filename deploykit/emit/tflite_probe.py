"""A .tflite file that also returns every integer activation it computes.

XNNPACK hides the tensors inside its partition, and preserve_all_tensors switches the delegate off;
only as graph outputs can they be read as the delegate computes them.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from deploykit.emit.tflite_flatbuffer import FILE_IDENTIFIER, load_schema, pack_model
from deploykit.errors import GraphError


def probe_tflite(data: bytes) -> bytes:
    """The same file with every integer activation as an output, behind its own outputs.

    Activations that the caller of the file fills stay inputs only.
    """
    if data[4:8] != FILE_IDENTIFIER:
        raise GraphError("This is not a .tflite file: it lacks the identifier TFL3 at byte 4.")
    schema = load_schema()
    try:
        model = schema.ModelT.InitFromPackedBuf(bytearray(data))
        (subgraph,) = model.subgraphs
        known = {int(index) for index in (*subgraph.outputs, *subgraph.inputs)}
        hidden = [
            index
            for operator in subgraph.operators
            for index in map(int, operator.outputs)
            if index not in known and _is_integer(schema, subgraph.tensors[index])
        ]
    except (struct.error, ValueError, TypeError, IndexError, AttributeError) as error:
        raise GraphError(
            f"The .tflite file is cut off or damaged ({error}); write it again."
        ) from error
    subgraph.outputs = np.array([*subgraph.outputs, *dict.fromkeys(hidden)], dtype=np.int32)
    return pack_model(model)


def _is_integer(schema: Any, tensor: Any) -> bool:
    return tensor.type in (schema.TensorType.INT8, schema.TensorType.UINT8)
