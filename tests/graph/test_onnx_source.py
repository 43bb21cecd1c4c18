"""Float ONNX files of every form are read, and everything else is refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, parser

from deploykit.errors import ConfigError, DeploykitError, GraphError
from deploykit.graph.onnx_source import OnnxSource, read_onnx
from deploykit.graph.ports import parse_input_shapes
from deploykit.runtime.single_pass import run_once
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import static_shape
from tests import onnx_files
from tests.onnx_files import file, node, normal, point_at, save, save_beside
from tests.small_models import RESIDUAL_SHAPE, residual


def assert_reads_as(source: OnnxSource, model: onnx.ModelProto) -> None:
    """The network computes, in ONNX Runtime, what the file does."""
    inputs = {
        port.name: normal(*source.shapes[port.name], seed=5).astype(port.dtype)
        for port in source.inputs
    }
    expected = run_once(model.SerializeToString(), inputs)
    found = run_once(ir.to_proto(source.network.model).SerializeToString(), inputs)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", range(9, 24))
def test_a_network_of_any_opset(opset: int, tmp_path: Path) -> None:
    model = onnx_files.classifier(opset)
    source = read_onnx(save(model, tmp_path / "net.onnx"))
    assert (source.opset, source.shapes) == (opset, {"image": (1, 3, 8, 8)})
    assert source.symbols() == {"N": 1}
    assert [static_shape(value) for value in source.network.model.graph.inputs] == [(1, 3, 8, 8)]
    assert source.network.variance == {}
    assert_reads_as(source, model)


@pytest.mark.parametrize("opset", [14, 18, 20, 23])
def test_a_network_from_torch(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    program = torch.onnx.export(
        residual().eval(), (torch.zeros(RESIDUAL_SHAPE),), dynamo=True, verbose=False,
        opset_version=opset, dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    assert program is not None
    program.save(path)
    source = read_onnx(path)
    assert list(source.shapes.values()) == [RESIDUAL_SHAPE]
    assert_reads_as(source, source.model)


def test_weights_among_the_inputs_are_weights(tmp_path: Path) -> None:
    model = onnx_files.weights_among_inputs(onnx_files.classifier(9))
    source = read_onnx(save(model, tmp_path / "net.onnx"))
    assert [port.name for port in source.inputs] == ["image"]
    assert_reads_as(source, model)


def test_weights_as_nodes(tmp_path: Path) -> None:
    model = onnx_files.weights_as_nodes(onnx_files.classifier(13))
    assert_reads_as(read_onnx(save(model, tmp_path / "net.onnx")), model)


def test_weights_in_a_file_beside(tmp_path: Path) -> None:
    whole = onnx_files.classifier()
    source = read_onnx(save_beside(onnx_files.classifier(), tmp_path / "net.onnx"))
    assert [item.name for item in source.files] == ["net.onnx", "net.data"]
    assert source.size_bytes == sum(item.stat().st_size for item in tmp_path.iterdir())
    assert_reads_as(source, whole)


def test_half_precision_weights_behind_a_cast(tmp_path: Path) -> None:
    nodes = [node("Cast", "half", "w", to=TensorProto.FLOAT), node("MatMul", "x w", "y")]
    model = file(nodes, {"half": normal(3, 4).astype(np.float16)}, {"x": ["N", 3]}, {"y": None})
    assert_reads_as(read_onnx(save(model, tmp_path / "net.onnx")), model)


def test_float64_stays_float64(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 4))
    nodes = [node("MatMul", "x w", "y")]
    model = file(nodes, {}, {"x": ["N", 3]}, {"y": ["N", 4]}, kind=TensorProto.DOUBLE)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    source = read_onnx(save(model, tmp_path / "net.onnx"))
    assert [port.dtype for port in (*source.inputs, *source.outputs)] == ["float64"] * 2
    assert_reads_as(source, model)


def two_inputs() -> onnx.ModelProto:
    nodes = [
        node("MatMul", "a w", "one"), node("MatMul", "b v", "two"), node("Add", "one two", "sum"),
        node("Relu", "one", "other"),
    ]  # fmt: skip
    constants = {"w": normal(3, 4), "v": normal(5, 4)}
    return file(nodes, constants, {"a": ["N", "T", 3], "b": ["N", "T", 5]},
                {"sum": None, "other": None})  # fmt: skip


def test_several_inputs_and_outputs_share_their_symbols(tmp_path: Path) -> None:
    path = save(two_inputs(), tmp_path / "net.onnx")
    source = read_onnx(path, parse_input_shapes(["a:2,7,3"]))
    assert source.shapes == {"a": (2, 7, 3), "b": (2, 7, 5)}
    assert_reads_as(source, two_inputs())


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ([], r"its input 'a' is \[N,T,3\], and T may be anything; give --input-shape a=1,224,3"),
        (["2,7,3"], "has the inputs a, b: give --input-shape NAME=SIZES once for each"),
        (["c:2,7,3"], "--input-shape c: .* has the inputs a, b"),
        (["a:2,7,3", "b:2,8,5"], r"--input-shape 2,8,5 does not fit .* 'b' is \[N,T,5\]"),
        (["a:2,7,4"], r"--input-shape 2,7,4 does not fit .* only sizes that the file leaves open"),
        (["a:2,7"], "does not fit"),
        (["a:2,0,3"], "--input-shape a:2,0,3 is no shape"),
        (["a:2,7,3", "a:2,7,3"], "gives a twice"),
    ],
)
def test_sizes_that_are_missing_or_contradict_are_refused(
    texts: list[str], told: str, tmp_path: Path
) -> None:
    path = save(two_inputs(), tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=told):
        read_onnx(path, parse_input_shapes(texts))


def test_a_nameless_size_is_no_size_of_another(tmp_path: Path) -> None:
    nodes = [node("GlobalAveragePool", "x", "p"), node("Conv", "p w", "y")]
    constants = {"w": normal(2, 3, 1, 1)}
    model = file(nodes, constants, {"x": [None, 3, "?", "?"]}, {"y": None})
    source = read_onnx(save(model, tmp_path / "n.onnx"), parse_input_shapes(["x:1,3,8,6"]))
    assert source.symbols() == {"x.0": 1, "x.2": 8, "x.3": 6}


def test_a_condition_is_read(tmp_path: Path) -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 16]>
        g (float[N,3] x, bool c) => (float[N,3] y) <float[3] w = {1, 2, 3}> {
          y = If (c) <then_branch = t () => (float[N,3] a) { a = Mul(x, w) },
                      else_branch = e () => (float[N,3] b) { b = Neg(x) }>
        }
        """
    )
    assert_reads_as(read_onnx(save(model, tmp_path / "net.onnx")), model)


def saved(model: onnx.ModelProto) -> Callable[[Path], Path]:
    return lambda folder: save(model, folder / "net.onnx")


def of_bytes(data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "net.onnx").write_bytes(data)
        return folder / "net.onnx"

    return write


def beside(**entries: str) -> Callable[[Path], Path]:
    return lambda folder: point_at(
        save_beside(onnx_files.classifier(), folder / "net.onnx"), **entries
    )


def without_data(folder: Path) -> Path:
    path = save_beside(onnx_files.classifier(), folder / "net.onnx")
    (folder / "net.data").unlink()
    return path


def short_data(folder: Path) -> Path:
    path = save_beside(onnx_files.classifier(), folder / "net.onnx")
    data = folder / "net.data"
    data.write_bytes(data.read_bytes()[:-4])
    return path


def linked_data(folder: Path) -> Path:
    path = save_beside(onnx_files.classifier(), folder / "net.onnx")
    (folder / "elsewhere").mkdir()
    away = folder.parent / f"{folder.name}.away"
    (folder / "net.data").rename(away)
    (folder / "net.data").symlink_to(away)
    return path


def quantized(operator: str) -> onnx.ModelProto:
    constants: dict[str, AnyArray] = {
        "s": np.array(0.1, np.float32), "z": np.array(0, np.uint8), "w": normal(3),
    }  # fmt: skip
    nodes = [node(operator, "x s z", "q"), node("Add", "x w", "y")]
    return file(nodes, constants, {"x": ["N", 3]}, {"y": None})


def half(kind: int) -> onnx.ModelProto:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [node("MatMul", "x w", "y")]
    return file(nodes, {"w": normal(3, 4).astype(dtype)}, {"x": ["N", 3]}, {"y": None}, kind=kind)


def sparse() -> onnx.ModelProto:
    model = file([node("MatMul", "x w", "y")], {"v": normal(3, 4)}, {"x": [1, 3]}, {"y": None})
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    places = helper.make_tensor("w.at", TensorProto.INT64, [2], [0, 5])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 4]))
    return model


def unordered() -> onnx.ModelProto:
    model = onnx_files.classifier()
    first = model.graph.node[0]
    model.graph.node.append(first)
    del model.graph.node[0]
    return model


CLASSIFIER = onnx_files.classifier().SerializeToString()
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "net.onnx", "there is no such file; give the path"),
    "a folder": (lambda folder: folder, "is a folder; give the path of an .onnx file"),
    "empty": (of_bytes(b""), "is empty"),
    "text": (of_bytes(b"hello, I am a network"), "is not an ONNX file, or it is cut off"),
    "half of it": (of_bytes(CLASSIFIER[: len(CLASSIFIER) // 2]), "it is cut off"),
    "zeros": (of_bytes(bytes(64)), "is not an ONNX file"),
    "a graph of nothing": (
        saved(onnx.ModelProto(ir_version=8)), "or its graph holds no operators",
    ),
    "nodes out of order": (saved(unordered()), "is not a legal ONNX model"),
    "QuantizeLinear": (saved(quantized("QuantizeLinear")), "is quantized .operator QuantizeLinear"),
    "QLinearAdd": (saved(quantized("QLinearAdd")), "give the float model that it was made from"),
    "float16": (saved(half(TensorProto.FLOAT16)), "'x' is float16; export the network in float32"),
    "bfloat16": (saved(half(TensorProto.BFLOAT16)), "is bfloat16; export the network in float32"),
    "a cast to float16": (
        saved(file([node("Cast", "x", "h", to=TensorProto.FLOAT16), node("Add", "x w", "y")],
                   {"w": normal(3)}, {"x": [1, 3]}, {"y": None})), "Cast 'h' makes float16",
    ),
    "integers alone": (
        saved(file([node("Neg", "x", "y")], {}, {"x": [1, 3]}, {"y": None})),
        "holds no float weights",
    ),
    "sparse weights": (saved(sparse()), "stores 'w' as a sparse tensor"),
    "an absolute data path": (beside(location="/etc/passwd"), "outside the model's folder"),
    "a data path upwards": (beside(location="a/../../x"), "'a/../../x', outside the model's"),
    "a data path of Windows": (beside(location="c:\\x"), "outside the model's folder"),
    "no data path": (beside(location=""), "outside the model's folder"),
    "data behind a link": (linked_data, "'net.data', outside the model's folder"),
    "no data file": (without_data, "its data file 'net.data' is missing"),
    "a short data file": (short_data, "does not hold them at"),
    "a negative offset": (beside(offset="-8"), "does not hold them at -8"),
    "an offset of letters": (beside(offset="x"), "offset and length of .* are no numbers"),
    "a length of another shape": (beside(length="4"), "does not hold them"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_float_network_is_refused(case: str, tmp_path: Path) -> None:
    make, told = REFUSED[case]
    path = make(tmp_path)
    with pytest.raises(DeploykitError, match=told) as caught:
        read_onnx(path)
    assert isinstance(caught.value, GraphError)
    assert "\n" not in str(caught.value)


def test_no_cut_off_file_is_read_as_a_whole_one(tmp_path: Path) -> None:
    for length in range(1, len(CLASSIFIER), 97):
        path = of_bytes(CLASSIFIER[:length])(tmp_path)
        with pytest.raises(GraphError):
            read_onnx(path)
