"""Open sizes come back where ONNX Runtime proves it, and stay fixed with a reason where not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from deploykit.exporting.restoration import Restored, restore
from deploykit.graph.normalize import normalize
from deploykit.graph.onnx_source import read_onnx
from deploykit.graph.ports import parse_input_shapes
from deploykit.runtime.single_pass import run_once
from tests import onnx_files
from tests.onnx_files import file, node, normal, save


def restored(model: onnx.ModelProto, folder: Path, *shapes: str) -> Restored:
    """A file read, normalized at fixed sizes, and opened again."""
    source = read_onnx(save(model, folder / "net.onnx"), parse_input_shapes(shapes))
    return restore(source, ir.to_proto(normalize(source.network).model), run_once)


def declared(ports: Sequence[onnx.ValueInfoProto]) -> list[list[int | str]]:
    return [
        [dim.dim_param or dim.dim_value for dim in port.type.tensor_type.shape.dim]
        for port in ports
    ]


@pytest.mark.parametrize("opset", [9, 13, 18, 23])
def test_a_batch_comes_back(opset: int, tmp_path: Path) -> None:
    model = onnx_files.classifier(opset)
    found = restored(model, tmp_path)
    assert (found.symbols, found.fixed, found.reasons) == (("N",), {}, {})
    assert declared(found.model.graph.input) == [["N", 3, 8, 8]]
    assert declared(found.model.graph.output) == [["N", 5]]
    inputs = {"image": normal(7, 3, 8, 8)}
    expected = run_once(model.SerializeToString(), inputs)["logits"]
    got = run_once(found.model.SerializeToString(), inputs)["logits"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_static_file_stays_static(tmp_path: Path) -> None:
    found = restored(onnx_files.classifier(batch=1), tmp_path)
    assert (found.symbols, found.fixed, found.reasons) == ((), {}, {})


def test_image_sizes_come_back_with_the_batch(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "conv", pads=[1, 1, 1, 1]), node("Relu", "conv", "relu"),
        node("GlobalAveragePool", "relu", "pooled"), node("Conv", "pooled v", "gate"),
        node("Sigmoid", "gate", "share"), node("Mul", "relu share", "scaled"),
        node("Shape", "x", "sizes"), node("Gather", "sizes at", "spatial"),
        node("Concat", "keep spatial", "target", axis=0),
        node("Resize", "scaled - - target", "up", mode="nearest"),
    ]  # fmt: skip
    nodes[-3:-2] = [node("Shape", "scaled", "sizes2"), node("Slice", "sizes2 at0 at2", "keep"),
                    node("Gather", "sizes at", "spatial")]  # fmt: skip
    constants = {
        "w": normal(4, 3, 3, 3), "v": normal(4, 4, 1, 1), "at": np.array([2, 3]),
        "at0": np.array([0]), "at2": np.array([2]),
    }  # fmt: skip
    model = file(nodes, constants, {"x": ["N", 3, "H", "W"]}, {"up": ["N", 4, "H", "W"]})
    found = restored(model, tmp_path, "1,3,8,8")
    assert (found.symbols, found.fixed, found.reasons) == (("H", "N", "W"), {}, {})
    assert declared(found.model.graph.output) == [["N", 4, "H", "W"]]


def test_a_size_that_the_file_itself_does_not_take_stays_fixed(tmp_path: Path) -> None:
    """The image size is declared open, and the linear layer takes one size alone."""
    model = onnx_files.classifier()
    image = model.graph.input[0].type.tensor_type.shape.dim
    image[2].dim_param = "H"
    found = restored(model, tmp_path, "1,3,8,8")
    assert found.symbols == ("N",)
    assert found.fixed == {"H": 8}
    assert found.reasons == {"H": "the file itself does not run at other sizes"}


def test_a_batch_that_mixes_samples_stays_fixed(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "y0"), node("ReduceMean", "y0 axes", "mean"),
        node("Sub", "y0 mean", "y"),
    ]  # fmt: skip
    constants = {"w": normal(3, 4), "axes": np.array([0])}
    found = restored(file(nodes, constants, {"x": ["N", 3]}, {"y": ["N", 4]}), tmp_path)
    assert (found.symbols, found.fixed) == ((), {"N": 1})
    assert "its outputs differ by" in found.reasons["N"]
