"""Evaluates a float graph in numpy, in float64 unless told otherwise, one table row per operator.

Floats of every width are held in the evaluator's own type, so float32 weights in a float64
evaluation are exact; integers and booleans keep their types. A graph with a static batch takes any
number of samples: all at once where every operator keeps samples apart, else in parts of the
batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from deploykit.errors import DataError, GraphError, UnsupportedOperatorError
from deploykit.reference.float_inputs import Initializers, first_axes, graph_inputs, in_dtype
from deploykit.reference.float_node import FloatNode, Outputs
from deploykit.reference.float_samples import STATIC, MixesSamplesError, for_samples
from deploykit.reference.float_table import EVALUATE
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.batching import Batching, batching
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import Network


class Kept(Enum):
    """What an evaluation holds on to and returns."""

    TENSORS = auto()
    OUTPUTS = auto()


def evaluate(
    network: Network, inputs: GraphInputs, dtype: npt.DTypeLike = np.float64
) -> dict[str, AnyArray]:
    """Every tensor of the graph by name, its inputs included.

    inputs: [N, ...] of its one graph input, or of each by name. Initializers are left out unless
    they are graph outputs; a constant that a node computes is in.
    """
    return _evaluate(network, inputs, dtype, Kept.TENSORS)


def evaluate_outputs(
    network: Network, inputs: GraphInputs, dtype: npt.DTypeLike = np.float64
) -> dict[str, AnyArray]:
    """The same, but the graph's outputs alone; a tensor is freed after its last reader."""
    return _evaluate(network, inputs, dtype, Kept.OUTPUTS)


def _evaluate(
    network: Network, inputs: GraphInputs, dtype: npt.DTypeLike, kept: Kept
) -> dict[str, AnyArray]:
    _check_operators(network)
    values = graph_inputs(network, inputs, dtype)
    initializers = Initializers(network, dtype)
    batch = batching(first_axes(network), values)
    if batch is None:
        return _pass(network, values, initializers, dtype, kept, None)
    try:
        return _pass(network, values, initializers, dtype, kept, batch)
    except MixesSamplesError:
        return _in_parts(network, values, initializers, dtype, kept, batch)


def _pass(
    network: Network,
    values: Tensors,
    initializers: Initializers,
    dtype: npt.DTypeLike,
    kept: Kept,
    batch: Batching | None,
) -> dict[str, AnyArray]:
    """One pass over the nodes. batch: how samples spread where they do not fill the static ones."""
    graph = network.model.graph
    tensors = dict(values)
    varying = _varying(network, batch)
    freed = _freed_after(graph) if kept is Kept.OUTPUTS else {}
    opset = network.model.opset_imports.get("", 0)
    for place, node in enumerate(graph):
        operator = FloatNode(node, opset)
        inputs = [_look_up(value, tensors, initializers, operator) for value in node.inputs]
        try:
            if batch is not None:
                varies = [value is not None and value.name in varying for value in node.inputs]
                inputs = list(for_samples(operator, inputs, varies, batch))
            with np.errstate(all="ignore"):
                result = EVALUATE[node.op_type](operator, inputs)
        except (ValueError, IndexError, TypeError) as error:
            raise GraphError(
                f"{operator.where} cannot be evaluated on inputs of shapes "
                f"{[None if value is None else value.shape for value in inputs]} ({error}); "
                "check the shapes that it is given."
            ) from error
        for name, array in _named(operator, result):
            tensors[name] = in_dtype(array, dtype)
        for name in freed.get(place, ()):
            tensors.pop(name, None)
    outputs = {str(value.name): _output(value, tensors, initializers) for value in graph.outputs}
    return outputs if kept is Kept.OUTPUTS else {**tensors, **outputs}


def _in_parts(
    network: Network,
    values: Tensors,
    initializers: Initializers,
    dtype: npt.DTypeLike,
    kept: Kept,
    batch: Batching,
) -> dict[str, AnyArray]:
    """As many passes as the static batch needs; tensors joined along axis 0.

    The last sample fills the last batch up, as in the runtimes. A tensor without the batch as its
    first axis is joined all the same, unless no sample changes it.
    """
    if batch.size == 0 or batch.samples == 0:
        raise DataError(f"{batch.samples} samples fill no batch of {batch.size}; give some.")
    lacking = -batch.samples % batch.size
    values = {
        name: np.concatenate([array, *[array[-1:]] * lacking]) if name in batch.split else array
        for name, array in values.items()
    }
    passes = [
        _pass(
            network,
            {
                name: array[start : start + batch.size] if name in batch.split else array
                for name, array in values.items()
            },
            initializers,
            dtype,
            kept,
            None,
        )
        for start in range(0, batch.samples, batch.size)
    ]
    varying = _varying(network, batch)
    return {
        name: _joined(name, [one[name] for one in passes], batch) if name in varying else first
        for name, first in passes[0].items()
    }


def _joined(name: str, parts: list[AnyArray], batch: Batching) -> AnyArray:
    """Without what filled the last batch up, where the parts hold as many rows for each sample."""
    if not parts[0].ndim:
        return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        raise GraphError(
            f"The shape of {name!r} depends on the samples' values, so that batches cannot be "
            "joined; evaluate one batch at a time."
        )
    rows, rest = divmod(len(parts[0]), batch.size)
    whole = np.concatenate(parts)
    return whole if rest else whole[: rows * batch.samples]


def _varying(network: Network, batch: Batching | None) -> set[str]:
    """Names of the tensors that depend on the samples."""
    if batch is None:
        return set()
    names = set(batch.split)
    for node in network.model.graph:
        if node.op_type not in STATIC and any(
            value is not None and value.name in names for value in node.inputs
        ):
            names |= {str(value.name) for value in node.outputs}
    return names


def _freed_after(graph: ir.Graph) -> dict[int, list[str]]:
    """By place of a node, the tensors that nobody reads behind it and that are no outputs."""
    kept = {value.name for value in graph.outputs}
    last: dict[str, int] = {str(value.name): -1 for value in graph.inputs}
    for place, node in enumerate(graph):
        last |= {str(value.name): place for value in node.outputs if value.name}
        last |= {
            str(value.name): place
            for value in node.inputs
            if value is not None and value.name in last
        }
    freed: dict[int, list[str]] = {}
    for name, place in last.items():
        if name not in kept and name not in graph.initializers:
            freed.setdefault(place, []).append(name)
    return freed


def _named(node: FloatNode, result: Outputs) -> Iterator[tuple[str, AnyArray]]:
    """The node's outputs by name; one that is read, and that its rule does not give, is refused."""
    results = result if isinstance(result, tuple) else (result,)
    for index, value in enumerate(node.node.outputs):
        if index < len(results):
            if value.name:
                yield value.name, np.asarray(results[index])
        elif value.uses() or value.is_graph_output():
            raise node.refuse(f"its output {index} is read")


def _look_up(
    value: ir.Value | None, tensors: Tensors, initializers: Initializers, node: FloatNode
) -> AnyArray | None:
    if value is None or not value.name:
        return None
    found = tensors.get(value.name)
    if found is None:
        found = initializers.get(value.name)
    if found is None:
        raise GraphError(
            f"{node.where} reads {value.name!r}, which nothing before it computes; "
            "sort the graph's nodes."
        )
    return found


def _output(value: ir.Value, tensors: Tensors, initializers: Initializers) -> AnyArray:
    name = str(value.name)
    found = tensors.get(name)
    if found is None:
        found = initializers.get(name)
    if found is None:
        raise GraphError(f"No node computes the graph's output {name!r}; complete the graph.")
    return found


def _check_operators(network: Network) -> None:
    for node in network.model.graph:
        if node.op_type not in EVALUATE or node.domain not in ("", "ai.onnx"):
            raise UnsupportedOperatorError(
                f"{node.op_type} {node.name!r}: the reference has no rule for this operator; "
                f"evaluate with a runtime, or rewrite it with {', '.join(sorted(EVALUATE))}."
            )
