"""Bounds behind bounds: one where one saturation does, both where a grid asks for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.graph.passes.affine import Affine
from deploykit.graph.passes.bounds import merge_bounds
from deploykit.graph.passes.canonical import canonicalize
from deploykit.graph.tracking import apply_pass
from deploykit.spec.given import ActivationGrid, Given, WeightGrid
from deploykit.spec.network import Network
from tests.graph.text import assert_same_function, graph, weights, written

WIDE, NARROW = ActivationGrid.unsigned(2 / 255, 8), ActivationGrid.unsigned(2 / 15, 4)


def two(first: str, second: str, held: ActivationGrid | None = None) -> Network:
    """Two bounds of the input; the second is read once more, and on a grid where one is given."""
    network = graph(
        f"""
        (float[1,2] input) => (float[1,2] output) {{
            a = {first}
            b = {second}
            output = Add(b, half)
        }}
        """,
        {"zero": np.float32(0), "two": np.float32(2), "six": np.float32(6), "one": np.float32(1),
         "low": np.float32(-1), "half": np.float32(0.5)},
    )  # fmt: skip
    return network if held is None else replace(network, given=Given({}, {"b": held}))


def bounds(network: Network) -> list[str]:
    return [line.split(" = ")[1] for line in written(network).splitlines() if "Add" not in line]


@pytest.mark.parametrize(
    ("first", "second", "held", "left"),
    [
        ("Relu(input)", "Relu(a)", None, ["Relu(input)"]),
        ("Clip(input, zero, six)", "Relu(a)", None, ["Clip(input, zero[], six[])"]),
        ("Relu(input)", "Clip(a, zero, two)", None, ["Clip(input, b.1[], b.2[])"]),
        ("Relu(input)", "Clip(a, low, two)", WIDE, ["Clip(input, b.1[], b.2[])"]),
        ("Clip(input, zero, six)", "Clip(a, zero, two)", WIDE, ["Clip(input, b.1[], b.2[])"]),
    ],
)
def test_one_bound_does(
    first: str, second: str, held: ActivationGrid | None, left: list[str]
) -> None:
    before = two(first, second, held)
    after = apply_pass("merge_bounds", merge_bounds, before)
    assert bounds(after) == left
    assert_same_function(before, after)


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        ("Relu(input)", "Clip(a, zero, two)", NARROW),
        ("Clip(input, zero, one)", "Clip(a, zero, two)", WIDE),
        ("Clip(input, low, two)", "Relu(a)", None),
        ("Relu(input)", "Clip(a, one, two)", None),
    ],
)
def test_both_bounds_stay(first: str, second: str, held: ActivationGrid | None) -> None:
    before = two(first, second, held)
    after = apply_pass("merge_bounds", merge_bounds, before)
    assert len(bounds(after)) == 2
    assert_same_function(before, after)


def test_a_bound_under_the_grid_s_end_is_the_clip_s() -> None:
    after = apply_pass(
        "merge_bounds", merge_bounds, two("Clip(input, zero, one)", "Clip(a, zero, two)", WIDE)
    )
    node = next(node for node in after.model.graph if node.outputs[0].name == "b")
    assert node.inputs[2] is not None
    assert node.inputs[2].const_value is not None
    assert float(node.inputs[2].const_value.numpy()) == 1.0


def test_a_copied_weight_takes_its_grid_along() -> None:
    held = WeightGrid(4, np.array([0.1], np.float32))
    network = graph(
        """
        (float[1,2] input) => (float[1,2] output) {
            a = Gemm<transB=1>(input, "w.weight", "w.bias")
            output = Gemm<transB=1>(a, "w.weight", "w.bias")
        }
        """,
        {"w.weight": weights(2, 2), "w.bias": weights(2)},
    )
    network = replace(network, given=Given({"w.weight": held}, {}))
    after = apply_pass("canonicalize", canonicalize, network)
    assert set(after.given.weights) == {"w.weight", "w.weight.copy"}
    assert all(one is held for one in after.given.weights.values())


def test_a_scaled_weight_scales_its_grid_where_outputs_are_scaled() -> None:
    network = graph(
        """
        (float[1,3] input) => (float[1,2] output) { output = Gemm<transB=1>(input, w, b) }
        """,
        {"w": weights(2, 3), "b": weights(2)},
    )
    network = replace(network, given=Given({"w": WeightGrid(8, np.array([0.5], np.float32))}, {}))
    for factor, scale in [([[2.0], [-3.0]], [1.0, 1.5]), ([[1.0, 2.0, 3.0]], [0.5])]:
        model = network.model.clone()
        affine = Affine(model.graph, {})
        affine.scale("w", np.array(factor))
        found = affine.finish(network, model).network.given.weights["w"]
        assert found.scale.tolist() == scale
