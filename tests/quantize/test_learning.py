"""Learned rounding: blocks, layers in torch against ONNX Runtime, and what a block may learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deploykit.quantize.bits import WeightBits
from deploykit.quantize.blocks import find_blocks
from deploykit.quantize.learning import reconstruction
from deploykit.quantize.learning.functions import computes, quantized
from deploykit.quantize.learning.reconstruction import Learned, Start, Stretch, learned_block
from deploykit.quantize.nodes import parameter
from deploykit.quantize.operators import WEIGHTED, Kind
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.quantize.structure import build_structure
from deploykit.quantize.weights import round_weights
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec import parallel
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from deploykit.spec.plan import QuantPlan, Rounding
from deploykit.spec.quantized import Quantization
from deploykit.spec.samples import Samples
from tests.quantize.graphs import CONV1, CONV3, float_network, residual_network, seeded
from tests.quantize.test_sequential import deep_network, error, images

RUNNERS = Runners(ort.OutputEvaluator(), ReferenceRunner(), [])
ONE = Quantization(0.05, 0)


def test_a_chain_falls_into_its_layers_and_a_residual_into_one_block() -> None:
    layers = build_structure(residual_network())
    blocks = find_blocks(layers, ["input"])
    assert [[layer.kind for layer in block] for block in blocks] == [
        [Kind.CONV],
        [Kind.CONV, Kind.ADD],
        [Kind.MAX_POOL],
        [Kind.CLAMP],
        [Kind.GLOBAL_AVERAGE_POOL],
        [Kind.FLATTEN],
        [Kind.LINEAR],
    ]


def test_several_inputs_make_one_block_until_they_have_met() -> None:
    network = float_network(
        f"""
        g (float[1,2,3,3] left, float[1,2,3,3] right) => (float[1,2,3,3] output) {{
            a = Conv <{CONV1}> (left, w, b)
            c = Conv <{CONV1}> (right, w, b)
            both = Add (a, c)
            output = Conv <{CONV1}> (both, w, b)
        }}
        """,
        w=seeded(2, 2, 1, 1), b=seeded(2),
    )  # fmt: skip
    blocks = find_blocks(build_structure(network), ["left", "right"])
    assert [len(block) for block in blocks] == [3, 1]


WINDOWED = "strides=[2,1], pads=[0,1,1,2], dilations=[1,2], kernel_shape=[3,2], group=2"
POOLED = "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], dilations=[1,1]"
UNARY = ["Sigmoid", "Tanh", "Elu", "Erf", "Exp", "Mish", "Softplus", "Softsign"]
NODES = [
    f"Conv <{WINDOWED}> (input, w, b)",
    f"MaxPool <{POOLED}> (input)",
    "GlobalAveragePool (input)",
    "Flatten <axis=1> (input)",
    "Add (input, constant)",
    "Mul (constant, input)",
    "Add (input, input)",
    "Clip (input, low, high)",
    "Relu (input)",
    "LeakyRelu <alpha=0.2> (input)",
    *(f"{name} (input)" for name in UNARY),
]


@pytest.mark.parametrize("node", NODES)
def test_a_layer_in_torch_gives_what_onnxruntime_gives(node: str) -> None:
    network = float_network(
        f"g (float[1,4,5,6] input) => (output) {{ output = {node} }}",
        w=seeded(6, 2, 3, 2), b=seeded(6, seed=1), constant=seeded(4, 1, 1, seed=2),
        low=np.array(-0.5, np.float32), high=np.array(0.7, np.float32),
    )  # fmt: skip
    (layer,) = build_structure(network)
    inputs, function = seeded(3, 4, 5, 6, seed=3), computes(layer)
    assert function is not None
    held: tuple[torch.Tensor | None, ...] = (None, None)
    if layer.kind in WEIGHTED:
        weight, bias = (parameter(layer.nodes[0], index) for index in (1, 2))
        held = tuple(torch.from_numpy(one.astype(np.float32)) for one in (weight, bias))
    read = [torch.from_numpy(inputs) for _ in layer.inputs]
    expected = ort.evaluate(network, inputs)["output"]
    np.testing.assert_allclose(function(read, *held).numpy(), expected, rtol=2e-5, atol=2e-5)


def test_a_grid_in_torch_is_the_reference_s() -> None:
    grid, values = Quantization(0.037, -20), seeded(1000) * 8
    found = quantized(torch.from_numpy(values), grid).numpy()
    np.testing.assert_allclose(found, grid.dequantize(grid.quantize(values)), atol=1e-6)


def linear_stretch(bits: int, samples: int) -> tuple[Stretch, AnyArray, AnyArray]:
    """One linear layer rounded to the nearest, and inputs whose features go together."""
    weight = seeded(6, 20).astype(np.float64)
    network = float_network(
        "g (float[1,20] input) => (float[1,6] output) { output = Gemm <transB=1> (input, w, b) }",
        w=weight.astype(np.float32), b=seeded(6, seed=1),
    )  # fmt: skip
    (layer,) = build_structure(network)
    inputs = seeded(samples, 4, seed=2) @ seeded(4, 20, seed=3) + seeded(samples, 20, seed=4) / 4
    wanted = inputs @ weight.T.astype(np.float32) + seeded(6, seed=1)
    highest = 2 ** (bits - 1) - 1
    scale = (np.abs(weight).max(axis=1) / highest).astype(np.float32)
    found = Learned(round_weights(weight, scale, bits), scale, seeded(6, seed=1).astype(np.float64))
    start = Start(weight, found, np.zeros(6), highest, Rounding.LEARNED.steps, True)
    function = computes(layer)
    assert function is not None
    grid = Quantization(float(np.float32(np.abs(wanted).max() / 127)), 0)
    stretch = Stretch([layer], {layer.name: function}, {layer.name: grid}, {layer.name: start})
    return stretch, inputs[:, None].astype(np.float32), wanted[:, None].astype(np.float32)


@pytest.mark.parametrize("bits", [2, 3])
def test_a_block_errs_less_on_other_samples_and_stays_within_reach(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction, "EPOCHS", 20)
    stretch, inputs, wanted = linear_stretch(bits, 300)
    ((name, start),) = stretch.starts.items()
    learned = learned_block(stretch, inputs[:200], wanted[:200])
    assert learned is not None

    def squares(one: Learned) -> float:
        weight = one.values * one.scale[:, None].astype(np.float64)
        output = inputs[200:, 0] @ weight.T + one.bias
        return float(((output - wanted[200:, 0]) ** 2).sum())

    assert squares(learned[name]) < 0.9 * squares(start.found)
    steps = np.clip(start.weight / learned[name].scale[:, None], -start.highest, start.highest)
    assert np.abs(steps - learned[name].values).max() <= start.reach
    assert np.abs(learned[name].values).max() <= start.highest


def test_what_does_not_hold_on_samples_held_out_is_not_taken() -> None:
    stretch, inputs, wanted = linear_stretch(3, 40)
    wanted[30:] = 0.0
    wanted[:30] += seeded(30, 1, 6, seed=7) * 20
    assert learned_block(stretch, inputs, wanted) is None


def test_outputs_that_never_vary_or_samples_too_few_to_hold_out_teach_nothing() -> None:
    stretch, inputs, wanted = linear_stretch(3, 40)
    assert learned_block(stretch, inputs[:3], wanted[:3]) is None
    assert learned_block(stretch, inputs, np.ones_like(wanted)) is None


def test_one_core_learns_what_two_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(parallel, "workers", lambda cores=cores: cores)
        stretch, inputs, wanted = linear_stretch(3, 60)
        learned = learned_block(stretch, inputs, wanted)
        assert learned is not None
        found.append(next(iter(learned.values())))
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_array_equal(found[0].scale, found[1].scale)
    np.testing.assert_array_equal(found[0].bias, found[1].bias)
    assert torch.get_num_threads() > 0


def planned(network: Network, inputs: AnyArray, rounding: Rounding, bits: WeightBits) -> QuantPlan:
    options = QuantizationOptions(bits=bits, rounding=rounding)
    return plan_quantization(network, Samples(inputs), options, RUNNERS)


def test_three_bits_behind_several_layers_err_less_than_in_sequence() -> None:
    network, other = deep_network(), images(100, seed=9)
    errors = {
        rounding: error(
            network, planned(network, images(128, seed=3), rounding, WeightBits(3)), other
        )
        for rounding in (Rounding.SEQUENTIAL, Rounding.LEARNED)
    }
    assert errors[Rounding.LEARNED] < errors[Rounding.SEQUENTIAL]


def test_layers_of_eight_bits_stay_as_they_are() -> None:
    network, inputs = deep_network(), images(128, seed=3)
    bits = WeightBits(3, {"c1": 8})
    before, after = (
        planned(network, inputs, rounding, bits)
        for rounding in (Rounding.SEQUENTIAL, Rounding.LEARNED)
    )
    changed = set()
    for one, other in zip(before.layers, after.layers, strict=True):
        assert one.weight is not None and other.weight is not None
        if not np.array_equal(one.weight.values, other.weight.values):
            changed.add(one.name)
    assert changed and "c1" not in changed
    assert replace(before, layers=(), rounding=Rounding.LEARNED) == replace(after, layers=())


def test_blocks_with_layers_that_torch_does_not_compute_here_stay_as_they_are() -> None:
    network = float_network(
        f"""
        g (float[1,4,4,4] input) => (float[1,6,4,4] output) {{
            a = Conv <{CONV3}> (input, w, b)
            part = Slice (input, begin, end, axes)
            output = Concat <axis=1> (a, part)
        }}
        """,
        w=seeded(4, 4, 3, 3), b=seeded(4, seed=2),
        begin=np.array([0]), end=np.array([2]), axes=np.array([1]),
    )  # fmt: skip
    inputs = seeded(64, 4, 4, 4)
    before, after = (
        planned(network, inputs, rounding, WeightBits(3))
        for rounding in (Rounding.SEQUENTIAL, Rounding.LEARNED)
    )
    for one, other in zip(before.layers, after.layers, strict=True):
        if one.weight is not None and other.weight is not None:
            np.testing.assert_array_equal(one.weight.values, other.weight.values)
            np.testing.assert_array_equal(one.weight.scale, other.weight.scale)
