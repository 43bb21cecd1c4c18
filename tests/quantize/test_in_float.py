"""Which nodes belong to a layer that stays in float, and when none may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.errors import QuantizationError
from deploykit.quantize.in_float import in_float_order, leave_in_float
from deploykit.quantize.regions import body_of
from deploykit.quantize.structure import build_structure
from deploykit.spec.given import Given, WeightGrid
from deploykit.spec.network import Network
from tests.quantize.graphs import float_network, seeded

TWO = (
    "g (float[1,16] x) => (float[1,16] y) { a = Gemm <transB=1> (x, w, b) r = Relu (a) "
    "y = Gemm <transB=1> (r, v, b) }"
)


def two_linears() -> Network:
    return float_network(TWO, w=seeded(16, 16), v=seeded(16, 16, seed=1), b=seeded(16))


def outlined(network: Network) -> list[tuple[str, str, list[str]]]:
    return [
        (layer.name, layer.kind.value, [str(node.name) for node in layer.nodes])
        for layer in build_structure(network)
    ]


def test_the_activation_goes_with_its_layer() -> None:
    marked = leave_in_float(two_linears(), ["a"])
    assert outlined(marked) == [("a", "Island", ["a", "r"]), ("y", "Linear", ["y"])]
    assert outlined(two_linears())[0] == ("a", "Linear", ["a", "r"])


def test_two_in_a_row_are_one_island_called_after_the_last() -> None:
    marked = leave_in_float(two_linears(), ["y", "a"])
    assert outlined(marked) == [("y", "Island", ["a", "r", "y"])]
    assert in_float_order(marked) == ("a", "y")


def test_weights_stay_as_they_are() -> None:
    marked = leave_in_float(two_linears(), ["a"])
    (layer, _) = build_structure(marked)
    assert layer.region is not None
    held = body_of(marked, layer.region).model.graph.initializers["w"].const_value
    assert held is not None and np.array_equal(held.numpy(), seeded(16, 16))


def test_weights_that_training_put_on_a_grid_stay_there() -> None:
    grid = WeightGrid(4, np.ones(1, np.float32))
    weight = np.tile(np.arange(-7, 9, dtype=np.float32).clip(-7, 7), (16, 1))
    network = float_network(TWO, w=weight, v=seeded(16, 16), b=seeded(16))
    trained = replace(network, given=Given(weights={"w": grid, "v": grid}))
    with pytest.raises(QuantizationError, match="a=float: its weights came as integers"):
        leave_in_float(trained, ["a"])
    assert leave_in_float(trained, ["y"]).in_float == {"y"}  # these left the grid
