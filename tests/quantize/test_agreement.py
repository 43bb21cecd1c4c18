"""Enumeration finds runtimes that round ties differently, and scales move until none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from deploykit.errors import QuantizationError
from deploykit.quantize import agreement
from deploykit.quantize.agreement import (
    Agreement,
    Average,
    Pairs,
    Table,
    WithConstant,
)
from deploykit.quantize.scales import FIXED
from deploykit.quantize.settling import NUDGE, TRIES, Runners, settle_scales
from deploykit.quantize.sharing import find_groups
from deploykit.quantize.structure import build_structure
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.arrays import Float64Array, Int8Array, Tensors
from deploykit.spec.network import Network, input_names
from deploykit.spec.operators import Add, Function, GlobalAveragePool, Mul
from deploykit.spec.plan import Proof
from deploykit.spec.quantized import IntegerRunner, Quantization, QuantizedNetwork
from deploykit.verify.formats import OnnxFormat, TfliteFormat, WrittenRunner
from tests.quantize.graphs import float_network

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
            left, right = (self._real(network, inputs, name) for name in ("left", "right"))
            real = left + right
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


def quantizations(left: float, right: float, output: float) -> dict[str, Quantization]:
    return {
        "a": Quantization(left, 3), "b": Quantization(right, -20), "y": Quantization(output, 5),
    }  # fmt: skip


SUM = float_network(
    "g (float[1,2,2,2] a, float[1,2,2,2] b) => (float[1,2,2,2] y) { y = Add (a, b) }"
)


def settle(
    given: dict[str, Quantization], *runtimes: IntegerRunner, network: Network = SUM
) -> Proof:
    """Move the scales in `given`, as planning does."""
    layers = build_structure(network)
    groups = find_groups(layers, input_names(network))
    runners = Runners(ort.evaluate, ReferenceRunner(), runtimes)
    (proof,) = settle_scales(layers, groups, given, {}, runners)
    return proof


def test_equal_rounding_needs_no_nudge_and_tries_every_pair() -> None:
    given = quantizations(0.25, 0.25, 0.25)
    proof = settle(given, ReferenceRunner())
    assert given == quantizations(0.25, 0.25, 0.25)
    assert (proof.layer, proof.cases, proof.nudges) == ("y", 65_536, 0)
    assert proof.runners == (ReferenceRunner().name,)


@pytest.mark.parametrize("rounding", [half_away, np.rint])
def test_a_runner_that_rounds_ties_its_own_way_is_caught_and_nudged(rounding: Rounding) -> None:
    """With scales in ratio 1:2 every other sum is a tie."""
    given, runner = quantizations(0.25, 0.5, 0.5), RoundingRunner(rounding)
    proof = settle(given, runner)
    assert 0 < proof.nudges < TRIES
    assert given["y"].zero_point == 5
    assert given["y"].scale == pytest.approx(0.5 * NUDGE**proof.nudges, rel=1e-6)
    assert given["y"].scale == float(np.float32(given["y"].scale))
    assert given["a"].scale == 0.25
    assert settle(given, runner).nudges == 0


def test_every_runner_has_to_agree() -> None:
    proof = settle(quantizations(0.25, 0.5, 0.5), ReferenceRunner(), RoundingRunner(np.rint, "b"))
    assert proof.nudges > 0
    assert proof.runners[1] == "b"


def test_a_runner_that_never_agrees_is_refused_with_the_scales() -> None:
    with pytest.raises(QuantizationError, match=r"^y: no scale within .* round alike.*\(y: "):
        settle(quantizations(0.1, 0.2, 0.3), WrongOnce())


def test_the_runtimes_agree_on_ties_once_nudged() -> None:
    """Free of ties at the end: ONNX Runtime and LiteRT, on a sum that ties everywhere at first."""
    given = quantizations(0.25, 0.5, 0.5)
    proof = settle(given, WrittenRunner(OnnxFormat()), WrittenRunner(TfliteFormat()))
    assert proof.nudges > 0
    assert proof.runners == ("onnxruntime", "litert")
    assert given["y"].scale < 1.02 * 0.5


def test_tensors_that_share_a_scale_move_together() -> None:
    network = float_network(
        """g (float[1,2,2,2] a, float[1,2,2,2] b) => (float[1,4,2,2] z) {
            y = Add (a, b)
            z = Concat <axis=1> (y, b)
        }"""
    )
    given = quantizations(0.25, 0.5, 0.5)
    given["b"] = given["z"] = given["y"]
    layers = build_structure(network)
    groups = find_groups(layers, ("b",))
    runners = Runners(ort.evaluate, ReferenceRunner(), [RoundingRunner(np.rint)])
    # The second runner sees the sum alone: concatenations need no proof.
    settle_scales(layers, groups, given, {}, runners)
    assert given["y"] == given["z"] == given["b"]
    assert given["y"].scale > 0.5


ANSWERS = Agreement(ReferenceRunner(), [ReferenceRunner()])


@pytest.mark.parametrize(
    ("question", "cases"),
    [
        (Pairs(Add, (True, True)), 65_536),
        (Pairs(Mul, (True, False)), 65_536),
        (Pairs(Mul, (False, True)), 65_536),
        (WithConstant(Add, (127,)), 256),
        (WithConstant(Mul, (-5, 0, 9)), 768),
    ],
)
def test_every_pair_is_tried_once(question: Pairs | WithConstant, cases: int) -> None:
    given = tuple(quantizations(0.1, 0.2, 0.3).values())
    assert ANSWERS.holds(question, given)
    assert ANSWERS.tried(question, given) == cases
    (trial,) = question.cases(given)
    operands = [
        trial.inputs.get(name, trial.network.constants.get(name)) for name in ("left", "right")
    ]
    arrays = [
        one if isinstance(one, np.ndarray) else one.values for one in operands if one is not None
    ]
    pairs = np.stack([one.reshape(-1) for one in np.broadcast_arrays(*arrays)])
    assert len(np.unique(pairs, axis=1).T) == cases


@pytest.mark.parametrize(
    "question",
    [
        Pairs(Add, (True, False)),
        Pairs(Mul, (True, True)),
        Pairs(Mul, (True, False)),
        WithConstant(Add, (127,)),
        WithConstant(Mul, (-100, 3, 50)),
    ],
)
def test_the_runtimes_round_alike_on_many_scales(question: Pairs | WithConstant) -> None:
    runners = [WrittenRunner(OnnxFormat()), WrittenRunner(TfliteFormat())]
    agreement = Agreement(ReferenceRunner(), runners)
    rng = np.random.default_rng(5)
    held = []
    for _ in range(6):
        left, right, output = (float(np.float32(x)) for x in rng.uniform(0.01, 0.1, 3))
        factor = 20.0 if question.operator is Mul else 1.0
        given = (
            Quantization(left, int(rng.integers(-128, 128))),
            Quantization(right, 0 if isinstance(question, WithConstant) else -128),
            Quantization(float(np.float32(output / factor)), int(rng.integers(-128, 128))),
        )
        held.append(agreement.holds(question, given))
    # A sum has a handful of near-ties among its 65,536 pairs on half of all scales.
    assert sum(held) >= 2


@pytest.mark.parametrize("function", list(Function))
def test_the_runtimes_tabulate_alike(function: Function) -> None:
    runners = [WrittenRunner(OnnxFormat()), WrittenRunner(TfliteFormat())]
    agreement = Agreement(ReferenceRunner(), runners)
    rng = np.random.default_rng(6)
    for _ in range(12):
        scale = float(np.float32(rng.uniform(0.005, 0.2)))
        source = Quantization(scale, int(rng.integers(-128, 128)))
        into = FIXED.get(function, Quantization(float(np.float32(scale * 0.7)), -90))
        assert agreement.holds(Table(function), (source, into))
        assert agreement.tried(Table(function), (source, into)) == 256


def averaged(
    positions: tuple[int, int], given: tuple[Quantization, Quantization], runner: IntegerRunner
) -> tuple[bool, int]:
    agreement = Agreement(ReferenceRunner(), [runner])
    asked = Average(positions)
    return agreement.holds(asked, given), agreement.tried(asked, given)


GIVEN = (Quantization(0.1, 3), Quantization(0.07, 5))


@pytest.mark.parametrize("positions", [(1, 1), (2, 2), (3, 5), (16, 16)])
def test_up_to_256_positions_every_sum_is_tried(positions: tuple[int, int]) -> None:
    count = 255 * positions[0] * positions[1] + 1
    assert averaged(positions, GIVEN, ReferenceRunner()) == (True, count)


def test_what_was_tried_once_is_remembered() -> None:
    runner = SumsSeen()
    agreement = Agreement(ReferenceRunner(), [runner])
    assert agreement.holds(Average((2, 2)), GIVEN)
    runner.sums.clear()
    assert agreement.holds(Average((2, 2)), GIVEN)
    assert not runner.sums


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
    averaged((3, 3), GIVEN, runner)
    assert runner.sums == set(range(-128 * 9, 127 * 9 + 1))


def test_beyond_256_positions_every_tie_is_still_tried() -> None:
    """17 x 18 positions, equal scales: a mean ties where the sum is 153 above a multiple."""
    runner, given = SumsSeen(), (Quantization(0.1, 3), Quantization(0.1, 5))
    _, tried = averaged((17, 18), given, runner)
    count = 17 * 18
    ties = {s for s in range(-128 * count, 127 * count + 1) if (s - 3 * count) % count == 153}
    assert ties <= runner.sums
    assert tried == len(runner.sums) < 10 * len(ties)


@pytest.mark.parametrize("rounding", [half_away, np.rint])
@pytest.mark.parametrize("scale", [0.1, 0.1003, 0.1007])
def test_near_ties_find_what_all_sums_would_find(
    rounding: Rounding, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = (Quantization(0.1, 0), Quantization(scale, 0))
    runner = RoundingRunner(rounding)
    every, all_sums = averaged((6, 6), given, runner)
    monkeypatch.setattr(agreement, "EXHAUSTIVE_POSITIONS", 0)
    near, few_sums = averaged((6, 6), given, runner)
    assert near == every
    assert few_sums < all_sums
