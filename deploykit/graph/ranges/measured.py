"""How large the tensors of a network get on given inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.graph.edit import label
from deploykit.graph.ranges.layers import layer_of
from deploykit.spec.arrays import AnyArray, Float64Array, Tensors
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import FloatEvaluator, Network

SAMPLES_AT_ONCE = 4
"""Samples evaluated together, unless the graph's own batch is larger: memory is all tensors'."""


@dataclass(frozen=True)
class Measured:
    """shapes: by tensor, for some number of samples. largest: by tensor, of all its channels.

    mean: by layer, mean |x| per input channel over samples and positions.
    outputs: of the graph, [N, ...] by name.
    """

    shapes: Mapping[str, tuple[int, ...]]
    largest: Mapping[str, float]
    mean: Mapping[ir.Node, Float64Array]
    outputs: Mapping[str, Float64Array]


def measure(network: Network, evaluate: FloatEvaluator, inputs: GraphInputs) -> Measured:
    """Evaluate the network on its inputs, by an evaluator of every tensor; keep magnitudes only.

    The largest is over a whole tensor: a channel that these inputs leave at zero may come alive
    on others, and its own largest magnitude would say that nothing reads it.

    Raises GraphError where the evaluator leaves out a tensor that a layer reads.
    """
    graph = network.model.graph
    read = {
        node: (str(value.name), layer.axis)
        for node in graph
        if (layer := layer_of(node)) is not None and (value := node.inputs[0]) is not None
    }
    shapes: dict[str, tuple[int, ...]] = {}
    largest: dict[str, float] = {}
    total: dict[ir.Node, Float64Array] = {}
    results: dict[str, list[Float64Array]] = {str(value.name): [] for value in graph.outputs}
    for part in batches(network, inputs):
        tensors = {**evaluate(network, part), **_by_name(network, part)}
        for name, collected in results.items():
            collected.append(np.asarray(tensors[name], dtype=np.float64))
        for name, values in tensors.items():
            shapes.setdefault(name, values.shape)
            if values.dtype.kind == "f":
                seen = float(np.abs(values).max(initial=0.0))
                largest[name] = float(np.maximum(largest.get(name, 0.0), seen))
        for node, (name, axis) in read.items():
            if name not in tensors:
                raise GraphError(
                    f"the evaluator returns no {name}, which {label(node)} reads; give one that "
                    "returns every tensor, such as the float64 reference"
                )
            mean = _mean_magnitude(tensors[name], axis) * samples(part)
            total[node] = total.get(node, np.zeros_like(mean)) + mean
    count = samples(inputs)
    return Measured(
        shapes,
        largest,
        {node: sums / count for node, sums in total.items()},
        {name: np.concatenate(collected) for name, collected in results.items()},
    )


def outputs(
    network: Network, evaluate: FloatEvaluator, inputs: GraphInputs
) -> dict[str, Float64Array]:
    """The graph's outputs by name, in float64, a few samples at a time."""
    names = [str(value.name) for value in network.model.graph.outputs]
    results: dict[str, list[Float64Array]] = {name: [] for name in names}
    for part in batches(network, inputs):
        tensors = evaluate(network, part)
        for name, collected in results.items():
            collected.append(np.asarray(tensors[name], dtype=np.float64))
    return {name: np.concatenate(collected) for name, collected in results.items()}


def batches(network: Network, inputs: GraphInputs) -> Iterator[GraphInputs]:
    """Parts of the inputs, each a multiple of the graph's static batch where there is one.

    Inputs by name go together: which of them hold a batch is the evaluator's to say.
    """
    if isinstance(inputs, Mapping):
        yield inputs
        return
    shape = network.model.graph.inputs[0].shape
    batch = shape[0] if shape is not None and len(shape) else 1
    size = batch if isinstance(batch, int) else 1
    step = size * max(1, SAMPLES_AT_ONCE // size)
    for start in range(0, len(inputs), step):
        yield inputs[start : start + step]


def samples(inputs: GraphInputs) -> int:
    """Length of the batch; of the longest input where there are several."""
    arrays = inputs.values() if isinstance(inputs, Mapping) else (inputs,)
    return max(len(values) if values.ndim else 1 for values in arrays)


def _by_name(network: Network, inputs: GraphInputs) -> Tensors:
    if isinstance(inputs, Mapping):
        return inputs
    graph = network.model.graph
    ports = [str(value.name) for value in graph.inputs if value.name not in graph.initializers]
    return {ports[0]: inputs}


def _mean_magnitude(values: AnyArray, axis: int | None) -> Float64Array:
    kept = values.ndim - 1 if axis is None else axis
    others = tuple(other for other in range(values.ndim) if other != kept)
    return np.asarray(np.abs(values).mean(axis=others, dtype=np.float64))
