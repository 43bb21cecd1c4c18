"""Which opset of ONNX brought an operator: the one that a file has to state at least.

Source: the ONNX operator specification, as the onnx package holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import onnx.defs
from onnx import helper


def first_opset(op_types: Iterable[str]) -> int:
    """Of operators of the default domain, the opset that brought the last of them; 0 of none.

    Names that ONNX lacks ask for nothing. first_opset(["Conv", "Gelu"]) -> 20
    """
    known = _first_opsets()
    return max((known.get(op_type, 0) for op_type in op_types), default=0)


def first_ir_version(opset: int) -> int:
    """The oldest IR version that files of an opset may have. first_ir_version(20) -> 9"""
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))


@cache
def _first_opsets() -> Mapping[str, int]:
    found: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            since = found.get(schema.name, schema.since_version)
            found[schema.name] = min(since, schema.since_version)
    return found
