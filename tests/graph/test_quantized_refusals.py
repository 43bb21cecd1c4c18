"""What of a quantized graph is refused, and what is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploykit.errors import GraphError
from deploykit.exporting.grids import check_grids
from deploykit.graph.onnx_source import read_onnx
from deploykit.runtime.single_pass import run_as_stated
from deploykit.spec.arrays import AnyArray
from deploykit.spec.given import ActivationGrid, WeightGrid, integers_on
from tests.graph.quantized_files import (
    IMAGE,
    PAIR,
    read,
)
from tests.onnx_files import file, node, save

TO_INTEGERS = [node("QuantizeLinear", "x s z", "i"), node("DequantizeLinear", "i s z", "y")]


@pytest.mark.parametrize(
    ("nodes", "held", "told"),
    [
        (TO_INTEGERS, {"s": np.float32(1), "z": np.uint16(0)}, "quantize activations to 8 bits"),
        (TO_INTEGERS, {"s": np.float32(1), "z": np.int16(0)}, "neither runtime has a fast kernel"),
        (TO_INTEGERS, {"s": np.ones(3, np.float32), "z": np.zeros(3, np.int8)}, "per tensor"),
        (TO_INTEGERS, {"s": np.float32(0), "z": np.int8(0)}, "no positive float32 number"),
        ([node("DynamicQuantizeLinear", "x", "i s z"), node("DequantizeLinear", "i s z", "y")], {},
         "quantize statically"),
        ([node("ReduceMax", "x", "s", keepdims=0), *TO_INTEGERS], {"z": np.int8(0)},
         "quantize statically"),
        ([node("QuantizeLinear", "x s z", "i"), node("DequantizeLinear", "i t z", "y")],
         {"s": np.float32(1), "t": np.float32(2), "z": np.int8(0)}, "in other steps"),
        ([node("QuantizeLinear", "x s z", "i"), node("BitwiseAnd", "i i", "j"),
          node("DequantizeLinear", "j s z", "y")], {"s": np.float32(1), "z": np.int8(0)},
         "computes with integers"),
        ([node("QuantizeLinear", "x s z", "i"), node("Cast", "i", "y", to=TensorProto.FLOAT)],
         {"s": np.float32(1), "z": np.int8(0)}, "reads as they are"),
    ],
)  # fmt: skip
def test_what_no_bundle_can_hold_is_refused(
    tmp_path: Path, nodes: list[onnx.NodeProto], held: dict[str, AnyArray], told: str
) -> None:
    with pytest.raises(GraphError, match=told) as caught:
        read(nodes, {"unused": np.float32(1), **held}, tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_float8_is_refused(tmp_path: Path) -> None:
    packed = [helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, (), [0.0])]
    with pytest.raises(GraphError, match="float8"):
        read(TO_INTEGERS, {"s": np.float32(1)}, tmp_path, packed=packed)


def test_prune_takes_no_integers(tmp_path: Path) -> None:
    model = file(TO_INTEGERS, {"s": np.float32(1), "z": np.int8(0)}, IMAGE, {"y": None}, 21)
    with pytest.raises(GraphError, match="is quantized"):
        read_onnx(save(model, tmp_path / "net.onnx"))


def test_grids_that_are_not_the_file_s_are_noticed(tmp_path: Path) -> None:
    nodes = [node("Tanh", "x", "a"), *PAIR, node("Neg", "b", "y")]
    source = read(nodes, {"s": np.float32(0.1), "z": np.int8(0)}, tmp_path)
    source.network.given.activations["a"] = ActivationGrid.unsigned(0.2, 4)  # type: ignore[index]
    with pytest.raises(GraphError, match="SQNR"):
        check_grids(source)


def test_a_row_with_the_lowest_integer_once_is_on_its_grid() -> None:
    rows = np.array([[-128, 5], [-128, -128]], np.float32)
    grid = WeightGrid(8, np.ones(1, np.float32))
    assert integers_on(rows[:1], grid) is not None
    assert integers_on(rows, grid) is None


def test_the_file_itself_is_run_as_it_is(tmp_path: Path) -> None:
    source = read(TO_INTEGERS, {"s": np.float32(0.5), "z": np.int8(0)}, tmp_path)
    given = np.full((1, 3, 6, 6), 0.7, np.float32)
    (found,) = run_as_stated(source.model.SerializeToString(), {"x": given}).values()
    assert set(found.reshape(-1)) == {np.float32(0.5)}
