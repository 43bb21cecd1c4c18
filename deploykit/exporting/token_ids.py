"""Token ids of the data, held against the table that they take rows of."""

from __future__ import annotations

from deploykit.errors import DataError
from deploykit.spec.inputs import named_inputs
from deploykit.spec.network import Network, input_names
from deploykit.spec.samples import Samples
from deploykit.spec.whole_numbers import row_counts


def check_ids(network: Network, samples: Samples, option: str) -> None:
    """Raise DataError where an id is no row of its table. option: where the samples come from."""
    given = named_inputs(samples.inputs, input_names(network))
    for name, rows in row_counts(network).items():
        low, high = int(given[name].min()), int(given[name].max())
        if rows is not None and not 0 <= low <= high < rows:
            raise DataError(
                f"{option}: the input {name!r} runs from {low} to {high}, and the table that it "
                f"takes rows of has {rows}: give numbers from 0 to {rows - 1}"
            )
