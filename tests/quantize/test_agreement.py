"""Enumeration finds runtimes that round ties differently, and moves the scale until none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from deploykit.errors import QuantizationError
from deploykit.quantize import agreement
from deploykit.quantize.agreement import NUDGE, TRIES, prove_add, prove_global_average
from deploykit.reference.integer import ReferenceRunner
from deploykit.spec.arrays import Float64Array, Int8Array, Tensors
from deploykit.spec.quantized import (
    Add,
    GlobalAveragePool,
    IntegerRunner,
    Quantization,
    QuantizedNetwork,
)
from deploykit.verify.formats import OnnxFormat, TfliteFormat, WrittenRunner

Rounding = Callable[[Float64Array], Float64Array]


def half_away(value: Float64Array) -> Float64Array:
    return np.asarray(np.sign(value) * np.floor(np.abs(value) + 0.5))


@dataclass(frozen=True)
class RoundingRunner:
    """Computes sums and averages in float64 and rounds them in a way of its own."""

    rounding: Rounding
    name: str = "rounding"

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        (operator,) = network.operators
        output = network.tensors[operator.output].quantization
        if isinstance(operator, Add):
            real = sum(self._real(network, inputs, name) for name in ("left", "right"))
        else:
            assert isinstance(operator, GlobalAveragePool)
            real = self._real(network, inputs, "x").mean(axis=(2, 3), keepdims=True)
        steps = self.rounding(np.asarray(real / output.scale)) + output.zero_point
        return {operator.output: np.clip(steps, -128, 127).astype(np.int8)}

    def _real(self, network: QuantizedNetwork, inputs: Tensors, name: str) -> Float64Array:
        quantization = network.tensors[name].quantization
        return (inputs[name].astype(np.float64) - quantization.zero_point) * quantization.scale


@dataclass(frozen=True)
class WrongOnce:
    """Agrees with the reference but for one output."""

    name: str = "wrong once"

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        tensors = dict(ReferenceRunner()(network, inputs))
        output = network.operators[0].output
        wrong: Int8Array = tensors[output].copy()
        wrong.flat[-1] ^= 1
        return {**tensors, output: wrong}


def quantizations(
    left: float, right: float, output: float
) -> tuple[Quantization, Quantization, Quantization]:
    return Quantization(left, 3), Quantization(right, -20), Quantization(output, 5)


def test_equal_rounding_needs_no_nudge_and_tries_every_pair() -> None:
    given = quantizations(0.25, 0.25, 0.25)
    chosen, proof = prove_add("sum", given, ReferenceRunner(), [ReferenceRunner()])
    assert chosen == given[2]
    assert (proof.layer, proof.cases, proof.nudges) == ("sum", 65_536, 0)
    assert proof.runners == (ReferenceRunner().name,)


@pytest.mark.parametrize("rounding", [half_away, np.rint])
def test_a_runner_that_rounds_ties_its_own_way_is_caught_and_nudged(rounding: Rounding) -> None:
    """With scales in ratio 1:2 every other sum is a tie."""
    given, runner = quantizations(0.25, 0.5, 0.5), RoundingRunner(rounding)
    chosen, proof = prove_add("sum", given, ReferenceRunner(), [runner])
    assert 0 < proof.nudges < TRIES
    assert chosen.zero_point == given[2].zero_point
    assert chosen.scale == pytest.approx(given[2].scale * NUDGE**proof.nudges, rel=1e-6)
    assert chosen.scale == float(np.float32(chosen.scale))
    again, second = prove_add("sum", (*given[:2], chosen), ReferenceRunner(), [runner])
    assert (again, second.nudges) == (chosen, 0)


def test_every_runner_has_to_agree() -> None:
    runners: list[IntegerRunner] = [ReferenceRunner(), RoundingRunner(np.rint, "b")]
    _, proof = prove_add("sum", quantizations(0.25, 0.5, 0.5), ReferenceRunner(), runners)
    assert proof.nudges > 0
    assert proof.runners[1] == "b"


def test_a_runner_that_never_agrees_is_refused_with_the_scales() -> None:
    with pytest.raises(QuantizationError, match=r"^sum: no output scale within .* round alike"):
        prove_add("sum", quantizations(0.1, 0.2, 0.3), ReferenceRunner(), [WrongOnce()])
    with pytest.raises(QuantizationError, match=r"^pool: no output scale"):
        prove_global_average(
            "pool", (2, 2), quantizations(0.1, 0.1, 0.1)[::2], ReferenceRunner(), [WrongOnce()]
        )


def test_the_runtimes_agree_on_ties_once_nudged() -> None:
    """Free of ties at the end: ONNX Runtime and LiteRT, on a sum that ties everywhere at first."""
    runners = [WrittenRunner(OnnxFormat()), WrittenRunner(TfliteFormat())]
    given = quantizations(0.25, 0.5, 0.5)
    chosen, proof = prove_add("sum", given, ReferenceRunner(), runners)
    assert proof.nudges > 0
    assert proof.runners == ("onnxruntime", "litert")
    assert chosen.scale < 1.02 * given[2].scale


@pytest.mark.parametrize("positions", [(1, 1), (2, 2), (3, 5), (16, 16)])
def test_up_to_256_positions_every_sum_is_tried(positions: tuple[int, int]) -> None:
    given = quantizations(0.1, 0.1, 0.07)[::2]
    _, proof = prove_global_average(
        "pool", positions, given, ReferenceRunner(), [ReferenceRunner()]
    )
    assert proof.cases == 255 * positions[0] * positions[1] + 1


class SumsSeen:
    """Keeps the sums that a runner was asked for, and agrees."""

    name = "sums"

    def __init__(self) -> None:
        self.sums: set[int] = set()

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        self.sums.update(inputs["x"].astype(np.int64).sum(axis=(2, 3)).reshape(-1).tolist())
        return ReferenceRunner()(network, inputs)


def test_every_sum_really_is_every_sum() -> None:
    runner = SumsSeen()
    prove_global_average(
        "pool", (3, 3), quantizations(0.1, 0.1, 0.07)[::2], ReferenceRunner(), [runner]
    )
    assert runner.sums == set(range(-128 * 9, 127 * 9 + 1))


def test_beyond_256_positions_every_tie_is_still_tried() -> None:
    """17 x 18 positions, equal scales: a mean ties where the sum is 153 above a multiple."""
    runner, given = SumsSeen(), (Quantization(0.1, 3), Quantization(0.1, 5))
    _, proof = prove_global_average("pool", (17, 18), given, ReferenceRunner(), [runner])
    count = 17 * 18
    ties = {s for s in range(-128 * count, 127 * count + 1) if (s - 3 * count) % count == 153}
    assert ties <= runner.sums
    assert proof.cases == len(runner.sums) < 10 * len(ties)


@pytest.mark.parametrize("rounding", [half_away, np.rint])
def test_near_ties_find_what_all_sums_would_find(
    rounding: Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (Quantization(0.1, 0), Quantization(0.1, 0))
    runner = RoundingRunner(rounding)
    every = prove_global_average("pool", (6, 6), given, ReferenceRunner(), [runner])
    monkeypatch.setattr(agreement, "EXHAUSTIVE_POSITIONS", 0)
    near = prove_global_average("pool", (6, 6), given, ReferenceRunner(), [runner])
    assert near[0] == every[0]
    assert near[1].nudges == every[1].nudges
    assert near[1].cases < every[1].cases
