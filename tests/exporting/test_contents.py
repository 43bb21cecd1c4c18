"""What the sample's manifest, plan and float model say, and how they hang together."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from deploykit.bundle import load_golden
from deploykit.exporting.contents import PACKAGES
from tests.exported import CHECKPOINT, SLICES

LAYERS = {
    "conv1": "Conv", "max_pool2d": "MaxPool", "conv2": "Conv", "max_pool2d_1": "MaxPool",
    "view": "Flatten", "fc1": "Linear", "fc2": "Linear",
}  # fmt: skip


@pytest.fixture(scope="module")
def manifest(sample_bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sample_bundle / "manifest.json").read_bytes())
    return found


@pytest.fixture(scope="module")
def plan(sample_bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sample_bundle / "plan.json").read_bytes())
    return found


def test_every_layer_has_channels_bits_scales_sqnr_and_kernels(manifest: dict[str, Any]) -> None:
    assert {layer["name"]: layer["operator"] for layer in manifest["layers"]} == LAYERS
    for layer in manifest["layers"]:
        weighted = layer["operator"] in {"Conv", "Linear"}
        assert 0 < layer["channels_after"] <= layer["channels_before"]
        assert layer["bits"] == (8 if weighted else None)
        assert (layer["macs"] > 0) == weighted
        assert layer["bytes"] > 0
        assert layer["output_scale"] > 0
        assert layer["sqnr_db"] > 20
        assert set(layer["kernels"]) == {"onnxruntime", "litert"}
        assert layer["kernels"]["litert"] == "XNNPACK"
    kernels = {layer["name"]: layer["kernels"]["onnxruntime"] for layer in manifest["layers"]}
    assert kernels["conv1"] == kernels["conv2"] == "QLinearConv"
    assert kernels["fc1"] == "QGemm"


def test_layers_before_removal_have_the_trained_widths(manifest: dict[str, Any]) -> None:
    before = {layer["name"]: layer["channels_before"] for layer in manifest["layers"]}
    assert [before[name] for name in ("conv1", "conv2", "fc1", "fc2")] == [20, 50, 500, 10]


def test_every_closed_gate_of_a_convolution_and_every_removed_channel_has_a_reason(
    manifest: dict[str, Any],
) -> None:
    reasons = {"unread", "zero", "folded", "collapsed"}
    removed = manifest["removal"]["channels"]
    for layer in manifest["layers"]:
        gone = removed.get(layer["name"], [])
        if layer["operator"] in {"Conv", "Linear"}:
            assert len(gone) == layer["channels_before"] - layer["channels_after"]
        assert {entry["reason"] for entry in gone} <= reasons


def test_sizes_are_those_of_the_files(manifest: dict[str, Any], sample_bundle: Path) -> None:
    for name, size in manifest["sizes"].items():
        assert (sample_bundle / name).stat().st_size == size
    listed = {*manifest["sizes"], "manifest.json", "MANIFEST.sha256"}
    assert listed == {item.name for item in sample_bundle.iterdir()}
    assert manifest["dense_float32_bytes"] == 4 * 431_080


def test_parity_covers_the_labelled_samples_and_the_golden_ones(manifest: dict[str, Any]) -> None:
    samples = SLICES["test-2000.npz"] + 8
    assert [(p["samples"], p["differing"]) for p in manifest["parity"]] == [(samples, 0)] * 2
    assert manifest["accuracy"]["samples"] == SLICES["test-2000.npz"]
    stages = {"samples", "mean", "folded", "pruned", "model.onnx", "model.tflite"}
    assert set(manifest["accuracy"]) == stages


def test_versions_and_checkpoint_are_stated(manifest: dict[str, Any]) -> None:
    assert set(manifest["versions"]) == {"python", *PACKAGES}
    assert manifest["source"]["name"] == "bayesian.pt"
    assert manifest["source"]["kind"] == "checkpoint"
    assert manifest["source"]["bytes"] == CHECKPOINT.stat().st_size


def test_nothing_tells_of_the_machine_or_the_moment(sample_bundle: Path) -> None:
    """Else two exports would differ."""
    home = str(Path(__file__).parent.parent.parent).encode()
    for item in sample_bundle.iterdir():
        assert home not in item.read_bytes()
        assert b"/tmp/" not in item.read_bytes()


def test_the_plan_s_layers_and_names_fit_its_network(plan: dict[str, Any]) -> None:
    assert list(plan["layers"]) == list(LAYERS)
    network = plan["network"]
    assert set(plan["names"]) == set(network["operators"])
    assert list(plan["names"].values()) == list(LAYERS)
    scale = network["tensors"]["input_quantized"]["scale"]
    assert math.log2(scale) == int(math.log2(scale))
    assert network["tensors"]["view"]["scale"] == network["tensors"]["relu_1"]["scale"]
    assert plan["calibration_samples"] == SLICES["calibration.npz"]


def test_the_float_model_is_plain_onnx(sample_bundle: Path, manifest: dict[str, Any]) -> None:
    model = onnx.load(sample_bundle / "model.float.onnx")
    onnx.checker.check_model(model, full_check=True)
    sizes = [int(np.prod(tensor.dims)) for tensor in model.graph.initializer]
    assert sum(sizes) == manifest["removal"]["parameters_after"]


def test_golden_holds_what_the_issue_asks(sample_bundle: Path, plan: dict[str, Any]) -> None:
    golden = load_golden(sample_bundle / "golden.npz")
    assert (golden.real, len(golden.inputs), len(golden.full)) == (32, 40, 8)
    assert set(golden.integers) == set(plan["network"]["tensors"])
    assert [len(values) for values in golden.outputs.values()] == [40]
    assert golden.labels is not None
    assert golden.mean_forward is not None
