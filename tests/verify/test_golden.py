"""Golden inputs: the first samples, and extremes at and beyond the quantized range."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import some_samples
from deploykit.spec.quantized import Quantization
from deploykit.spec.samples import Samples
from deploykit.verify.golden import EXTREME, REAL, full_indices
from deploykit.verify.golden import golden_inputs as golden_inputs_by_name

QUANTIZATION = Quantization(0.25, -100)
LOW, HIGH = -7.0, 56.75


def golden_inputs(samples: Samples, quantization: Quantization) -> AnyArray:
    """Of a network with one input."""
    found = golden_inputs_by_name(samples, {"x": quantization})
    assert isinstance(found, np.ndarray)
    return found


def images(count: int) -> Samples:
    values = np.random.default_rng(0).standard_normal((count, 2, 4, 5)).astype(np.float32)
    return Samples(values)


def test_the_first_samples_come_first() -> None:
    samples = images(50)
    inputs = golden_inputs(samples, QUANTIZATION)
    assert inputs.shape == (REAL + EXTREME, 2, 4, 5)
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs[:REAL], some_samples(samples.inputs, slice(REAL)))


def test_few_samples_are_repeated_in_turn() -> None:
    samples = images(5)
    np.testing.assert_array_equal(golden_inputs(samples, QUANTIZATION)[5:10], samples.inputs)


def test_extremes_reach_the_range_and_beyond() -> None:
    low, high, zero, below, above, frame, *corners = golden_inputs(images(3), QUANTIZATION)[REAL:]
    assert np.all(low == LOW)
    assert np.all(high == HIGH)
    assert np.all(zero == 0)
    assert below.max() < 10 * LOW
    assert above.min() > 10 * HIGH
    assert np.all(frame[:, 1:-1, 1:-1] == LOW)
    assert np.all(frame[:, 0] == HIGH)
    assert np.all(frame[:, :, -1] == HIGH)
    assert set(np.unique(corners)) == {LOW, HIGH}
    assert not np.array_equal(corners[0], corners[1])


def test_flat_inputs_have_extremes_too() -> None:
    samples = Samples(np.ones((3, 7), np.float32))
    assert golden_inputs(samples, QUANTIZATION).shape == (REAL + EXTREME, 7)


def test_several_inputs_are_extreme_together() -> None:
    held = {"a": Quantization(0.25, -100), "b": Quantization(1.0, 0)}
    drawn = {"a": np.ones((3, 7), np.float32), "b": np.ones((3, 2, 2), np.float32)}
    found = golden_inputs_by_name(Samples(drawn), held)
    assert isinstance(found, dict)
    assert [values.shape for values in found.values()] == [(40, 7), (40, 2, 2)]
    assert (found["a"][REAL + 1].max(), found["b"][REAL + 1].max()) == (HIGH, 127)


def test_both_kinds_are_followed_tensor_by_tensor() -> None:
    full = full_indices()
    assert len(full) == len(set(full.tolist())) == 8
    assert (full < REAL).sum() == 6
    assert full.max() < REAL + EXTREME
