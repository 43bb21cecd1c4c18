"""Activations and norms that networks spell out, against the float network on held-out inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.heldout import assert_exact, export_and_compare, model_of

WEIGHTS = {
    name: (np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(
        np.float32
    )
    for seed, (name, shape) in enumerate(
        {"w": (6, 3, 3, 3), "b": (6, 1), "v": (4, 6, 1, 1), "d": (4, 1), "t": (6, 6, 1, 1)}.items()
    )
}
HELD = {
    **{name: array.reshape(-1) if array.ndim == 2 else array for name, array in WEIGHTS.items()},
    "one": np.array(1, np.float32), "twenty": np.array(20, np.float32),
    "small": np.array(1e-5, np.float32), "tiny": np.array(1e-6, np.float32),
    "axes": np.array([1]), "six": np.array(6, np.float32), "root": np.array(2**0.5, np.float32),
    "half": np.array(0.5, np.float32),
}  # fmt: skip
ENOUGH_DB = 30.0


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("n = Neg (c) e = Exp (n) a = Add (e, one) z = Div (one, a)", ["Lookup"]),
        ("n = Neg (c) e = Exp (n) a = Add (e, one) z = Div (c, a)", ["Lookup", "Mul"]),
        ("e = Exp (c) a = Add (e, one) z = Div (c, a)", ["Island"]),
        ("e = Exp (c) a = Add (e, one) z = Log (a)", ["Lookup"]),
        ("s = Softplus (c) g = Greater (c, twenty) z = Where (g, c, s)", ["Lookup"]),
        ("r = Relu (c) p = Mul (r, r) m = ReduceMean <keepdims=1> (p, axes) a = Add (m, small)"
         " q = Sqrt (a) z = Div (r, q)", ["Island"]),
        ("p = Mul (c, c) m = ReduceMean <keepdims=1> (p, axes) a = Add (m, tiny)"
         " q = Sqrt (a) i = Reciprocal (q) z = Mul (c, i)", ["Island", "Mul"]),
        ("m = ReduceMean <keepdims=1> (c, axes) u = Sub (c, m) p = Mul (u, u)"
         " v2 = ReduceMean <keepdims=1> (p, axes) a = Add (v2, small) q = Sqrt (a) z = Div (u, q)",
         ["Island"]),
        # Two regions divide by one tensor.
        ("g = Mul (c, six) e = Exp (g) a = Add (e, one) k = Div (c, a) m = MaxPool"
         " <kernel_shape=[3,3], pads=[1,1,1,1]> (k) l = Div (g, a) n = Conv (l, t, b)"
         " z = Add (m, n)", ["Mul", "Island", "MaxPool", "Island", "Conv", "Add"]),
    ],
    ids=["sigmoid", "silu", "by 1+exp", "softplus", "softplus of torch", "rms of a relu", "rms",
         "norm over channels", "by one tensor"],
)  # fmt: skip
def test_it_stays_accurate(text: str, operators: list[str], tmp_path: Path) -> None:
    model = model_of(
        "g (float[1,3,8,8] x) => (float[1,4,8,8] y) {"
        f" c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w, b) {text} y = Conv (z, v, d) }}",
        HELD,
    )
    bundle, found = export_and_compare(model, tmp_path)
    assert_exact(bundle)
    kinds = [layer["operator"] for layer in bundle.manifest["layers"]]
    assert kinds == ["Conv", *operators, "Conv"]
    assert found > ENOUGH_DB


@pytest.mark.parametrize("opset", [13, 19])
@pytest.mark.parametrize(
    "text",
    [
        "k = Div (c, root) e = Erf (k) a = Add (e, one) m = Mul (c, a) z = Mul (m, half)",
        "k = Div (c, root) e = Erf (k) a = Add (e, one) h = Mul (c, half) z = Mul (h, a)",
        "k = Div (c, root) e = Erf (k) a = Add (e, one) m = Mul (c, a) g = Mul (m, half)"
        " z = Add (g, c)",
    ],
    ids=["as torch writes it", "half first", "in a residual"],
)
def test_gelu_of_an_opset_without_it(text: str, opset: int, tmp_path: Path) -> None:
    model = model_of(
        "g (float[1,3,8,8] x) => (float[1,4,8,8] y) {"
        f" c = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (x, w, b) {text} y = Conv (z, v, d) }}",
        HELD,
    )
    model.opset_import[0].version = opset
    bundle, found = export_and_compare(model, tmp_path)
    assert_exact(bundle)
    assert "Lookup" in [layer["operator"] for layer in bundle.manifest["layers"]]
    written = onnx.load(bundle.file("model.onnx"))
    assert written.opset_import[0].version == 20
    assert "Gelu" in [node.op_type for node in written.graph.node]
    assert found > ENOUGH_DB
