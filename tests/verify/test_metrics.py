"""SQNR, accuracy and relative difference: literal cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deploykit.spec.difference import relative_difference
from deploykit.spec.quantized import (
    ActivationTensor,
    IoType,
    Port,
    Quantization,
    QuantizedNetwork,
)
from deploykit.verify.metrics import accuracy, sqnr_by_tensor, sqnr_db


def test_sqnr_is_ten_per_factor_of_ten_in_power() -> None:
    real = np.array([3.0, 4.0])
    assert sqnr_db(real, real + np.array([0.3, 0.4])) == pytest.approx(20.0)
    assert sqnr_db(real, np.zeros(2)) == pytest.approx(0.0)


def test_sqnr_without_error_or_signal_is_infinite() -> None:
    assert sqnr_db(np.array([1.0]), np.array([1.0])) == math.inf
    assert sqnr_db(np.zeros(2), np.zeros(2)) == math.inf
    assert sqnr_db(np.zeros(1), np.array([0.1])) == -math.inf


def test_public_tensors_are_compared_under_their_public_names() -> None:
    tensors = {
        name: ActivationTensor(name, (1, 2), Quantization(0.5, 0)) for name in ("x_q", "inner")
    }
    network = QuantizedNetwork(tensors, (), (Port("x", "x_q"),), (), IoType.FLOAT)
    integers = {name: np.array([[2, 4]], np.int8) for name in tensors}
    floats = {"x": np.array([[1.0, 2.0]]), "inner": np.array([[1.0, 2.5]])}
    found = sqnr_by_tensor(network, floats, integers)
    assert found["x_q"] == math.inf
    assert found["inner"] == pytest.approx(10 * math.log10(7.25 / 0.25))


def test_accuracy_is_the_share_of_largest_outputs() -> None:
    outputs = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert accuracy(outputs, np.array([1, 0, 0, 0])) == 0.75


def test_relative_difference_is_of_the_largest_value() -> None:
    before = np.array([[2.0, -8.0], [0.0, 1.0]])
    assert relative_difference(before, before + 0.4) == pytest.approx(0.05)
    assert relative_difference(np.zeros(2), np.array([0.0, 0.3])) == pytest.approx(0.3)
    assert math.isnan(relative_difference(before, before * np.nan))
