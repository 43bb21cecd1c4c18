"""Any number of samples at a time, through islands and rearrangements too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.errors import ConfigError, GraphError, UnsupportedOperatorError
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.parity import Verdict
from tests.exported import save
from tests.test_island_export import OPERATORS, Operator, model_of

WITH_BODIES = [one for one in OPERATORS if {"Island", "Rearrange"} & set(one.islands)]


def exported(model: onnx.ModelProto, folder: Path) -> Bundle:
    onnx.save(model, folder / "net.onnx")
    data = save(folder / "data.npz", inputs=images(8))
    out = folder / "bundle"
    return deploykit.export(folder / "net.onnx", data=data, out=out, batch="dynamic")


def images(samples: int) -> AnyArray:
    return np.random.default_rng(7).normal(size=(samples, 3, 8, 8)).astype(np.float32)


def assert_three_are_three_ones(bundle: Bundle, name: str, inputs: AnyArray) -> None:
    """By the files alone, in one call each."""
    channels_last = np.moveaxis(inputs, 1, -1) if inputs.ndim == 4 else inputs
    onnx_file = bundle.file("model.onnx").read_bytes()
    tflite = bundle.file("model.tflite").read_bytes()
    for data, run, given in ((onnx_file, ort.run, inputs), (tflite, litert.run, channels_last)):
        (together,) = run(data, {name: np.ascontiguousarray(given)}).values()
        for place in range(len(given)):
            alone = np.ascontiguousarray(given[place : place + 1])
            (single,) = run(data, {name: alone}).values()
            np.testing.assert_array_equal(together[place : place + 1], single)


@pytest.mark.parametrize("operator", WITH_BODIES, ids=lambda operator: operator.name)
def test_any_batch_goes_through(operator: Operator, tmp_path: Path) -> None:
    bundle = exported(model_of(operator), tmp_path)
    assert {found["differing"] for found in bundle.manifest["parity"]} == {0}
    assert_three_are_three_ones(bundle, "image", images(3))
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]


NUMBERS = {"whole": [1, 6, 8, 8], "front": [0], "rows": [6, 64]}


def of_one(text: str) -> onnx.ModelProto:
    """conv, nodes from `c` [1, 6, 8, 8] to `y`, and a 1x1 conv behind them."""
    return model_of(
        Operator("", text, constants={name: np.array(listed) for name, listed in NUMBERS.items()})
    )


def test_parts_of_an_axis_in_front_of_the_samples_are_cut_for_each(tmp_path: Path) -> None:
    """As queries, keys and values come out of one tensor, which stay integers."""
    text = """
        v = Reshape (c, thirds)
        t = Transpose <perm=[1,0,2,3,4]> (v)
        q = Slice (t, zero, one, zero)
        k = Slice (t, one, two, zero)
        d = Add (q, k)
        s = Softmax <axis=-1> (d)
        p = Concat <axis=2> (s, s, s)
        y = Reshape (p, whole)
    """
    numbers = {"thirds": [1, 3, 2, 8, 8], "zero": [0], "one": [1], "two": [2]}
    lists = {name: np.array(listed) for name, listed in {**NUMBERS, **numbers}.items()}
    bundle = exported(model_of(Operator("", text, constants=lists)), tmp_path)
    assert "Slice" in {layer["operator"] for layer in bundle.manifest["layers"]}
    assert {found["differing"] for found in bundle.manifest["parity"]} == {0}
    assert_three_are_three_ones(bundle, "image", images(3))
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]


MIXING = {
    "a mean over the samples": ("m = ReduceMean <keepdims=1> (c, front) y = Sub (c, m)", "m"),
    "a softmax over the samples": ("y = Softmax <axis=0> (c)", "y"),
    "tokens of all samples": ("""
        v = Reshape (c, rows)
        t = Transpose <perm=[1,0]> (v)
        s = MatMul (v, t)
        p = Softmax <axis=-1> (s)
        m = MatMul (p, v)
        y = Reshape (m, whole)
    """, "s"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "node"), MIXING.values(), ids=MIXING)
def test_what_mixes_samples_is_refused(text: str, node: str, tmp_path: Path) -> None:
    model = of_one(text)
    with pytest.raises(GraphError, match=rf"^{node}: operator .* mixes the samples"):
        exported(model, tmp_path)


def test_a_source_that_answers_otherwise_for_several_is_refused(tmp_path: Path) -> None:
    """Its first sample alone: to a batch of one, which the graph is, that is the whole."""
    text = "y = Slice (c, front, single, front)"
    lists = {name: np.array(listed) for name, listed in {**NUMBERS, "single": [1]}.items()}
    model = model_of(Operator("", text, constants=lists))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    for port in (*model.graph.output, *model.graph.value_info):
        port.type.tensor_type.ClearField("shape")
    with pytest.raises(GraphError, match=r"scores of 3 samples together .* leave --batch out"):
        exported(model, tmp_path)


OF_THREE = {
    "softmax": "y = Softmax <axis=1> (c)",
    "attention": """
        v = Reshape (c, flat)
        t = Transpose <perm=[0,2,1]> (v)
        s = MatMul (t, v)
        p = Softmax <axis=-1> (s)
        m = MatMul (v, p)
        y = Reshape (m, whole)
    """,
    "times in front": """
        v = Reshape (c, flat)
        t = Transpose <perm=[2,0,1]> (v)
        g = GRU <hidden_size=6, linear_before_reset=1> (t, wx, wh)
        s = Squeeze (g, one)
        u = Transpose <perm=[1,2,0]> (s)
        y = Reshape (u, whole)
    """,
    "the last state": """
        v = Reshape (c, flat)
        t = Transpose <perm=[2,0,1]> (v)
        g, h = GRU <hidden_size=6, linear_before_reset=1> (t, wx, wh)
        s = Reshape (h, pixel)
        y = Expand (s, whole)
    """,
    "heads behind samples": """
        v = Reshape (c, heads)
        t = Transpose <perm=[0,2,1]> (v)
        s = MatMul (t, v)
        p = Softmax <axis=-1> (s)
        m = MatMul (v, p)
        y = Reshape (m, whole)
    """,
}


def of_samples(text: str, samples: int) -> onnx.ModelProto:
    """conv, nodes from `c` [samples, 6, 8, 8] to `y`, and a 1x1 conv behind them."""
    rng = np.random.default_rng(5)
    recurrent = {name: rng.normal(size=(1, 18, 6)).astype(np.float32) / 2 for name in ("wx", "wh")}
    numbers = {
        "flat": [samples, 6, 64], "whole": [samples, 6, 8, 8], "one": [1], "front": [0],
        "heads": [2 * samples, 3, 64], "pixel": [samples, 6, 1, 1], "end": [-1], "start": [-99],
    }  # fmt: skip
    lists = {name: np.array(listed) for name, listed in numbers.items()}
    return model_of(Operator("", text, constants={**recurrent, **lists}), samples)


@pytest.mark.parametrize("text", OF_THREE.values(), ids=OF_THREE)
def test_a_fixed_batch_of_three_goes_through(text: str, tmp_path: Path) -> None:
    """And gives for each sample what a batch of one gives: the plan is the same."""
    data = save(tmp_path / "data.npz", inputs=images(8))
    found = {}
    for samples in (3, 1):
        onnx.save(of_samples(text, samples), tmp_path / f"{samples}.onnx")
        bundle = deploykit.export(
            tmp_path / f"{samples}.onnx", data=data, out=tmp_path / f"bundle{samples}"
        )
        assert {one["differing"] for one in bundle.manifest["parity"]} == {0}
        report = deploykit.verify_bundle(bundle.path)
        assert not report.failed, [s for s in report.steps if s.verdict is Verdict.FAILED]
        file = bundle.file("model.onnx").read_bytes()
        found[samples] = ort.run(file, {"image": images(8)})["scores"]
    np.testing.assert_array_equal(found[3], found[1])


def test_a_fixed_batch_of_two_whose_samples_meet_is_refused(tmp_path: Path) -> None:
    text = "m = ReduceMean <keepdims=1> (c, front) t = Sub (c, m) y = Softmax <axis=1> (t)"
    onnx.save(of_samples(text, 2), tmp_path / "net.onnx")
    data = save(tmp_path / "data.npz", inputs=images(8))
    with pytest.raises(
        GraphError, match=r"mixes the samples of a batch, .* give --input-shape a batch of one "
    ):
        deploykit.export(tmp_path / "net.onnx", data=data, out=tmp_path / "bundle")


@pytest.mark.parametrize("samples", [1, 2])
def test_a_flip_along_the_first_axis_says_what_to_do(samples: int, tmp_path: Path) -> None:
    text = """
        v = Reshape (c, flat)
        t = Transpose <perm=[2,0,1]> (v)
        r = Slice (t, end, start, front, end)
        g = GRU <hidden_size=6, linear_before_reset=1> (r, wx, wh)
        s = Squeeze (g, one)
        u = Transpose <perm=[1,2,0]> (s)
        y = Reshape (u, whole)
    """
    onnx.save(of_samples(text, samples), tmp_path / "net.onnx")
    data = save(tmp_path / "data.npz", inputs=images(8))
    with pytest.raises(
        UnsupportedOperatorError, match=r"its step is -1 along axis 0; .* --to onnx"
    ):
        deploykit.export(tmp_path / "net.onnx", data=data, out=tmp_path / "bundle")
    bundle = deploykit.export(tmp_path / "net.onnx", data=data, out=tmp_path / "b", to="onnx")
    assert not deploykit.verify_bundle(bundle.path).failed


def test_integers_with_times_in_front_have_no_fixed_batch(tmp_path: Path) -> None:
    text = """
        v = Reshape (c, flat)
        t = Transpose <perm=[2,0,1]> (v)
        r = Sigmoid (t)
        u = Transpose <perm=[1,2,0]> (r)
        y = Reshape (u, whole)
    """
    onnx.save(of_samples(text, 2), tmp_path / "net.onnx")
    data = save(tmp_path / "data.npz", inputs=images(8))
    with pytest.raises(GraphError, match=r"does not hold the samples .* --batch dynamic"):
        deploykit.export(tmp_path / "net.onnx", data=data, out=tmp_path / "bundle")


def test_samples_that_end_beside_others_are_refused(tmp_path: Path) -> None:
    model = of_one("y = Softmax <axis=1> (c)")
    model.graph.node[-1].output[0] = "last"
    model.graph.node.append(
        onnx.helper.make_node("Reshape", ["last", "merged"], ["scores"], "merge")
    )
    rows = np.array([-1, 8], np.int64)
    model.graph.initializer.append(numpy_helper.from_array(rows, "merged"))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    with pytest.raises(
        GraphError, match=r"^merge: operator Reshape .* output scores has them there; .* in front"
    ):
        exported(model, tmp_path)


def test_a_batch_beside_a_dynamic_one_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    data = save(tmp_path / "data.npz", inputs=images(4))
    with pytest.raises(ConfigError, match=r"input 'input' is \[2, 3, 8, 8\]; give it a batch of 1"):
        deploykit.export(
            tmp_path / "gone.pt", model="gone.py:build", input_shape=(2, 3, 8, 8), data=data,
            out=tmp_path / "bundle", batch="dynamic",
        )  # fmt: skip
