"""A quantized file against the float network and the grids that it was read as."""

from __future__ import annotations

import numpy as np

from deploykit.errors import GraphError
from deploykit.exporting.file_inputs import draw
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.graph.onnx_source import OnnxSource
from deploykit.graph.quantized.stated import with_grids
from deploykit.runtime.single_pass import run_as_stated
from deploykit.spec.arrays import AnyArray
from deploykit.verify.metrics import sqnr_db

LEAST_DB = 25.0
"""Of outputs: float32 sums that two spellings add up otherwise round to the next step at ties."""


def check_grids(source: OnnxSource) -> None:
    """Raise GraphError where weights on their grids and rounded tensors give other outputs.

    On one drawn input, node by node as both state them, so that kernels' own rounding is no part.
    """
    inputs = draw(source.inputs, source.shapes)
    expected = run_as_stated(source.model.SerializeToString(), inputs)
    found = run_as_stated(model_bytes(with_grids(source.network)), inputs)
    for name, values in expected.items():
        if values.dtype.kind != "f":
            continue
        level = _sqnr_db(values, found[name])
        if level < LEAST_DB:
            raise GraphError(
                f"{source.path}: its integers, read as a float network and grids, give {name!r} "
                f"with an SQNR of {level:.1f} dB only; this is a defect of deploykit: please "
                "report the model, and give the float model that it was made from"
            )


def _sqnr_db(expected: AnyArray, found: AnyArray) -> float:
    """Infinite where both are zero."""
    if np.array_equal(expected, found):
        return float("inf")
    return sqnr_db(expected, found)
