"""Comparing a runtime with the reference: every difference counted, its operator found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from deploykit.errors import ParityError
from deploykit.reference import integer
from deploykit.spec.arrays import AnyArray, Float32Array, Tensors
from deploykit.spec.operators import operator_inputs
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.verify import integers
from deploykit.verify.formats import OnnxFormat, quantized_inputs
from deploykit.verify.integers import compare_golden, compare_with_runtimes, run_reference
from tests.emit.tflite_networks import plain_cnn

NETWORK = plain_cnn()
INPUTS: Float32Array = np.random.default_rng(0).standard_normal((12, 3, 8, 12)).astype(np.float32)


@dataclass(frozen=True)
class Faulty(OnnxFormat):
    """A runtime that errs by `by` in one operator, and computes all later ones from that."""

    operator: int = 2
    by: int = 1

    def run_all(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        (port,) = network.inputs
        start: AnyArray = inputs[port.name]
        tensors = {port.tensor: quantized_inputs(network, start)[port.name]}
        for index, operator in enumerate(network.operators):
            assert all(name in tensors for name in operator_inputs(operator))
            result = integer.run_operator(operator, network, tensors).copy()
            if index == self.operator:
                result.flat[0] += self.by if result.flat[0] < 100 else -self.by
            tensors[operator.output] = result
        return tensors

    def run_outputs(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        (port,) = network.outputs
        values = self.run_all(data, network, inputs)[port.tensor]
        return {port.name: network.tensors[port.tensor].quantization.dequantize(values)}


class Hiding(Faulty):
    """A runtime that does not show one tensor."""

    def run_all(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        tensors = dict(super().run_all(data, network, inputs))
        del tensors[network.operators[0].output]
        return tensors


def test_the_operator_that_errs_is_named_and_not_those_that_inherit() -> None:
    (found,) = compare_with_runtimes({Faulty(): b""}, NETWORK, INPUTS)
    wrong = NETWORK.operators[2]
    assert found.operator == wrong.name
    assert found.differing[wrong.output] == 1
    assert found.differing[NETWORK.operators[1].output] == 0
    assert found.total_differing >= 1
    assert found.largest >= 1
    assert found.samples == len(INPUTS)


def test_the_largest_difference_is_in_steps() -> None:
    last = len(NETWORK.operators) - 1
    (found,) = compare_with_runtimes({Faulty(operator=last, by=3): b""}, NETWORK, INPUTS)
    assert (found.largest, found.total_differing) == (3, 1)


def test_a_runtime_that_agrees_differs_nowhere() -> None:
    (found,) = compare_with_runtimes({Faulty(by=0): b""}, NETWORK, INPUTS)
    assert (found.total_differing, found.operator, found.largest) == (0, None, 0)
    sizes = {name: np.prod(tensor.shape) * 12 for name, tensor in NETWORK.tensors.items()}
    assert dict(found.compared) == sizes


def test_samples_in_parts_are_counted_as_samples_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = OnnxFormat().write(NETWORK)
    (together,) = compare_with_runtimes({OnnxFormat(): data}, NETWORK, INPUTS)
    monkeypatch.setattr(integers, "BYTES_AT_ONCE", 1)
    told: list[int] = []
    (apart,) = compare_with_runtimes(
        {OnnxFormat(): data}, NETWORK, INPUTS, lambda done, total: told.append(done)
    )
    assert apart == together
    assert told == list(range(1, 13))


def test_what_is_known_of_the_reference_is_not_computed_again() -> None:
    data = OnnxFormat().write(NETWORK)
    known = run_reference(NETWORK, INPUTS[:5], np.arange(5)).integers
    (computed,) = compare_with_runtimes({OnnxFormat(): data}, NETWORK, INPUTS)
    (reused,) = compare_with_runtimes({OnnxFormat(): data}, NETWORK, INPUTS, known=known)
    assert reused == computed
    name = NETWORK.operators[0].output
    wrong = {**known, name: known[name] + np.int8(1)}
    (found,) = compare_with_runtimes({OnnxFormat(): data}, NETWORK, INPUTS[:5], known=wrong)
    assert found.differing[name] == known[name].size


class Optimizing(OnnxFormat):
    """A runtime that errs only where a file does not show every tensor."""

    def run_outputs(self, data: bytes, network: QuantizedNetwork, inputs: Tensors) -> Tensors:
        outputs = super().run_outputs(data, network, inputs)
        return {name: values + np.float32(1) for name, values in outputs.items()}


def test_the_file_as_it_is_shipped_is_run_too() -> None:
    data = OnnxFormat().write(NETWORK)
    (port,) = NETWORK.outputs
    (found,) = compare_with_runtimes({Optimizing(): data}, NETWORK, INPUTS)
    size = int(np.prod(NETWORK.tensors[port.tensor].shape[1:]))
    assert found.total_differing == integers.PUBLIC_INPUTS * size
    assert found.operator == f"output {port.name}"


@pytest.mark.parametrize("at_once", [1, 3])
def test_it_is_run_on_as_many_inputs_whatever_fits_into_memory(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integers, "samples_at_once", lambda network: at_once)
    (found,) = compare_with_runtimes({Optimizing(): OnnxFormat().write(NETWORK)}, NETWORK, INPUTS)
    size = int(np.prod(NETWORK.tensors[NETWORK.outputs[0].tensor].shape[1:]))
    assert found.total_differing == integers.PUBLIC_INPUTS * size


def test_a_hidden_tensor_is_no_proof() -> None:
    with pytest.raises(ParityError, match="does not show tensor"):
        compare_with_runtimes({Hiding(): b""}, NETWORK, INPUTS)


FULL = np.array([0, 3, 11])


def test_the_reference_runs_each_sample_once() -> None:
    found = run_reference(NETWORK, INPUTS, FULL)
    every = integer.run(NETWORK, quantized_inputs(NETWORK, INPUTS))
    output = NETWORK.outputs[0].tensor
    np.testing.assert_array_equal(found.outputs[output], every[output])
    for name, values in found.integers.items():
        np.testing.assert_array_equal(values, every[name][FULL])


def test_golden_comparison_sees_outputs_of_samples_that_are_not_followed() -> None:
    expected = run_reference(NETWORK, INPUTS, FULL)
    output = NETWORK.outputs[0].tensor
    data = OnnxFormat().write(NETWORK)
    agreed = compare_golden(data, NETWORK, OnnxFormat(), INPUTS, FULL, expected)
    assert agreed.total_differing == 0
    expected.outputs[output][5, 0] ^= 1
    found = compare_golden(data, NETWORK, OnnxFormat(), INPUTS, FULL, expected)
    assert (found.total_differing, found.operator) == (1, f"output {NETWORK.outputs[0].name}")
