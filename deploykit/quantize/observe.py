"""Run calibration samples through the float graph and keep what the planning needs of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.errors import DataError
from deploykit.quantize.histogram import Histogram, empty_histogram, observe
from deploykit.quantize.moments import InputMoments, MomentSums
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import AnyArray, Float64Array, Tensors
from deploykit.spec.inputs import GraphInputs, count_samples, some_samples
from deploykit.spec.network import FloatEvaluator, Network, static_shape
from deploykit.spec.parallel import computed_ahead

BYTES_AT_ONCE = 64 * 2**20


@dataclass(frozen=True)
class Observations:
    """Over all samples.

    histograms: by tensor; means: [C] by tensor, over all axes but channels; moments: by layer.
    """

    histograms: Mapping[str, Histogram]
    means: Mapping[str, Float64Array]
    moments: Mapping[str, InputMoments]


def observe_tensors(
    network: Network,
    ranges: Iterable[str],
    means: Iterable[str],
    compensated: Iterable[Layer],
    inputs: GraphInputs,
    evaluate: FloatEvaluator,
    progress: Callable[[int, int], None],
) -> Observations:
    """A histogram or the channel means of each named tensor over `inputs` [N, ...].

    compensated: layers whose inputs' second moments are measured; their means have to be asked for.

    A few samples at a time: memory does not grow with N. `progress` is told (samples done, N).

    Raises DataError where a tensor becomes infinite or NaN.
    """
    histograms = {name: empty_histogram() for name in ranges}
    count = count_samples(inputs)
    sums: dict[str, Float64Array] = {}
    rows: dict[str, int] = {}
    gathered = {layer.name: (layer, MomentSums(layer, count)) for layer in compensated}
    averaged = tuple(dict.fromkeys(means))
    chunk = _samples_at_once(network)
    read_by = (layer.inputs[0] for layer, _ in gathered.values())
    watched = _watched(network, [*histograms, *averaged, *read_by])

    def evaluated_from(start: int) -> Tensors:
        return evaluate(watched, some_samples(inputs, slice(start, start + chunk)))

    starts = range(0, count, chunk)
    for start, values in zip(starts, computed_ahead(evaluated_from, starts), strict=True):
        stop = min(start + chunk, count)
        for name, earlier in list(histograms.items()):
            try:
                histograms[name] = observe(earlier, values[name])
            except ValueError as error:
                raise DataError(
                    f"tensor {name} is not finite on calibration samples {start} to "
                    f"{stop - 1}; check that the data is preprocessed as in training, and that no "
                    "infinite constant goes anywhere but into one softmax"
                ) from error
        for name in averaged:
            by_sample = _channel_means(values[name])
            # One sample after another, so that the sum does not depend on how they were batched.
            for row in by_sample:
                sums[name] = sums[name] + row if name in sums else row
            rows[name] = rows.get(name, 0) + len(by_sample)
        for layer, moments in gathered.values():
            read = values[layer.inputs[0]]
            for index, sample in enumerate(read.reshape(stop - start, -1, *read.shape[1:])):
                moments.add(sample, start + index)
        progress(stop, count)
    found = {name: total / rows[name] for name, total in sums.items()}
    return Observations(
        histograms,
        found,
        {name: one.about(found[layer.inputs[0]]) for name, (layer, one) in gathered.items()},
    )


def _watched(network: Network, names: Iterable[str]) -> Network:
    """The same graph with these tensors as its outputs, so that a runtime may fuse the others."""
    model = network.model.clone()
    computed = {str(value.name): value for node in model.graph for value in node.outputs}
    model.graph.outputs[:] = [computed[name] for name in dict.fromkeys(names) if name in computed]
    return network.rewritten(model)


def _channel_means(values: AnyArray) -> Float64Array:
    """[N, C, ...] -> [N, C]; N counts rows where a sample has several."""
    flat = values.reshape(*values.shape[:2], -1)
    return np.asarray(flat.mean(axis=2, dtype=np.float64))


def _samples_at_once(network: Network) -> int:
    """How many samples' activations fit into BYTES_AT_ONCE."""
    elements = 0
    for node in network.model.graph:
        for output in node.outputs:
            elements += int(np.prod(static_shape(output) or (0,), dtype=np.int64))
    return max(1, BYTES_AT_ONCE // max(1, 4 * elements))
