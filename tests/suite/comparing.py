"""Equality of integer networks, arrays by value."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from deploykit.spec.quantized import QuantizedNetwork

UNSTATED = ("body", "tflite")
"""Of an ONNX file: bodies are operators of its own, and it holds no carrier of another format's."""


def assert_same_network(found: QuantizedNetwork, expected: QuantizedNetwork) -> None:
    """Every tensor, operator, array and port of two networks is the same."""
    assert dict(found.tensors) == dict(expected.tensors)
    assert found.inputs == expected.inputs
    assert found.outputs == expected.outputs
    assert found.io is expected.io
    assert found.batch is expected.batch
    assert len(found.operators) == len(expected.operators)
    for left, right in zip(found.operators, expected.operators, strict=True):
        assert_same(left, right, right.name)


def assert_same(found: object, expected: object, where: str) -> None:
    """Two values of a network, dataclasses field by field."""
    assert type(found) is type(expected), where
    match expected:
        case np.ndarray():
            assert isinstance(found, np.ndarray)
            assert found.dtype == expected.dtype, where
            np.testing.assert_array_equal(found, expected, err_msg=where)
        case _ if hasattr(expected, "__dataclass_fields__"):
            for field in fields(expected):  # type: ignore[arg-type]
                if field.name in UNSTATED:
                    continue
                name = f"{where}.{field.name}"
                assert_same(getattr(found, field.name), getattr(expected, field.name), name)
        case _:
            assert found == expected, where
