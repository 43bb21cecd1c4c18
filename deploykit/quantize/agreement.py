"""Proof that runtimes compute the same integers, by trying every input of an operator.

Convolutions and linears agree because all runtimes do the same float32 operation on an exact
accumulator. A sum of two tensors has 65,536 input pairs, a global average as many inputs as there
are sums: these are enumerated, and where a runtime rounds a near-tie differently the output scale
grows by NUDGE and the enumeration starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.plan import Proof
from deploykit.spec.quantized import (
    ActivationTensor,
    Add,
    GlobalAveragePool,
    IntegerRunner,
    IoType,
    Port,
    Quantization,
    QuantizedNetwork,
)

NUDGE = 1.0003
TRIES = 64
EXHAUSTIVE_POSITIONS = 256
"""Up to this many averaged positions every sum is tried; beyond, every sum near a tie."""
TIE_MARGIN = 2.0**-9
"""float32 computes a multiplied sum to 2^-23 of its size, under 2^-15 steps: 64 times closer."""
ELEMENTS_AT_ONCE = 2**22


def prove_add(
    layer: str,
    quantizations: tuple[Quantization, Quantization, Quantization],
    reference: IntegerRunner,
    runtimes: Sequence[IntegerRunner],
) -> tuple[Quantization, Proof]:
    """Output quantization on which all agree on all 65,536 pairs; (left, right, output) given."""
    left, right, output = quantizations
    every = np.arange(-128, 128, dtype=np.int8)
    shape = (1, 256, 16, 16)
    a = np.broadcast_to(every.reshape(1, 256, 1, 1), shape).copy()
    b = np.broadcast_to(every.reshape(1, 1, 16, 16), shape).copy()

    def network(candidate: Quantization) -> QuantizedNetwork:
        tensors = {
            "left": ActivationTensor("left", shape, left),
            "right": ActivationTensor("right", shape, right),
            "sum": ActivationTensor("sum", shape, candidate),
        }
        return QuantizedNetwork(
            tensors,
            (Add("add", "left", "right", "sum"),),
            (Port("left", "left"), Port("right", "right")),
            (Port("sum", "sum"),),
            IoType.INT8,
        )

    def agree(candidate: Quantization) -> bool:
        return _agree(network(candidate), {"left": a, "right": b}, "sum", reference, runtimes)

    chosen, nudges = _nudge(layer, output, agree)
    return chosen, Proof(layer, a.size, nudges, tuple(runner.name for runner in runtimes))


def prove_global_average(
    layer: str,
    positions: tuple[int, int],
    quantizations: tuple[Quantization, Quantization],
    reference: IntegerRunner,
    runtimes: Sequence[IntegerRunner],
) -> tuple[Quantization, Proof]:
    """The output quantization on which all agree on every sum of H*W integers (see the module)."""
    source, output = quantizations
    count = positions[0] * positions[1]
    cases = 0

    def agree(candidate: Quantization) -> bool:
        nonlocal cases
        sums = _sums(count, source, candidate)
        cases = len(sums)
        for block in _blocks(sums, count):
            shape = (1, len(block), *positions)
            tensors = {
                "x": ActivationTensor("x", shape, source),
                "mean": ActivationTensor("mean", (1, len(block), 1, 1), candidate),
            }
            network = QuantizedNetwork(
                tensors,
                (GlobalAveragePool("pool", "x", "mean"),),
                (Port("x", "x"),),
                (Port("mean", "mean"),),
                IoType.INT8,
            )
            inputs = {"x": _with_sums(block, count).reshape(shape)}
            if not _agree(network, inputs, "mean", reference, runtimes):
                return False
        return True

    chosen, nudges = _nudge(layer, output, agree)
    return chosen, Proof(layer, cases, nudges, tuple(runner.name for runner in runtimes))


def _agree(
    network: QuantizedNetwork,
    inputs: dict[str, AnyArray],
    tensor: str,
    reference: IntegerRunner,
    runtimes: Sequence[IntegerRunner],
) -> bool:
    expected = reference(network, inputs)[tensor]
    return all(np.array_equal(runner(network, inputs)[tensor], expected) for runner in runtimes)


def _nudge(
    layer: str, start: Quantization, agree: Callable[[Quantization], bool]
) -> tuple[Quantization, int]:
    candidate = start
    for tries in range(TRIES):
        if agree(candidate):
            return candidate, tries
        candidate = replace(candidate, scale=float(np.float32(candidate.scale * NUDGE)))
    raise QuantizationError(
        f"{layer}: no output scale within {NUDGE**TRIES - 1:.1%} makes the runtimes round alike; "
        "this is not expected: please report the scales "
        f"(output {start.scale!r}, zero point {start.zero_point})"
    )


def _sums(count: int, source: Quantization, output: Quantization) -> AnyArray:
    sums = np.arange(-128 * count, 127 * count + 1, dtype=np.int64)
    if count <= EXHAUSTIVE_POSITIONS:
        return sums
    real = (sums - count * source.zero_point) * (source.scale / output.scale / count)
    fraction = np.abs(real - np.floor(real) - 0.5)
    return np.asarray(sums[fraction < TIE_MARGIN])


def _blocks(sums: AnyArray, count: int) -> Iterator[AnyArray]:
    size = max(1, ELEMENTS_AT_ONCE // count)
    for start in range(0, len(sums), size):
        yield sums[start : start + size]


def _with_sums(sums: AnyArray, count: int) -> AnyArray:
    """One row of `count` int8 values per sum, as level as can be. [len(sums), count]"""
    base, rest = np.divmod(sums, count)
    rows = np.repeat(base[:, None], count, axis=1)
    rows += np.arange(count)[None, :] < rest[:, None]
    return np.asarray(rows, dtype=np.int8)
