"""Rearrangements and float islands, as the reference computes them.

    Rearrange   y = body(q), element by element the same integers
    Island      y = clip(rint(float32(body(s * (q - z))) / sy) + zy, -128, 127)

The body is evaluated in float64: a runtime's float32 then differs near ties alone, by one step.
"""

from __future__ import annotations

import numpy as np

from deploykit.reference.float import evaluate_outputs
from deploykit.spec.arrays import AnyArray, Int8Array, Tensors
from deploykit.spec.bodies import known_body
from deploykit.spec.network import Network
from deploykit.spec.operators import Island, Rearrange
from deploykit.spec.quantized import Quantization


def rearrange(operator: Rearrange, values: Int8Array) -> Int8Array:
    """One sample's integers in their new places."""
    body = known_body(operator)
    (port,) = body.model.graph.inputs
    # Every int8 is exact in float32, which is what the body's ports are.
    return _evaluated(body, {str(port.name): values.astype(np.float32)}).astype(np.int8)


def island(
    operator: Island,
    values: list[Int8Array],
    sources: list[Quantization],
    into: Quantization,
) -> Int8Array:
    """One sample through the island. values, sources: in the order of its inputs."""
    body = known_body(operator)
    real = {
        str(port.name): source.dequantize(integers)
        for port, integers, source in zip(body.model.graph.inputs, values, sources, strict=True)
    }
    return into.quantize(_evaluated(body, real).astype(np.float32))


def _evaluated(body: Network, inputs: Tensors) -> AnyArray:
    (output,) = evaluate_outputs(body, inputs).values()
    return output
