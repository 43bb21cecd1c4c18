"""Weights alone in integers where networks, plans and files are odd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import nn

import deploykit
from deploykit.bundle import Bundle, read_bundle
from deploykit.emit.tflite_weight_only import read_weight_only_tflite
from deploykit.errors import QuantizationError
from deploykit.report.warnings import warnings_of
from deploykit.runtime import litert
from deploykit.spec.parity import Verdict
from tests.cli.running import run
from tests.exported import save
from tests.onnx_files import file, node, normal
from tests.onnx_files import save as save_model
from tests.posterior.gnj_layers import LinearGNJ

Constants = dict[str, npt.ArrayLike]


def exported(folder: Path, model: onnx.ModelProto, out: str = "b", **options: Any) -> Bundle:
    """On 40 drawn samples, weights alone in integers unless told otherwise."""
    save_model(model, folder / "net.onnx")
    shapes = {
        one.name: [size.dim_value for size in one.type.tensor_type.shape.dim][1:]
        for one in model.graph.input
    }
    drawn = {name: normal(40, *shape, seed=9) for name, shape in shapes.items()}
    save(folder / "data.npz", **drawn)
    given = {"data": folder / "data.npz", "activations": "float", "out": folder / out, **options}
    return deploykit.export(folder / "net.onnx", **given)


def failed(path: Path) -> list[str]:
    report = deploykit.verify_bundle(path)
    return [
        f"{one.compared}: {one.detail}" for one in report.steps if one.verdict is Verdict.FAILED
    ]


def perceptron(inputs: int, hidden: int, **more: npt.ArrayLike) -> onnx.ModelProto:
    """Two Gemms and what is said of their weights w0, b0, w1, b1."""
    nodes = [
        node("Gemm", "x w0 b0", "first", transB=1),
        node("Relu", "first", "relu"),
        node("Gemm", "relu w1 b1", "second", transB=1),
    ]
    constants: Constants = {
        "w0": normal(hidden, inputs) / 8, "b0": normal(hidden, seed=1),
        "w1": normal(8, hidden, seed=2) / 8, "b1": normal(8, seed=3), **more,
    }  # fmt: skip
    return file(nodes, constants, {"x": (1, inputs)}, {"second": (1, 8)}, 18)


def test_a_block_that_is_the_whole_row_is_the_scale_of_an_output(tmp_path: Path) -> None:
    bundle = exported(tmp_path, perceptron(64, 128), bits=4, block_size=64)
    assert [one.get("block") for one in bundle.manifest["layers"]] == [None, 64]
    assert not failed(bundle.path)
    with pytest.raises(QuantizationError, match=r"--block-size 128: .* two of them or more"):
        exported(tmp_path, perceptron(64, 128), "c", bits=4, block_size=128)


def test_names_like_those_of_packed_weights(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Mul", "a w.scale", "m"),
        node("Sigmoid", "m", "s"),
        node("MatMul", "s v", "b"),
        node("Add", "b v.int4", "c"),
        node("Mul", "c b/weight", "y"),
    ]
    constants: Constants = {
        "w": normal(32, 32) / 6, "w.scale": 2 + normal(32, seed=1),
        "v": normal(32, 8, seed=2) / 6, "v.int4": normal(8, seed=3),
        "b/weight": normal(4, 8, seed=4),
    }  # fmt: skip
    model = file(nodes, constants, {"x": (1, 4, 32)}, {"y": (1, 4, 8)}, 18)
    for bits in (4, 8):
        bundle = exported(tmp_path, model, f"b{bits}", bits=bits)
        assert not failed(bundle.path)
        assert bundle.manifest["weights_sqnr_db"] > 15


def test_a_gemm_adds_what_the_network_computes(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", "x w0 b0", "first", transB=1),
        node("Gemm", "first w1 first", "sum", transB=1, alpha=2.0, beta=0.5),
    ]
    constants: Constants = {
        "w0": normal(16, 16) / 4, "b0": normal(16, seed=1), "w1": normal(16, 16, seed=2) / 4,
    }  # fmt: skip
    model = file(nodes, constants, {"x": (1, 16)}, {"sum": (1, 16)}, 18)
    for options in ({}, {"to": "onnx"}, {"activations": "int8"}):
        bundle = exported(tmp_path, model, bits=8, **options)
        assert not failed(bundle.path)
    image = normal(1, 16, seed=5)
    first = image @ constants["w0"].T + constants["b0"]  # type: ignore[union-attr]
    wanted = 2 * first @ constants["w1"].T + first / 2  # type: ignore[union-attr]
    data = exported(tmp_path, model, "c").file("model.tflite").read_bytes()
    (found,) = litert.run(data, {"x": image}).values()
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


def test_layers_of_one_weight_share_its_bytes_in_both_files(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "a"), node("Tanh", "a", "b"),
        node("MatMul", "b w", "c"), node("Tanh", "c", "d"), node("MatMul", "d w", "y"),
    ]  # fmt: skip
    constants: Constants = {"w": normal(64, 64) / 8}
    model = file(nodes, constants, {"x": (1, 64)}, {"y": (1, 64)}, 18)
    bundle = exported(tmp_path, model, bits=8)
    data = bundle.file("model.tflite").read_bytes()
    weights = read_weight_only_tflite(data)
    assert len(weights) == 3
    assert data.count(weights["y"].values.tobytes()) == 1
    assert {one["weight_bytes"] for one in bundle.manifest["stored"].values()} == {64 * 64}
    assert not failed(bundle.path)


def test_matrices_that_stay_in_float_are_told(tmp_path: Path) -> None:
    nodes = [node("MatMul", "k x", "a"), node("Relu", "a", "r"), node("MatMul", "r w", "y")]
    constants: Constants = {"k": normal(7, 7) / 3, "w": normal(32, 8, seed=1) / 6}
    model = file(nodes, constants, {"x": (1, 7, 32)}, {"y": (1, 7, 8)}, 18)
    bundle = exported(tmp_path, model, bits=4)
    assert bundle.manifest["float_weights"] == [{"name": "a", "operator": "MatMul", "bytes": 196}]
    shown = run("inspect", bundle.path)
    assert "weights in float32 a (MatMul, 196 bytes)" in " ".join(shown.stdout.split())


def outliers() -> onnx.ModelProto:
    """One input of the second linear is 3,000 times as large as the others, and weighs less."""
    large = np.where(np.arange(64) == 5, np.float32(3000), np.float32(1))
    return perceptron(
        64, 64, w0=normal(64, 64) / 8 * large[:, None], w1=normal(8, 64, seed=2) / 8 / large
    )


def test_rows_that_int8_loses_are_told_with_what_helps(tmp_path: Path) -> None:
    model = outliers()
    save_model(model, tmp_path / "net.onnx")
    save(tmp_path / "data.npz", inputs=normal(40, 64, seed=9))
    words = ("export", tmp_path / "net.onnx", "--data", tmp_path / "data.npz", "--bits", "8",
             "--activations", "float", "--align", "none", "--out", tmp_path / "b")  # fmt: skip
    told = run(*words)
    assert told.exit_code == 0
    warned = " ".join(told.stdout.split())
    assert "rounds each row of activations to int8" in warned
    assert "--layer-bits second=float" in warned
    helped = run(*words, "--layer-bits", "second=float", "--json")
    assert helped.exit_code == 0
    manifest = json.loads(helped.stdout)
    assert not warnings_of(manifest)
    assert min(one["sqnr_db"] for one in manifest["parity"]) > 40


def test_a_posterior_is_folded_and_pruned_first(tmp_path: Path) -> None:
    network = gated_perceptron()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in network.named_parameters():
            if name.endswith("weight_mu"):
                values.copy_(torch.randn(values.shape, generator=generator) / 5)
        network.get_parameter("2.z_mu")[::4] = 1e-3
    torch.save(network.state_dict(), tmp_path / "net.pt")
    save(tmp_path / "data.npz", inputs=normal(40, 48, seed=9))
    told = run(
        "export", tmp_path / "net.pt", "--model", "tests.test_weight_only_corners:gated_perceptron",
        "--input-shape", "1,48", "--data", tmp_path / "data.npz", "--threshold", "-2",
        "--activations", "float", "--bits", "4", "--out", tmp_path / "b",
    )  # fmt: skip
    assert told.exit_code == 0, told.stderr
    assert not failed(tmp_path / "b")
    layers = read_bundle(tmp_path / "b").manifest["layers"]
    assert [(one["channels_before"], one["channels_after"]) for one in layers] == [
        (100, 75), (8, 8),
    ]  # fmt: skip
    # of 75 inputs: 4 bits in model.onnx, 8 in model.tflite
    assert all("XNNPACK" in line for line in told.stdout.splitlines() if " Linear " in line)
    assert "4→4/8" in told.stdout


def gated_perceptron() -> nn.Sequential:
    """Of group normal-Jeffreys layers: 48 -> 100 -> 8."""
    return nn.Sequential(LinearGNJ(48, 100), nn.ReLU(), LinearGNJ(100, 8))


def test_a_plan_takes_blocks_and_activations_along(tmp_path: Path) -> None:
    model = perceptron(128, 64)
    first = exported(tmp_path, model, bits=4, block_size=32)
    run("export", tmp_path / "net.onnx", "--data", tmp_path / "data.npz", "--bits", "4",
        "--activations", "float", "--block-size", "32", "--out", tmp_path / "s",
        "--save-plan", tmp_path / "saved.json")  # fmt: skip
    for plan in (first.file("plan.json"), tmp_path / "saved.json"):
        again = exported(tmp_path, model, "again", plan=plan, activations=None)
        assert again.file("model.onnx").read_bytes() == first.file("model.onnx").read_bytes()
    without = exported(tmp_path, model, "without", plan=first.file("plan.json"), block_size="none")
    assert [one.get("block") for one in without.manifest["layers"]] == [None, None]


def test_a_plan_for_other_activations_gives_bits_alone(tmp_path: Path) -> None:
    model = perceptron(128, 64)
    integers = exported(tmp_path, model, activations="int8", bits=4, calibration="entropy")
    alone = exported(tmp_path, model, "alone", plan=integers.file("plan.json"))
    assert [one["bits"] for one in alone.manifest["layers"]] == [4, 4]
    blocks = exported(tmp_path, model, "blocks", bits=4, block_size=32)
    back = exported(tmp_path, model, "back", plan=blocks.file("plan.json"), activations="int8")
    assert "activations" not in back.manifest
