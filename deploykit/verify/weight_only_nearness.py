"""How near both runtimes are where weights alone are integers, and how near they have to be.

Each rounds the rows of activations to int8 in its own way (MatMulNBits block by block about zero,
XNNPACK a row between its ends), so that outputs are not equal. The reference multiplies floats; the
same with rows rounded in the runtime's way says what such rounding explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.bundle import Golden
from deploykit.graph.edit import output_names
from deploykit.reference.float import evaluate_outputs
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.inputs import GraphInputs, named_inputs, some_samples
from deploykit.spec.joined import joined_outputs
from deploykit.spec.network import Network, input_names
from deploykit.verify.metrics import sqnr_db
from deploykit.verify.rounded_rows import Rows, with_rounded_rows
from deploykit.verify.weight_only_files import WeightOnlyFormat

MARGIN_DB = 3.0
"""By which a runtime may be under the SQNR that rounding rows to int8 alone would leave."""
MOST_DB = 60.0
"""Above it, float32 sums in another order are the noise."""

ROUNDED_AS: Mapping[str, tuple[Rows, ...]] = {
    "onnx": (Rows.ABOUT_ZERO,),
    "tflite": (Rows.BETWEEN_ENDS, Rows.ABOUT_ZERO),
}
"""By format, how its runtime may: LiteRT without XNNPACK does so about zero."""


@dataclass(frozen=True)
class Nearness:
    """How near a runtime's outputs are to the reference's, in dB of SQNR.

    expected_db: what rounding every row of the linears' inputs to int8 does in the reference.
    """

    sqnr_db: float
    expected_db: float

    @property
    def least_db(self) -> float:
        """Under which a runtime computes something else."""
        return min(self.expected_db, MOST_DB) - MARGIN_DB

    @property
    def holds(self) -> bool:
        """Whether no more is wrong than such rounding explains."""
        return self.sqnr_db >= self.least_db


def expected_db(
    restored: Network,
    layers: tuple[str, ...],
    inputs: GraphInputs,
    count: int,
    reference: AnyArray,
    rows: Rows,
) -> float:
    """restored: with the plan's weights as floats; reference: its outputs for `count` inputs."""
    rounded = with_rounded_rows(restored, layers, rows)
    found = joined_outputs(evaluate_outputs(rounded, inputs), output_names(rounded), count)
    return sqnr_db(reference, found)


def measure_nearness(
    restored: Network,
    layers: tuple[str, ...],
    models: Mapping[WeightOnlyFormat, bytes],
    golden: Golden,
) -> dict[str, Nearness]:
    """By file, on the real golden inputs."""
    real = slice(golden.real)
    inputs, names = some_samples(golden.inputs, real), output_names(restored)
    reference = joined_outputs(first_samples(golden.outputs, golden), names, golden.real)
    wanted = dict.fromkeys(rows for fmt in models for rows in ROUNDED_AS[fmt.key])
    expected = {
        rows: expected_db(restored, layers, inputs, golden.real, reference, rows) for rows in wanted
    }
    return {
        fmt.file: Nearness(
            sqnr_db(reference, run_file(fmt, data, restored, inputs, golden.real)),
            min(expected[rows] for rows in ROUNDED_AS[fmt.key]),
        )
        for fmt, data in models.items()
    }


def first_samples(outputs: Tensors, golden: Golden) -> Tensors:
    """Of outputs for all golden inputs those of the real ones."""
    return {
        name: values[: len(values) // golden.count * golden.real]
        for name, values in outputs.items()
    }


def run_file(
    fmt: WeightOnlyFormat, data: bytes, network: Network, inputs: GraphInputs, count: int
) -> AnyArray:
    """All outputs of a file for `count` inputs, joined. network: that it was written from."""
    found = fmt.run(data, named_inputs(inputs, input_names(network)))
    return joined_outputs(found, output_names(network), count)
