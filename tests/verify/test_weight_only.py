"""What verify proves of a bundle whose weights alone are integers, and what it catches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deploykit
from deploykit.emit.tflite_products import with_products
from deploykit.errors import IntegrityError
from deploykit.runtime import litert
from deploykit.spec.arrays import AnyArray
from tests.exported import copy_of, mend
from tests.onnx_files import file, node, normal
from tests.test_weight_only_corners import Constants, exported, failed


def two_outputs() -> onnx.ModelProto:
    """A layer norm, and two outputs of which one is a thousand times as large."""
    nodes = [
        node("LayerNormalization", "x gain shift", "norm", axis=-1),
        node("Gemm", "norm w0 b0", "first", transB=1),
        node("Relu", "first", "relu"),
        node("Gemm", "relu w1 b1", "large", transB=1),
        node("Gemm", "relu w2 b2", "small", transB=1),
    ]
    constants: Constants = {
        "gain": 1 + normal(64, seed=20) / 10, "shift": normal(64, seed=21) / 10,
        "w0": normal(64, 64) / 8, "b0": normal(64, seed=1),
        "w1": normal(10, 64, seed=2) * 100, "b1": normal(10, seed=3) * 100,
        "w2": normal(5, 64, seed=4) / 10, "b2": normal(5, seed=6) / 10,
    }  # fmt: skip
    outputs = {"large": (1, 10), "small": (1, 5)}
    return file(nodes, constants, {"x": (1, 64)}, outputs, 18)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    bundle = exported(folder, two_outputs(), bits=4, block_size=32)
    assert not failed(bundle.path)
    assert {one["output"] for one in bundle.manifest["parity"]} <= {"large", "small"}
    return bundle.path


def scaled(values: AnyArray) -> AnyArray:
    return values * np.float32(1.001)


def zeroed(values: AnyArray) -> AnyArray:
    return values * np.float32(0)


@pytest.mark.parametrize("file_name", ["model.onnx", "model.tflite"])
@pytest.mark.parametrize(
    ("name", "change"), [("b0", scaled), ("gain", scaled), ("b2", scaled), ("b2", zeroed)]
)
def test_a_changed_float_fails_verify(
    file_name: str, name: str, change: Callable[[AnyArray], AnyArray], pair: Path, tmp_path: Path
) -> None:
    path = copy_of(pair, tmp_path)
    held = {one.name: numpy_helper.to_array(one) for one in two_outputs().graph.initializer}
    data = (path / file_name).read_bytes()
    assert data.count(held[name].tobytes()) == 1
    changed = change(held[name]).astype(np.float32).tobytes()
    (path / file_name).write_bytes(data.replace(held[name].tobytes(), changed))
    mend(path)
    told = failed(path)
    assert any(f"{file_name}, integers as floats, in" in line for line in told), told
    assert all(file_name in line for line in told)


def test_each_recorded_output_counts(pair: Path, tmp_path: Path) -> None:
    path = copy_of(pair, tmp_path)
    with np.load(path / "golden.npz") as stored:
        held = dict(stored)
    held["outputs/small"] = scaled(held["outputs/small"])
    np.savez(path / "golden.npz", allow_pickle=False, **held)
    mend(path)
    assert any("of output small" in line for line in failed(path))


def test_a_file_that_multiplies_floats_fails_verify(pair: Path, tmp_path: Path) -> None:
    path = copy_of(pair, tmp_path)
    model = onnx.load(path / "model.onnx")
    for one in model.graph.node:
        for attribute in one.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
    (path / "model.onnx").write_bytes(model.SerializeToString())
    mend(path)
    assert any("accuracy_level 0, not 4" in line for line in failed(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(rounding="wild"),
        lambda plan: plan.pop("rounding"),
        lambda plan: plan["layers"]["first"]["weight"].update(bits=0),
        lambda plan: plan["layers"]["first"]["weight"].update(bits=True),
    ],
)
def test_a_plan_that_is_none_is_told(
    change: Callable[[Any], object], pair: Path, tmp_path: Path
) -> None:
    path = copy_of(pair, tmp_path)
    plan = json.loads((path / "plan.json").read_text())
    change(plan)
    (path / "plan.json").write_text(json.dumps(plan))
    mend(path)
    with pytest.raises(IntegrityError, match=r"plan\.json is not a plan"):
        deploykit.verify_bundle(path)


def test_a_file_that_its_readers_choke_on_fails_verify(pair: Path, tmp_path: Path) -> None:
    path = copy_of(pair, tmp_path)
    model = onnx.load(path / "model.onnx")
    key = b"deploykit.linear:first"
    data = model.SerializeToString()
    assert data.count(key) == 1
    (path / "model.onnx").write_bytes(data.replace(key, b"\xff" + key[1:]))  # no UTF-8
    mend(path)
    (told,) = failed(path)
    assert told.startswith("model.onnx, read back / plan: the file cannot be run (TypeError: ")


def test_a_stated_sqnr_that_is_no_number_fails_verify(pair: Path, tmp_path: Path) -> None:
    path = copy_of(pair, tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["weights_sqnr_db"] = "high"
    (path / "manifest.json").write_text(json.dumps(manifest))
    mend(path)
    assert any("'high' for weights_sqnr_db" in line for line in failed(path))


def test_products_in_litert_are_those_of_the_integers(pair: Path) -> None:
    data = (pair / "model.tflite").read_bytes()
    with np.load(pair / "golden.npz") as stored:
        inputs, small = stored["inputs"], stored["outputs/small"]
    found = litert.run(with_products(data), {"x": inputs})["small"]
    assert np.abs(found - small).max() < 1e-5 * np.abs(small).max()
    assert np.abs(litert.run(data, {"x": inputs})["small"] - small).max() > 1e-3
