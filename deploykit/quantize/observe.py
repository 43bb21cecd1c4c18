"""Run calibration samples through the float graph and keep a histogram per tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from deploykit.errors import DataError
from deploykit.quantize.histogram import Histogram, empty_histogram, observe
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import FloatEvaluator, Network, static_shape

BYTES_AT_ONCE = 64 * 2**20


def observe_tensors(
    network: Network,
    tensors: Iterable[str],
    inputs: Float32Array,
    evaluate: FloatEvaluator,
    progress: Callable[[int, int], None],
) -> dict[str, Histogram]:
    """A histogram of each named tensor over `inputs` [N, ...], a few samples at a time.

    Memory does not grow with N. `progress` is told (samples done, N).

    Raises DataError where a tensor becomes infinite or NaN.
    """
    wanted = tuple(dict.fromkeys(tensors))
    histograms = {name: empty_histogram() for name in wanted}
    chunk = _samples_at_once(network)
    for start in range(0, len(inputs), chunk):
        values = evaluate(network, inputs[start : start + chunk])
        for name in wanted:
            if not np.isfinite(values[name]).all():
                raise DataError(
                    f"tensor {name} is not finite on calibration samples {start} to "
                    f"{min(start + chunk, len(inputs)) - 1}; check that the data is preprocessed "
                    "as in training"
                )
            histograms[name] = observe(histograms[name], values[name])
        progress(min(start + chunk, len(inputs)), len(inputs))
    return histograms


def _samples_at_once(network: Network) -> int:
    """How many samples' activations fit into BYTES_AT_ONCE."""
    elements = 0
    for node in network.model.graph:
        for output in node.outputs:
            elements += int(np.prod(static_shape(output) or (0,), dtype=np.int64))
    return max(1, BYTES_AT_ONCE // max(1, 4 * elements))
