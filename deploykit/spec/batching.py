"""How samples spread over the static batch of a graph with one input or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.errors import DataError
from deploykit.spec.arrays import Tensors


@dataclass(frozen=True)
class Batching:
    """The inputs in `split` hold `samples` along axis 0, where the graph has a batch of `size`.

    Every other input is the same for all samples.
    """

    size: int
    samples: int
    split: frozenset[str]


def batching(first_axes: Mapping[str, int | None], arrays: Tensors) -> Batching | None:
    """None where every input fills its static first axis.

    first_axes: by input the static length of axis 0, None where it is symbolic or missing. An
    input given in exactly its static length is shared among the samples of the others.
    """
    lengths = {name: values.shape[0] for name, values in arrays.items() if values.ndim}
    static = {
        name: size
        for name, size in first_axes.items()
        if size is not None and name in lengths and lengths[name] != size
    }
    if not static:
        return None
    pairs = {(size, lengths[name]) for name, size in static.items()}
    if len(pairs) > 1:
        counts = ", ".join(f"{name} {lengths[name]} for {size}" for name, size in static.items())
        raise DataError(
            f"The inputs hold different numbers of samples ({counts}); give each as many batches."
        )
    ((size, samples),) = pairs
    symbolic = {
        name for name, count in lengths.items() if first_axes.get(name) is None and count == samples
    }
    return Batching(size, samples, frozenset(static) | symbolic)
