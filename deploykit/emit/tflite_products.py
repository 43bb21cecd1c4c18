"""The same .tflite file with integer weights of linears as the float32 products they stand for.

    W'[o, i] = scale[o, i // block] * q[o, i]

All else stays as it is, so that what such a file computes in LiteRT tells of every part of the
original but the rows of activations that are rounded to int8 in front of integer weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deploykit.emit.tflite_flatbuffer import load_schema, pack_model
from deploykit.emit.tflite_weight_only import integer_weights
from deploykit.spec.weight_only import products


def with_products(data: bytes) -> bytes:
    """data: a file of `write_weight_only_tflite`.

    Raises GraphError where it is none.
    """
    weights = integer_weights(data)
    schema = load_schema()
    model: Any = schema.ModelT.InitFromPackedBuf(data)
    (subgraph,) = model.subgraphs
    for index, weight in weights.items():
        tensor = subgraph.tensors[index]
        real = products(weight.values, weight.scale).astype("<f4")
        tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
        # A buffer of its own: several weights may share one, at scales of their own.
        model.buffers.append(schema.BufferT(data=np.frombuffer(real.tobytes(), np.uint8)))
        tensor.buffer = len(model.buffers) - 1
    return pack_model(model)
