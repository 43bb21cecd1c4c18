"""Layers that the user leaves in float: islands of float32 weights in both files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.tflite_file import parse_tflite
from deploykit.errors import QuantizationError
from deploykit.spec.parity import Verdict
from tests.cli.running import run
from tests.exported import mend, save
from tests.onnx_files import clip, file, node, normal
from tests.onnx_files import save as save_model
from tests.test_tied_export import twice

SHAPE = (1, 3, 8, 8)
WEIGHTED = ("stem", "depthwise", "grouped", "up", "head")


def kinds() -> onnx.ModelProto:
    """Every kind of layer with weights, with and without an activation behind it."""
    nodes = [
        node("Conv", "image w0 b0", "stem", pads=[1, 1, 1, 1]),
        clip(13, "stem", "bounded"),
        node("Conv", "bounded w1 b1", "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Relu", "depthwise", "relu"),
        node("Conv", "relu w2", "grouped", group=2),
        node("Add", "grouped bounded", "sum"),
        node("ConvTranspose", "sum w3 b3", "up", strides=[2, 2]),
        node("GlobalAveragePool", "up", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("MatMul", "flat w4", "head"),
    ]
    constants: dict[str, npt.ArrayLike] = {
        "low": 0.0, "high": 6.0,
        "w0": normal(8, 3, 3, 3), "b0": normal(8, seed=1), "w1": normal(8, 1, 3, 3, seed=2),
        "b1": normal(8, seed=3), "w2": normal(8, 4, 1, 1, seed=4),
        "w3": normal(8, 6, 2, 2, seed=5), "b3": normal(6, seed=6), "w4": normal(6, 5, seed=7),
    }  # fmt: skip
    return file(nodes, constants, {"image": SHAPE}, {"head": (1, 5)}, 13)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("float_layers")
    save_model(kinds(), folder / "net.onnx")
    save(folder / "data.npz", inputs=normal(24, *SHAPE[1:], seed=9))
    return folder


def exported(folder: Path, out: Path, **options: Any) -> Bundle:
    return deploykit.export(folder / "net.onnx", data=folder / "data.npz", out=out, **options)


def names_of(bundle: Bundle) -> list[str]:
    """Layers with weights, as the table names them."""
    return [
        layer["name"]
        for layer in bundle.manifest["layers"]
        if layer["bits"] is not None or "left_in_float" in layer
    ]


@pytest.fixture(scope="module")
def whole(folder: Path) -> Bundle:
    return exported(folder, folder / "whole")


@pytest.mark.parametrize("place", range(len(WEIGHTED)))
def test_each_kind_of_layer_runs_in_float(
    place: int, whole: Bundle, folder: Path, tmp_path: Path
) -> None:
    name = names_of(whole)[place]
    bundle = exported(folder, tmp_path / "b", layer_bits={name: "float"})
    assert names_of(bundle) == names_of(whole)
    (island,) = [layer for layer in bundle.manifest["layers"] if "left_in_float" in layer]
    assert (island["name"], island["left_in_float"], island["bits"]) == (name, [name], None)
    assert json.loads(bundle.file("plan.json").read_text())["in_float"] == [name]
    assert {found["differing"] for found in bundle.manifest["parity"]} == {0}
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]
    assert sqnr(bundle, name) >= sqnr(whole, name)


def sqnr(bundle: Bundle, name: str) -> float:
    return float(
        next(one["sqnr_db"] for one in bundle.manifest["layers"] if one["name"] == name) or 200
    )


def test_its_weights_are_in_both_files_as_they_were(
    whole: Bundle, folder: Path, tmp_path: Path
) -> None:
    bundle = exported(folder, tmp_path / "b", layer_bits=["stem=float"])
    wanted = normal(8, 3, 3, 3)
    held = [
        numpy_helper.to_array(one)
        for one in onnx.load(bundle.file("model.onnx")).graph.initializer
        if list(one.dims) == [8, 3, 3, 3]
    ]
    assert len(held) == 1 and np.array_equal(held[0], wanted)
    tensors = parse_tflite(bundle.file("model.tflite").read_bytes()).tensors
    stored = [one.values for one in tensors if one.shape == (8, 3, 3, 3)]
    assert len(stored) == 1 and stored[0] is not None
    assert np.array_equal(stored[0], wanted.transpose(0, 2, 3, 1))
    computed = next(one for one in bundle.manifest["layers"] if one["name"] == "stem")
    assert computed["in_float"] == ["Conv", "Clip"]  # the bound went with it


@pytest.mark.parametrize(
    "options", [{"batch": "dynamic"}, {"rounding": "sequential", "bits": 4}, {"io": "uint8"}]
)
def test_neighbours_share_an_island_under_every_option(
    options: dict[str, Any], whole: Bundle, folder: Path, tmp_path: Path
) -> None:
    names = names_of(whole)[1:3]
    given = {"layer_bits": dict.fromkeys(names, "float"), **options}
    bundle = exported(folder, tmp_path / "b", **given)
    (island,) = [layer for layer in bundle.manifest["layers"] if "left_in_float" in layer]
    assert island["left_in_float"] == names and island["in_float"][:3] == ["Conv", "Relu", "Conv"]
    assert not deploykit.verify_bundle(bundle.path).failed


def test_every_layer_may_stay_in_float(whole: Bundle, folder: Path, tmp_path: Path) -> None:
    names = names_of(whole)
    bundle = exported(folder, tmp_path / "b", layer_bits=dict.fromkeys(names, "float"))
    assert not [layer for layer in bundle.manifest["layers"] if layer["bits"] is not None]
    assert not deploykit.verify_bundle(bundle.path).failed


def test_the_table_and_export_toml_say_it(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "export.toml"
    config.write_text('[bits]\ndefault = 4\nstem = "float"\n', encoding="utf-8")
    words = ("export", folder / "net.onnx", "--data", folder / "data.npz", "--config", config)
    result = run(*words, "--out", tmp_path / "b")
    assert result.exit_code == 0, result.stderr
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("stem")]
    assert row.split()[2:4] == ["8", "float"]
    result = run(*words, "--out", tmp_path / "b", "--layer-bits", "stem=8")
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("stem")]
    assert row.split()[1:4] == ["Conv", "8", "8"]


def test_a_plan_that_names_another_layer_fails_verify(folder: Path, tmp_path: Path) -> None:
    bundle = exported(folder, tmp_path / "b", layer_bits={"stem": "float"})
    plan = bundle.file("plan.json")
    plan.write_text(plan.read_text().replace('"in_float": [\n    "stem"', '"in_float": [\n    "x"'))
    mend(bundle.path)
    report = deploykit.verify_bundle(bundle.path)
    assert report.failed and any("no layer has this name" in step.detail for step in report.steps)


@pytest.mark.parametrize(
    ("layer_bits", "told"),
    [
        (["steam=float"], "--layer-bits steam=float: no layer has this name; the nearest are stem"),
        (["sum=float"], "--layer-bits sum=float: this layer has no weights"),
    ],
)
def test_what_is_no_layer_with_weights_is_refused(
    layer_bits: list[str], told: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(QuantizationError, match=told):
        exported(folder, tmp_path / "b", layer_bits=layer_bits)
    assert not (tmp_path / "b").exists()


def test_layers_of_one_weight_stay_in_float_together(tmp_path: Path) -> None:
    import torch

    torch.save(twice().state_dict(), tmp_path / "net.pt")
    given: dict[str, Any] = {
        "model": "tests.test_tied_export:twice", "input_shape": (1, 8, 6, 6),
        "data": save(tmp_path / "data.npz", inputs=normal(8, 8, 6, 6)), "prune_rule": "none",
        "out": tmp_path / "b",
    }  # fmt: skip
    with pytest.raises(QuantizationError, match="shares its weights with conv2d_1, and files"):
        deploykit.export(tmp_path / "net.pt", layer_bits=["both=float"], **given)
    both = {"both": "float", "conv2d_1": "float"}
    bundle = deploykit.export(tmp_path / "net.pt", layer_bits=both, **given)
    assert not deploykit.verify_bundle(bundle.path).failed


def test_a_temperature_needs_its_last_layer_in_integers(
    whole: Bundle, folder: Path, tmp_path: Path
) -> None:
    name = names_of(whole)[-1]
    with pytest.raises(QuantizationError, match=f"{name!r} stays in float"):
        exported(folder, tmp_path / "b", layer_bits={name: "float"}, temperature="2.0")
