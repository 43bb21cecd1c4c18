"""Files that other tools quantized, exported: their integers in both runtimes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.onnx_reader import read_onnx
from deploykit.errors import QuantizationError
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.quantized import QuantizedNetwork, weighted
from deploykit.verify.metrics import sqnr_db
from tests.cli.running import run
from tests.libraries.images import SLICES, test_images
from tests.onnx_files import file, node, normal, save

FILES = Path(__file__).parent / "quantized"
BITS = {
    "brevitas_4bit": 4, "onnxruntime_int4": 4, "onnxruntime_operators": 8, "onnxruntime_qdq": 8,
    "onnxruntime_symmetric": 8, "torchao_pt2e": 8,
}  # fmt: skip
"""Of the weights, by file."""
LAYERS = 4


def exported(name: str, out: Path, **options: Any) -> Bundle:
    """The bundle of a file, with inputs of integers: then their scale is kept as well."""
    return deploykit.export(
        FILES / f"{name}.onnx", out=out, data=SLICES / "calibration.npz", align="none",
        **{"io": "uint8", **options},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    folder = tmp_path_factory.mktemp("quantized")
    return {name: exported(name, folder / name) for name in BITS}


def plan_of(bundle: Bundle) -> Any:
    return json.loads((bundle.path / "plan.json").read_text(encoding="utf-8"))


def network_of(bundle: Bundle) -> QuantizedNetwork:
    return read_onnx((bundle.path / "model.onnx").read_bytes())


def stored_weights(name: str) -> list[AnyArray]:
    """The integers of a file's weights in its order, found by their size alone."""
    model = onnx.load(FILES / f"{name}.onnx")
    held = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [one.astype(np.int64) for one in held if one.ndim > 1 and one.dtype.kind != "f"]


def answers(bundle: Bundle, images: Float32Array) -> Float32Array:
    """Real outputs of model.onnx, whose ports are uint8."""
    network = network_of(bundle)
    ports = [
        network.tensors[port.tensor].quantization for port in (*network.inputs, *network.outputs)
    ]
    given = (ports[0].quantize(images).astype(np.int16) + 128).astype(np.uint8)
    found = _run(bundle.path / "model.onnx", given)
    return ports[1].dequantize((found.astype(np.int16) - 128).astype(np.int8))


def source_answers(name: str, images: Float32Array) -> Float32Array:
    return _run(FILES / f"{name}.onnx", images)


def _run(path: Path, images: AnyArray) -> AnyArray:
    session = onnxruntime.InferenceSession(str(path))
    (port, *_) = session.get_inputs()
    return np.concatenate([session.run(None, {port.name: one[None]})[0] for one in images])


@pytest.mark.parametrize("name", BITS)
def test_every_grid_is_kept(bundles: Mapping[str, Bundle], name: str) -> None:
    uses = plan_of(bundles[name])["given"]
    assert [use for use in uses if use["why"] is not None] == []
    bits = [use["bits"] for use in uses if use["kind"] == "weight"]
    assert bits == [BITS[name]] * LAYERS
    assert len(uses) >= 2 * LAYERS


@pytest.mark.parametrize("name", BITS)
def test_the_weights_are_the_file_s_integers(bundles: Mapping[str, Bundle], name: str) -> None:
    left = stored_weights(name)
    for operator in weighted(network_of(bundles[name])):
        values = operator.weight.values.astype(np.int64)
        turned = [form for one in left for form in ((one, one.T) if one.ndim == 2 else (one,))]
        assert any(same_up_to_sign(values, one) for one in turned if one.shape == values.shape)


def same_up_to_sign(values: AnyArray, stored: AnyArray) -> bool:
    """Channel by channel [O, ...]: a batch norm's negative gain turns one."""
    axes = tuple(range(1, values.ndim))
    equal, turned = (values == stored).all(axis=axes), (values == -stored).all(axis=axes)
    return bool((equal | turned).all())


@pytest.mark.parametrize("rounding", ["compensated", "sequential"])
def test_biases_are_the_file_s_integers(tmp_path: Path, rounding: str) -> None:
    bundle = exported("onnxruntime_qdq", tmp_path / "bundle", rounding=rounding)
    model = onnx.load(FILES / "onnxruntime_qdq.onnx")
    held = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    stored = [one.tolist() for one in held if one.dtype == np.int32 and one.ndim == 1]
    for operator in weighted(network_of(bundle)):
        assert operator.bias.tolist() in stored


@pytest.mark.parametrize("name", BITS)
def test_it_answers_as_the_file_does(bundles: Mapping[str, Bundle], name: str) -> None:
    images = test_images().inputs[:200]
    expected, found = source_answers(name, images), answers(bundles[name], images)
    if name.startswith("onnxruntime"):
        np.testing.assert_array_equal(found, expected)  # logits are on a grid too
    else:
        assert sqnr_db(expected, found) > 30.0
    assert np.mean(expected.argmax(1) == found.argmax(1)) >= 0.98


@pytest.mark.parametrize("name", ["brevitas_4bit", "onnxruntime_symmetric"])
def test_it_verifies(bundles: Mapping[str, Bundle], name: str) -> None:
    report = deploykit.verify_bundle(bundles[name].path)
    assert report.complete and not report.failed


def test_a_float_input_s_scale_is_a_power_of_two_and_told(tmp_path: Path) -> None:
    bundle = exported("onnxruntime_qdq", tmp_path / "bundle", io="float")
    (lost,) = (use for use in plan_of(bundle)["given"] if use["why"] is not None)
    assert lost["name"] == "images"
    assert "--io uint8" in lost["why"]


def test_weights_around_another_zero_are_planned_anew_and_told(tmp_path: Path) -> None:
    bundle = exported("onnxruntime_asymmetric", tmp_path / "bundle")
    uses = plan_of(bundle)["given"]
    whys = [use["why"] for use in uses if use["kind"] == "weight"]
    assert any(why and "ends at 127" in why for why in whys)
    assert all(use["why"] is None for use in uses if use["kind"] == "activation")


def test_other_bits_for_a_layer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="came as integers of 8 bits"):
        exported("onnxruntime_qdq", tmp_path / "bundle", layer_bits={"stem": 4})
    assert not (tmp_path / "bundle").exists()


def test_other_bits_for_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="--bits 4"):
        exported("onnxruntime_qdq", tmp_path / "bundle", bits=4)


def test_options_that_kept_integers_leave_nothing_for_are_told(tmp_path: Path) -> None:
    given = {"rounding": "nearest", "weight_range": "largest", "equalization": "cross-layer"}
    bundle = exported("onnxruntime_qdq", tmp_path / "bundle", **given)
    (found,) = bundle.manifest["without_effect"]
    assert found["options"] == ["--rounding", "--weight-range"]
    shown = " ".join(run("inspect", bundle.path).stdout.split())
    assert "without effect --rounding, --weight-range: every layer's weights came as" in shown
    assert sum(chain["moved"] for chain in bundle.manifest["equalization"]["chains"]) == 0
    plain = exported("onnxruntime_qdq", tmp_path / "plain")
    assert plain.manifest["without_effect"] == []


def test_bits_of_kept_integers_are_not_chosen(tmp_path: Path) -> None:
    with pytest.raises(
        QuantizationError, match=r"no weights to choose bits for \(4 came as integers"
    ):
        exported("onnxruntime_qdq", tmp_path / "bundle", bits="auto", max_bytes="1MB")


def test_the_lowest_integer_of_4_bits_is_kept(tmp_path: Path) -> None:
    """-8, in INT4 of both files: a 1x1 convolution and a linear."""
    integers = np.random.default_rng(0).integers(-8, 8, (512,)).tolist()
    packed = [
        helper.make_tensor("c", TensorProto.INT4, (32, 16, 1, 1), integers),
        helper.make_tensor("l", TensorProto.INT4, (16, 32), integers),
    ]
    nodes = [
        node("DequantizeLinear", "c s", "w"), node("Conv", "x w", "a"), node("Relu", "a", "r"),
        node("GlobalAveragePool", "r", "p"), node("Flatten", "p", "f"),
        node("DequantizeLinear", "l s", "v"), node("Gemm", "f v", "y", transB=1),
    ]  # fmt: skip
    model = file(nodes, {"s": np.float32(0.05)}, {"x": [1, 16, 4, 4]}, {"y": [1, 16]}, 21)
    model.graph.initializer.extend(packed)
    model.ir_version = 10
    save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", inputs=normal(8, 16, 4, 4))
    bundle = deploykit.export(
        tmp_path / "net.onnx", out=tmp_path / "bundle", data=tmp_path / "data.npz",
        rounding="nearest", align="none",
    )  # fmt: skip
    for operator in weighted(network_of(bundle)):
        assert operator.weight.values.reshape(-1).tolist() == integers
        assert operator.weight.bits == 4
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete and not report.failed


def test_a_rounded_product_and_its_bias_answer_as_the_file_does(tmp_path: Path) -> None:
    """MatMul and Add, each rounded, as onnxruntime.quantization writes a linear."""
    rng = np.random.default_rng(2)
    held: dict[str, Any] = {
        "w": rng.integers(-127, 128, (12, 5)).astype(np.int8),
        "k": np.array([3, 250, 70, 0, 128], np.uint8),
        "ws": np.float32(0.011), "ks": np.float32(0.0371), "xs": np.float32(0.0213),
        "ms": np.float32(0.0193), "ys": np.float32(0.0337), "wz": np.int8(0),
        "xz": np.uint8(121), "mz": np.uint8(130), "yz": np.uint8(140), "kz": np.uint8(90),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x xs xz", "xi"), node("DequantizeLinear", "xi xs xz", "xr"),
        node("DequantizeLinear", "w ws wz", "wr"), node("MatMul", "xr wr", "m"),
        node("QuantizeLinear", "m ms mz", "mi"), node("DequantizeLinear", "mi ms mz", "mr"),
        node("DequantizeLinear", "k ks kz", "kr"), node("Add", "mr kr", "a"),
        node("QuantizeLinear", "a ys yz", "yi"), node("DequantizeLinear", "yi ys yz", "y"),
    ]  # fmt: skip
    model = file(nodes, {**held, "unused": np.float32(1)}, {"x": [1, 12]}, {"y": [1, 5]}, 17)
    save(model, tmp_path / "net.onnx")
    inputs = normal(40, 12)
    np.savez(tmp_path / "data.npz", inputs=inputs)
    bundle = deploykit.export(
        tmp_path / "net.onnx", out=tmp_path / "bundle", data=tmp_path / "data.npz", io="uint8",
        align="none",
    )  # fmt: skip
    assert all(use["why"] is None for use in plan_of(bundle)["given"])
    expected = _run(tmp_path / "net.onnx", inputs)
    assert np.mean(np.abs(expected) > 1.0) > 0.2
    np.testing.assert_array_equal(answers(bundle, inputs), expected)


def test_its_own_model_comes_back(bundles: Mapping[str, Bundle], tmp_path: Path) -> None:
    first = exported("brevitas_4bit", tmp_path / "first", io="float")
    second = deploykit.export(
        first.path / "model.onnx", out=tmp_path / "second", data=SLICES / "calibration.npz",
        align="none",
    )  # fmt: skip
    assert all(use["why"] is None for use in plan_of(second)["given"])
    # The first convolution is written over blocks of pixels, and is read as that.
    pairs = zip(weighted(network_of(first))[1:], weighted(network_of(second))[1:], strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one.weight.values, other.weight.values)
        np.testing.assert_array_equal(one.bias, other.bias)
        assert one.weight.bits == other.weight.bits
    images = test_images().inputs[:50]
    expected, found = (_run(bundle.path / "model.onnx", images) for bundle in (first, second))
    np.testing.assert_array_equal(found, expected)


def test_inspect_shows_bits_and_grids() -> None:
    result = run("inspect", str(FILES / "brevitas_4bit.onnx"))
    assert result.exit_code == 0
    assert "quantized ONNX" in result.stdout
    assert "4 bits, scale" in result.stdout


@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_what_was_exported_with_integer_ports_comes_back(io: str, tmp_path: Path) -> None:
    """Its ports become floats on their grids, and integers of the same meaning again."""
    first = exported("onnxruntime_qdq", tmp_path / "first", io=io)
    second = deploykit.export(
        first.path / "model.onnx", out=tmp_path / "second", data=SLICES / "calibration.npz",
        align="none", io=io,
    )  # fmt: skip
    assert second.manifest["inputs"] == first.manifest["inputs"]
    assert second.manifest["outputs"] == first.manifest["outputs"]
    assert [use["why"] for use in plan_of(second)["given"] if use["why"]] == []
    (port,) = first.manifest["inputs"]
    kind = np.dtype(io)
    given = np.random.default_rng(0).integers(
        np.iinfo(kind).min, np.iinfo(kind).max + 1, (8, *port["shape"][1:])
    )
    wanted, found = (
        _run(bundle.path / "model.onnx", given.astype(kind)) for bundle in (first, second)
    )
    assert wanted.dtype == kind
    np.testing.assert_array_equal(found, wanted)
