"""Operators that have, or had, no integer form, each exported between two convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.parity import Verdict
from tests.exported import mend, save

SHAPE = (1, 6, 8, 8)


@dataclass(frozen=True)
class Operator:
    """Nodes in ONNX text from `c` [1, 6, 8, 8] to `y`. islands: the operators that the plan has."""

    name: str
    text: str
    shape: tuple[int, ...] = SHAPE
    constants: Mapping[str, AnyArray] | None = None
    islands: tuple[str, ...] = ("Island",)


def floats(*values: float) -> AnyArray:
    return np.array(values, np.float32)


BY_CHANNEL = np.linspace(-0.6, 0.7, 6, dtype=np.float32).reshape(1, 6, 1, 1)

OPERATORS = (
    Operator("max-pool-ceil", "y = MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (c)",
             (1, 6, 4, 4), islands=("MaxPool",)),
    Operator("resize-linear", 'y = Resize <mode="linear"> (c, , s)', (1, 6, 16, 16),
             {"s": floats(1, 1, 2, 2)}),
    Operator("resize-align-corners", 'y = Resize <mode="linear", '
             'coordinate_transformation_mode="align_corners"> (c, , s)', (1, 6, 16, 16),
             {"s": floats(1, 1, 2, 2)}),
    Operator("pad-reflect", 'y = Pad <mode="reflect"> (c, p)', (1, 6, 10, 10),
             {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, islands=("Gather", "Gather")),
    Operator("pad-one-axis", "r = Relu (c) y = Pad (r, p, v, a)", (1, 6, 8, 11),
             {"p": np.array([1, 2]), "v": floats(1.5).reshape(()), "a": np.array([-1])},
             islands=("Pad",)),
    Operator("average-pool-ceil", "y = AveragePool <kernel_shape=[3,3], strides=[2,2], "
             "pads=[1,1,1,1], ceil_mode=1, count_include_pad=1> (c)", (1, 6, 5, 5)),
    Operator("log-softmax", "y = LogSoftmax <axis=1> (c)"),
    Operator("instance-norm", "y = InstanceNormalization (c, g, o)",
             constants={"g": floats(1, 2, 0.5, 1, 1, 1), "o": floats(0, 1, 0, -1, 0, 0)}),
    Operator("group-norm", """
        r = Reshape (c, groups)
        n = InstanceNormalization (r, one, zero)
        v = Reshape (n, whole)
        m = Mul (v, g)
        y = Add (m, o)
        """, constants={
            "groups": np.array([1, 2, -1]), "whole": np.array(SHAPE), "one": floats(1, 1),
            "zero": floats(0, 0), "g": np.linspace(0.5, 2, 6, dtype=np.float32).reshape(1, 6, 1, 1),
            "o": np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 6, 1, 1)},
        islands=("Island", "Conv"),
    ),
    Operator("layer-norm", "y = LayerNormalization <axis=-1> (c, g, o)",
             constants={"g": np.ones(8, np.float32), "o": np.zeros(8, np.float32)}),
    Operator("softmax", "y = Softmax <axis=1> (c)"),
    Operator("matmul", "y = MatMul (c, c)"),
    Operator("division", "a = Abs (c) o = Add (a, one) y = Div (c, o)",
             constants={"one": floats(1)}),
    Operator("power", "y = Pow (c, two)", constants={"two": floats(2)}, islands=("Mul",)),
    Operator("reduce-max", "y = ReduceMax <keepdims=1> (c, axes)", (1, 6, 8, 1),
             {"axes": np.array([3])}, ("MaxPool",)),
    Operator("reduce-sum", "y = ReduceSum <keepdims=1> (c, axes)", (1, 1, 8, 8),
             {"axes": np.array([1])}, ("Conv",)),
    Operator("reduce-mean", "y = ReduceMean <keepdims=1> (c, axes)", (1, 1, 8, 8),
             {"axes": np.array([1])}, ("Conv",)),
    Operator("space-to-depth", "y = SpaceToDepth <blocksize=2> (c)", (1, 24, 4, 4),
             islands=("SpaceToDepth",)),
    Operator("expand", "m = ReduceMax <keepdims=1> (c, axes) y = Expand (m, s)",
             constants={"axes": np.array([2, 3]), "s": np.array(SHAPE)},
             islands=("MaxPool", "Repeat")),
    Operator("expand-beside-the-whole",
             "m = GlobalAveragePool (c) e = Expand (m, s) y = Sub (c, e)",
             constants={"s": np.array(SHAPE)}, islands=("GlobalAveragePool", "Sub")),
    Operator("expand-channels", "m = ReduceMean <keepdims=1> (c, axes) y = Expand (m, s)",
             constants={"axes": np.array([1]), "s": np.array(SHAPE)}, islands=("Conv", "Gather")),
    Operator("maximum-by-channel", "y = Max (c, k)", constants={"k": BY_CHANNEL},
             islands=("Maximum",)),
    Operator("clip-by-channel", "l = Max (low, c) y = Min (l, high)",
             constants={"low": -np.abs(BY_CHANNEL), "high": np.abs(BY_CHANNEL) + 1},
             islands=("Maximum", "Minimum")),
    Operator("minimum-below-a-relu", "r = Relu (c) m = Min (r, k) y = Add (m, r)",
             constants={"k": -np.abs(BY_CHANNEL)}, islands=("Add", "Minimum", "Add")),
    Operator("maximum-of-a-sigmoid", "r = Sigmoid (c) y = Max (r, k)",
             constants={"k": np.abs(BY_CHANNEL)}, islands=("Lookup", "Add", "Maximum")),
    Operator("one-constant-twice", "s = Sigmoid (c) m = Max (c, k) n = Min (s, k) y = Add (m, n)",
             constants={"k": BY_CHANNEL},
             islands=("Lookup", "Maximum", "Add", "Minimum", "Add")),
    Operator("maximum-of-many", "y = Max (c, k, one)",
             constants={"k": BY_CHANNEL, "one": floats(0.1)}, islands=("Maximum",)),
    Operator("power-of-positive", "r = Relu (c) y = Pow (r, p)", constants={"p": floats(1.7)},
             islands=("Lookup",)),
    Operator("fifth-power", "y = Pow (c, p)", constants={"p": floats(5)}, islands=("Lookup",)),
    Operator("root", "r = Relu (c) a = Add (r, one) y = Pow (a, p)",
             constants={"p": floats(0.5), "one": floats(1)}),
    Operator("thresholded", "y = ThresholdedRelu <alpha=0.4> (c)", islands=("Lookup",)),
    Operator("attention", """
        v = Reshape (c, flat)
        t = Transpose <perm=[0,2,1]> (v)
        s = MatMul (t, v)
        p = Softmax <axis=-1> (s)
        m = MatMul (v, p)
        y = Reshape (m, whole)
        """, constants={"flat": np.array([1, 6, 64]), "whole": np.array(SHAPE)}),
    Operator("gru", """
        v = Reshape (c, flat)
        t = Transpose <perm=[2,0,1]> (v)
        g = GRU <hidden_size=6, linear_before_reset=1> (t, wx, wh)
        s = Squeeze (g, one)
        u = Transpose <perm=[1,2,0]> (s)
        y = Reshape (u, whole)
        """, constants={
            "flat": np.array([1, 6, 64]), "whole": np.array(SHAPE), "one": np.array([1]),
            "wx": np.random.default_rng(1).normal(size=(1, 18, 6)).astype(np.float32) / 2,
            "wh": np.random.default_rng(2).normal(size=(1, 18, 6)).astype(np.float32) / 2}),
    Operator("transposed", "y = Transpose <perm=[0,1,3,2]> (c)", islands=("Rearrange",)),
)  # fmt: skip


def model_of(operator: Operator, samples: int = 1) -> onnx.ModelProto:
    """conv, the operator, and a 1x1 conv behind it, on a batch of samples."""
    rng = np.random.default_rng(5)
    after = operator.shape[1]
    sizes = ",".join(map(str, operator.shape[2:]))
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]>'
        f"g (float[{samples},3,8,8] image) => (float[{samples},4,{sizes}] scores) {{"
        "c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (image, w, b)"
        f"{operator.text} scores = Conv (y, w1, b1) }}"
    )
    arrays = {
        "w": rng.normal(size=(6, 3, 3, 3)) / 3, "b": rng.normal(size=6) / 4,
        "w1": rng.normal(size=(4, after, 1, 1)) / 2, "b1": rng.normal(size=4) / 4,
    }  # fmt: skip
    held = {name: array.astype(np.float32) for name, array in arrays.items()}
    for name, array in {**held, **(operator.constants or {})}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    return model


def exported(model: onnx.ModelProto, folder: Path) -> Bundle:
    onnx.save(model, folder / "net.onnx")
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    inputs = np.random.default_rng(7).normal(size=(8, *shape[1:])).astype(np.float32)
    save(folder / "data.npz", inputs=inputs)
    return deploykit.export(folder / "net.onnx", data=folder / "data.npz", out=folder / "bundle")


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_it_goes_through_both_formats_and_verifies(operator: Operator, tmp_path: Path) -> None:
    bundle = exported(model_of(operator), tmp_path)
    kinds = [layer["operator"] for layer in bundle.manifest["layers"]]
    assert kinds == ["Conv", *operator.islands, "Conv"]
    for found in bundle.manifest["parity"]:
        assert found["differing"] == 0
        assert found["integers"] > 0
    worst = min(value for value in bundle.manifest["sqnr_db"].values() if value is not None)
    assert worst > 15
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]


def test_an_island_whose_file_computes_something_else_fails(tmp_path: Path) -> None:
    (softmax,) = (one for one in OPERATORS if one.name == "softmax")
    bundle = exported(model_of(softmax), tmp_path)
    model = onnx.load(bundle.file("model.onnx"))
    (node,) = (node for node in model.graph.node if node.op_type == "Softmax")
    node.attribute[0].i = 2
    onnx.save(model, bundle.file("model.onnx"))
    mend(bundle.path)
    report = deploykit.verify_bundle(bundle.path)
    failed = [step for step in report.steps if step.verdict is Verdict.FAILED]
    assert [step.operator for step in failed] == ["y"]


TAILS = {
    "classes of a sequence": """
        v = Reshape (c, flat)
        t = Transpose <perm=[0,2,1]> (v)
        m = MatMul (t, w2)
        scores = LogSoftmax <axis=-1> (m)
    """,
    "classes of pixels": "m = Conv (c, w1, b1) scores = Softmax <axis=1> (m)",
    "log-classes of pixels": "m = Conv (c, w1, b1) scores = LogSoftmax <axis=1> (m)",
}


@pytest.mark.parametrize("text", TAILS.values(), ids=TAILS)
def test_a_softmax_at_the_end_of_any_rank_is_no_island(text: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]>'
        "g (float[1,3,8,8] image) => (float[] scores) "
        f"{{ c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (image, w, b) {text} }}"
    )
    shapes = {"w": (6, 3, 3, 3), "b": (6,), "w1": (4, 6, 1, 1), "b1": (4,), "w2": (6, 4)}
    held = {n: (rng.normal(size=s) / 4).astype(np.float32) for n, s in shapes.items()}
    read = {name for node in model.graph.node for name in node.input}
    for name, array in {**held, "flat": np.array([1, 6, 64])}.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    bundle = exported(model, tmp_path)
    assert "Island" not in {layer["operator"] for layer in bundle.manifest["layers"]}
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]
    inputs = np.random.default_rng(7).normal(size=(8, 3, 8, 8)).astype(np.float32)
    found = ort.run(bundle.file("model.onnx").read_bytes(), {"image": inputs})["scores"]
    wanted = ort.run((tmp_path / "net.onnx").read_bytes(), {"image": inputs})["scores"]
    if "LogSoftmax" in text:
        found, wanted = np.exp(found), np.exp(wanted)
    assert np.abs(found - wanted).max() < 0.05
    np.testing.assert_allclose(found.sum(1 if wanted.ndim == 4 else 2), 1.0, atol=1e-5)
