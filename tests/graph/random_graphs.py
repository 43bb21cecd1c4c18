"""Random networks from the grammar, each written as a recipe that a failing test can print.

In float64, so that what removal does is exact to 1e-12 and a wrong term cannot hide in rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.network import Network
from tests.graph.grammar import (
    across,
    attention,
    elementwise,
    joining,
    layers,
    plain,
    selecting,
    shaping,
    windows,
)
from tests.graph.grammar.growing import Growing, Shape, Step

STEPS: Mapping[str, Step] = {
    **layers.STEPS,
    **plain.STEPS,
    **windows.STEPS,
    **elementwise.STEPS,
    **joining.STEPS,
    **selecting.STEPS,
    **shaping.STEPS,
    **across.STEPS,
    **attention.STEPS,
}

THEMES: Mapping[str, tuple[str, ...]] = {
    "anything": tuple(STEPS),
    "images": (
        "conv", "conv", "grouped", "depthwise", "transposed", "block", "bottleneck", "activation",
        "activation", "residual", "branch", "excite", "spatial_gate", "concat", "pool", "resize",
        "pixel_shuffle", "norm", "arithmetic", "another_output", "flatten", "linear",
    ),
    "channels": (
        "conv", "grouped", "activation", "branch", "residual", "concat", "split", "slicing",
        "gather", "shuffle", "pad", "view", "transpose", "blocks", "group_norm", "conv",
    ),
    "constants": (
        "conv", "skip", "skip", "block", "bottleneck", "relu", "activation", "grouped", "behind",
        "add", "branch", "depthwise", "arithmetic", "pool", "resize", "another_output",
    ),
    "tokens": (
        "to_tokens", "attention", "attention", "linear", "linear", "activation", "layer_norm",
        "class_token", "residual", "branch", "arithmetic", "conv", "first_token", "reduction",
    ),
}  # fmt: skip
"""Steps that meet often in networks people ship, beside those of all kinds."""

PLAIN = (
    "conv", "conv", "conv", "depthwise", "block", "block", "residual", "residual", "branch",
    "activation", "activation", "arithmetic", "norm", "pool", "border", "flatten", "linear",
)  # fmt: skip
"""Steps of image networks with one input and one output."""


@dataclass(frozen=True)
class Recipe:
    """input: its shape, batch included. steps: by name, each with the seed of its choices."""

    input: Shape
    steps: tuple[tuple[str, int], ...]


def recipes() -> st.SearchStrategy[Recipe]:
    """Recipes of 2 to 12 steps for an image, tokens or a vector."""
    small = st.integers(4, 7)
    images = st.tuples(st.just(1), st.integers(1, 3), small, small)
    tokens = st.tuples(st.just(1), st.integers(2, 6), st.integers(1, 6))
    vectors = st.tuples(st.just(1), st.integers(1, 8))
    shapes = st.one_of(images, images, images, tokens, tokens, vectors)
    steps = st.sampled_from(sorted(THEMES)).flatmap(lambda theme: _steps(THEMES[theme], 2, 12))
    return st.builds(Recipe, shapes, steps)


def _steps(
    names: Sequence[str], shortest: int, longest: int
) -> st.SearchStrategy[tuple[tuple[str, int], ...]]:
    step = st.tuples(st.sampled_from(names), st.integers(0, 2**16))
    return st.lists(step, min_size=shortest, max_size=longest).map(tuple)


def networks() -> st.SearchStrategy[Network]:
    """Plain image networks with one input and one output."""
    small = st.integers(4, 7)
    images = st.tuples(st.just(1), st.integers(1, 3), small, small)
    return st.builds(Recipe, images, _steps(PLAIN, 3, 10)).map(build)


def build(recipe: Recipe) -> Network:
    """The network of a recipe, each weight with a variance."""
    start = "input"
    growing = Growing(np.random.default_rng(0), {start: recipe.input}, [start], start)
    for name, seed in recipe.steps:
        growing.rng = np.random.default_rng(seed)
        STEPS[name](growing)
    growing.rng = np.random.default_rng(len(recipe.steps))
    if growing.last in growing.inputs:
        layers.conv(growing)
    if growing.last in growing.inputs:
        layers.linear(growing)
    return finish(growing)


def finish(growing: Growing) -> Network:
    """The network to the last tensor and the other outputs, without what they do not need."""
    outputs = list(dict.fromkeys([growing.last, *growing.outputs]))
    needed = set(outputs)
    nodes: list[onnx.NodeProto] = []
    for node in reversed(growing.nodes):
        if needed & set(node.output):
            needed.update(node.input)
            nodes.insert(0, node)
    constants = {name: value for name, value in growing.constants.items() if name in needed}
    inputs = [name for name in growing.inputs if name in needed]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "random",
            [_port(name, growing) for name in inputs],
            [_port(name, growing) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    inferred = onnx.shape_inference.infer_shapes(
        proto, check_type=True, strict_mode=True, data_prop=True
    )
    return Network(ir.from_proto(inferred), _variances(constants))


def _port(name: str, growing: Growing) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.DOUBLE, growing.shapes[name])


def _variances(constants: Mapping[str, AnyArray]) -> dict[str, Float32Array]:
    """For every float that is more than one number."""
    rng = np.random.default_rng(5)
    return {
        name: rng.uniform(0.1, 1.0, size=value.shape).astype(np.float32)
        for name, value in constants.items()
        if value.ndim and value.dtype == np.float64
    }


def as_float32(network: Network) -> Network:
    """The same network with float32 numbers, as runtimes want it."""
    proto = ir.to_proto(network.model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.DOUBLE:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return Network(ir.from_proto(proto), network.variance)
