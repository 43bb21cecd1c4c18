"""Step 4 of the ladder: integers of a runtime against the reference, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from deploykit.errors import ParityError
from deploykit.reference import integer
from deploykit.spec.arrays import AnyArray, Float32Array, Int8Array, Tensors
from deploykit.spec.by_sample import by_sample, of_samples
from deploykit.spec.inputs import GraphInputs, count_samples, some_samples
from deploykit.spec.operators import Conv, Island, Linear, Operator
from deploykit.spec.parity import IntegerComparison
from deploykit.spec.progress import Advance, ignore
from deploykit.spec.quantized import Port, QuantizedNetwork, Tail
from deploykit.spec.storage import storage_of
from deploykit.verify.formats import Format, port_inputs, quantized_inputs, real_output

ONNX = "onnx"
BYTES_AT_ONCE = 32 * 2**20
NOTHING: Tensors = MappingProxyType({})
PUBLIC_INPUTS = 8
"""On how many inputs an export runs the files as they are, beside those that show every tensor."""

TAIL_ROUNDING = 1e-6
"""A few float32 roundings of numbers up to 1, as probabilities are."""


@dataclass(frozen=True)
class ReferenceRun:
    """What the reference computes for golden inputs.

    integers: every activation for the inputs in `full`; outputs: the output ports' for all.
    """

    integers: Mapping[str, Int8Array]
    outputs: Mapping[str, Int8Array]


def run_reference(
    network: QuantizedNetwork, inputs: GraphInputs, full: AnyArray, progress: Advance = ignore
) -> ReferenceRun:
    """Run the integer reference on float samples [N, ...], each of them once."""
    count = count_samples(inputs)
    integers = computed_integers(network, some_samples(inputs, full))
    ports = [port.tensor for port in network.outputs]
    outputs = {name: by_sample(integers[name], len(full)) for name in ports}
    outputs = {
        name: np.empty((count, *found.shape[1:]), found.dtype) for name, found in outputs.items()
    }
    rest = np.setdiff1d(np.arange(count), full)
    for name in ports:
        outputs[name][full] = by_sample(integers[name], len(full))
    step = samples_at_once(network)
    for start in range(0, len(rest), step):
        chosen = rest[start : start + step]
        tensors = computed_integers(network, some_samples(inputs, chosen))
        for name in ports:
            outputs[name][chosen] = by_sample(tensors[name], len(chosen))
        progress(len(full) + min(start + step, len(rest)), count)
    joined = {name: found.reshape(-1, *found.shape[2:]) for name, found in outputs.items()}
    return ReferenceRun(integers, joined)


def computed_integers(network: QuantizedNetwork, inputs: GraphInputs) -> dict[str, AnyArray]:
    """What the reference computes for samples: all but the whole numbers that they give."""
    given = {port.tensor for port in network.inputs if port.tensor in network.indices}
    found = integer.run(network, quantized_inputs(network, inputs))
    return {name: values for name, values in found.items() if name not in given}


@dataclass
class Tally:
    """Differences of one runtime, counted over chunks of samples. format: of the file it runs."""

    runner: str
    compared: dict[str, int]
    differing: dict[str, int]
    largest: int = 0
    operator: str | None = None
    one_step: dict[str, int] = field(default_factory=dict)
    drift: int = 0
    format: str = ONNX

    def add(self, network: QuantizedNetwork, actual: Tensors, expected: Tensors) -> None:
        """Count a chunk.

        Where integers differ, each operator is computed again by the reference from the runtime's
        own inputs: the operator named is the one that diverges, not one that inherits it.

        Raises ParityError where the runtime does not show a tensor.
        """
        hidden = [name for name in expected if name not in actual]
        if hidden:
            raise ParityError(f"{self.runner} does not show tensor {hidden[0]}, so it is unproved")
        if any(allowed_steps(operator, self.format) for operator in network.operators):
            self._add_by_operator(network, actual, expected)
            return
        for name, values in expected.items():
            self._count(name, actual[name], values, 0)
        if self.operator is None and any(self.differing.values()):
            self.operator = first_divergence(network, actual, expected)

    def _add_by_operator(
        self, network: QuantizedNetwork, actual: Tensors, expected: Tensors
    ) -> None:
        """Each operator on the runtime's own inputs: an allowed step is not counted twice."""
        for port in quantized_ports(network):
            self._count(port.tensor, actual[port.tensor], expected[port.tensor], 0)
            if self.operator is None and self.differing[port.tensor]:
                self.operator = f"the quantization of input {port.name}"
        for operator in network.operators:
            own = integer.run_operator(operator, network, actual)
            allowed = allowed_steps(operator, self.format)
            self._count(operator.output, actual[operator.output], own, allowed)
            if self.operator is None and self.differing[operator.output]:
                self.operator = operator.name
        for port in network.outputs:
            if port.tensor in network.indices:
                continue
            self.drift = max(self.drift, _largest(actual[port.tensor], expected[port.tensor]))

    def add_public(self, network: QuantizedNetwork, outputs: Tensors, integers: Tensors) -> None:
        """Count where a file's public outputs are not what the integers mean.

        integers: by tensor, as the runtime shows them. A runtime optimizes a file that shows only
        its outputs otherwise than one that shows every tensor.
        """
        for port in network.outputs:
            public = real_output(network, port, outputs)
            differs = _differs(network, port, public, integers[port.tensor])
            self.differing[port.tensor] += int(np.count_nonzero(differs))
            if differs.any() and self.operator is None:
                self.operator = f"output {port.name}"

    def _count(self, name: str, found: AnyArray, expected: AnyArray, allowed: int) -> None:
        wide = np.int16 if expected.dtype == np.int8 else np.int64
        distance = np.abs(found.astype(wide) - expected)
        self.compared[name] += distance.size
        self.differing[name] += int(np.count_nonzero(distance > allowed))
        self.largest = max(self.largest, int(distance.max(initial=0)))
        if allowed:
            steps = int(np.count_nonzero(distance == 1))
            self.one_step[name] = self.one_step.get(name, 0) + steps

    def result(self, samples: int) -> IntegerComparison:
        """The frozen count."""
        return IntegerComparison(
            self.runner, samples, self.compared, self.differing, self.largest, self.operator,
            self.one_step, self.drift,
        )  # fmt: skip


def allowed_steps(operator: Operator, fmt: str) -> int:
    """How far a runtime's integers may lie from the reference's on the operator's own inputs.

    One step where it computes in float, or where the user chose a kernel that rounds otherwise.
    """
    if isinstance(operator, Conv | Linear):
        return 0 if storage_of(fmt, operator).exact else 1
    return int(isinstance(operator, Island))


def rounding_otherwise(network: QuantizedNetwork) -> str:
    """Operators that may give other steps than the reference, in words."""
    islands = any(isinstance(operator, Island) for operator in network.operators)
    return "float islands" if islands else "convolutions of 4-bit weights"


def compare_with_runtimes(
    models: Mapping[Format, bytes],
    network: QuantizedNetwork,
    inputs: GraphInputs,
    progress: Advance = ignore,
    known: Tensors = NOTHING,
) -> tuple[IntegerComparison, ...]:
    """Run files from float inputs [N, ...] on, and the reference once, and compare every tensor.

    The first PUBLIC_INPUTS also go through the files as they are, whose outputs are compared.

    known: what the reference gave for the first of them, which it does not compute again.
    """
    tallies = {fmt: _empty_tally(fmt, network) for fmt in models}
    step, count = samples_at_once(network), count_samples(inputs)
    for start in range(0, count, step):
        stop = min(start + step, count)
        chunk = some_samples(inputs, slice(start, stop))
        expected = _known_part(network, known, start, stop - start)
        if not expected:
            expected = computed_integers(network, chunk)
        for fmt, data in models.items():
            actual = fmt.run_all(data, network, port_inputs(network, chunk))
            tallies[fmt].add(network, actual, expected)
            shown = min(stop, PUBLIC_INPUTS) - start
            if shown > 0:
                few = slice(shown)
                given = port_inputs(network, some_samples(chunk, few))
                outputs = fmt.run_outputs(data, network, given)
                integers = {
                    port.tensor: of_samples(actual[port.tensor], few, stop - start)
                    for port in network.outputs
                }
                tallies[fmt].add_public(network, outputs, integers)
        progress(stop, count)
    return tuple(tally.result(count) for tally in tallies.values())


def _known_part(
    network: QuantizedNetwork, known: Tensors, start: int, count: int
) -> dict[str, Int8Array]:
    """The integers of samples from `start` on, empty where not all of them are known."""
    part: dict[str, Int8Array] = {}
    batch = network.shape(network.inputs[0].tensor)[0]
    for name, values in known.items():
        rows = network.shape(name)[0]
        stop = -(-(start + count) // batch)
        part[name] = values[start // batch * rows : stop * rows]
        if len(values) < stop * rows:
            return {}
    return part


def compare_golden(
    data: bytes, network: QuantizedNetwork, fmt: Format, inputs: GraphInputs, full: AnyArray,
    expected: ReferenceRun,
) -> IntegerComparison:  # fmt: skip
    """Every tensor of the inputs in `full`, and the file's public outputs for all of them.

    With float islands the outputs of those in `full` alone: what else a runtime rounds to a step
    beside is not known.
    """
    tally = _empty_tally(fmt, network)
    count = count_samples(inputs)
    actual = fmt.run_all(data, network, port_inputs(network, some_samples(inputs, full)))
    tally.add(network, actual, expected.integers)
    outputs = fmt.run_outputs(data, network, port_inputs(network, inputs))
    integers: Tensors = expected.outputs
    if tally.one_step:
        # Steps of islands add up from the input on; the followed inputs' are the runtime's own.
        outputs = {name: of_samples(values, full, count) for name, values in outputs.items()}
        integers = actual
    for port in network.outputs:
        tally.compared[port.tensor] += integers[port.tensor].size
    tally.add_public(network, outputs, integers)
    return tally.result(len(full) if tally.one_step else count)


def _differs(
    network: QuantizedNetwork, port: Port, public: AnyArray, integers: AnyArray
) -> AnyArray:
    """Where a file's output is not what its integers mean."""
    if port.tensor in network.indices:
        return np.asarray(public != integers)
    real = network.tensors[port.tensor].quantization.dequantize(integers)
    return np.asarray(public != real if port.tail is None else ~_close(public, port.tail, real))


def _largest(found: Int8Array, expected: Int8Array) -> int:
    return int(np.abs(found.astype(np.int16) - expected).max(initial=0))


def _close(found: AnyArray, tail: Tail, real: Float32Array) -> AnyArray:
    """Whether floats are those of a tail, which every runtime computes in its own float32.

    A logarithm is as large as what it is made of, and so are its roundings.
    """
    size = 1.0 if tail is Tail.SOFTMAX else max(1.0, float(np.abs(real).max(initial=0.0)))
    return np.asarray(np.abs(found - tail(real)) <= TAIL_ROUNDING * size)


def first_divergence(network: QuantizedNetwork, actual: Tensors, expected: Tensors) -> str:
    """Name of the first operator whose output is wrong for the inputs it was given."""
    for port in quantized_ports(network):
        if not np.array_equal(actual[port.tensor], expected[port.tensor]):
            return f"the quantization of input {port.name}"
    for operator in network.operators:
        own = integer.run_operator(operator, network, actual)
        if not np.array_equal(own, actual[operator.output]):
            return operator.name
    return "none: each operator agrees on the runtime's own inputs"


def samples_at_once(network: QuantizedNetwork) -> int:
    """How many samples' activations fit into BYTES_AT_ONCE, a multiple of the network's batch."""
    batch = next(iter(network.tensors.values())).shape[0]
    per_batch = sum(int(np.prod(tensor.shape)) for tensor in network.tensors.values())
    return batch * max(1, BYTES_AT_ONCE // max(1, per_batch))


def quantized_ports(network: QuantizedNetwork) -> tuple[Port, ...]:
    """The inputs that a file quantizes."""
    return tuple(port for port in network.inputs if port.tensor in network.tensors)


def _empty_tally(fmt: Format, network: QuantizedNetwork) -> Tally:
    given = {port.tensor for port in network.inputs}
    names = [*network.tensors, *(name for name in network.indices if name not in given)]
    counts = (dict.fromkeys(names, 0), dict.fromkeys(names, 0))
    return Tally(fmt.runtime, *counts, format=fmt.key)
