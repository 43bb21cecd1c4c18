"""Which weights ONNX Runtime pairs on x86 without VNNI: spec.pairs against the kernels themselves.

Each case of the suite runs with weights of which every pair is as large as fits, and with weights
of which every pair overflows: the first must give the reference's integers, the second others.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploykit.reference import integer
from deploykit.runtime.ort import Sums
from deploykit.spec.arrays import Int8Array, Tensors
from deploykit.spec.operators import Conv, IntegerWeight, Island, Linear, Operator, Window
from deploykit.spec.pairs import LARGEST_PAIR, largest_pairs
from deploykit.spec.quantized import (
    ActivationTensor,
    IoType,
    Port,
    Quantization,
    QuantizedNetwork,
)
from deploykit.spec.stem import Runtime, stems_as_blocks, stems_from_blocks
from tests.suite.cases import WIDE, Case
from tests.x86.emulation import run_networks

pytestmark = pytest.mark.xdist_group("emulated")
"""One worker, so that what is emulated runs once."""

FITS, OVERFLOWS = "fits", "overflows"
Found = tuple[QuantizedNetwork, Tensors, Tensors]
"""A network, its inputs, and what ONNX Runtime makes of them on the emulated processor."""


def paired_weights(weight: Int8Array, kind: str) -> Int8Array:
    """Weights of the same shape; FITS: pairs of one sign add up to LARGEST_PAIR.

    Neighbours that are no pair add up to anything, so another pairing than the stated one fails.
    """
    rng = np.random.default_rng(zlib.crc32(f"{weight.shape}".encode()))
    ordered = np.moveaxis(weight, 1, -1)
    size = ordered[0].size
    first = rng.integers(1, LARGEST_PAIR, (len(weight), -(-size // 2)))
    second = LARGEST_PAIR - first if kind == FITS else np.full_like(first, 127)
    first = first if kind == FITS else np.full_like(first, 127)
    signs = rng.choice([-1, 1], (*first.shape, 1))
    pairs = (np.stack([first, second], axis=2) * signs).reshape(len(weight), -1)[:, :size]
    return np.asarray(np.moveaxis(pairs.reshape(ordered.shape), -1, 1), np.int8)


def with_pairs(network: QuantizedNetwork, kind: str) -> QuantizedNetwork:
    """Paired as the file holds them; what a stem's blocks have outside of its kernel stays zero."""

    def changed(operator: Operator) -> Operator:
        if not isinstance(operator, Conv | Linear):
            return operator
        values = paired_weights(operator.weight.values, kind)
        if operator.output in stated:
            values = np.where(operator.weight.values != 0, values, np.int8(0))
        return replace(operator, weight=replace(operator.weight, values=values))

    dense = replace(network, operators=tuple(map(_without_zeros, network.operators)))
    written, stated = stems_as_blocks(dense, Runtime.ONNXRUNTIME)
    paired = replace(written, operators=tuple(map(changed, written.operators)))
    return stems_from_blocks(paired, stated)


def _without_zeros(operator: Operator) -> Operator:
    if not isinstance(operator, Conv):
        return operator
    ones = np.ones_like(operator.weight.values)
    return replace(operator, weight=replace(operator.weight, values=ones))


def bright(case: Case) -> Tensors:
    """Mostly the largest input, which is 255 as uint8. Token ids stay as they are."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    return {
        name: np.where(rng.random(values.shape) < 0.8, np.int8(127), values)
        if values.dtype == np.int8
        else values
        for name, values in case.inputs().items()
    }


WEIGHTED = [case for case in WIDE if dict(largest_pairs(case.network()))]


def test_weights_of_the_test_are_what_it_says() -> None:
    for case in WEIGHTED:
        fitting = dict(largest_pairs(with_pairs(case.network(), FITS)))
        over = dict(largest_pairs(with_pairs(case.network(), OVERFLOWS)))
        paired = [tensor for tensor, pair in over.items() if pair == 254]
        assert all(fitting[tensor] == LARGEST_PAIR for tensor in paired), case.name
        assert all(over[tensor] <= LARGEST_PAIR for tensor in over.keys() - set(paired)), case.name


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Found]:
    """All networks of this module, run in one emulated process."""
    networks = {
        f"{kind}-{case.name}": (with_pairs(case.network(), kind), bright(case))
        for case in WEIGHTED
        for kind in (FITS, OVERFLOWS)
    }
    networks.update({f"sum-{first}-{second}": boundary(first, second) for first, second in SUMS})
    found = run_networks(networks, tmp_path_factory.mktemp("emulated"))
    return {
        name: (*networks[name], {**tensors, **_ids(*networks[name])})
        for name, tensors in found.items()
    }


def _ids(network: QuantizedNetwork, inputs: Tensors) -> Tensors:
    """Token ids by tensor, which the emulated runtime does not give back."""
    return {
        port.tensor: inputs[port.name] for port in network.inputs if port.tensor in network.indices
    }


def wrong_tensors(network: QuantizedNetwork, tensors: Tensors) -> set[str]:
    """Operator by operator, each on the inputs that the emulated processor gave it.

    Float islands, which may be a step off anywhere, are left out.
    """
    return {
        operator.output
        for operator in network.operators
        if not isinstance(operator, Island)
        and not np.array_equal(
            integer.run_operator(operator, network, tensors), tensors[operator.output]
        )
    }


@pytest.mark.parametrize("case", WEIGHTED, ids=lambda case: case.name)
def test_pairs_that_fit_give_the_integers_of_the_reference(
    case: Case, emulated: Mapping[str, Found]
) -> None:
    network, _, tensors = emulated[f"{FITS}-{case.name}"]
    assert wrong_tensors(network, tensors) == set()


@pytest.mark.parametrize("case", WEIGHTED, ids=lambda case: case.name)
def test_pairs_that_overflow_give_others_and_a_depthwise_layer_never_does(
    case: Case, emulated: Mapping[str, Found]
) -> None:
    network, _, tensors = emulated[f"{OVERFLOWS}-{case.name}"]
    over = {tensor for tensor, pair in largest_pairs(network) if pair > LARGEST_PAIR}
    wrong = wrong_tensors(network, tensors)
    assert wrong <= over
    assert bool(wrong) == bool(over)


def test_exact_sums_give_the_integers_of_the_reference_where_pairs_overflow(
    tmp_path: Path,
) -> None:
    networks = {
        case.name: (with_pairs(case.network(), OVERFLOWS), bright(case)) for case in WEIGHTED
    }
    found = run_networks(networks, tmp_path, Sums.EXACT)
    for name, (network, inputs) in networks.items():
        assert wrong_tensors(network, {**found[name], **_ids(network, inputs)}) == set(), name


SUMS = [(64, 64), (64, 65), (127, 1), (127, 2), (-64, -64), (-65, -64), (127, -127)]


def boundary(first: int, second: int) -> tuple[QuantizedNetwork, Tensors]:
    """One pair at inputs of 255, its sum less that of LARGEST_PAIR, in steps of one."""
    values = np.zeros((16, 8, 1, 1), np.int8)
    values[:, 2:4, 0, 0] = first, second
    sign = -1 if first + second < 0 else 1
    bias = np.full(16, -sign * 255 * min(abs(first + second), LARGEST_PAIR), np.int32)
    network = QuantizedNetwork(
        {
            "x": ActivationTensor("x", (1, 8, 2, 2), Quantization(1.0, -128)),
            "y": ActivationTensor("y", (1, 16, 2, 2), Quantization(4.0, 0)),
        },
        (Conv("conv", "x", "y", IntegerWeight("w", values, np.ones(16, np.float32)), bias,
              Window((1, 1))),),
        (Port("input", "x"),),
        (Port("output", "y"),),
        IoType.INT8,
    )  # fmt: skip
    return network, {"input": np.full((1, 8, 2, 2), 127, np.int8)}


@pytest.mark.parametrize(("first", "second"), SUMS)
def test_the_largest_pair_that_fits_is_128(
    first: int, second: int, emulated: Mapping[str, Found]
) -> None:
    network, inputs, tensors = emulated[f"sum-{first}-{second}"]
    expected = integer.run(network, inputs)["y"].astype(int)
    lost = np.abs(expected - tensors["y"]).max()
    over = abs(first + second) > LARGEST_PAIR
    assert lost == (round(128 / 4) if over else 0)
