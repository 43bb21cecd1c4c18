"""Networks of operators that few mobile networks have, from end to end on both runtimes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from tests.exported import save

HEAD = '<ir_version: 10, opset_import: ["": 20]>\n'
CONV3 = "kernel_shape=[3,3], pads=[1,1,1,1]"

COMPARING = f"""
comparing (float[1,3,12,12] image) => (float[1,5] scores) {{
    stem = Conv <{CONV3}> (image, w8x3x3x3, b8)
    bent = LeakyRelu <alpha=0.1> (stem)
    around = Conv <{CONV3}> (bent, w8x8x3x3, b8)
    channelwise = PRelu (around, slopes)
    larger = Max (bent, channelwise)
    gap = Sub (larger, stem)
    size = Abs (gap)
    means = ReduceMean (size, hw)
    centred = Sub (size, means)
    turned = Neg (centred)
    selu = Selu (turned)
    low = Min (selu, centred)
    rows = ReduceMean (low, h)
    across = Add (low, rows)
    halved = Div (across, two)
    deep = SpaceToDepth <blocksize=2> (halved)
    padded = Pad (deep, wide, half_value)
    cut = Slice (padded, starts, ends, hw)
    top = ReduceMax <keepdims=0> (cut, hw)
    scores = Gemm <transB=1> (top, w5x32, b5)
}}
"""

SIGNAL = """
signal (float[1,4,40] wave) => (float[1,5] scores) {
    stem = Conv <kernel_shape=[5], strides=[2], pads=[2,2]> (wave, w8x4x5, b8)
    normed = BatchNormalization (stem, g8, t8, m8, v8)
    bent = LeakyRelu <alpha=0.01> (normed)
    deep = Conv <kernel_shape=[3], pads=[1,1], group=8> (bent, w8x1x3, b8)
    smooth = HardSwish (deep)
    both = Add (smooth, bent)
    pooled = MaxPool <kernel_shape=[2], strides=[2]> (both)
    thin = AveragePool <kernel_shape=[2], strides=[2]> (pooled)
    joined = Concat <axis=1> (thin, thin)
    mean = ReduceMean <keepdims=0> (joined, last)
    scores = Gemm <transB=1> (mean, w5x16, b5)
}
"""

SHAPES = f"""
shapes (float[1,3,8,8] image) => (float[1,6,16,4] picture) {{
    stem = Conv <{CONV3}> (image, w8x3x3x3, b8)
    lit = Relu (stem)
    left, right = Split <axis=1, num_outputs=2> (lit)
    signal = Reshape (left, flat_shape)
    widened = Unsqueeze (signal, one)
    flat = Squeeze (widened, one)
    back = Reshape (flat, image_shape)
    joined = Concat <axis=1> (back, right)
    narrow = Conv <{CONV3}> (joined, w6x8x3x3, b6)
    picture = Reshape (narrow, picture_shape)
}}
"""

CURVES = f"""
curves (float[1,3,8,8] image) => (float[1,5] scores) {{
    stem = Conv <{CONV3}> (image, w8x3x3x3, b8)
    soft = Softplus (stem)
    bent = Tanh (soft)
    mish = Mul (stem, bent)
    first = Conv <{CONV3}> (mish, w8x8x3x3, b8)
    divided = Div (first, root)
    error = Erf (divided)
    raised = Add (error, unit)
    product = Mul (first, raised)
    gelu = Mul (product, half)
    second = Conv <{CONV3}> (gelu, w8x8x3x3, b8)
    signed = Softsign (second)
    power = Exp (signed)
    plus = Softplus (power)
    mean = ReduceMean <keepdims=0> (plus, hw)
    logits = Gemm <transB=1> (mean, w5x8, b5)
    scores = LogSoftmax <axis=-1> (logits)
}}
"""

INTEGERS = {
    "hw": [2, 3], "h": [2], "last": [2], "one": [1], "starts": [1, 0], "ends": [6, 7],
    "wide": [0, 0, 1, 1, 0, 0, 0, 1], "flat_shape": [1, 4, 64], "image_shape": [1, 4, 8, 8],
    "picture_shape": [1, 6, 16, 4],
}  # fmt: skip


NUMBERS = {"two": 2.0, "half_value": 0.5, "half": 0.5, "unit": 1.0, "root": 2**0.5}


def model(text: str) -> onnx.ModelProto:
    """The network; a name like w8x3x3x3 is a weight of that shape, b8 a vector."""
    rng = np.random.default_rng(5)
    made = onnx.parser.parse_model(HEAD + text)
    for name in dict.fromkeys(name for node in made.graph.node for name in node.input):
        if name in INTEGERS:
            held = np.array(INTEGERS[name], np.int64)
        elif name == "slopes":
            held = rng.uniform(-0.5, 1.5, (8, 1, 1)).astype(np.float32)
        elif name in NUMBERS:
            held = np.array(NUMBERS[name], np.float32)
        elif name[0] in "wbgtmv" and name[1:].replace("x", "").isdigit():
            shape = tuple(map(int, name[1:].split("x")))
            drawn = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1) * 1.5
            held = (np.abs(drawn) + 0.5 if name[0] in "vg" else drawn).astype(np.float32)
        else:
            continue
        made.graph.initializer.append(numpy_helper.from_array(held, name))
    for node in made.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(made, strict_mode=True))
    return made


@pytest.fixture(
    scope="module",
    params=[COMPARING, CURVES, SIGNAL, SHAPES],
    ids=["comparing", "curves", "signal", "shapes"],
)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder, made = tmp_path_factory.mktemp("operators"), model(request.param)
    onnx.save(made, folder / "model.onnx")
    (source,) = made.graph.input
    shape = [one.dim_value for one in source.type.tensor_type.shape.dim[1:]]
    inputs = np.random.default_rng(1).normal(size=(48, *shape)).astype(np.float32)
    save(folder / "data.npz", inputs=inputs)
    return deploykit.export(
        folder / "model.onnx", data=folder / "data.npz", out=folder / "bundle", exact=True
    )


def test_both_runtimes_compute_the_reference_in_every_tensor(bundle: Bundle) -> None:
    assert [one["differing"] for one in bundle.manifest["parity"]] == [0, 0]
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed


def test_no_operator_runs_in_float(bundle: Bundle) -> None:
    kernels = {layer["kernels"]["onnxruntime"] for layer in bundle.manifest["layers"]}
    floats = {"Add", "Sub", "Mul", "Div", "Conv", "LeakyRelu", "PRelu", "ReduceMean", "Abs", "Neg"}
    assert not kernels & floats


def test_the_integers_follow_the_floats(bundle: Bundle) -> None:
    assert min(value for value in bundle.manifest["sqnr_db"].values() if value) > 18.0
