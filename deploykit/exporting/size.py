"""Networks too large for the files that a bundle holds."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.errors import GraphError

LARGEST_FILE = 2**31 - 1
"""Bytes that protobuf and flatbuffers address."""
STRUCTURE = 2**24
"""Room for nodes, names and scales beside the weights."""


def check_size(model: ir.Model, where: str) -> None:
    """Raise GraphError where the float weights do not fit into one file."""
    held = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    if held > LARGEST_FILE - STRUCTURE:
        raise GraphError(
            f"{where} holds {held / 1e9:.2f} GB of weights; ONNX and TFLite files end at 2 GB, and "
            "a bundle keeps the float graph in one: split the network and export its parts"
        )
