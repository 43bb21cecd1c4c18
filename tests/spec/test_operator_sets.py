"""The opset that operators ask for."""

from __future__ import annotations

import pytest

from deploykit.spec.operator_sets import first_ir_version, first_opset


@pytest.mark.parametrize(
    ("op_types", "opset"),
    [((), 0), (("Conv", "Relu"), 1), (("Conv", "Gelu", "Mish"), 20), (("BitwiseNot",), 18),
     (("Conv", "QGemm"), 1)],
)  # fmt: skip
def test_the_newest_operator_decides(op_types: tuple[str, ...], opset: int) -> None:
    assert first_opset(op_types) == opset


@pytest.mark.parametrize(("opset", "version"), [(18, 8), (20, 9), (21, 10)])
def test_the_oldest_ir_version(opset: int, version: int) -> None:
    assert first_ir_version(opset) == version
