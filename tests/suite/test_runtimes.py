"""Every operator case on every runtime gives the integers of the reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from deploykit.reference import integer
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import Tensors
from deploykit.spec.operators import Add, GlobalAveragePool, Island
from deploykit.spec.quantized import ActivationTensor, IoType, Port, Quantization, QuantizedNetwork
from tests.suite.cases import CASES, Case
from tests.suite.runners import RUNNERS, computed

GAPS: Mapping[tuple[str, str], str] = {}
"""Reason by (runner, case) for what a runtime cannot do."""

MOST_STEPS = 0.002
"""Share of an island's integers that a runtime's float32 may round to the next step."""

VERSIONS = {"ort": ort.version, "litert": litert.version}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("runner", ["ort", "litert"])
def test_a_runtime_gives_the_integers_of_the_reference(runner: str, case: Case) -> None:
    if VERSIONS[runner]() is None:
        pytest.skip(f"{runner} is not installed")
    network, inputs = case.network(), case.inputs()
    expected = computed(network, integer.run(network, inputs))
    if (runner, case.name) in GAPS:
        pytest.xfail(GAPS[runner, case.name])
    whole = RUNNERS[runner]()(network, inputs)
    found = computed(network, whole)
    kinds = {name: held.dtype for name, held in network.indices.items()}
    assert all(values.dtype == kinds.get(name, "int8") for name, values in found.items())
    for operator in network.operators:
        name = operator.output
        if isinstance(operator, Island):
            own = integer.run_operator(operator, network, whole).astype(int)
            assert np.abs(found[name] - own).max() <= 1
            assert np.mean(found[name] != own) <= MOST_STEPS
            return  # what follows an island inherits its steps
        np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{case.name}: {name}")


@pytest.mark.parametrize("io", list(IoType))
def test_ports_of_every_type_give_the_same_integers_in_ort(io: IoType) -> None:
    (case,) = (case for case in CASES if case.name == "lenet")
    network, inputs = case.network(io), case.inputs()
    expected = computed(network, integer.run(network, inputs))
    found = computed(network, RUNNERS["ort"]()(network, inputs))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_every_gap_names_a_case_and_a_runner() -> None:
    names = {case.name for case in CASES}
    assert all(runner in RUNNERS and case in names for runner, case in GAPS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_uses_the_range_of_its_outputs(case: Case) -> None:
    network = case.network()
    tensors = computed(network, integer.run(network, case.inputs()))
    assert all(len(np.unique(values)) > 1 for values in tensors.values())


def add_of_every_pair(scales: tuple[float, float, float]) -> tuple[QuantizedNetwork, Tensors]:
    """A sum whose two inputs, together, are all 65,536 pairs of int8."""
    shape = (1, 1, 256, 256)
    left, right, total = (
        ActivationTensor(name, shape, Quantization(float(np.float32(scale)), 3))
        for name, scale in zip(("a", "b", "y"), scales, strict=True)
    )
    network = QuantizedNetwork(
        {"a": left, "b": right, "y": total},
        (Add("add", "a", "b", "y"),),
        (Port("left", "a"), Port("right", "b")),
        (Port("total", "y"),),
        IoType.INT8,
    )
    every = np.arange(-128, 128, dtype=np.int8)
    a = np.repeat(every, 256).reshape(shape)
    b = np.tile(every, 256).reshape(shape)
    return network, {"left": a, "right": b}


def differing(runner: str, scales: tuple[float, float, float]) -> int:
    """How many of all pairs a runtime adds otherwise than the reference."""
    network, inputs = add_of_every_pair(scales)
    expected = integer.run(network, inputs)["y"].astype(int)
    found = np.asarray(RUNNERS[runner]()(network, inputs)["y"]).astype(int)
    assert np.abs(found - expected).max() <= 1
    return int((found != expected).sum())


RATIOS = [(0.0625, 0.0625, 0.125), (0.03125, 0.0625, 0.0625), (0.015625, 0.0625, 0.125)]


@pytest.mark.parametrize("scales", [*RATIOS, (0.031, 0.047, 0.083), (0.09, 0.011, 0.05)])
def test_litert_adds_every_pair_as_the_reference_does(scales: tuple[float, float, float]) -> None:
    if litert.version() is None:
        pytest.skip("litert is not installed")
    assert differing("litert", scales) == 0


@pytest.mark.parametrize("scales", RATIOS)
def test_power_of_two_ratios_make_ties_that_onnxruntime_rounds_otherwise(
    scales: tuple[float, float, float],
) -> None:
    if ort.version() is None:
        pytest.skip("ort is not installed")
    assert 0.05 < differing("ort", scales) / 65536 < 0.30


@pytest.mark.parametrize("scales", [(0.05, 0.05, 0.05), (0.031, 0.047, 0.083)])
def test_other_ratios_hardly_make_any(scales: tuple[float, float, float]) -> None:
    if ort.version() is None:
        pytest.skip("ort is not installed")
    assert differing("ort", scales) <= 5


@pytest.mark.parametrize("side", [(2, 2), (4, 4), (6, 5), (7, 7), (8, 8)])
@pytest.mark.parametrize("scales", [(0.05, 0.05), (0.0625, 0.25), (0.031, 0.017)])
def test_onnxruntime_averages_as_the_reference_does(
    side: tuple[int, int], scales: tuple[float, float]
) -> None:
    if ort.version() is None:
        pytest.skip("ort is not installed")
    rng = np.random.default_rng(side[0])
    channels = 2048
    source, into = (Quantization(float(np.float32(scale)), 3) for scale in scales)
    network = QuantizedNetwork(
        {
            "x": ActivationTensor("x", (1, channels, *side), source),
            "y": ActivationTensor("y", (1, channels, 1, 1), into),
        },
        (GlobalAveragePool("average", "x", "y"),),
        (Port("image", "x"),),
        (Port("mean", "y"),),
    )
    middle = rng.integers(-128, 128, (1, channels, 1, 1))
    noise = rng.integers(-20, 21, (1, channels, *side))
    inputs = {"image": np.clip(middle + noise, -128, 127).astype(np.int8)}
    expected = integer.run(network, inputs)["y"]
    np.testing.assert_array_equal(RUNNERS["ort"]()(network, inputs)["y"], expected)
