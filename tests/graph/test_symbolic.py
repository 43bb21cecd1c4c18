"""Numbers that came from an open size become open again; the two sizes tell which they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.shape_inference
import pytest

from deploykit.graph.ports import read_port
from deploykit.graph.symbolic import TwoSizes, UnrestorableError, restore_symbols
from deploykit.runtime.single_pass import run_once
from deploykit.spec.arrays import AnyArray
from tests.onnx_files import file, node, normal

Shapes = Mapping[str, tuple[int, ...]]


def sizes(
    model: onnx.ModelProto, symbols: Sequence[int | str], now: Shapes, other: Shapes
) -> TwoSizes:
    """What is known of a network whose one input `x` is declared as `symbols`."""
    declared = file([node("Relu", "x", "y")], {}, {"x": symbols}, {"y": None})
    inputs = tuple(read_port(port) for port in declared.graph.input)
    outputs = tuple(read_port(port) for port in model.graph.output)
    return TwoSizes(inputs, outputs, now, other)


def restored(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, AnyArray],
    symbols: Sequence[int | str], now: Shapes, other: Shapes,
) -> onnx.ModelProto:  # fmt: skip
    static = file(nodes, constants, {"x": now["x"]}, {"y": now["y"]})
    static = onnx.shape_inference.infer_shapes(static, data_prop=True)
    model = restore_symbols(static, sizes(static, symbols, now, other))
    onnx.checker.check_model(model)
    for shapes in (now, other):
        found = run_once(model.SerializeToString(), {"x": normal(*shapes["x"])})
        assert found["y"].shape == shapes["y"]
    return model


def constant(model: onnx.ModelProto, name: str) -> list[float]:
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    values: list[float] = onnx.numpy_helper.to_array(tensor).tolist()
    return values


def whole(*numbers: int) -> AnyArray:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    ("target", "now", "other", "expected"),
    [
        ([1, 12], (1, 12), (5, 12), [0, 12]),
        ([1, -1], (1, 12), (5, 12), [0, -1]),
        ([3, 4], (3, 4), (15, 4), [-1, 4]),
        ([2, 6], (2, 6), (2, 30), [2, -1]),
        ([-1, 6], (2, 6), (2, 30), [2, -1]),
        ([0, 12], (1, 12), (5, 12), [0, 12]),
    ],
)
def test_a_reshape_follows_the_batch(
    target: list[int], now: tuple[int, ...], other: tuple[int, ...], expected: list[int]
) -> None:
    model = restored(
        [node("Reshape", "x s", "y")], {"s": whole(*target)}, ["N", 3, 4],
        {"x": (1, 3, 4), "y": now}, {"x": (5, 3, 4), "y": other},
    )  # fmt: skip
    name = "s" if target[0] == 0 else "y.shape"
    assert constant(model, name) == expected
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_reshape_follows_batch_and_image_size() -> None:
    model = restored(
        [node("Reshape", "x s", "y")], {"s": whole(1, 4, 36)}, ["N", 4, "H", "W"],
        {"x": (1, 4, 6, 6), "y": (1, 4, 36)}, {"x": (3, 4, 12, 8), "y": (3, 4, 96)},
    )  # fmt: skip
    assert constant(model, "y.shape") == [0, 4, -1]


def test_two_mixed_sizes_cannot_be_told_in_one_reshape() -> None:
    with pytest.raises(UnrestorableError, match="Reshape 'y' mixes open sizes into its shape"):
        restored(
            [node("Reshape", "x s", "y")], {"s": whole(2, 3)}, ["N", "H"],
            {"x": (1, 6), "y": (2, 3)}, {"x": (2, 12), "y": (4, 6)},
        )  # fmt: skip


def test_a_resize_keeps_the_axes_that_pass_through() -> None:
    nodes = [node("Resize", "x - - s", "y", mode="nearest")]
    model = restored(
        nodes, {"s": whole(1, 4, 12, 9)}, ["N", 4, 6, 3],
        {"x": (1, 4, 6, 3), "y": (1, 4, 12, 9)}, {"x": (3, 4, 6, 3), "y": (3, 4, 12, 9)},
    )  # fmt: skip
    assert constant(model, "y.sizes") == [12, 9]


def test_a_resize_of_an_open_image_scales() -> None:
    nodes = [node("Resize", "x - - s", "y", mode="nearest")]
    model = restored(
        nodes, {"s": whole(1, 4, 12, 9)}, ["N", 4, "H", "W"],
        {"x": (1, 4, 6, 3), "y": (1, 4, 12, 9)}, {"x": (3, 4, 8, 6), "y": (3, 4, 16, 18)},
    )  # fmt: skip
    assert constant(model, "y.scales") == [2.0, 3.0]


def test_an_expand_keeps_the_size_that_is_there() -> None:
    model = restored(
        [node("Expand", "x s", "y")], {"s": whole(1, 5, 3)}, ["N", 1, 3],
        {"x": (1, 1, 3), "y": (1, 5, 3)}, {"x": (4, 1, 3), "y": (4, 5, 3)},
    )  # fmt: skip
    assert constant(model, "y.shape") == [1, 5, 3]


def test_a_constant_for_each_sample_is_expanded() -> None:
    """A class token, which an exporter expands to the batch, and constant folding spells out."""
    nodes = [node("Concat", "token x", "y", axis=1)]
    model = restored(
        nodes, {"token": normal(1, 1, 3)}, ["N", 2, 3],
        {"x": (1, 2, 3), "token": (1, 1, 3), "y": (1, 3, 3)},
        {"x": (4, 2, 3), "token": (4, 1, 3), "y": (4, 3, 3)},
    )  # fmt: skip
    assert [n.op_type for n in model.graph.node] == ["Shape", "Concat", "Expand", "Concat"]


def test_a_constant_that_differs_by_sample_is_refused() -> None:
    with pytest.raises(UnrestorableError, match="the constant 'token' depends on an open size"):
        restored(
            [node("Concat", "token x", "y", axis=1)], {"token": normal(2, 1, 3)}, ["N", 2, 3],
            {"x": (2, 2, 3), "token": (2, 1, 3), "y": (2, 3, 3)},
            {"x": (4, 2, 3), "token": (4, 1, 3), "y": (4, 3, 3)},
        )  # fmt: skip
