"""Bits by layer, and the carriers that a plan gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import QuantizationError
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.carriers import (
    ANY_RUNTIME,
    FORMATS,
    OLDEST_ORT,
    CarrierOptions,
    TfliteLowbit,
    Version,
)
from deploykit.spec.given import Given, WeightGrid
from deploykit.spec.network import Network
from deploykit.spec.plan import QuantPlan, Rounding
from deploykit.spec.quantized import int_range, weighted
from deploykit.spec.samples import Samples
from deploykit.spec.storage import storage_of
from tests.quantize.graphs import CONV1, CONV3, float_network, seeded

GOLDEN = Path(__file__).parents[1] / "golden" / "narrow_plans.txt"
DEPTHWISE = f"{CONV3}, group=48"
STRIDED = CONV3.replace("strides=[1,1]", "strides=[2,2]")
SAMPLES = Samples(seeded(16, 3, 8, 8, seed=9))


def mobile_network() -> Network:
    """A stem, an inverted residual over 46 channels, and a linear: every kind of layer."""
    return float_network(
        f"""
        mobile (float[1, 3, 8, 8] input) => (float[1, 10] output) {{
            stem = Conv <{STRIDED}> (input, w0, b0)
            clipped = Relu (stem)
            expand = Conv <{CONV1}> (clipped, w1, b1)
            depthwise = Conv <{DEPTHWISE}> (expand, w2, b2)
            project = Conv <{CONV1}> (depthwise, w3, b3)
            total = Add (clipped, project)
            window = Conv <{CONV3}> (total, w4, b4)
            mean = GlobalAveragePool (window)
            flat = Flatten <axis=1> (mean)
            output = Gemm <transB=1> (flat, w5, b5)
        }}
        """,
        w0=seeded(46, 3, 3, 3, seed=1), b0=seeded(46, seed=2),
        w1=seeded(48, 46, 1, 1, seed=3), b1=seeded(48, seed=4),
        w2=seeded(48, 1, 3, 3, seed=5), b2=seeded(48, seed=6),
        w3=seeded(46, 48, 1, 1, seed=7), b3=seeded(46, seed=8),
        w4=seeded(64, 46, 3, 3, seed=9), b4=seeded(64, seed=10),
        w5=seeded(10, 64, seed=11), b5=seeded(10, seed=12),
    )  # fmt: skip


def planned(
    bits: WeightBits, carriers: CarrierOptions = ANY_RUNTIME, network: Network | None = None
) -> QuantPlan:
    options = QuantizationOptions(bits=bits, rounding=Rounding.NEAREST, carriers=carriers)
    runners = Runners(ort.evaluate, ReferenceRunner(), ())
    return plan_quantization(network or mobile_network(), SAMPLES, options, runners)


def test_bits_are_the_default_s_and_each_layer_s_own() -> None:
    plan = planned(WeightBits(4, {"project": 2, "output": 8}))
    widths = {layer.name: layer.weight.bits for layer in plan.layers if layer.weight is not None}
    assert widths == {
        "stem": 4, "expand": 4, "depthwise": 4, "project": 2, "window": 4, "output": 8,
    }  # fmt: skip
    for layer in plan.layers:
        if layer.weight is not None:
            _, largest = int_range(layer.weight.bits)
            assert np.abs(layer.weight.values).max() == largest
    network = apply_plan(mobile_network(), plan)
    assert {one.name: one.weight.bits for one in weighted(network)} == widths


@pytest.mark.parametrize("bits", [3, 5, 6])
def test_bits_between_carriers_are_values_inside_of_the_next(bits: int) -> None:
    network = apply_plan(mobile_network(), planned(WeightBits(bits)))
    for operator in weighted(network):
        _, largest = int_range(bits)
        assert np.abs(operator.weight.values).max() == largest
        assert operator.weight.carriers.onnx.bits == (4 if bits == 3 else 8)


CHOICES = {
    "4 bits": (WeightBits(4), ANY_RUNTIME),
    "2 bits": (WeightBits(2), ANY_RUNTIME),
    "2 bits, from ONNX Runtime 1.23": (WeightBits(2), CarrierOptions(Version(1, 23))),
    "4 bits, from ONNX Runtime 1.20": (WeightBits(4), CarrierOptions(OLDEST_ORT)),
    "4 bits, small": (WeightBits(4), CarrierOptions(tflite=TfliteLowbit.SMALL)),
    "2 bits, small": (WeightBits(2), CarrierOptions(tflite=TfliteLowbit.SMALL)),
    "3 bits but for two layers": (WeightBits(3, {"stem": 8, "window": 6}), ANY_RUNTIME),
}


def test_plans_store_weights_as_the_golden_file_has_them() -> None:
    lines = []
    for title, (bits, carriers) in CHOICES.items():
        network = apply_plan(mobile_network(), planned(bits, carriers))
        lines.append(f"{title}:")
        for operator in weighted(network):
            held = operator.weight
            forms = [storage_of(key, operator) for key in FORMATS]
            told = "  ".join(f"{form.carrier.value:6s} {form.kernel:11s}" for form in forms)
            shape = "x".join(map(str, held.values.shape))
            lines.append(f"  {operator.name:9s} {shape:10s} {held.bits}  {told}".rstrip())
    assert "\n".join(lines) + "\n" == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("expant", r"--layer-bits expant=4: no layer has this name; the nearest are expand"),
        ("total", r"--layer-bits total=4: this layer has no weights"),
    ],
)
def test_a_name_of_no_layer_with_weights_is_refused(name: str, told: str) -> None:
    with pytest.raises(QuantizationError, match=told):
        planned(WeightBits(8, {name: 4}))


def tied_network() -> Network:
    return float_network(
        f"""
        tied (float[1, 3, 8, 8] input) => (float[1, 3, 8, 8] output) {{
            first = Conv <{CONV3}> (input, w, b1)
            output = Conv <{CONV3}> (first, w, b2)
        }}
        """,
        w=seeded(3, 3, 3, 3, seed=1), b1=seeded(3, seed=2), b2=seeded(3, seed=3),
    )  # fmt: skip


def test_layers_that_share_their_weights_share_their_bits() -> None:
    plan = planned(WeightBits(8, {"output": 4}), network=tied_network())
    assert [layer.weight.bits for layer in plan.layers if layer.weight is not None] == [4, 4]
    with pytest.raises(
        QuantizationError, match="first=8 and --layer-bits output=4: these layers share"
    ):
        planned(WeightBits(8, {"output": 4, "first": 8}), network=tied_network())


def test_bits_that_training_chose_stay() -> None:
    codes = np.random.default_rng(1).integers(-7, 8, (3, 3, 3, 3)).astype(np.float32)
    network = float_network(
        f"""
        trained (float[1, 3, 8, 8] input) => (float[1, 3, 8, 8] output) {{
            output = Conv <{CONV3}> (input, w, b)
        }}
        """,
        w=codes * np.float32(0.01), b=seeded(3, seed=2),
    )  # fmt: skip
    grid = WeightGrid(4, np.array([0.01], np.float32))
    network = replace(network, given=Given({"w": grid}, {}))
    (layer,) = planned(WeightBits(8), network=network).layers
    assert layer.weight is not None
    assert layer.weight.bits == 4
    planned(WeightBits(8, {"output": 4}), network=network)
    with pytest.raises(QuantizationError, match="came as integers of 4 bits"):
        planned(WeightBits(8, {"output": 2}), network=network)
