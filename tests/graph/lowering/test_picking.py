"""What takes elements from constant places becomes a Gather along each axis, as ONNX means it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import onnx
import pytest

from deploykit.graph.edit import constant
from deploykit.graph.lowering import lower
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.nearest import COORDINATES, ROUNDINGS, nearest_places
from tests.graph.lowering.test_lowering import assert_same_function, operators
from tests.quantize.graphs import CONV1, CONV3, float_network, seeded

HELD: Mapping[str, AnyArray] = {
    "back": np.array([-1, -1]), "before": np.array([-(2**63), -5]), "hw": np.array([2, 3]),
    "minus": np.array([-1, -2]), "mixed": np.array([-1, 2]), "from": np.array([5, 1]),
    "until": np.array([0, 6]), "twice": np.array([1, 2, 1, 3]), "once": np.array([1, 1, 1, 1]),
    "around": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "channels": np.array([0, 1, 0, 0, 0, 2, 0, 0]),
    "half": np.array([1, 1, 1.5, 0.5], np.float32), "sizes": np.array([1, 4, 7, 6]),
    "rows": np.array([9]), "double": np.array([1, 1, 2, 3], np.float32),
    "ends": np.array([-1, -6, 2]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("y = Slice (x, back, before, hw, minus)", {"Gather": 2}),
        ("y = Slice (x, from, until, hw, mixed)", {"Gather": 2}),
        ("y = Tile (x, twice)", {"Gather": 2}),
        ("y = Tile (x, once)", {}),
        ('y = Pad <mode="edge"> (x, around)', {"Gather": 2}),
        ('y = Pad <mode="reflect"> (x, around)', {"Gather": 2}),
        ('y = Pad <mode="wrap"> (x, channels)', {"Gather": 1}),
        ("y = Resize (x, , half)", {"Gather": 2}),
        ("y = Resize (x, , , sizes)", {"Gather": 1}),
        ("y = Resize <axes=[2]> (x, , , rows)", {"Gather": 1}),
        ("y = Resize (x, , double)", {"Resize": 1}),
        ('y = Resize <coordinate_transformation_mode="align_corners"> (x, , double)',
         {"Gather": 2}),
        ("y = Gather <axis=-1> (x, ends)", {"Gather": 1}),
    ],
)  # fmt: skip
def test_it_is_a_gather_of_each_axis(text: str, left: dict[str, int]) -> None:
    channels = 7 if "channels" in text else 8 if "twice" in text else 4
    network = float_network(
        f"g (float[1,3,6,6] input) => (float[1,5,N,M] output) {{"
        f" x = Conv <{CONV3}> (input, w, b) {text} output = Conv <{CONV1}> (y, v, c) }}",
        w=seeded(4, 3, 3, 3), b=seeded(4, seed=1),
        v=seeded(5, channels, 1, 1, seed=2), c=seeded(5, seed=3), **HELD,
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 2, **left}
    assert_same_function(network, lowered)
    indices = [
        held
        for node in lowered.model.graph
        if node.op_type == "Gather" and (held := constant(node.inputs[1])) is not None
    ]
    assert all(one.min() >= 0 for one in indices)


def test_a_tile_of_the_batch_stays() -> None:
    network = float_network(
        "g (float[1,3,6,6] x) => (float[2,3,6,6] y) { r = Relu (x) y = Tile (r, k) }",
        k=np.array([2, 1, 1, 1]),
    )
    assert operators(lower(network)) == {"Relu": 1, "Tile": 1}


def resized(coordinates: str, rounding: str, length: int, size: int, scale: float | None) -> bytes:
    given = "s" if scale is not None else ", z"
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[1,1,1,{length}] x) => '
        f'(float[1,1,1,{size}] y) {{ y = Resize <mode="nearest", '
        f'coordinate_transformation_mode="{coordinates}", nearest_mode="{rounding}">'
        f" (x, , {given}) }}"
    )
    stated = np.array([1, 1, 1, scale], np.float32) if scale else np.array([1, 1, 1, size])
    name = "s" if scale is not None else "z"
    model.graph.initializer.append(onnx.numpy_helper.from_array(stated, name))
    return bytes(model.SerializeToString())


@pytest.mark.skipif(ort.version() is None, reason="onnxruntime is not installed")
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_places_are_those_of_onnxruntime(coordinates: str) -> None:
    for rounding, length, size in product(ROUNDINGS, (1, 5, 8), (1, 3, 7, 8, 12, 16)):
        data = resized(coordinates, rounding, length, size, None)
        row = np.arange(length, dtype=np.float32).reshape(1, 1, 1, length)
        expected = ort.run(data, {"x": row})["y"].reshape(-1)
        found = nearest_places(coordinates, rounding, size / length, length, size)
        np.testing.assert_array_equal(found, expected, f"{rounding}, {length} to {size}")
    for rounding, scale in product(ROUNDINGS, (0.3, 0.5, 1.3, 1.5, 2.7)):
        size = int(np.floor(np.float32(10) * np.float32(scale)))
        data = resized(coordinates, rounding, 10, size, scale)
        row = np.arange(10, dtype=np.float32).reshape(1, 1, 1, 10)
        expected = ort.run(data, {"x": row})["y"].reshape(-1)
        found = nearest_places(coordinates, rounding, scale, 10, size)
        np.testing.assert_array_equal(found, expected, f"{rounding}, 10 by {scale}")
