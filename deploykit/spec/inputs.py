"""What a network is given: an array for its only input, or one for each input by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray, Tensors

GraphInputs = AnyArray | Tensors
"""Values [N, ...] of a network's one input, or of each of its inputs by name."""

WHOLE_TYPES = ("int32", "int64")
"""Element types of inputs that hold numbers of rows of a table (token ids)."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a network. shape: batch first. dtype: numpy's name, float32 or a WHOLE_TYPES."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers, which nobody quantizes."""
        return self.dtype in WHOLE_TYPES


ONLY = "input"
"""Name of the only input of a network that has no names for its own."""


def only_input(shape: tuple[int, ...], dtype: str = "float32") -> tuple[InputSpec, ...]:
    """The inputs of a network with one that nobody named."""
    return (InputSpec(ONLY, shape, dtype),)


def count_samples(inputs: GraphInputs) -> int:
    """N.

    Raises DataError where the inputs hold different numbers of samples.
    """
    if not isinstance(inputs, Mapping):
        return int(inputs.shape[0])
    counts = {name: int(values.shape[0]) for name, values in inputs.items()}
    if len(set(counts.values())) != 1:
        raise DataError(
            f"the inputs hold different numbers of samples ({_listed(counts)}); give each as many"
        )
    return next(iter(counts.values()))


def each_input(inputs: GraphInputs, function: Callable[[AnyArray], AnyArray]) -> GraphInputs:
    """The function of every array."""
    if isinstance(inputs, Mapping):
        return {name: function(values) for name, values in inputs.items()}
    return function(inputs)


def some_samples(inputs: GraphInputs, chosen: AnyArray | slice) -> GraphInputs:
    """The samples at some indices, of every input."""
    return each_input(inputs, lambda values: values[chosen])


def repeated_samples(inputs: GraphInputs, count: int) -> GraphInputs:
    """The first `count` samples, in turn again where there are fewer."""
    return each_input(inputs, lambda values: np.take(values, np.arange(count), axis=0, mode="wrap"))


def joined_samples(first: GraphInputs, second: GraphInputs) -> GraphInputs:
    """Samples of the same inputs, one behind the other."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {name: np.concatenate([values, second[name]]) for name, values in first.items()}
    if isinstance(first, Mapping) or isinstance(second, Mapping):
        raise DataError("samples by input name and samples of one input cannot be joined")
    return np.concatenate([first, second])


def named_inputs(inputs: GraphInputs, names: Sequence[str]) -> Tensors:
    """The array of every input by its name; a single array belongs to the only one.

    Raises DataError where names are missing or unknown.
    """
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise DataError(
                f"the network has the inputs {', '.join(names)}, and one array was given; give "
                "one for each by name"
            )
        return {names[0]: inputs}
    if set(inputs) != set(names):
        raise DataError(
            f"values were given for {', '.join(sorted(inputs))}, and the network's inputs are "
            f"{', '.join(names)}; give exactly those"
        )
    return {name: inputs[name] for name in names}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
