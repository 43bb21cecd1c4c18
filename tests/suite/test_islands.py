"""ONNX Runtime computes islands in float, whatever integer kernel it has for their operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from deploykit.emit import onnx_unfused
from deploykit.emit.onnx_writer import write_onnx
from deploykit.reference import integer
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.operators import Island
from deploykit.spec.quantized import QuantizedNetwork
from tests.suite.cases import CASES, Case
from tests.suite.islands import integer_kernels
from tests.suite.runners import RUNNERS
from tests.suite.test_runtimes import MOST_STEPS

pytestmark = pytest.mark.skipif(ort.version() is None, reason="onnxruntime is not installed")

RNG = np.random.default_rng(3)


def floats(*shape: int) -> AnyArray:
    return RNG.normal(size=shape).astype(np.float32)


def number(value: float) -> AnyArray:
    return np.array(value, np.float32)


@dataclass(frozen=True)
class Alone:
    """An operator of FUSED as ONNX text from `x` to `y`, beside `x1` where it takes two."""

    text: str
    shape: tuple[int, ...] = (8, 6, 6)
    constants: Mapping[str, AnyArray] = field(default_factory=dict)

    def network(self) -> QuantizedNetwork:
        return self.case().network()

    def case(self) -> Case:
        two = "x1" in self.text
        return Case(
            self.text,
            self.shape,
            lambda b: b.island(
                b.input,
                *([b.clamp(b.input, -90, 80)] if two else []),
                text=self.text,
                scale=0.02,
                **self.constants,
            ),
        )


def turned(text: str) -> str:
    """The operator between two that ONNX Runtime moves a DequantizeLinear past."""
    inside = text.replace("(x", "(t").replace("y =", "v =")
    return f"t = Transpose <perm=[0,1,3,2]> (x) {inside} y = Transpose <perm=[0,1,3,2]> (v)"


OPERATORS = {
    "Add": Alone("y = Add (x, x1)"),
    "AveragePool": Alone(
        "y = AveragePool <kernel_shape=[3,3], strides=[3,2], pads=[1,1,1,1], ceil_mode=1, "
        "count_include_pad=1> (x)"
    ),
    "Concat": Alone("y = Concat <axis=1> (x, x1)"),
    "Conv": Alone("y = Conv (x, w)", constants={"w": floats(4, 8, 3, 3)}),
    "ConvTranspose": Alone("y = ConvTranspose (x, w)", constants={"w": floats(8, 4, 2, 2)}),
    "Gemm": Alone("y = Gemm <transB=1> (x, w)", (8,), {"w": floats(4, 8)}),
    "GlobalAveragePool": Alone("y = GlobalAveragePool (x)"),
    "LeakyRelu": Alone("y = LeakyRelu <alpha=0.3> (x)"),
    "MatMul": Alone("y = MatMul (x, x1)"),
    "Mul": Alone("y = Mul (x, x1)"),
    "Sigmoid": Alone("y = Sigmoid (x)"),
    "Softmax": Alone("y = Softmax <axis=1> (x)"),
    "Where": Alone("g = Greater (x, x1) y = Where (g, x, x1)"),
}
"""Of every operator that ONNX Runtime fuses."""

BETWEEN = {
    name: Alone(turned(one.text), one.shape, one.constants)
    for name, one in OPERATORS.items()
    if len(one.shape) == 3
}

ABSORBING = {
    "Relu": Alone("v = ConvTranspose (x, w) y = Relu (v)", constants={"w": floats(8, 4, 2, 2)}),
    "Pad": Alone(
        "p = Pad (x, w) y = AveragePool <kernel_shape=[2,2]> (p)",
        constants={"w": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    ),
    "Add": Alone("v = MatMul (x, w) y = Add (v, b)", (8,), {"w": floats(8, 4), "b": floats(4)}),
    "Mul": Alone(
        "v = Conv (x, w) y = Mul (v, s)",
        constants={"w": floats(4, 8, 3, 3), "s": floats(4, 1, 1)},
    ),
    "BatchNormalization": Alone(
        "v = Conv (x, w) y = BatchNormalization (v, s, s, s, p)",
        constants={"w": floats(4, 8, 3, 3), "s": floats(4), "p": np.abs(floats(4)) + 1},
    ),
}
"""Of operators that become part of the one beside them."""

PASSED = {
    "Clip": Alone(
        "v = ConvTranspose (x, w) y = Clip (v, l, h)",
        constants={"w": floats(8, 4, 2, 2), "l": number(-0.3), "h": number(0.4)},
    ),
    "Expand": Alone(
        "v = Expand (x, s) y = Softmax <axis=1> (v)", constants={"s": np.array([1, 8, 6, 6])}
    ),
    "MaxPool": Alone("v = MaxPool <kernel_shape=[2,2]> (x) y = Softmax <axis=1> (v)"),
    "Reshape": Alone(
        "v = Reshape (x, s) y = Softmax <axis=1> (v)", constants={"s": np.array([1, 8, 4, 9])}
    ),
    "Slice": Alone(
        "v = Slice (x, s, e) y = Softmax <axis=1> (v)",
        constants={"s": np.array([0, 1]), "e": np.array([1, 7])},
    ),
    "Squeeze": Alone(
        "v = Squeeze (x, a) y = Softmax <axis=1> (v)", (8, 6, 1), {"a": np.array([3])}
    ),
    "Unsqueeze": Alone(
        "v = Unsqueeze (x, a) y = Softmax <axis=1> (v)", (8, 6), {"a": np.array([3])}
    ),
}
"""Of operators past which a DequantizeLinear or QuantizeLinear is moved."""

EVERY = {
    **OPERATORS,
    **{f"{name} between moves": one for name, one in BETWEEN.items()},
    **{f"{name} absorbed": one for name, one in ABSORBING.items()},
    **{f"past {name}": one for name, one in PASSED.items()},
}


def kernels_of(network: QuantizedNetwork) -> set[str]:
    return integer_kernels(write_onnx(network), network)


@pytest.mark.parametrize("one", EVERY.values(), ids=EVERY)
def test_an_operator_of_an_island_is_computed_in_float(one: Alone) -> None:
    assert kernels_of(one.network()) == set()


@pytest.mark.parametrize("one", EVERY.values(), ids=EVERY)
def test_without_the_sum_it_would_not_be(one: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_unfused, "FUSED", frozenset())
    assert kernels_of(one.network())


def test_the_cases_are_those_of_the_tables() -> None:
    assert set(OPERATORS) == onnx_unfused.FUSED
    beside = {*ABSORBING, *PASSED, "Transpose"}
    assert beside == onnx_unfused.SEEN_THROUGH | onnx_unfused.ABSORBED


@pytest.mark.parametrize("runner", ["ort", "litert"])
@pytest.mark.parametrize("one", EVERY.values(), ids=EVERY)
def test_the_runtimes_give_the_references_integers(runner: str, one: Alone) -> None:
    case = one.case()
    network, inputs = case.network(), case.inputs()
    found = RUNNERS[runner]()(network, inputs)
    (island,) = (one for one in network.operators if isinstance(one, Island))
    own = integer.run_operator(island, network, found).astype(int)
    assert np.abs(found[island.output] - own).max() <= 1
    assert np.mean(found[island.output] != own) <= MOST_STEPS


WITH_ISLANDS = [
    case for case in CASES if any(isinstance(one, Island) for one in case.network().operators)
]


@pytest.mark.parametrize("case", WITH_ISLANDS, ids=lambda case: case.name)
def test_no_case_of_the_suite_has_an_island_in_integers(case: Case) -> None:
    network = case.network()
    assert integer_kernels(write_onnx(network), network) == set()
