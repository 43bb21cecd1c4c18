"""Graphs as text, both ways, and the check that two networks compute the same function."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import numpy_helper, parser

from deploykit.reference.float import evaluate
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array
from deploykit.spec.network import Network

SILENT = {
    "pads": {0},
    "strides": {1},
    "dilations": {1},
    "group": {1},
}
"""Attributes that are not printed where they hold only this value."""


def graph(
    text: str,
    constants: Mapping[str, npt.ArrayLike],
    variance: Mapping[str, Float32Array] | Iterable[str] = (),
    opset: int = 20,
) -> Network:
    """The network of an ONNX text `(float[1,2] input) => (float[1,2] output) { ... }`.

    Constants that are not integer arrays become float32; names with a dot are quoted in the text.
    variance: by name, or only names, which get a seeded positive one.
    """
    header = f'<ir_version: 10, opset_import: ["" : {opset}]> g '
    proto = parser.parse_model(header + inspect.cleandoc(text))
    arrays = {name: _array(value) for name, value in constants.items()}
    proto.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in arrays.items())
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    return Network(
        ir.from_proto(inferred),
        dict(variance) if isinstance(variance, Mapping) else spreads(arrays, variance),
    )


def spreads(arrays: Mapping[str, AnyArray], names: Iterable[str]) -> dict[str, Float32Array]:
    """A positive variance for each name, in the shape of its array."""
    rng = np.random.default_rng(5)
    return {
        name: rng.uniform(0.1, 1.0, arrays[name].shape).astype(np.float32) for name in sorted(names)
    }


def weights(*shape: int, seed: int = 0) -> Float32Array:
    """Seeded standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def written(network: Network) -> str:
    """One line per node: `name[shape] = Op<attributes>(inputs)`, constants with their shape."""
    return "\n".join(_line(node) for node in network.model.graph)


def expected(text: str) -> str:
    """A literal without the indentation of the test that holds it."""
    return inspect.cleandoc(text)


def assert_same_function(before: Network, after: Network, atol: float = 1e-6) -> None:
    """Equal outputs by name on random, zero, extreme and border inputs, in float64.

    atol: relative to the largest |output| where that is over 1.
    """
    assert largest_difference(before, after) <= atol


def largest_difference(before: Network, after: Network) -> float:
    """Largest |difference| of the outputs, over the largest |output| where that is over 1."""
    names = [str(value.name) for value in before.model.graph.outputs]
    assert [str(value.name) for value in after.model.graph.outputs] == names
    worst = 0.0
    for inputs in probes(before):
        left, right = evaluate(before, inputs), evaluate(after, inputs)
        for name in names:
            assert left[name].shape == right[name].shape
            scale = max(1.0, float(np.abs(left[name]).max()))
            worst = max(worst, float(np.abs(left[name] - right[name]).max()) / scale)
    return worst


def probes(network: Network) -> list[Float64Array]:
    """Inputs of several kinds for a network with a static input shape of batch 1."""
    shape = network.model.graph.inputs[0].shape
    assert shape is not None
    one = tuple(int(size) for size in shape if isinstance(size, int))[1:]
    rng = np.random.default_rng(11)
    frame = rng.normal(size=(2, *one))
    frame[(slice(None), slice(None), *(slice(1, -1),) * (len(one) - 1))] = 0.0
    return [
        rng.normal(size=(3, *one)),
        np.zeros((1, *one)),
        np.stack([np.full(one, 1e3), np.full(one, -1e3), 1e3 * np.sign(rng.normal(size=one))]),
        frame,
    ]


def values(network: Network) -> dict[str, AnyArray]:
    """Initializers by name."""
    return {
        name: np.asarray(value.const_value.numpy())
        for name, value in network.model.graph.initializers.items()
        if value.const_value is not None
    }


def _array(value: npt.ArrayLike) -> AnyArray:
    array = np.asarray(value)
    return array if array.dtype.kind in "iub" else array.astype(np.float32)


def _line(node: ir.Node) -> str:
    shown = [f"{key}={_shown(node, key)}" for key in sorted(node.attributes) if _tells(node, key)]
    attributes = f"<{' '.join(shown)}>" if shown else ""
    inputs = ", ".join("-" if value is None else _operand(value) for value in node.inputs)
    outputs = ", ".join(f"{value.name}{_sizes(value)}" for value in node.outputs)
    return f"{outputs} = {node.op_type}{attributes}({inputs})"


def _operand(value: ir.Value) -> str:
    return f"{value.name}{_sizes(value)}" if value.const_value is not None else str(value.name)


def _sizes(value: ir.Value) -> str:
    return "[?]" if value.shape is None else f"[{','.join(str(size) for size in value.shape)}]"


def _tells(node: ir.Node, key: str) -> bool:
    held = node.attributes[key].value
    silent = SILENT.get(key)
    if key == "kernel_shape" and node.op_type == "Conv":
        return False
    return silent is None or not set(np.atleast_1d(held).tolist()) <= silent


def _shown(node: ir.Node, key: str) -> str:
    held = node.attributes[key].value
    return ",".join(map(str, held)) if isinstance(held, list | tuple) else str(held)
