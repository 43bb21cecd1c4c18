"""Steps 3 and 4 of the ladder for a network of integers: its files, as they are read back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from deploykit.bundle import (
    Bundle,
    Golden,
)
from deploykit.errors import DeploykitError
from deploykit.quantize.apply import regions_of
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.by_sample import of_samples
from deploykit.spec.network import Network
from deploykit.spec.operators import operator_inputs
from deploykit.spec.parity import Step, Verdict
from deploykit.spec.quantized import QuantizedNetwork, weighted
from deploykit.spec.record import Record, first_difference, record_network
from deploykit.verify.attempt import attempt
from deploykit.verify.confidence import confidence_by_stage
from deploykit.verify.float_stages import (
    verdict,
)
from deploykit.verify.formats import Format, OnnxFormat, named_as_planned
from deploykit.verify.integers import (
    ReferenceRun,
    compare_golden,
    rounding_otherwise,
    run_reference,
)
from deploykit.verify.metrics import accuracy, agreement, float_names, sqnr_by_tensor
from deploykit.verify.opened import formats_of, with_bodies
from deploykit.verify.rounding import farthest_rounding
from deploykit.verify.saturation import (
    how_it_was_summed,
    planned_target,
    sums_step,
    why_onnxruntime_differs,
)

SQNR_TOLERANCE_DB = 0.1
ROUNDING_DB = 100.0
"""SQNR above which float32 itself is the noise, and differs from run to run."""

INTEGER = "float / integer"

Announce = Callable[[str], None]


def _rounding(
    compared: str, lowered: Network, network: QuantizedNetwork, plan: Mapping[str, Any]
) -> Step:
    found = farthest_rounding(network, lowered.model, plan)
    if found.share <= 1.0:
        detail = f"every weight and bias within {found.steps:.2f} steps of its float value"
        return Step(4, compared, Verdict.PASSED, detail)
    return Step(4, compared, Verdict.FAILED, str(found), found.operator)


@dataclass(frozen=True)
class ReadBack:
    """The integer networks in a bundle's files, named as planned; a failed step for every other."""

    networks: Mapping[Format, QuantizedNetwork]
    failures: tuple[Step, ...]

    def as_planned(self, plan: Mapping[str, Any]) -> dict[Format, QuantizedNetwork]:
        """Those that are the plan's."""
        return {
            fmt: network
            for fmt, network in self.networks.items()
            if _difference(fmt, network, record_network(network), plan) is None
        }


def read_back(
    bundle: Bundle, plan: Mapping[str, Any], lowered: Network | Step, announce: Announce
) -> ReadBack:
    """By the format's own readers. lowered: which says what islands compute, or why it is not."""
    networks: dict[Format, QuantizedNetwork] = {}
    failures: list[Step] = []
    bodies = {} if isinstance(lowered, Step) else regions_of(lowered)
    for fmt in formats_of(bundle):
        announce(f"{fmt.file}, read back")
        try:
            network = fmt.read(bundle.file(fmt.file).read_bytes())
            networks[fmt] = with_bodies(named_as_planned(network, plan), bodies)
        except DeploykitError as error:
            failures.append(_unreadable(fmt, str(error), plan))
    return ReadBack(networks, tuple(failures))


def integer_steps(
    bundle: Bundle,
    golden: Golden,
    plan: Mapping[str, Any],
    lowered: Network | Step,
    floats: Tensors,
    read: ReadBack,
    announce: Announce,
) -> Iterator[Step]:
    """Step 3, and step 4 file by file. floats: every tensor of `lowered` for the `full` inputs."""
    for network in list(read.networks.values())[:1]:
        yield attempt(3, INTEGER, partial(_float_to_integer, bundle, golden, network, floats))
    yield from read.failures
    runs: list[tuple[Record, ReferenceRun]] = []
    for fmt, network in read.networks.items():
        record = record_network(network)
        yield _against_plan(fmt, network, record, plan)
        target = planned_target(plan)
        if target is not None and isinstance(fmt, OnnxFormat):
            yield sums_step(f"{fmt.file}, 16-bit sums / {target.value}", network)
        compared = f"{fmt.file}, read back / float weights"
        if isinstance(lowered, Step):
            yield replace(lowered, number=4, compared=compared)
        else:
            yield attempt(4, compared, partial(_rounding, compared, lowered, network, plan))
        announce(f"{fmt.file} in the reference")
        # Equal networks, the rule, need one run; a file that differs gets its own.
        known = [run for earlier, run in runs if earlier == record]
        compared = f"{fmt.file} in the reference / golden"
        run = partial(run_reference, network, golden.inputs, golden.full)
        found = known[0] if known else attempt(4, compared, run)
        if isinstance(found, Step):
            yield found
            continue
        runs.append((record, found))
        yield _against_golden(compared, found, golden, plan)
        announce(f"{fmt.file} in {fmt.runtime}")
        compared = f"{fmt.file} in {fmt.runtime} / reference"
        climb = partial(_against_runtime, compared, fmt, network, bundle, golden, found)
        yield attempt(4, compared, climb)


def _unreadable(fmt: Format, reason: str, plan: Mapping[str, Any]) -> Step:
    """A file that its reader refuses; the reason quotes the tensor or operator it stopped at."""
    named = [
        operator
        for tensor, operator in plan["names"].items()
        if repr(tensor) in reason or repr(operator) in reason
    ]
    operator = named[0] if named else None
    detail = reason if operator is None else f"operator {operator}: {reason}"
    return Step(4, f"{fmt.file}, read back / plan", Verdict.FAILED, detail, operator)


def _float_to_integer(
    bundle: Bundle, golden: Golden, network: QuantizedNetwork, floats: Tensors
) -> Step:
    """SQNR of every tensor's recorded integers, measured again and held against the manifest."""
    real = golden.full < golden.real
    count = len(golden.full)
    # Inside islands a tensor may hold the samples along another axis, and has no integers.
    stood_for = floats.keys() & set(float_names(network).values())
    measured = sqnr_by_tensor(
        network,
        {name: of_samples(floats[name], real, count) for name in stood_for},
        {name: of_samples(values, real, count) for name, values in golden.integers.items()},
    )
    stated = bundle.manifest["sqnr_db"]  # null: no error at all
    absent = sorted(network.tensors.keys() - (measured.keys() & stated.keys()))
    if absent:
        reason = f"{absent[0]} has no recorded integers, no float tensor, or no stated SQNR"
        return Step(3, INTEGER, Verdict.FAILED, reason, absent[0])
    real_ports = [port for port in network.outputs if port.tensor in network.tensors]
    ends = [port.tensor for port in real_ports] or _read_last(network)
    least = min(measured[tensor] for tensor in ends)
    detail = f"output SQNR {least:.1f} dB"
    if golden.labels is not None and len(network.outputs) == 1:
        (port,) = network.outputs
        kept: AnyArray = golden.outputs[port.tensor]
        kept = of_samples(kept, slice(golden.real), golden.count)
        if port.tensor in network.tensors:
            kept = network.tensors[port.tensor].quantization.dequantize(kept)
        detail += f", accuracy {accuracy(kept, golden.labels):.3f}"
        # Of so few samples a calibration error in bins would be noise.
        for found in confidence_by_stage({INTEGER: kept}, golden.labels).values():
            detail += f", NLL {found.nll:.3f} nats"
        detail += f" on {golden.real} samples"
    shares = agreement(network, golden.folded, golden.outputs, golden.count, golden.real)
    for name, share in shares.items():
        detail += f", {name} as in float on {share:.3f} of {golden.real} samples"
        if bundle.manifest["agreement"].get(name) != share:
            reason = f"{name} is as in float on {share:.3f} of the samples, not as stated"
            return Step(3, INTEGER, Verdict.FAILED, reason, name)
    for tensor, value in measured.items():
        known = math.inf if stated[tensor] is None else stated[tensor]
        apart = min(value, ROUNDING_DB), min(known, ROUNDING_DB)
        if not math.isclose(*apart, abs_tol=SQNR_TOLERANCE_DB):
            return Step(
                3, INTEGER, Verdict.FAILED,
                f"{tensor} has an SQNR of {value:.2f} dB where the manifest states {known}", tensor,
            )  # fmt: skip
    return Step(3, INTEGER, Verdict.PASSED, detail)


def _read_last(network: QuantizedNetwork) -> list[str]:
    """What the operators read that answer in whole numbers."""
    return [
        name
        for operator in network.operators
        if operator.output in network.indices
        for name in operator_inputs(operator)
    ]


def _against_plan(
    fmt: Format, network: QuantizedNetwork, record: Record, plan: Mapping[str, Any]
) -> Step:
    compared = f"{fmt.file}, read back / plan"
    difference = _difference(fmt, network, record, plan)
    if difference is None:
        return Step(4, compared, Verdict.PASSED, f"{len(network.operators)} operators equal")
    tensor, what = difference
    operator = plan["names"].get(tensor, tensor)
    return Step(4, compared, Verdict.FAILED, f"operator {operator}: {what}", operator)


def _difference(
    fmt: Format, network: QuantizedNetwork, record: Record, plan: Mapping[str, Any]
) -> tuple[str, str] | None:
    """(tensor, what differs) of the first operator that is not the plan's."""
    return first_difference(plan["network"], record) or _other_carrier(fmt, network, plan)


def _other_carrier(
    fmt: Format, network: QuantizedNetwork, plan: Mapping[str, Any]
) -> tuple[str, str] | None:
    """(tensor, what differs) of the first weight that is not stored as planned."""
    for operator in weighted(network):
        name = str(plan["names"].get(operator.output, operator.output))
        planned = plan["layers"].get(name, {}).get("weight", {}).get("carrier", {}).get(fmt.key)
        found = operator.weight.carriers.of(fmt.key).value
        if planned != found:
            return operator.output, f"its weight is stored as {found}, not as {planned}"
    return None


def _against_golden(
    compared: str, found: ReferenceRun, golden: Golden, plan: Mapping[str, Any]
) -> Step:
    """The reference on the integers *in the file*, against those recorded at export."""
    count = 0
    for name, expected, actual in (
        *_paired(golden.integers, found.integers),
        *_paired(golden.outputs, found.outputs),
    ):
        if actual is None or expected is None or not np.array_equal(expected, actual):
            operator = plan["names"].get(name, name)
            detail = f"operator {operator}: integers differ from those recorded at export"
            return Step(4, compared, Verdict.FAILED, detail, operator)
        count += expected.size
    return Step(4, compared, Verdict.PASSED, f"0 of {count:,} integers differ")


def _paired(
    recorded: Tensors, found: Tensors
) -> Iterator[tuple[str, AnyArray | None, AnyArray | None]]:
    """Every tensor that either knows, in running order; None where the other lacks it."""
    for name in (*found, *(recorded.keys() - found.keys())):
        yield name, recorded.get(name), found.get(name)


def _against_runtime(
    compared: str,
    fmt: Format,
    network: QuantizedNetwork,
    bundle: Bundle,
    golden: Golden,
    expected: ReferenceRun,
) -> Step:
    version = fmt.version()
    if version is None:
        reason = f"{fmt.runtime} cannot be imported here; install it and verify again"
        return Step(4, compared, Verdict.SKIPPED, reason)
    data = bundle.file(fmt.file).read_bytes()
    found = compare_golden(data, network, fmt, golden.inputs, golden.full, expected)
    detail = (
        f"{found.total_differing:,} of {found.total_compared:,} integers differ "
        f"({len(golden.full)} inputs, outputs of {found.samples}, {version})"
    )
    if found.one_step:
        detail += (
            f"; {found.total_one_step:,} that {rounding_otherwise(network)} give are one step "
            f"apart, and outputs by up to {found.drift} steps"
        )
    summed = how_it_was_summed(network) if isinstance(fmt, OnnxFormat) else ""
    detail += f"; {summed}" if summed else ""
    if found.total_differing:
        detail += f", by up to {found.largest}; first in operator {found.operator}"
        reason = why_onnxruntime_differs(network) if isinstance(fmt, OnnxFormat) else ""
        detail += f"; {reason}" if reason else ""
    return Step(4, compared, verdict(found.total_differing == 0), detail, found.operator)
