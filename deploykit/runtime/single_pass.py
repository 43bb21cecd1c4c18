"""One pass of a float ONNX model through ONNX Runtime, at whatever sizes it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deploykit.errors import GraphError
from deploykit.runtime.ort import _onnxruntime, _session
from deploykit.spec.arrays import AnyArray, Tensors

FATAL_ONLY = 4
"""What fails here is told by the error that is raised; ORT need not print it too."""


def run_once(
    data: bytes, inputs: Tensors, outputs: Sequence[str] | None = None
) -> dict[str, AnyArray]:
    """Outputs by name (all of the graph's, or those named) for inputs by port name.

    Raises GraphError where the runtime does not load the model or does not run it at these sizes.
    """
    return _run(_session(data, 1), inputs, outputs)


def run_as_stated(data: bytes, inputs: Tensors) -> dict[str, AnyArray]:
    """The same, node by node as the file has them, with nothing fused."""
    return _run(_session(data, 1, optimize=False), inputs, None)


def _run(session: Any, inputs: Tensors, outputs: Sequence[str] | None) -> dict[str, AnyArray]:
    runtime = _onnxruntime()
    names = [port.name for port in session.get_outputs()] if outputs is None else list(outputs)
    errors = runtime.capi.onnxruntime_pybind11_state
    refusals = (errors.Fail, errors.InvalidArgument, errors.NotImplemented, errors.RuntimeException)
    options = runtime.RunOptions()
    options.log_severity_level = FATAL_ONLY
    try:
        values = session.run(names, dict(inputs), options)
    except refusals as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        raise GraphError(
            f"onnxruntime does not run the model on inputs of the shapes {shapes} ({reason}); "
            "check the model, or give other sizes with --input-shape"
        ) from error
    # A sequence or an optional value is no tensor, and nothing here compares it.
    found = zip(names, values, strict=True)
    return {name: value for name, value in found if isinstance(value, np.ndarray)}
