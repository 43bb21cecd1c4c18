"""A float graph as the bytes of an ONNX file."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.spec.network import Network


def model_bytes(network: Network) -> bytes:
    """Equal graphs give equal bytes."""
    proto = ir.to_proto(network.model)
    return bytes(proto.SerializeToString(deterministic=True))
