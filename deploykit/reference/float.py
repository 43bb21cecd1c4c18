"""Evaluates a float graph in numpy, in float64 unless told otherwise, one table row per operator.

A graph with a static batch takes any number of samples: all at once where every operator keeps
samples apart, else in parts of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from deploykit.errors import DataError, GraphError, UnsupportedOperatorError
from deploykit.reference import float_elements as elements
from deploykit.reference import float_shapes as shapes
from deploykit.reference import float_windows as windows
from deploykit.reference.float_node import FloatNode, Rule
from deploykit.spec.arrays import AnyArray, FloatArray
from deploykit.spec.network import Network

EVALUATE: Mapping[str, Rule] = {
    "Add": elements.binary(np.add),
    "AveragePool": windows.average_pool,
    "BatchNormalization": elements.batch_normalization,
    "Clip": elements.clip,
    "Concat": shapes.concat,
    "Constant": elements.constant,
    "Conv": windows.conv,
    "Div": elements.binary(np.divide),
    "Dropout": elements.dropout,
    "Flatten": shapes.flatten,
    "Gemm": elements.gemm,
    "GlobalAveragePool": elements.unary(
        lambda x, _: x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)
    ),
    "HardSigmoid": elements.unary(elements.hard_sigmoid),
    "HardSwish": elements.unary(lambda x, _: x * np.clip(x / 6 + 0.5, 0.0, 1.0)),
    "Identity": elements.unary(lambda x, _: x),
    "LeakyRelu": elements.unary(lambda x, node: np.where(x < 0, node.number("alpha", 0.01) * x, x)),
    "MatMul": elements.binary(np.matmul),
    "MaxPool": windows.max_pool,
    "Mul": elements.binary(np.multiply),
    "Pad": shapes.pad,
    "ReduceMean": shapes.reduce_mean,
    "Relu": elements.unary(lambda x, _: np.maximum(x, 0)),
    "Reshape": shapes.reshape,
    "Sigmoid": elements.unary(lambda x, _: elements.sigmoid(x)),
    "Softmax": shapes.softmax,
    "Squeeze": shapes.squeeze,
    "Sub": elements.binary(np.subtract),
    "Tanh": elements.unary(lambda x, _: np.tanh(x)),
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}


def evaluate(
    network: Network, inputs: FloatArray, dtype: npt.DTypeLike = np.float64
) -> dict[str, AnyArray]:
    """Every tensor of the graph by name, for inputs [N, ...] of its one graph input.

    Initializers are left out; a constant that a node computes is in.
    """
    port = _only_input(network)
    _check_operators(network)
    values = np.asarray(inputs, dtype=dtype)
    batch = _static_batch(port)
    if batch is None or len(values) == batch:
        return _pass(network, values, None)
    try:
        return _pass(network, values, batch)
    except shapes.MixesSamplesError:
        return _in_parts(network, values, batch)


def _pass(network: Network, values: AnyArray, batch: int | None) -> dict[str, AnyArray]:
    """One pass over the nodes. batch: the static one, where `values` hold another number."""
    graph = network.model.graph
    port = _only_input(network)
    samples = None if batch is None else len(values)
    known: dict[str, AnyArray] = {
        name: _as(value.const_value.numpy(), values.dtype)
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }
    tensors: dict[str, AnyArray] = {str(port.name): values}
    opset = network.model.opset_imports.get("", 0)
    for node in graph:
        place = FloatNode(node, opset, batch, samples)
        inputs = [
            None if value is None or not value.name else _look_up(value.name, tensors, known, place)
            for value in node.inputs
        ]
        try:
            result = EVALUATE[node.op_type](place, inputs)
        except (ValueError, IndexError, TypeError) as error:
            raise GraphError(
                f"{place.where} cannot be evaluated on inputs of shapes "
                f"{[None if value is None else value.shape for value in inputs]} ({error}); "
                "check the shapes that it is given."
            ) from error
        tensors[str(node.outputs[0].name)] = _as(result, values.dtype)
    return tensors


def _in_parts(network: Network, values: AnyArray, batch: int) -> dict[str, AnyArray]:
    """As many passes as the static batch needs; tensors joined along axis 0.

    A tensor without the batch as its first axis is joined all the same, unless no sample changes
    it.
    """
    if len(values) % batch or not len(values):
        raise DataError(
            f"{len(values)} samples do not fill batches of {batch}; give a multiple of it."
        )
    passes = [
        _pass(network, values[start : start + batch], None)
        for start in range(0, len(values), batch)
    ]
    varying = _varying(network)
    return {
        name: np.concatenate([one[name] for one in passes])
        if name in varying and first.ndim
        else first
        for name, first in passes[0].items()
    }


def _varying(network: Network) -> set[str]:
    """Names of the tensors that depend on the graph input."""
    names = {str(_only_input(network).name)}
    for node in network.model.graph:
        if any(value is not None and value.name in names for value in node.inputs):
            names |= {str(value.name) for value in node.outputs}
    return names


def _as(values: AnyArray, dtype: npt.DTypeLike) -> AnyArray:
    """Floats in the evaluator's own type; integers and booleans as they are."""
    return values.astype(dtype, copy=False) if values.dtype.kind == "f" else values


def _look_up(
    name: str, tensors: Mapping[str, AnyArray], known: Mapping[str, AnyArray], node: FloatNode
) -> AnyArray:
    for place in (tensors, known):
        if name in place:
            return place[name]
    raise GraphError(
        f"{node.where} reads {name!r}, which nothing before it computes; sort the graph's nodes."
    )


def _only_input(network: Network) -> ir.Value:
    graph = network.model.graph
    ports = [value for value in graph.inputs if value.name not in graph.initializers]
    if len(ports) != 1:
        raise GraphError(
            f"The graph has the inputs {[port.name for port in ports]}; it must have one."
        )
    return ports[0]


def _static_batch(port: ir.Value) -> int | None:
    shape = port.shape
    first = shape[0] if shape is not None and len(shape) else None
    return first if isinstance(first, int) else None


def _check_operators(network: Network) -> None:
    for node in network.model.graph:
        if node.op_type not in EVALUATE or node.domain not in ("", "ai.onnx"):
            raise UnsupportedOperatorError(
                f"{node.op_type} {node.name!r}: the reference has no rule for this operator; "
                f"evaluate with a runtime, or rewrite it with {', '.join(sorted(EVALUATE))}."
            )
