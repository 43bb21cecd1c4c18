"""An integer network as plain JSON values: what plan.json holds, and what a file must equal."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, assert_never

import numpy as np

from deploykit.spec.arrays import AnyArray
from deploykit.spec.functions import called_table
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Embedding,
    Flatten,
    Gather,
    GlobalAveragePool,
    IntegerWeight,
    Island,
    LeakyRelu,
    Linear,
    Lookup,
    Maximum,
    MaxPool,
    Minimum,
    Mul,
    Operator,
    Pad,
    Rearrange,
    Repeat,
    Reshape,
    Slice,
    SpaceToDepth,
    Sub,
    Window,
    operator_inputs,
)
from deploykit.spec.quantized import QuantizedNetwork

Record = Mapping[str, Any]

KINDS = ("constants", "indices", "tensors")
"""Where a record keeps what operators read and compute."""


def record_network(network: QuantizedNetwork) -> Record:
    """Tensors with their quantization, and operators keyed by the tensor that they compute.

    Integers of weights and biases are given by SHA-256, scales in full.
    """
    return {
        "io": network.io.value,
        "batch": network.batch.value,
        "inputs": {port.name: port.tensor for port in network.inputs},
        "outputs": {port.name: port.tensor for port in network.outputs},
        "tails": {port.name: port.tail.value for port in network.outputs if port.tail is not None},
        "tensors": {
            name: {
                "shape": list(tensor.shape),
                "scale": float(tensor.quantization.scale),
                "zero_point": int(tensor.quantization.zero_point),
                "bits": int(tensor.quantization.bits),
            }
            for name, tensor in network.tensors.items()
        },
        "indices": {
            name: {"shape": list(held.shape), "limit": held.limit}
            for name, held in network.indices.items()
        },
        "constants": {
            name: {
                "scale": float(constant.quantization.scale),
                "zero_point": int(constant.quantization.zero_point),
                "values_sha256": digest(constant.values),
            }
            for name, constant in network.constants.items()
        },
        "operators": {operator.output: record_operator(operator) for operator in network.operators},
    }


def record_operator(operator: Operator) -> Record:
    """One operator: its kind, what it reads, and its constants.

    Files state islands and rearrangements in operators of their own, so these say what they read;
    what they compute is proved by running them.
    """
    common = {"operator": type(operator).__name__, "inputs": list(operator_inputs(operator))}
    match operator:
        case Conv():
            return {
                **common, "groups": operator.groups, "window": _window(operator.window),
                "weight": _weight(operator.weight), "bias_sha256": digest(operator.bias),
            }  # fmt: skip
        case Linear():
            return {
                **common, "weight": _weight(operator.weight), "bias_sha256": digest(operator.bias)
            }  # fmt: skip
        case MaxPool():
            return {**common, "window": _window(operator.window)}
        case Clamp():
            return {**common, "low": operator.low, "high": operator.high}
        case Lookup():
            named = called_table(operator.function, operator.parameter)
            return {**common, "function": named}
        case Concat():
            return {**common, "axis": operator.axis}
        case Slice():
            return {
                **common, "axis": operator.axis, "start": operator.start, "stop": operator.stop,
                "step": operator.step,
            }  # fmt: skip
        case Gather():
            return {**common, "axis": operator.axis, "indices": list(operator.indices)}
        case Repeat():
            return {**common, "rows": operator.rows, "columns": operator.columns}
        case DepthToSpace() | SpaceToDepth():
            return {**common, "block": operator.block}
        case LeakyRelu():
            return {**common, "slope": operator.slope}
        case Pad():
            return {**common, "pads": list(operator.pads), "fill": operator.fill}
        case ArgMax():
            return {**common, "axis": operator.axis}
        case Embedding():
            values = operator.table.values
            return {
                **common, "table": {"shape": list(values.shape), "values_sha256": digest(values)}
            }  # fmt: skip
        case Island():
            return {**common, "inputs": sorted(operator.inputs)}
        case (
            Add()
            | Mul()
            | Sub()
            | Maximum()
            | Minimum()
            | GlobalAveragePool()
            | Flatten()
            | Reshape()
            | Rearrange()
        ):
            return common
        case _:
            assert_never(operator)


def first_difference(expected: Record, found: Record) -> tuple[str, str] | None:
    """(tensor computed by the operator, what differs) of the first operator that differs.

    Operators are taken in the expected network's running order; the graph's ports come last.
    """
    for output, operator in expected["operators"].items():
        theirs = found["operators"].get(output)
        if theirs is None:
            return output, "no operator computes it"
        for key in sorted(operator.keys() | theirs.keys()):
            if theirs.get(key) != operator.get(key):
                return output, f"{_phrase(key)} differs"
        for tensor in (*operator["inputs"], output):
            kind = next((one for one in KINDS if tensor in expected.get(one, {})), "tensors")
            if found.get(kind, {}).get(tensor) != expected[kind][tensor]:
                return output, f"the quantization or shape of {tensor} differs"
    extra = [output for output in found["operators"] if output not in expected["operators"]]
    if extra:
        return extra[0], "this operator does not belong to the plan"
    for key in ("io", "batch", "inputs", "outputs", "tails", "indices"):
        if expected.get(key, {}) != found.get(key, {}):
            return key, "the graph's own inputs or outputs differ"
    if expected["tensors"] != found["tensors"]:
        return "tensors", "tensors that no operator uses differ"
    return None


def digest(array: AnyArray) -> str:
    """SHA-256 over element type, shape and little-endian content."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    header = f"{little.dtype.str}{list(little.shape)}".encode()
    return hashlib.sha256(header + little.tobytes()).hexdigest()


def _phrase(key: str) -> str:
    return {"weight": "its weight", "bias_sha256": "its bias"}.get(key, f"its {key}")


def _weight(weight: IntegerWeight) -> Record:
    return {
        "shape": list(weight.values.shape),
        "bits": weight.bits,
        "scale": [float(scale) for scale in weight.scale],
        "values_sha256": digest(weight.values),
    }


def _window(window: Window) -> Record:
    return {
        "kernel": list(window.kernel), "strides": list(window.strides),
        "pads": list(window.pads), "dilations": list(window.dilations),
    }  # fmt: skip
