"""Exports below 8 bits: the same integers everywhere, in files that say how they hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.report.warnings import warnings_of
from deploykit.runtime import litert, ort
from deploykit.spec.carriers import IN_INT8
from deploykit.spec.operators import Conv, Linear
from deploykit.spec.parity import Verdict
from deploykit_cli.main import app
from tests.exported import copy_of, mend, save
from tests.quantize.graphs import seeded
from tests.quantize.test_bits import mobile_network

BITS = {"project": 2, "output": 8}


def exported(folder: Path, **options: Any) -> Bundle:
    source = folder / "net.onnx"
    source.write_bytes(ir.to_proto(mobile_network().model).SerializeToString())
    data = save(folder / "data.npz", inputs=seeded(32, 3, 8, 8, seed=3))
    return deploykit.export(source, out=folder / "bundle", data=data, **options)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("narrow"), bits=4, layer_bits=BITS)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(tmp_path_factory.mktemp("wide"))


def layer(bundle: Bundle, name: str) -> Any:
    (found,) = (one for one in bundle.manifest["layers"] if one["name"] == name)
    return found


def test_every_integer_is_the_same_and_the_bundle_proves_it(narrow: Bundle) -> None:
    assert [one["differing"] for one in narrow.manifest["parity"]] == [0, 0]
    assert not any(one["one_step_in_islands"] for one in narrow.manifest["parity"])
    steps = deploykit.verify_bundle(narrow.path).steps
    assert {step.verdict for step in steps if step.number > 1} == {Verdict.PASSED}


def test_predicted_kernels_are_those_that_run(narrow: Bundle) -> None:
    decisions = json.loads((narrow.path / "plan.json").read_text(encoding="utf-8"))["layers"]
    for name in ("stem", "expand", "depthwise", "project", "window", "output"):
        kernels = layer(narrow, name)["kernels"]
        predicted = decisions[name]["weight"]["kernel"]
        assert predicted == {"onnx": kernels["onnxruntime"], "tflite": kernels["litert"]}
        assert {key: held["kernel"] for key, held in layer(narrow, name)["stored"].items()} == (
            predicted
        )
    assert layer(narrow, "project")["bits"] == 2
    assert decisions["project"]["weight"]["carrier"] == {"onnx": "int2", "tflite": "int4"}
    assert layer(narrow, "output")["stored"]["onnx"]["carrier"] == "int8"


def test_files_take_less_and_the_manifest_says_how_much(narrow: Bundle, wide: Bundle) -> None:
    for file in ("model.onnx", "model.tflite"):
        stored, before = (one.manifest["stored"][file] for one in (narrow, wide))
        size = narrow.manifest["sizes"][file]
        saved = before["weight_bytes"] - stored["weight_bytes"]
        assert 0.6 * saved < wide.manifest["sizes"][file] - size <= saved
        assert stored["deflated_bytes"] < min(size, before["deflated_bytes"])
    onnx_stored = narrow.manifest["stored"]["model.onnx"]
    assert (
        onnx_stored["weight_memory_bytes"] == wide.manifest["stored"]["model.onnx"]["weight_bytes"]
    )
    tflite_stored = narrow.manifest["stored"]["model.tflite"]
    assert tflite_stored["weight_memory_bytes"] == tflite_stored["weight_bytes"]
    assert narrow.manifest["min_onnxruntime"] == "1.28"  # a stem over blocks of pixels
    assert narrow.manifest["min_litert"] == "1.4"
    assert wide.manifest["min_litert"] is None


def test_a_weight_that_is_stored_otherwise_than_planned_fails(
    narrow: Bundle, tmp_path: Path
) -> None:
    bundle = copy_of(narrow.path, tmp_path)
    network = read_onnx((bundle / "model.onnx").read_bytes())
    operators = tuple(
        replace(one, weight=replace(one.weight, carriers=IN_INT8))
        if isinstance(one, Conv | Linear) and one.name == "window"
        else one
        for one in network.operators
    )
    (bundle / "model.onnx").write_bytes(write_onnx(replace(network, operators=operators)))
    mend(bundle)
    failed = [
        step for step in deploykit.verify_bundle(bundle).steps if step.verdict is Verdict.FAILED
    ]
    assert [(step.compared, step.operator) for step in failed] == [
        ("model.onnx, read back / plan", "window"), ("manifest.json / files", None),
    ]  # fmt: skip
    assert "stored as int8, not as int4" in failed[0].detail


def test_small_convolutions_round_otherwise_and_that_is_said(tmp_path: Path) -> None:
    bundle = exported(tmp_path, bits=4, tflite_lowbit="small", min_ort="1.20")
    in_ort, in_litert = bundle.manifest["parity"]
    assert (in_ort["differing"], in_litert["differing"]) == (0, 0)
    assert in_ort["one_step_in_islands"] == 0 < in_litert["one_step_in_islands"]
    assert in_litert["output_drift"] <= 4
    assert bundle.manifest["min_onnxruntime"] == "1.20"
    model = onnx.load(bundle.path / "model.onnx")
    assert all(node.op_type != "SpaceToDepth" for node in model.graph.node)
    (warned,) = (one for one in warnings_of(bundle.manifest) if "tflite-lowbit" in one)
    assert warned.startswith("model.tflite holds stem, window in 4 bits")
    steps = deploykit.verify_bundle(bundle.path).steps
    assert Verdict.FAILED not in {step.verdict for step in steps}
    (told,) = (
        step.detail for step in steps if step.compared == "model.tflite in litert / reference"
    )
    assert "that convolutions of 4-bit weights give are one step apart" in told


def test_the_tables_say_bits_carriers_and_bytes(narrow: Bundle) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(narrow.path)], env={"COLUMNS": "160"}).stdout
    assert "4→4/8" in shown and "2→2/4" in shown
    assert "model.tflite: 2 bits in 4 (1 layer), 4 bits in 8 (3 layers)" in shown
    assert "weights of model.tflite" in shown
    assert "ONNX Runtime 1.28 or later, for SpaceToDepth" in shown and "(uint8)" in shown
    at_80 = CliRunner().invoke(app, ["inspect", str(narrow.path)], env={"COLUMNS": "80"}).stdout
    headings = at_80.splitlines()[:2]
    assert "…" not in at_80 and "SQNR dB" in headings[1] and "XNNPACK" in at_80
    path = str(narrow.path / "model.tflite")
    listed = CliRunner().invoke(app, ["inspect", path], env={"COLUMNS": "160"}).stdout
    rows = [line.split() for line in listed.splitlines() if " Conv " in line]
    assert [row[3:5] for row in rows] == [
        ["4", "int8"], ["4", "int4"], ["4", "int8"], ["2", "int4"], ["4", "int8"],
    ]  # fmt: skip


def test_the_command_line_takes_bits_by_layer(tmp_path: Path) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(ir.to_proto(mobile_network().model).SerializeToString())
    data = save(tmp_path / "data.npz", inputs=seeded(32, 3, 8, 8, seed=3))
    words = [
        "export",
        str(source),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "b"),
        "--bits",
        "3",
    ]
    done = CliRunner().invoke(app, [*words, "--layer-bits", "stem=8", "--layer-bits", "window=2"])
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text(encoding="utf-8"))
    assert [one["bits"] for one in manifest["layers"] if one["bits"]] == [8, 3, 3, 3, 2, 3]


def two_linears() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("tiny", [1e-6, 1e-10, 1e-40])
def test_rows_of_tiny_weights_with_biases_give_equal_integers(
    bits: int, tiny: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    states = two_linears().state_dict()
    for name in ("0", "2"):
        states[f"{name}.weight"][1] = torch.sign(states[f"{name}.weight"][1]) * tiny
        states[f"{name}.bias"].fill_(0.5)
    torch.save(states, tmp_path / "net.pt")
    inputs = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    bundle = deploykit.export(
        tmp_path / "net.pt", model=f"{__name__}:two_linears", input_shape=(1, 64), align="none",
        data=save(tmp_path / "data.npz", inputs=inputs), out=tmp_path / "bundle",
        prune_rule="none", bits=bits,
    )  # fmt: skip
    far = 4 * np.sign(inputs[:8])
    (ours,) = ort.run(bundle.file("model.onnx").read_bytes(), {"input": far}).values()
    (lite,) = litert.run(bundle.file("model.tflite").read_bytes(), {"input": far}).values()
    np.testing.assert_array_equal(ours, lite)
