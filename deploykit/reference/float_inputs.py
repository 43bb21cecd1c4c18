"""Graph inputs and initializers as the float evaluator takes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from deploykit.errors import DataError, GraphError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import Network


def ports(network: Network) -> list[ir.Value]:
    """The graph's inputs, without the initializers that old files list among them."""
    graph = network.model.graph
    return [value for value in graph.inputs if value.name not in graph.initializers]


def graph_inputs(
    network: Network, inputs: GraphInputs, dtype: npt.DTypeLike
) -> dict[str, AnyArray]:
    """Every graph input by name: floats in `dtype`, integers and booleans in their own type."""
    wanted = {str(port.name): port for port in ports(network)}
    if not isinstance(inputs, Mapping):
        if len(wanted) != 1:
            raise GraphError(
                f"The graph has the inputs {list(wanted)}, and one array was given; "
                "give an array for each of them by name."
            )
        inputs = {next(iter(wanted)): inputs}
    if set(inputs) != set(wanted):
        raise DataError(
            f"Values were given for {sorted(inputs)}, and the graph's inputs are "
            f"{sorted(wanted)}; give exactly those."
        )
    return {name: _typed(port, np.asarray(inputs[name]), dtype) for name, port in wanted.items()}


def first_axes(network: Network) -> dict[str, int | None]:
    """By graph input the static length of its first axis, None where it has none.

    Some old files write -1 for a dynamic one.
    """
    return {str(port.name): _first_axis(port) for port in ports(network)}


class Initializers:
    """The graph's initializers, each converted when it is first read."""

    def __init__(self, network: Network, dtype: npt.DTypeLike) -> None:
        self._values = network.model.graph.initializers
        self._dtype = dtype
        self._converted: dict[str, AnyArray] = {}

    def get(self, name: str) -> AnyArray | None:
        """An initializer by name, floats in the evaluator's type; None where there is none."""
        if name not in self._converted:
            value = self._values.get(name)
            if value is None or value.const_value is None:
                return None
            self._converted[name] = in_dtype(value.const_value.numpy(), self._dtype)
        return self._converted[name]


def in_dtype(values: AnyArray, dtype: npt.DTypeLike) -> AnyArray:
    """Floats of any width in the evaluator's own type; integers and booleans as they are."""
    return values.astype(dtype, copy=False) if "float" in values.dtype.name else values


def _typed(port: ir.Value, values: AnyArray, dtype: npt.DTypeLike) -> AnyArray:
    if port.dtype is None:
        return in_dtype(values, dtype)
    if port.dtype.is_floating_point():
        return values.astype(dtype, copy=False)
    if values.dtype.kind not in "iub":
        raise DataError(
            f"The graph's input {port.name!r} is of type {port.dtype.name}, and {values.dtype} "
            "was given; give integers."
        )
    return values.astype(port.dtype.numpy(), copy=False)


def _first_axis(port: ir.Value) -> int | None:
    shape = port.shape
    first = shape[0] if shape is not None and len(shape) else None
    return first if isinstance(first, int) and first > 0 else None
