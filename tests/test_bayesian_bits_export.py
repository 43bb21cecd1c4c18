"""Checkpoints of Bayesian Bits exported: the integers of training, on every runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.onnx_reader import read_onnx
from deploykit.errors import QuantizationError
from deploykit.reference.integer import run
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.operators import Conv, Linear
from tests.libraries.examples import bayesian_bits as example
from tests.libraries.frame import CHECKPOINTS
from tests.libraries.images import SLICES, test_images
from tests.libraries.record import stored_reference
from tests.posterior.bayesian_bits_layers import Block, BNQConv2d, QConv2d, QLinear

torch.set_num_threads(1)
FACTORIES = Path(__file__).parent / "posterior" / "bayesian_bits_twins.py"
CALIBRATION = SLICES / "calibration.npz"


def small(weights: tuple[int, int, int], given: tuple[int, int]) -> nn.Module:
    """The example's network, untrained; each layer of these bits."""
    pruned = {"pruning": True}
    relu = nn.ReLU()
    torch.manual_seed(0)
    network = nn.Sequential(
        BNQConv2d(1, 16, 5, stride=2, padding=2, bits=weights[0], given_bits=given[0],
                  function=relu, quantizers=pruned | {"weights": 0.3}),
        nn.MaxPool2d(2),
        QConv2d(16, 24, 3, bits=weights[1], given_bits=given[1], function=relu,
                quantizers=pruned | {"weights": 0.15}),
        nn.Flatten(),
        QLinear(600, 10, bits=weights[2], given_bits=None, quantizers={"weights": 0.06}),
    )  # fmt: skip
    with torch.no_grad():
        for place, closed in ((0, [1, 4]), (2, [0, 7, 9])):
            layer: Any = network[place]
            layer.weight_quantizer.quantizer.gamma_2[closed] = -3.0
        first: Any = network[0]
        first.beta.normal_(0.2, 0.3)
        first.running_mean.normal_(0.0, 0.1)
    return network.eval()


def exported(network: nn.Module, folder: Path, factory: str, **options: Any) -> Bundle:
    torch.save({"model_state": network.state_dict(), "param_optim": {}}, folder / "epoch_1.pth")
    return deploykit.export(
        folder / "epoch_1.pth", out=folder / "bundle", model=factory, input_shape=(1, 1, 28, 28),
        data=CALIBRATION, align="none", **options,
    )  # fmt: skip


def plan_of(bundle: Bundle) -> Any:
    return json.loads((bundle.path / "plan.json").read_text(encoding="utf-8"))


def integer_weights(bundle: Bundle) -> dict[str, tuple[AnyArray, Float32Array]]:
    """By layer of model.onnx: integers and scales."""
    network = read_onnx((bundle.path / "model.onnx").read_bytes())
    names = plan_of(bundle)["names"]
    return {
        names.get(operator.output, operator.name): (operator.weight.values, operator.weight.scale)
        for operator in network.operators
        if isinstance(operator, Conv | Linear)
    }


def outputs(bundle: Bundle, inputs: Float32Array) -> Float32Array:
    session = onnxruntime.InferenceSession(str(bundle.path / "model.onnx"))
    (name,) = (one.name for one in session.get_inputs())
    return np.concatenate([session.run(None, {name: one[None]})[0] for one in inputs])


def as_the_input_is_rounded(bundle: Bundle, inputs: Float32Array) -> Float32Array:
    """What the integer network sees: an input, which training leaves in float, has 8 bits here."""
    held = plan_of(bundle)["network"]["tensors"]["input_quantized"]
    steps = np.clip(np.rint(inputs / held["scale"]) + held["zero_point"], -128, 127)
    return np.asarray((steps - held["zero_point"]) * held["scale"], np.float32)


def restated(network: nn.Module, inputs: Float32Array) -> Float32Array:
    with torch.no_grad():
        found: Float32Array = network(torch.tensor(inputs)).numpy()
    return found


def sqnr_db(expected: Float32Array, found: Float32Array) -> float:
    return float(10 * np.log10((expected**2).sum() / ((expected - found) ** 2).sum()))


def own_weight(network: nn.Module, name: str) -> Float32Array:
    layer: Any = network.get_submodule(name)
    with torch.no_grad():
        folded = isinstance(layer, BNQConv2d)
        held = layer.quantized_weight() if folded else layer.weight_quantizer(layer.weight)
        found: Float32Array = held.numpy()
    return found


def without_closed(weight: Float32Array) -> Float32Array:
    """[O', ...] without the output channels that are all zero."""
    return weight[weight.reshape(len(weight), -1).any(axis=1)]


@pytest.mark.parametrize(
    ("weights", "given", "least_db"),
    [
        ((8, 8, 8), (8, 8), 30.0),
        ((4, 4, 4), (4, 4), 20.0),
        ((2, 2, 2), (2, 2), 8.0),
        ((8, 4, 2), (8, 4), 20.0),
        ((2, 8, 4), (2, 8), 20.0),
    ],
)
def test_weights_keep_their_integers(
    weights: tuple[int, int, int], given: tuple[int, int], least_db: float, tmp_path: Path
) -> None:
    network = small(weights, given)
    bundle = exported(network, tmp_path, f"{example.__file__}:twin")
    found = integer_weights(bundle)
    assert found.keys() == {"0", "2", "4"}
    kept = own_weight(network, "0").reshape(16, -1).any(axis=1)
    for (name, (values, scale)), bits in zip(found.items(), weights, strict=True):
        expected = without_closed(own_weight(network, name))
        if name == "2":
            expected = expected[:, kept]
        if name == "4":
            left = own_weight(network, "2").reshape(24, -1).any(axis=1)
            expected = expected.reshape(10, 24, 25)[:, left].reshape(10, -1)
        assert values.shape == expected.shape
        assert np.abs(values).max() <= 2 ** (bits - 1) - 1
        assert len(set(scale.tolist())) == 1
        again = values.astype(np.float32) * scale[0]
        np.testing.assert_allclose(again, expected, rtol=4 * 2.0**-24, atol=1e-9)
        planned = plan_of(bundle)["layers"][name]["weight"]
        stored = "int8" if values.size < 256 else f"int{bits}"
        assert (planned["bits"], planned["carrier"]["onnx"]) == (bits, stored)
    assert all(use["why"] is None for use in plan_of(bundle)["given"])
    channels = {layer["name"]: layer["channels_after"] for layer in bundle.manifest["layers"]}
    assert channels["0"] == len(without_closed(own_weight(network, "0"))) < 16
    assert channels["2"] == len(without_closed(own_weight(network, "2"))) < 24
    assert not any(one["differing"] for one in bundle.manifest["parity"])
    seen = as_the_input_is_rounded(bundle, test_images().inputs[:200])
    expected = restated(network, seen)
    assert sqnr_db(expected, outputs(bundle, seen)) > least_db


@pytest.mark.parametrize(("bits", "scale"), [(8, 2 / 255), (4, 2 / 15), (2, 2 / 3)])
def test_activations_keep_scale_and_range(bits: int, scale: float, tmp_path: Path) -> None:
    network: Any = small((8, 8, 8), (bits, bits))
    bundle = exported(network, tmp_path, f"{example.__file__}:twin", to="onnx")
    integers = read_onnx((bundle.path / "model.onnx").read_bytes())
    seen = test_images().inputs[:64]
    held = integers.tensors[integers.inputs[0].tensor].quantization
    tensors = run(integers, {integers.inputs[0].name: held.quantize(seen)})
    names = plan_of(bundle)["names"]
    pools = [name for name in tensors if names.get(name) == "max_pool2d"]
    assert len(pools) == 1
    quantization = integers.tensors[pools[0]].quantization
    assert quantization.scale == pytest.approx(scale, rel=1e-6)
    assert quantization.zero_point == -128
    codes = tensors[pools[0]].astype(int) + 128
    assert codes.min() == 0
    assert 2 ** (bits - 1) <= codes.max() <= 2**bits - 1
    layer: Any = network[0]
    own = restated(nn.Sequential(layer, nn.MaxPool2d(2)), as_the_input_is_rounded(bundle, seen))
    kept = own_weight(network, "0").reshape(16, -1).any(axis=1)
    differing = codes != np.rint(own[:, kept] / scale)
    assert differing.mean() < 5e-3  # biases are rounded to the accumulator's steps
    assert np.abs(codes - np.rint(own[:, kept] / scale)).max() <= 1


def test_layers_of_16_and_32_bits_are_quantized_as_floats_and_named(tmp_path: Path) -> None:
    network = small((16, 4, 32), (32, 8))
    bundle = exported(network, tmp_path, f"{example.__file__}:twin")
    plan = plan_of(bundle)
    assert [(use["kind"], use["name"]) for use in plan["given"] if use["kind"] == "weight"] == [
        ("weight", "2")
    ]
    assert {name: plan["layers"][name]["weight"]["bits"] for name in "024"} == {
        "0": 8, "2": 4, "4": 8,
    }  # fmt: skip
    assert bundle.manifest["fold"]["trained_bits"] == {
        "0": {"weights": 16, "activations": 32},
        "2": {"weights": 4, "activations": 8},
        "4": {"weights": 32, "activations": None},
    }
    seen = as_the_input_is_rounded(bundle, test_images().inputs[:100])
    assert sqnr_db(restated(network, seen), outputs(bundle, seen)) > 24


def residual(bits: int | None, block: int) -> nn.Module:
    """A stem and two blocks, the second with a strided shortcut.

    bits: of what a block's last layers give, None where it is not quantized, as published.
    """
    torch.manual_seed(0)
    relu = nn.ReLU()

    def body(inputs: int, outputs_: int, stride: int) -> nn.Module:
        return nn.Sequential(
            BNQConv2d(inputs, outputs_, 3, stride=stride, padding=1, bits=4, given_bits=8,
                      function=relu, quantizers={"weights": 0.3, "pruning": True}),
            BNQConv2d(outputs_, outputs_, 3, padding=1, bits=8, given_bits=bits,
                      quantizers={"weights": 0.3}),
        )  # fmt: skip

    shortcut = BNQConv2d(8, 12, 1, stride=2, bits=8, given_bits=bits, quantizers={"weights": 0.5})
    network = nn.Sequential(
        BNQConv2d(1, 8, 5, stride=2, padding=2, bits=8, given_bits=8, function=relu,
                  quantizers={"weights": 0.4}),
        nn.Sequential(Block(body(8, 8, 1), None, block, 3.0),
                      Block(body(8, 12, 2), shortcut, block, 3.0)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        QLinear(12, 10, bits=8, given_bits=None, quantizers={"weights": 0.4}),
    )  # fmt: skip
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, BNQConv2d):
                layer.gamma.uniform_(0.5, 1.5)
                layer.beta.normal_(0.2, 0.3)
                layer.running_mean.normal_(0.0, 0.1)
                if hasattr(layer.weight_quantizer.quantizer, "gamma_2"):
                    layer.weight_quantizer.quantizer.gamma_2[[1, 4]] = -6.0
    return network.eval()


@pytest.mark.parametrize(
    ("bits", "block", "least_db"), [(None, 8, 35.0), (8, 8, 35.0), (8, 4, 24.0), (2, 2, 5.0)]
)
def test_residual_blocks_keep_the_scales_that_they_were_given(
    bits: int | None, block: int, least_db: float, tmp_path: Path
) -> None:
    network = residual(bits, block)
    bundle = exported(network, tmp_path, f"{FACTORIES}:residual", prune_rule="family")
    plan = plan_of(bundle)
    assert all(use["why"] is None for use in plan["given"])
    sums = [layer for layer in bundle.manifest["layers"] if layer["operator"] == "Add"]
    assert len(sums) == 2
    for layer in sums:
        assert layer["output_scale"] == pytest.approx(3 / (2**block - 1), rel=1e-6)
    assert not any(one["differing"] for one in bundle.manifest["parity"])
    seen = as_the_input_is_rounded(bundle, test_images().inputs[:100])
    assert sqnr_db(restated(network, seen), outputs(bundle, seen)) > least_db


def test_a_pruned_channel_that_a_padded_layer_reads_stays_exact(tmp_path: Path) -> None:
    """Kernels of constant channels would add up to weights that are on no grid."""
    network = residual(None, 8)
    bundle = exported(network, tmp_path, f"{FACTORIES}:residual")
    values, scale = integer_weights(bundle)["1.0.features.1"]
    expected = own_weight(network, "1.0.features.1")
    assert values.shape[0] == len(expected)
    again = values.astype(np.float32) * scale[0]
    for channel in range(again.shape[1]):
        same = np.abs(expected - again[:, channel][:, None]).max(axis=(0, 2, 3))
        assert same.min() < 1e-6


def test_a_target_that_wants_narrower_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r"came as integers.*leave --target out"):
        exported(small((8, 8, 8), (8, 8)), tmp_path, f"{example.__file__}:twin", target="any")
    assert not (tmp_path / "bundle").exists()
    bundle = exported(small((4, 2, 4), (8, 8)), tmp_path, f"{example.__file__}:twin", target="any")
    assert bundle.manifest["int16_pairs"]["narrowed"] == 0


def test_verify_holds_the_files_against_the_trained_integers(tmp_path: Path) -> None:
    bundle = exported(small((8, 4, 2), (4, 8)), tmp_path, f"{example.__file__}:twin")
    report = deploykit.verify_bundle(bundle.path)
    assert report.complete
    assert not report.failed


Change = Callable[[dict[str, torch.Tensor]], None]


@pytest.fixture(scope="module")
def trained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return deploykit.export(
        CHECKPOINTS / "bayesian_bits.pt", out=tmp_path_factory.mktemp("bits") / "bundle",
        model=f"{example.__file__}:twin", input_shape=(1, 1, 28, 28), data=CALIBRATION,
        eval_data=SLICES / "test-2000.npz", align="none",
    )  # fmt: skip


def test_the_trained_network_s_integers_agree_with_its_evaluation(trained_bundle: Bundle) -> None:
    network = example.bayesian()
    state = torch.load(CHECKPOINTS / "bayesian_bits.pt", weights_only=True)["model_state"]
    network.load_state_dict(state)
    network.eval()
    images = test_images()
    expected = restated(network, images.inputs)
    reference = stored_reference(example.LIBRARY).rounded
    assert reference is not None
    np.testing.assert_allclose(expected[: len(reference)], reference, rtol=1e-4, atol=1e-4)
    found = outputs(trained_bundle, images.inputs)
    same = float((expected.argmax(axis=1) == found.argmax(axis=1)).mean())
    exact = as_the_input_is_rounded(trained_bundle, images.inputs)
    agreed = float((restated(network, exact).argmax(axis=1) == found.argmax(axis=1)).mean())
    accuracy = [float((one.argmax(axis=1) == images.labels).mean()) for one in (expected, found)]
    print(f"argmax as trained {same:.4f}, with the input in 8 bits {agreed:.4f}; {accuracy}")
    assert same > 0.97
    assert agreed > 0.97
    assert abs(accuracy[0] - accuracy[1]) < 0.01


def test_the_trained_network_s_bits_and_channels_are_in_the_plan(trained_bundle: Bundle) -> None:
    layers = plan_of(trained_bundle)["layers"]
    bits = {name: one["weight"]["bits"] for name, one in layers.items() if "weight" in one}
    assert bits == {"0": 2, "2": 4, "4": 8}
    closed = {layer["layer"]: layer["closed"] for layer in trained_bundle.manifest["fold"]["gates"]}
    after = {layer["name"]: layer["channels_after"] for layer in trained_bundle.manifest["layers"]}
    assert closed["2"] == 4
    assert after["2"] <= 20
    assert all(use["why"] is None for use in trained_bundle.manifest["given"])
