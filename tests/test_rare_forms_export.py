"""Operators in forms that few exporters write, from the file to both runtimes, beside float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deploykit
from deploykit.errors import DataError, DeploykitError, UnsupportedOperatorError
from deploykit.runtime import ort
from deploykit.verify.metrics import sqnr_db
from tests.exported import save

CONV = "c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w8x3x3x3, b8) "
TO = "ConvTranspose <kernel_shape=[3,3], strides=[2,2]"
POINTWISE = "Conv <kernel_shape=[1,1]>"
IMAGE, SIGNAL, TOKENS = "float[1,3,16,12] x", "float[1,4,20] x", "float[1,5,12] x"

FORMS = {
    "transposed, 1-D": (
        SIGNAL, 20, """c = Conv <kernel_shape=[3], pads=[1,1]> (x, w8x4x3, b8) r = Relu (c)
        y = ConvTranspose <kernel_shape=[4], strides=[2], pads=[1,1]> (r, w8x6x4, b6)""",
    ),
    "transposed, output_shape": (
        IMAGE, 20, CONV + f"y = {TO}, output_shape=[31,23]> (c, w8x6x3x3, b6)",
    ),
    "transposed, larger output_shape": (
        IMAGE, 20, CONV + f"y = {TO}, output_shape=[34,26]> (c, w8x6x3x3, b6)",
    ),
    "transposed, depthwise": (IMAGE, 20, CONV + f"y = {TO}, group=8> (c, w8x1x3x3, b8)"),
    "pixel shuffle": (
        IMAGE, 20, CONV + f"""z = {POINTWISE} (c, w12x8x1x1, b12) r = Relu (z)
        y = DepthToSpace <blocksize=2, mode="CRD"> (r)""",
    ),
    "pixel shuffle of a sum": (
        IMAGE, 20, CONV + f"""r = Relu (c) s = Add (r, c)
        d = DepthToSpace <blocksize=2, mode="CRD"> (s) y = {POINTWISE} (d, w4x2x1x1, b4)""",
    ),
    "half of a split": (
        IMAGE, 20, CONV + f"""a, b = Split <axis=-1, num_outputs=2> (c)
        y = {POINTWISE} (b, w4x8x1x1, b4)""",
    ),
    "average pool, SAME": (
        IMAGE, 20, CONV + """y = AveragePool <kernel_shape=[3,3], strides=[2,2],
        auto_pad="SAME_UPPER"> (c)""",
    ),
    "resize by 1.5": (
        IMAGE, 20, CONV + f"""s = Constant <value_floats=[1.0, 1.0, 1.5, 1.5]> ()
        r = Resize <mode="nearest"> (c, , s) y = {POINTWISE} (r, w4x8x1x1, b4)""",
    ),
    "resize, 1-D": (
        SIGNAL, 20, """c = Conv <kernel_shape=[3], pads=[1,1]> (x, w8x4x3, b8)
        s = Constant <value_floats=[1.0, 1.0, 2.5]> () y = Resize <mode="nearest"> (c, , s)""",
    ),
    "resize, 1-D, linear": (
        TOKENS, 20, """r = Mul (x, w12) s = Constant <value_floats=[2.0]> ()
        y = Resize <mode="linear", axes=[2]> (r, , s)""",
    ),
    "views alone": (
        # A file without weights is none of a float network.
        IMAGE, 20, "u = Mul (b8, b8) t = Transpose <perm=[0,2,3,1]> (x) y = Flatten (t)",
    ),
    "dropout of the input": (
        SIGNAL, 20, """d = Dropout (x) i = Identity (d)
        y = Conv <kernel_shape=[3], pads=[1,1]> (i, w8x4x3, b8)""",
    ),
    "flip": (
        IMAGE, 20, CONV + f"""a = Constant <value_ints=[2, 3]> ()
        m = Constant <value_ints=[-1, -1]> ()
        e = Constant <value_ints=[-100, -100]> () f = Slice (c, m, e, a, m)
        y = {POINTWISE} (f, w4x8x1x1, b4)""",
    ),
    "tile": (
        IMAGE, 20, CONV + """t = Constant <value_ints=[1, 2, 1, 3]> () y = Tile (c, t)""",
    ),
    "pad by reflection": (
        IMAGE, 20, """p = Constant <value_ints=[0, 0, 1, 1, 0, 0, 1, 1]> ()
        q = Pad <mode="reflect"> (x, p) c = Conv <kernel_shape=[3,3]> (q, w8x3x3x3, b8)
        e = Pad <mode="edge"> (c, p) y = Conv <kernel_shape=[3,3]> (e, w4x8x3x3, b4)""",
    ),
    "matrix on the left": (
        SIGNAL, 20, """m = MatMul (w8x4, x) n = Add (m, b8x1) r = Relu (n)
        c = Conv <kernel_shape=[3]> (r, w5x8x3, b5) y = MatMul (w3x5, c)""",
    ),
    "matrix on the left of channels": (IMAGE, 20, CONV + "y = MatMul (w9x16, c)"),
    "gru that resets before its matrix": (
        TOKENS, 20, """t = Transpose <perm=[1,0,2]> (x)
        y, h = GRU <hidden_size=4, linear_before_reset=0>
        (t, w1x12x12, w1x12x4, b1x24, , w1x1x4)""",
    ),
    "unit vectors": (
        IMAGE, 20, CONV + """f = Flatten (c) l = Gemm <transB=1> (f, w10x1536, b10)
        a = Constant <value_ints=[1]> () e = Constant <value_float=1e-12> ()
        z = Constant <value_ints=[1, 10]> () n = ReduceL2 <keepdims=1> (l, a) m = Clip (n, e)
        q = Expand (m, z) y = Div (l, q)""",
    ),
    "unit vectors of channels": (IMAGE, 20, CONV + "y = LpNormalization <axis=1> (c)"),
    "max pool with holes": (
        IMAGE, 20, CONV + """y = MaxPool <kernel_shape=[3,2], strides=[2,2], dilations=[2,3],
        pads=[2,1,2,1], ceil_mode=1> (c)""",
    ),
    "max pool with holes along one axis": (
        IMAGE, 20, CONV + """y = MaxPool <kernel_shape=[3,3], strides=[1,2], dilations=[3,1],
        pads=[0,0,0,0], ceil_mode=1> (c)""",
    ),
    "both states of an LSTM": (
        TOKENS, 20, """t = Transpose <perm=[1,0,2]> (x)
        o, k, l = LSTM <hidden_size=4> (t, w1x16x12, w1x16x4, b1x32)
        s = Concat <axis=0> (k, l) a = Constant <value_ints=[0]> ()
        y = ReduceSum <keepdims=0> (s, a)""",
    ),
    "choice by a mask": (
        IMAGE, 20, CONV + f"""z = Constant <value_float=0.0> () g = Greater (c, z)
        s = Sigmoid (c) a = Where (g, c, s) n = Not (g) f = Cast <to=1> (n) b = Mul (c, f)
        t = Add (a, b) y = {POINTWISE} (t, w4x8x1x1, b4)""",
    ),
    "dead sum": (
        IMAGE, 20, CONV + f"""k = Constant <value_float=-1000.0> () a = Add (c, k) r = Relu (a)
        d = Add (r, c) y = {POINTWISE} (d, w4x8x1x1, b4)""",
    ),
    "clip beyond its input": (
        IMAGE, 20, CONV + f"""k = Constant <value_float=40.0> () a = Max (c, k)
        d = Add (a, c) y = {POINTWISE} (d, w4x8x1x1, b4)""",
    ),
    "group norm": (
        IMAGE, 21, CONV + f"""n = GroupNormalization <num_groups=2> (c, w8, b8) r = Relu (n)
        y = {POINTWISE} (r, w4x8x1x1, b4)""",
    ),
    "attention": (
        "float[1,2,6,8] x", 23, """q = Mul (x, w8) t = Tanh (x)
        y = Attention <scale=0.3, softcap=2.0> (q, t, x, w6x6)""",
    ),
    "attention of groups, causal": (
        TOKENS, 24, """q = MatMul (x, w12x16) k = MatMul (x, w12x8) v = MatMul (x, b12x8)
        y = Attention <q_num_heads=4, kv_num_heads=2, is_causal=1> (q, k, v)""",
    ),
    "rms norm": (TOKENS, 23, "r = Relu (x) y = RMSNormalization <axis=-1> (r, w12)"),
}  # fmt: skip


def saved(path: Path, port: str, opset: int, text: str, outputs: str = "float y") -> Path:
    """A model; names like w8x3 are weights of these sizes."""
    rng = np.random.default_rng(3)
    made = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": {opset}]>\nform ({port}) => ({outputs}) {{ {text} }}'
    )
    for name in dict.fromkeys(name for node in made.graph.node for name in node.input):
        if name[:1] in ("w", "b") and name[1:].replace("x", "").isdigit():
            shape = tuple(map(int, name[1:].split("x")))
            drawn = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)
            made.graph.initializer.append(numpy_helper.from_array(drawn.astype(np.float32), name))
    for node in made.graph.node:
        node.name = node.output[0]
    onnx.save(made, path)
    return path


def drawn(port: str, count: int, seed: int) -> np.ndarray:
    shape = [int(size) for size in port[port.index("[") + 1 : port.index("]")].split(",")]
    return np.random.default_rng(seed).normal(size=(count, *shape[1:])).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_the_files_compute_what_the_model_does(form: str, tmp_path: Path) -> None:
    port, opset, text = FORMS[form]
    source = saved(tmp_path / "model.onnx", port, opset, text)
    np.savez(tmp_path / "data.npz", inputs=drawn(port, 32, 1))
    made = deploykit.export(source, data=tmp_path / "data.npz", out=tmp_path / "bundle")
    assert all(one["differing"] == 0 for one in made.manifest["parity"])
    assert not deploykit.verify_bundle(tmp_path / "bundle").failed
    fresh = {"x": drawn(port, 4, 2)}
    expected = ort.run(source.read_bytes(), fresh)["y"]
    found = ort.run((tmp_path / "bundle" / "model.onnx").read_bytes(), fresh)["y"]
    assert sqnr_db(expected, found) > 28


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k = Cast <to=7> (c) y = Cast <to=1> (k)", "k: operator Cast makes int64 of float; only"),
        ("k = Cast <to=10> (c) y = Cast <to=1> (k)", "'k' makes float16; export .* in float32"),
    ],
)
def test_numbers_of_other_types_are_refused(text: str, said: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "model.onnx", IMAGE, 20, CONV + text)
    np.savez(tmp_path / "data.npz", inputs=drawn(IMAGE, 4, 1))
    with pytest.raises(DeploykitError, match=said):
        deploykit.export(source, data=tmp_path / "data.npz", out=tmp_path / "bundle")


def test_the_largest_and_its_place(tmp_path: Path) -> None:
    text = (
        CONV
        + """k = Constant <value_ints=[1]> () f = GlobalAveragePool (c) l = Flatten (f)
        p = Softmax <axis=1> (l) v, y = TopK <axis=1> (p, k)"""
    )
    source = saved(tmp_path / "model.onnx", IMAGE, 20, text, "float v, int64 y")
    np.savez(tmp_path / "data.npz", inputs=drawn(IMAGE, 32, 1))
    made = deploykit.export(source, data=tmp_path / "data.npz", out=tmp_path / "bundle")
    assert all(one["differing"] == 0 for one in made.manifest["parity"])
    assert not deploykit.verify_bundle(tmp_path / "bundle").failed
    fresh = {"x": drawn(IMAGE, 1, 2)}
    expected = ort.run(source.read_bytes(), fresh)
    found = ort.run((tmp_path / "bundle" / "model.onnx").read_bytes(), fresh)
    assert np.array_equal(expected["y"], found["y"]) and found["y"].dtype == np.int64
    assert sqnr_db(expected["v"], found["v"]) > 28


def test_states_come_in_and_go_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ports = "float[1,6,5] x, float[1,1,4] h, float[1,1,4] c"
    source = saved(
        tmp_path / "model.onnx", ports, 20,
        """t = Transpose <perm=[1,0,2]> (x)
        y, k, l = LSTM <hidden_size=4> (t, w1x16x5, w1x16x4, b1x32, , h, c)""",
        "float y, float k, float l",
    )  # fmt: skip
    sizes = {"x": (6, 5), "h": (1, 4), "c": (1, 4)}
    given = {name: rng.normal(size=(32, *one)).astype(np.float32) for name, one in sizes.items()}
    save(tmp_path / "data.npz", **given)
    made = deploykit.export(source, data=tmp_path / "data.npz", out=tmp_path / "bundle")
    assert all(one["differing"] == 0 for one in made.manifest["parity"])
    assert not deploykit.verify_bundle(tmp_path / "bundle").failed
    fresh = {name: array[:1] for name, array in given.items()}
    expected = ort.run(source.read_bytes(), fresh)
    found = ort.run((tmp_path / "bundle" / "model.onnx").read_bytes(), fresh)
    assert all(sqnr_db(expected[name], found[name]) > 28 for name in "ykl")


@pytest.mark.parametrize(
    ("text", "outputs", "said"),
    [
        ("y = Relu (c) z = Mul (b8, b8)", "float y, float z", "'z' depends on no input"),
        ("y = Relu (c) z = Identity (y)", "float y, float z", "is there twice"),
        ("y = Relu (c) z = Identity (x)", "float y, float z", "'z' is the input 'x' as it is"),
    ],
)
def test_an_output_that_is_none_of_its_own_is_refused(
    text: str, outputs: str, said: str, tmp_path: Path
) -> None:
    source = saved(tmp_path / "model.onnx", IMAGE, 20, CONV + text, outputs)
    np.savez(tmp_path / "data.npz", inputs=drawn(IMAGE, 4, 1))
    with pytest.raises(UnsupportedOperatorError, match=said):
        deploykit.export(source, data=tmp_path / "data.npz", out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_data_that_say_nothing_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "model.onnx", IMAGE, 20, CONV + "y = Relu (c)")
    np.savez(tmp_path / "data.npz", inputs=np.zeros((4, 3, 16, 12), np.float32))
    with pytest.raises(DataError, match="every number of `inputs` is 0, which says nothing"):
        deploykit.export(source, data=tmp_path / "data.npz", out=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
