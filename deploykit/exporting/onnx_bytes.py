"""A float graph as the bytes of an ONNX file."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from deploykit.spec.grid_record import GRIDS_KEY, grids_text
from deploykit.spec.network import Network


def model_bytes(network: Network) -> bytes:
    """Equal graphs give equal bytes. Grids of its tensors are among its properties."""
    proto: onnx.ModelProto = ir.to_proto(network.model)
    if network.given.activations:
        proto.metadata_props.add(key=GRIDS_KEY, value=grids_text(network.given.activations))
    return bytes(proto.SerializeToString(deterministic=True))
