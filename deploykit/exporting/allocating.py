"""`--bits auto`: bits by layer under a limit, checked on the files that are really written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from deploykit.errors import QuantizationError
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.exporting.preparing import Prepared
from deploykit.graph.edit import output_names
from deploykit.quantize.allocation import Front, front
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.measuring import Asked, Measured, measured_choices, with_all_moments
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import calibrate
from deploykit.quantize.rounded_layers import RoundedLayers
from deploykit.quantize.sensitivity import free_groups, nothing_free
from deploykit.quantize.settling import Runners
from deploykit.runtime import ort
from deploykit.spec.allocation import (
    ALLOCATED_BITS,
    Allocation,
    AutoBits,
    BitsTarget,
    LayerChoices,
    MaxAccuracyDrop,
    MaxBytes,
    TargetBits,
    Tried,
)
from deploykit.spec.inputs import named_inputs
from deploykit.spec.joined import joined_outputs
from deploykit.spec.model_metadata import ModelMetadata
from deploykit.spec.network import Network
from deploykit.spec.plan import QuantPlan
from deploykit.spec.progress import Advance
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.samples import Samples
from deploykit.verify.formats import Format, port_inputs, real_output
from deploykit.verify.metrics import accuracy

MOST_FILES = 8
"""Allocations written until one fits."""
MOST_SEARCHED = 9
NARROW = 0.01
"""Of the span of sizes, at which the search for an accuracy ends."""


@dataclass(frozen=True)
class Written:
    """A plan, its network and its files."""

    plan: QuantPlan
    network: QuantizedNetwork
    models: Mapping[Format, bytes]

    @property
    def largest(self) -> int:
        """Bytes of the largest file."""
        return max(map(len, self.models.values()))


@dataclass(frozen=True)
class Writing:
    """What runs plans, and how their files are written."""

    runners: Runners
    formats: Sequence[Format]
    metadata: ModelMetadata


class Writer:
    """Plans and writes allocations of one calibrated network."""

    def __init__(self, rounded: RoundedLayers, writing: Writing) -> None:
        self._rounded, self._writing = rounded, writing

    def write(self, bits: Mapping[str, int]) -> Written:
        """bits: of every layer with weights."""
        plan = self._rounded.plan(bits, self._writing.runners)
        network = apply_plan(self._rounded.calibrated.network, plan)
        models = {
            fmt: fmt.describe(fmt.write(network), self._writing.metadata)
            for fmt in self._writing.formats
        }
        return Written(plan, network, models)


def allocate_bits(
    prepared: Prepared,
    lowered: Network,
    options: QuantizationOptions,
    auto: AutoBits,
    writing: Writing,
    advance: Advance,
) -> tuple[QuantPlan, Allocation]:
    """The plan of the least sensitive allocation within the target, and how it was found.

    lowered: the prepared network in operators that have integers. options: its bits name the layers
    that are not to be chosen for.

    Raises QuantizationError where no allocation is within the target: then it says what is; and
    where no layer's bits are free.
    """
    calibrated = calibrate(
        lowered, prepared.samples, with_all_moments(options), writing.runners, advance
    )
    if not free_groups(calibrated, options.bits):
        raise QuantizationError(nothing_free(calibrated, options.bits))
    rounded, labelled = RoundedLayers(calibrated, options), prepared.labelled
    asked = Asked(auto.sensitivity, widths(auto.target), [fmt.key for fmt in writing.formats])
    measured = measured_choices(
        rounded, asked, labelled, prepared.entered.network, writing.runners.evaluate, advance
    )
    writer = Writer(rounded, writing)
    match auto.target:
        case TargetBits():
            return _by_mean(measured, auto, auto.target, writer)
        case MaxBytes():
            return by_size(measured, auto, auto.target, writer)
        case MaxAccuracyDrop():
            assert labelled is not None  # see held_out
            return _by_accuracy(measured, auto, auto.target, writer, lowered, labelled)
        case _:
            assert_never(auto.target)


def widths(target: BitsTarget) -> tuple[int, ...]:
    """Bits between which an allocation has to decide: those around a mean, else all."""
    if not isinstance(target, TargetBits):
        return ALLOCATED_BITS
    below = [bits for bits in ALLOCATED_BITS if bits <= target.bits]
    above = [bits for bits in ALLOCATED_BITS if bits >= target.bits]
    return tuple(sorted({*below[-1:], *above[:1]}))


def _by_mean(
    measured: Measured, auto: AutoBits, target: TargetBits, writer: Writer
) -> tuple[QuantPlan, Allocation]:
    costs = [{b: one.weights * b for b in one.file_bytes} for one in measured.choices]
    found = front(measured.choices, costs)
    total = sum(one.weights for one in measured.choices)
    place = found.within(target.bits * total * (1 + 1e-9))
    if place is None:
        raise QuantizationError(
            f"{target}: with {_fixed(measured.choices)} the mean is {found.costs[0] / total:.3f} "
            "bits at the least; ask for that many, or fix fewer layers"
        )
    written = writer.write(found.bits(place))
    return written.plan, _allocation(measured, auto, found, place)


def by_size(
    measured: Measured, auto: AutoBits, target: MaxBytes, writer: Writer
) -> tuple[QuantPlan, Allocation]:
    """Of the allocations whose files fit, about the least sensitive.

    Raises QuantizationError with the size of the smallest where none does.
    """
    found = by_file_bytes(measured.choices)
    place, tried = len(found.costs) - 1, list[Tried]()
    for left in reversed(range(MOST_FILES)):
        if not left:
            place = 0  # what the error tells is the smallest file
        written = writer.write(found.bits(place))
        tried.append(Tried(int(found.costs[place]), written.largest))
        if written.largest <= target.size_bytes:
            allocation = _allocation(measured, auto, found, place)
            return written.plan, replace(allocation, tried=tuple(tried))
        if place == 0:
            break
        # What is over goes off the integers; the rest of the file hardly changes with them.
        limit = found.costs[place] - (written.largest - target.size_bytes)
        lower = found.within(limit)
        place = 0 if lower is None else min(lower, place - 1)
    raise QuantizationError(
        f"{target}: with {_fixed(measured.choices)} the smallest {_largest(written)} takes "
        f"{tried[-1].largest_file:,} bytes, {int(found.costs[place]):,} of them integers of "
        "weights; allow that many, or see --tflite-lowbit and --to"
    )


def _by_accuracy(
    measured: Measured,
    auto: AutoBits,
    target: MaxAccuracyDrop,
    writer: Writer,
    lowered: Network,
    labelled: Samples,
) -> tuple[QuantPlan, Allocation]:
    found = by_file_bytes(measured.choices)
    reference = _float_accuracy(lowered, labelled)
    least = reference - target.points / 100.0
    tried: list[Tried] = []
    plans: dict[int, QuantPlan] = {}

    def holds(place: int) -> bool:
        written = writer.write(found.bits(place))
        shares = _accuracy(written, labelled)
        plans[place] = written.plan
        tried.append(Tried(int(found.costs[place]), written.largest, shares))
        # Shares are multiples of 1 / samples, which floats hold to within a billionth.
        return shares >= least - 1e-9

    highest = len(found.costs) - 1
    if not holds(highest):
        raise QuantizationError(
            f"{target}: with every weight as wide as it may be, top-1 is {tried[0].accuracy:.4f} "
            f"and the float network's {reference:.4f}; weights are not what costs it: more "
            "calibration data or another --calibration may help"
        )
    place = _smallest(found, highest, holds)
    allocation = _allocation(measured, auto, found, place)
    return plans[place], replace(allocation, tried=tuple(tried), reference=reference)


def _smallest(found: Front, highest: int, holds: Callable[[int], bool]) -> int:
    """By bisection of the bytes; `highest` is known to hold."""
    if highest == 0 or holds(0):
        return 0
    low, high = 0, highest
    enough = NARROW * (found.costs[highest] - found.costs[0])
    for _ in range(MOST_SEARCHED):
        if high - low < 2 or found.costs[high] - found.costs[low] <= enough:
            break
        middle = found.within((found.costs[low] + found.costs[high]) / 2)
        middle = min(max(low + 1, middle or 0), high - 1)
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def by_file_bytes(choices: Sequence[LayerChoices]) -> Front:
    """Allocations by bytes of integers in the file that stores each layer widest."""
    return front(choices, [one.file_bytes for one in choices])


def _allocation(measured: Measured, auto: AutoBits, found: Front, place: int) -> Allocation:
    return Allocation(
        auto, measured.measure, measured.choices, found.bits(place), measured.evidence
    )


def _fixed(choices: Sequence[LayerChoices]) -> str:
    fixed = sum(1 for one in choices if one.fixed)
    return f"{fixed} of {len(choices)} layers' bits fixed" if fixed else "no layer's bits fixed"


def _largest(written: Written) -> str:
    return max(written.models, key=lambda fmt: len(written.models[fmt])).file


def _float_accuracy(network: Network, labelled: Samples) -> float:
    names = [str(value.name) for value in network.model.graph.inputs]
    outputs = ort.run(model_bytes(network), named_inputs(labelled.inputs, names))
    joined = joined_outputs(outputs, output_names(network), len(labelled))
    assert labelled.labels is not None
    return accuracy(joined, labelled.labels)


def _accuracy(written: Written, labelled: Samples) -> float:
    """Of the first file: all give the same integers."""
    fmt, data = next(iter(written.models.items()))
    raw = fmt.run_outputs(data, written.network, port_inputs(written.network, labelled.inputs))
    (port,) = written.network.outputs
    assert labelled.labels is not None
    return accuracy(real_output(written.network, port, raw), labelled.labels)
