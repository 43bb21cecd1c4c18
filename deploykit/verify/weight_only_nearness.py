"""How near both runtimes are where weights alone are integers, and how near they have to be.

Each rounds the rows of activations to int8 in its own way (MatMulNBits block by block about zero,
XNNPACK a row between its ends), so that outputs are not equal. The reference multiplies floats; the
same with rows rounded in the runtime's way says what such rounding explains. Of several outputs
each is judged alone: beside one of hundreds, one of thousandths would not be seen.

All else that a file computes has to be the reference's up to float rounding, once its integers are
multiplied out to float32 (`products_apart`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.bundle import Golden
from deploykit.graph.edit import output_names
from deploykit.reference.float import evaluate_outputs
from deploykit.runtime.litert import XNNPACK
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.difference import relative_difference
from deploykit.spec.inputs import GraphInputs, named_inputs, some_samples
from deploykit.spec.joined import joined_outputs
from deploykit.spec.network import Network, input_names
from deploykit.verify.float_stages import FLOAT_ROUNDING
from deploykit.verify.metrics import sqnr_db
from deploykit.verify.rounded_rows import Rows, with_rounded_rows
from deploykit.verify.weight_only_files import WeightOnlyFormat

MARGIN_DB = 3.0
"""By which a runtime may be under the SQNR that rounding rows to int8 alone would leave."""
DEVIATIONS_DB = 26.0
"""Over the root of how many numbers are compared: three deviations of an SQNR, each the ratio of
two sums of so many squares (4.34 dB * sqrt(4 / n) each)."""
MOST_DB = 60.0
"""Above it, float32 sums in another order are the noise."""
FLOATS_APART = {"onnx": FLOAT_ROUNDING, "tflite": 10 * FLOAT_ROUNDING}
"""By format, the largest relative difference of multiplied-out files: XNNPACK approximates tanh
and exp to 3e-6, and adds in float32."""

ROUNDED_AS: Mapping[str, Rows] = {XNNPACK: Rows.BETWEEN_ENDS}
"""By kernel, how it rounds where not about zero."""


@dataclass(frozen=True)
class Nearness:
    """How near one of a runtime's outputs is to the reference's, in dB of SQNR.

    expected_db: what rounding every row of the linears' inputs to int8 does in the reference.
    numbers: how many were compared.
    """

    output: str
    sqnr_db: float
    expected_db: float
    numbers: int

    @property
    def least_db(self) -> float:
        """Under which a runtime computes something else."""
        margin = max(MARGIN_DB, DEVIATIONS_DB / math.sqrt(max(self.numbers, 1)))
        return min(self.expected_db, MOST_DB) - margin

    @property
    def holds(self) -> bool:
        """Whether no more is wrong than such rounding explains."""
        return self.sqnr_db >= self.least_db


def expected_db(
    restored: Network, layers: tuple[str, ...], inputs: GraphInputs, reference: Tensors, rows: Rows
) -> dict[str, float]:
    """By output. restored: with the plan's weights as floats; reference: its outputs for inputs."""
    found = evaluate_outputs(with_rounded_rows(restored, layers, rows), inputs)
    return {name: sqnr_db(real, found[name]) for name, real in reference.items()}


def rounded_as(fmt: WeightOnlyFormat, data: bytes) -> tuple[Rows, ...]:
    """How the kernels that a runtime takes for a file round rows; each way once."""
    kernels = fmt.kernels(data).values()
    return tuple(dict.fromkeys(ROUNDED_AS.get(one, Rows.ABOUT_ZERO) for one in kernels))


def measure_nearness(
    restored: Network,
    layers: tuple[str, ...],
    models: Mapping[WeightOnlyFormat, bytes],
    golden: Golden,
) -> dict[str, Nearness]:
    """By file, on the real golden inputs: of the output that is nearest to failing."""
    real = slice(golden.real)
    inputs = some_samples(golden.inputs, real)
    reference = first_samples(golden.outputs, golden)
    ways = {fmt: rounded_as(fmt, data) for fmt, data in models.items()}
    expected = {
        rows: expected_db(restored, layers, inputs, reference, rows)
        for rows in dict.fromkeys(rows for of in ways.values() for rows in of)
    }
    near = {}
    for fmt, data in models.items():
        found = fmt.run(data, named_inputs(inputs, input_names(restored)))
        outputs = [
            Nearness(
                name, sqnr_db(values, found[name]),
                min(expected[rows][name] for rows in ways[fmt]), values.size,
            )
            for name, values in reference.items()
        ]  # fmt: skip
        near[fmt.file] = min(outputs, key=lambda one: min(one.sqnr_db, MOST_DB) - one.least_db)
    return near


def farthest_rows(
    fmt: WeightOnlyFormat,
    data: bytes,
    restored: Network,
    layers: tuple[str, ...],
    golden: Golden,
) -> str:
    """The layer whose rows, rounded alone, take an output farthest from the reference's."""
    inputs = some_samples(golden.inputs, slice(golden.real))
    reference, (rows, *_) = first_samples(golden.outputs, golden), rounded_as(fmt, data)
    alone = {
        name: min(expected_db(restored, (name,), inputs, reference, rows).values())
        for name in layers
    }
    return min(alone, key=lambda name: alone[name])


@dataclass(frozen=True)
class Apart:
    """The output of a multiplied-out file that is farthest from the recorded one.

    difference: largest, over the output's largest number; most: that float rounding explains.
    """

    output: str
    difference: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether all else than rows of int8 is the network's."""
        return self.difference <= self.most


def products_apart(
    fmt: WeightOnlyFormat, data: bytes, names: tuple[str, ...], golden: Golden
) -> Apart:
    """On all golden inputs. names: of the network's inputs."""
    found = fmt.run_products(data, named_inputs(golden.inputs, names))
    differences = {
        name: relative_difference(recorded, found[name])
        if name in found and found[name].shape == recorded.shape
        else math.inf
        for name, recorded in golden.outputs.items()
    }
    worst = max(differences, key=lambda name: differences[name])
    return Apart(worst, differences[worst], FLOATS_APART[fmt.key])


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
