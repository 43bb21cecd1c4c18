"""Weights of linears alone in integers, between float32 activations: `--activations float`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.onnx_weight_only import read_weight_only_onnx
from deploykit.emit.tflite_weight_only import read_weight_only_tflite
from deploykit.errors import (
    BundleError,
    ConfigError,
    ParityError,
    QuantizationError,
    UsageError,
)
from deploykit.exporting import weight_only
from deploykit.quantize.weight_only import plan_weight_only
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.carriers import Carrier
from deploykit.spec.parity import Verdict
from deploykit.spec.weight_only import WeightOnlyPlan
from deploykit.verify.metrics import sqnr_db
from tests.cli.running import run
from tests.exported import copy_of, mend, save
from tests.onnx_files import file, node, normal
from tests.onnx_files import save as save_model
from tests.test_tied_export import twice

IMAGE = (1, 3, 4, 4)


def network() -> onnx.ModelProto:
    """An image flattened, a Gemm, a MatMul of an odd number of inputs, one without a bias."""
    nodes = [
        node("Flatten", "image", "flat"),
        node("Gemm", "flat w0 b0", "first", transB=1),
        node("Relu", "first", "relu"),
        node("Gemm", "relu w1 b1", "second", transB=1),
        node("Tanh", "second", "tanh"),
        node("MatMul", "tanh w2", "third"),
    ]
    constants: dict[str, npt.ArrayLike] = {
        "w0": normal(64, 48) / 7, "b0": normal(64, seed=1), "w1": normal(33, 64, seed=2) / 8,
        "b1": normal(33, seed=3), "w2": normal(33, 10, seed=4) / 6,
    }  # fmt: skip
    return file(nodes, constants, {"image": IMAGE}, {"third": (1, 10)}, 18)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weight_only")
    save_model(network(), folder / "net.onnx")
    labels = np.arange(40) % 10
    save(folder / "data.npz", inputs=normal(40, *IMAGE[1:], seed=9))
    save(folder / "eval.npz", inputs=normal(40, *IMAGE[1:], seed=10), labels=labels)
    return folder


def exported(folder: Path, out: Path, **options: Any) -> Bundle:
    given = {"data": folder / "data.npz", "activations": "float", "out": out, **options}
    return deploykit.export(folder / "net.onnx", **given)


@pytest.fixture(scope="module")
def four(folder: Path) -> Bundle:
    return exported(folder, folder / "four", bits=4, eval_data=folder / "eval.npz")


def failed(path: Path) -> list[str]:
    report = deploykit.verify_bundle(path)
    return [
        f"{one.compared}: {one.detail}" for one in report.steps if one.verdict is Verdict.FAILED
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"bits": 8}, {"bits": 4, "rounding": "nearest"}, {"bits": 4, "weight_range": "largest"},
        {"bits": 4, "block_size": 32}, {"bits": 4, "layer_bits": {"first": 8, "third": "float"}},
        {"bits": 4, "to": "onnx"}, {"bits": 8, "to": "tflite"},
    ],
)  # fmt: skip
def test_every_form_is_proved(options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    bundle = exported(folder, tmp_path / "b", **options)
    assert not failed(bundle.path)
    assert deploykit.verify_bundle(bundle.path).complete


def test_both_files_hold_the_same_integers_and_scales(four: Bundle) -> None:
    in_onnx, _ = read_weight_only_onnx(four.file("model.onnx").read_bytes())
    in_tflite = read_weight_only_tflite(four.file("model.tflite").read_bytes())
    assert [*in_onnx] == [*in_tflite] == ["first", "second", "third"]
    for name in ("second", "third"):
        assert np.array_equal(in_onnx[name].values, in_tflite[name].values)
    assert all(np.array_equal(in_onnx[name].scale, in_tflite[name].scale) for name in in_onnx)
    # of an image flattened as H, W, C
    chw = in_tflite["first"].values.reshape(64, 4, 4, 3).transpose(0, 3, 1, 2).reshape(64, 48)
    assert np.array_equal(in_onnx["first"].values, chw)
    # 33 inputs: XNNPACK's INT4 asks for an even number
    assert [in_tflite[name].carrier for name in in_tflite] == [*[Carrier.INT4] * 2, Carrier.INT8]
    assert np.abs(in_tflite["third"].values).max() <= 7


@pytest.mark.parametrize("bits", [4, 8])
def test_runtimes_compute_what_the_integers_say(bits: int, folder: Path, tmp_path: Path) -> None:
    bundle = exported(folder, tmp_path / "b", bits=bits)
    samples = normal(50, *IMAGE[1:], seed=77)
    held, _ = read_weight_only_onnx(bundle.file("model.onnx").read_bytes())
    real = {name: one.values * one.scale.astype(np.float64) for name, one in held.items()}
    constants = {one.name: numpy_helper.to_array(one) for one in network().graph.initializer}
    hidden = np.maximum(samples.reshape(50, -1) @ real["first"].T + constants["b0"], 0)
    wanted = np.tanh(hidden @ real["second"].T + constants["b1"]) @ real["third"].T
    (by_ort,) = ort.run(bundle.file("model.onnx").read_bytes(), {"image": samples}).values()
    images = samples.transpose(0, 2, 3, 1)
    (by_litert,) = litert.run(bundle.file("model.tflite").read_bytes(), {"image": images}).values()
    for found in (by_ort, by_litert):
        assert 30 < sqnr_db(wanted, found) < 70  # rows of int8: near, and not equal


def test_kernels_and_sizes_are_told(four: Bundle) -> None:
    layers = four.manifest["layers"]
    assert [one["bits"] for one in layers] == [4, 4, 4]
    assert {one["kernels"]["onnxruntime"] for one in layers} == {"MatMulNBits"}
    assert {one["kernels"]["litert"] for one in layers} == {"XNNPACK"}
    assert [one["stored"]["tflite"]["bytes"] for one in layers] == [1536, 1056, 330]
    assert four.manifest["stored"]["model.onnx"]["weight_bytes"] == 1536 + 1056 + 165
    assert set(four.manifest["accuracy"]) >= {"pruned", "model.onnx", "model.tflite"}
    assert all("differing" not in found for found in four.manifest["parity"])


def test_blocks_round_better_and_are_in_both_files(
    four: Bundle, folder: Path, tmp_path: Path
) -> None:
    bundle = exported(folder, tmp_path / "b", bits=4, block_size=32)
    in_onnx, _ = read_weight_only_onnx(bundle.file("model.onnx").read_bytes())
    in_tflite = read_weight_only_tflite(bundle.file("model.tflite").read_bytes())
    scale = in_onnx["second"].scale
    assert scale.shape == in_tflite["second"].scale.shape == (33, 2)
    assert np.array_equal(scale, in_tflite["second"].scale)
    assert np.array_equal(in_onnx["second"].values, in_tflite["second"].values)
    # An image's columns lie otherwise in the .tflite file, and 33 inputs fill no block.
    assert in_onnx["first"].scale.shape == (64, 1) and in_onnx["third"].scale.shape == (10, 1)
    told = {one["name"]: one.get("block") for one in bundle.manifest["layers"]}
    assert told == {"first": None, "second": 32, "third": None}
    whole, blocks = (
        next(one["sqnr_db"] for one in held.manifest["layers"] if one["name"] == "second")
        for held in (four, bundle)
    )
    assert blocks > whole


def test_compensated_rounding_beats_nearest_and_equal_exports_give_equal_bytes(
    four: Bundle, folder: Path, tmp_path: Path
) -> None:
    nearest = exported(folder, tmp_path / "b", bits=4, rounding="nearest")
    assert four.manifest["weights_sqnr_db"] > nearest.manifest["weights_sqnr_db"]
    again = exported(folder, tmp_path / "c", bits=4, eval_data=folder / "eval.npz")
    for name in ("model.onnx", "model.tflite", "plan.json", "manifest.json"):
        assert again.file(name).read_bytes() == four.file(name).read_bytes()


def test_the_command_line_tells_and_inspects(folder: Path, tmp_path: Path) -> None:
    words = ("export", folder / "net.onnx", "--data", folder / "data.npz", "--out", tmp_path / "b")
    result = run(*words, "--activations", "float", "--bits", "4", "--block-size", "32")
    assert result.exit_code == 0, result.stderr
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert rows["first"].split()[:4] == ["first", "Linear", "64", "4"]
    assert "4 g32" in rows["second"]
    assert "rows of activations to int8" in " ".join(result.stdout.split())
    assert "integers differ" not in result.stdout
    for name in ("model.onnx", "model.tflite"):
        shown = run("inspect", tmp_path / "b" / name)
        assert shown.exit_code == 0 and "weights of linears alone in integers" in shown.stdout
        assert len([line for line in shown.stdout.splitlines() if " int4 " in line]) >= 2
    assert run("inspect", tmp_path / "b").exit_code == 0
    assert run("verify", tmp_path / "b").exit_code == 0


def test_a_plan_file_gives_the_bits_again(folder: Path, tmp_path: Path) -> None:
    mixed = exported(folder, tmp_path / "a", bits=4, layer_bits={"first": 8, "third": "float"})
    again = exported(folder, tmp_path / "b", plan=mixed.file("plan.json"))
    assert [one["bits"] for one in again.manifest["layers"]] == [8, 4, None]
    assert again.file("model.onnx").read_bytes() == mixed.file("model.onnx").read_bytes()


def changed(path: Path, values: AnyArray) -> None:
    """One bit of a constant, somewhere in its middle."""
    stored, data = values.tobytes(), path.read_bytes()
    assert data.count(stored) == 1
    other = bytearray(stored)
    other[len(other) // 2] ^= 1
    path.write_bytes(data.replace(stored, bytes(other)))


@pytest.mark.parametrize("file_name", ["model.onnx", "model.tflite"])
@pytest.mark.parametrize("what", ["integers", "scale", "bias"])
def test_a_changed_number_fails_verify(
    file_name: str, what: str, folder: Path, tmp_path: Path
) -> None:
    bundle = exported(folder, tmp_path / "b", bits=8)
    held = read_weight_only_tflite(bundle.file("model.tflite").read_bytes())["second"]
    constants = {
        one.name: numpy_helper.to_array(one)
        for one in onnx.load(bundle.file("model.onnx")).graph.initializer
    }
    in_onnx = file_name == "model.onnx"
    values = {
        "integers": (held.values.view(np.uint8) ^ 128) if in_onnx else held.values,
        "scale": held.scale.reshape(-1).repeat(1),
        "bias": constants["b1"],
    }[what]
    path = bundle.file(file_name)
    if what == "scale" and in_onnx:
        values = next(v for k, v in constants.items() if k.endswith(".scale") and v.size == 33)
    if what == "bias":
        data = path.read_bytes()
        assert data.count(values.tobytes()) == 1
        path.write_bytes(data.replace(values.tobytes(), (values + 3).astype(np.float32).tobytes()))
    else:
        changed(path, values)
    mend(bundle.path)
    told = failed(bundle.path)
    assert told and all(file_name in line for line in told)
    if what != "bias":
        assert f"operator second: its {'scales' if what == 'scale' else 'integers'}" in told[0]


def test_another_plan_fails_verify(folder: Path, tmp_path: Path) -> None:
    bundle = exported(folder, tmp_path / "b", bits=4)
    path = bundle.file("plan.json")
    plan = json.loads(path.read_text())
    del plan["layers"]["third"]
    path.write_text(json.dumps(plan))
    mend(bundle.path)
    assert any("and the plan has none" in line for line in failed(bundle.path))


def test_layers_of_one_weight_share_their_integers(tmp_path: Path) -> None:
    nodes = [
        node("Gemm", "x w b", "one", transB=1), node("Relu", "one", "relu"),
        node("Gemm", "relu w b", "two", transB=1),
    ]  # fmt: skip
    constants: dict[str, npt.ArrayLike] = {"w": normal(32, 32) / 6, "b": normal(32, seed=1)}
    save_model(file(nodes, constants, {"x": (1, 32)}, {"two": (1, 32)}, 18), tmp_path / "net.onnx")
    save(tmp_path / "data.npz", inputs=normal(32, 32, seed=2))
    bundle = exported(tmp_path, tmp_path / "b", bits=4)
    assert not failed(bundle.path)
    assert bundle.manifest["stored"]["model.onnx"]["weight_bytes"] == 512
    packed = [
        one for one in onnx.load(bundle.file("model.onnx")).graph.initializer
        if one.data_type == onnx.TensorProto.UINT8
    ]  # fmt: skip
    assert len(packed) == 1
    with pytest.raises(QuantizationError, match="share their weights"):
        exported(tmp_path, tmp_path / "c", bits=4, layer_bits={"one": 8})


def test_tokens_of_a_sequence(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w0", "up"),
        node("Add", "up b0", "biased"),
        node("Relu", "biased", "relu"),
        node("MatMul", "relu w1", "down"),
        node("Add", "down x", "sum"),
    ]
    constants: dict[str, npt.ArrayLike] = {
        "w0": normal(32, 128) / 6, "b0": normal(128, seed=1), "w1": normal(128, 32, seed=2) / 11,
    }  # fmt: skip
    model = file(nodes, constants, {"x": (1, 7, 32)}, {"sum": (1, 7, 32)}, 18)
    save_model(model, tmp_path / "net.onnx")
    save(tmp_path / "data.npz", inputs=normal(24, 7, 32, seed=3))
    bundle = exported(tmp_path, tmp_path / "b", bits=4, block_size=64)
    assert not failed(bundle.path)
    assert [one.get("block") for one in bundle.manifest["layers"]] == [None, 64]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"io": "int8"}, "--io int8 does not go with --activations float"),
        ({"temperature": 1.5}, "--temperature 1.5 does not go with"),
        ({"bits": 2}, "--bits 2 does not go with .* 4 or 8 bits"),
        ({"bits": "auto", "target_bits": 4.5}, "--target-bits 4.5 does not go with"),
        ({"rounding": "sequential"}, "--rounding sequential does not go with"),
        ({"target": "any"}, "--target any does not go with"),
        ({"batch": "dynamic"}, "--batch dynamic does not go with"),
        ({"min_ort": "1.20"}, "--min-ort 1.20 does not go with"),
        ({"tflite_layout": "nchw"}, "--tflite-layout nchw does not go with"),
        ({"equalization": "cross-layer"}, "--equalization cross-layer does not go with"),
    ],
)
def test_options_of_integer_activations_are_refused(
    options: dict[str, Any], told: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        exported(folder, tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layer_bits": {"first": 3}}, "first in 3 bits: .* 4 or 8 bits"),
        ({"layer_bits": {"frist": 4}}, "--layer-bits frist=4: no layer has this name; .* first"),
        ({"layer_bits": dict.fromkeys(("first", "second", "third"), "float")}, "nothing to quant"),
        ({"block_size": 32}, "--block-size 32: no layer takes such blocks"),
    ],
)
def test_what_no_kernel_takes_is_refused(
    options: dict[str, Any], told: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(QuantizationError, match=told):
        exported(folder, tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()


def test_blocks_belong_to_float_activations(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--block-size 32: kernels take"):
        exported(folder, tmp_path / "b", activations="int8", block_size=32)
    with pytest.raises(UsageError, match="--block-size 48: choose one of 32, 64, 128, or none"):
        exported(folder, tmp_path / "b", bits=4, block_size=48)


def test_numbers_that_one_runtime_alone_rounds(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w b", "y", transB=1)]
    constants: dict[str, npt.ArrayLike] = {"w": normal(8, 64) / 8, "b": normal(8, seed=1)}
    save_model(file(nodes, constants, {"x": (1, 64)}, {"y": (1, 8)}, 17), tmp_path / "net.onnx")
    save(tmp_path / "data.npz", inputs=np.sign(normal(40, 64, seed=2)))
    bundle = exported(tmp_path, tmp_path / "b")
    in_onnx, in_tflite = bundle.manifest["parity"]
    # -1 and 1 are 127 steps of s = 1/127 each, and 127.5 of 2/255
    assert in_onnx["sqnr_db"] > 100 and 45 < in_tflite["expected_db"] < 55
    assert abs(in_tflite["sqnr_db"] - in_tflite["expected_db"]) < 3
    assert not failed(bundle.path)


def test_a_layer_that_suffers_is_told(folder: Path, tmp_path: Path) -> None:
    heavy = network()
    for one in heavy.graph.initializer:
        if one.name == "w1":
            weight = numpy_helper.to_array(one).copy()
            weight[:, ::2] *= 1e-2
            weight[:, 0] = 40.0
            one.CopyFrom(numpy_helper.from_array(weight, "w1"))
    save_model(heavy, tmp_path / "net.onnx")
    words = (
        "export",
        tmp_path / "net.onnx",
        "--data",
        folder / "data.npz",
        "--out",
        tmp_path / "b",
    )
    saved = ("--save-plan", tmp_path / "plan.json", "--weight-range", "largest")
    result = run(*words, "--activations", "float", "--bits", "4", *saved)
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "plan.json").read_text())["layers"]["second"]
    assert "--layer-bits NAME=8" in " ".join(result.stdout.split())
    assert "diagnose" not in result.stdout


def test_a_network_with_a_convolution_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save(twice().state_dict(), tmp_path / "net.pt")
    with pytest.raises(QuantizationError, match=r"has both \(Conv\)"):
        deploykit.export(
            tmp_path / "net.pt", model="tests.test_tied_export:twice", input_shape=(1, 8, 6, 6),
            data=save(tmp_path / "data.npz", inputs=normal(8, 8, 6, 6)), prune_rule="none",
            out=tmp_path / "b", activations="float",
        )  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_diagnose_and_dry_run_say_what_they_are_about(
    four: Bundle, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="holds integers of weights alone"):
        deploykit.diagnose_bundle(four.path)
    result = run(
        "export", folder / "net.onnx", "--data", folder / "data.npz", "--activations", "float",
        "--plan", four.file("plan.json"), "--dry-run",
    )  # fmt: skip
    assert result.exit_code == 3 and "leave --dry-run out" in " ".join(result.stderr.split())


def test_integers_that_are_not_the_weights_rounded_are_never_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turned(*given: Any) -> WeightOnlyPlan:
        plan = plan_weight_only(*given)
        name, layer = next(iter(plan.layers.items()))
        values = layer.values.copy()
        values.flat[np.abs(values).argmax()] *= -1
        return replace(plan, layers={**plan.layers, name: replace(layer, values=values)})

    monkeypatch.setattr(weight_only, "plan_weight_only", turned)
    with pytest.raises(ParityError, match=r"a weight is .* no bundle was written"):
        exported(folder, tmp_path / "b")
    assert not (tmp_path / "b").exists()


MANIFEST_EDITS: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "inputs[0].dtype": (("inputs", 0, "dtype"), "uint8"),
    "outputs[0].shape[1]": (("outputs", 0, "shape", 1), 11),
    "layers.first.bits": (("layers", 0, "bits"), 8),
    "layers.first.weight_scale_max": (("layers", 0, "weight_scale_max"), 1.0),
    "calibration.samples": (("calibration", "samples"), 4),
    "sizes.model.onnx": (("sizes", "model.onnx"), 4),
    "removal.macs_after": (("removal", "macs_after"), 4),
    "accuracy.model.tflite": (("accuracy", "model.tflite"), 0.99),
}


@pytest.mark.parametrize("field", MANIFEST_EDITS)
def test_an_edited_manifest_is_named(
    field: str, four: Bundle, folder: Path, tmp_path: Path
) -> None:
    keys, value = MANIFEST_EDITS[field]
    bundle = copy_of(four.path, tmp_path)
    data = folder / "eval.npz" if field.startswith("accuracy") else None
    report = deploykit.verify_bundle(bundle, eval_data=data)
    assert not report.failed
    record = json.loads((bundle / "manifest.json").read_bytes())
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (bundle / "manifest.json").write_text(json.dumps(record), encoding="utf-8")
    mend(bundle)
    report = deploykit.verify_bundle(bundle, eval_data=data)
    (found,) = [step.detail for step in report.steps if step.verdict is Verdict.FAILED]
    assert found.startswith(f"{field}: manifest.json says ")
