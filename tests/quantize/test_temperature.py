"""A temperature moves the last layer's scales, and no multiplier."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import QuantizationError
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.quantize.temperature import NEARBY, last_layer, matching_scales, tempered_plan
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.plan import QuantPlan
from deploykit.spec.requantize import multiplier
from deploykit.spec.samples import Samples
from tests.quantize.graphs import CONV1, float_network, residual_network, seeded

RUNNERS = Runners(ort.evaluate, ReferenceRunner(), ())


def drawn(channels: int, seed: int) -> tuple[float, Float32Array, float]:
    generator = np.random.default_rng(seed)
    source, into = np.float32(generator.uniform(0.01, 0.1)), np.float32(generator.uniform(0.05, 1))
    return float(source), generator.uniform(0.001, 0.01, channels).astype(np.float32), float(into)


@pytest.mark.parametrize("channels", [1, 2, 10, 20])
@pytest.mark.parametrize("temperature", [0.31, 0.8939, 1.0, 1.5, 3.7])
def test_every_multiplier_of_a_few_classes_stays(channels: int, temperature: float) -> None:
    source, weight, into = drawn(channels, seed=channels)
    found = matching_scales(source, weight, into, temperature)
    assert found.moved == 0
    np.testing.assert_array_equal(
        multiplier(source, found.weight, found.output), multiplier(source, weight, into)
    )
    assert into / found.output == pytest.approx(temperature, rel=NEARBY * 2.0**-23)
    np.testing.assert_allclose(weight / found.weight, into / found.output, rtol=4e-7)
    assert found.output == float(np.float32(found.output))


def test_a_power_of_two_moves_none_of_a_thousand() -> None:
    source, weight, into = drawn(1000, seed=1)
    found = matching_scales(source, weight, into, 4.0)
    assert (found.moved, found.output) == (0, into / 4)
    np.testing.assert_array_equal(found.weight, weight / 4)


def test_multipliers_of_a_thousand_move_by_one_step_at_most_and_are_counted() -> None:
    source, weight, into = drawn(1000, seed=2)
    found = matching_scales(source, weight, into, 1.3)
    before = multiplier(source, weight, into).view(np.int32)
    after = multiplier(source, found.weight, found.output).view(np.int32)
    assert np.abs(after - before).max() == 1
    assert np.count_nonzero(after != before) == found.moved
    assert 0 < found.moved < 400


def planned(network: Network) -> QuantPlan:
    samples = Samples(seeded(16, 3, 8, 8, seed=9))
    return plan_quantization(network, samples, QuantizationOptions(), RUNNERS)


def test_the_rest_of_a_plan_stays() -> None:
    network = residual_network()
    plan = planned(network)
    found = tempered_plan(network, plan, 1.3)
    assert (len(found.divisors), found.moved) == (5, 0)
    assert found.temperature == pytest.approx(1.3, rel=1e-3)
    changed = {
        name for name, held in plan.tensors.items() if found.plan.tensors[name].scale != held.scale
    }
    assert changed == {"output_quantized"}
    *others, last = zip(plan.layers, found.plan.layers, strict=True)
    assert all(before is after for before, after in others)
    before, after = last
    assert before.weight is not None and after.weight is not None
    assert after.weight.values is before.weight.values
    assert after.bias is before.bias
    np.testing.assert_allclose(before.weight.scale / after.weight.scale, 1.3, rtol=1e-3)


FLAT = "g (float[1,3,8,8] x) => (float[1,12] output) {{ {} }}"
POOLS = "kernel_shape=[8,8], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]"


def test_integers_that_only_move_behind_the_layer_take_its_scale() -> None:
    network = float_network(
        FLAT.format(
            f"p = MaxPool <{POOLS}> (x) c = Conv <{CONV1}> (p, w, b) output = Flatten <axis=1> (c)"
        ),
        w=seeded(12, 3, 1, 1), b=seeded(12, seed=1),
    )  # fmt: skip
    assert last_layer(network).tensors == ("output", "c")
    plan, name = planned(network), "output_quantized"
    found = tempered_plan(network, plan, 2.0).plan
    assert found.tensors["c"] == found.tensors[name]
    assert found.tensors["c"].scale == plan.tensors["c"].scale / 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("c = Conv <{C}> (x, w, b) m = GlobalAveragePool (c) output = Flatten <axis=1> (m)",
         "the output comes from GlobalAveragePool 'm', whose scale is not free; end the network"),
        ("c = Conv <{C}> (x, w, b) m = MaxPool <{P}> (c) output = Flatten <axis=1> (m)",
         "the output comes from MaxPool 'm'"),
        ("p = MaxPool <{P}> (x) c = Conv <{C}> (p, w, b) r = Clip (c, low, high)"
         " output = Flatten <axis=1> (r)", "Conv 'c' is clipped to 6, which a temperature would"),
        ("p = MaxPool <{P}> (x) c = Conv <{C}> (p, w, b) s = Sigmoid (c) m = Mul (c, s)"
         " output = Flatten <axis=1> (m)", "the output comes from Mul 'm'"),
        ("p = MaxPool <{P}> (x) c = Conv <{C}> (p, w, b) d = Conv <{C}> (c, v, b)"
         " e = Conv <{C}> (d, v, b) output = Flatten <axis=1> (e)",
         "the weights of Conv 'e' are those of d too"),
    ],
)  # fmt: skip
def test_other_ends_are_refused(text: str, sentence: str) -> None:
    held = {
        "w": seeded(12, 3, 1, 1), "b": seeded(12, seed=1), "v": seeded(12, 12, 1, 1),
        "low": np.array(0.0, np.float32), "high": np.array(6.0, np.float32),
    }  # fmt: skip
    body = text.replace("{C}", CONV1).replace("{P}", POOLS)
    used = {name: array for name, array in held.items() if f" {name}" in body}
    with pytest.raises(QuantizationError, match=sentence):
        last_layer(float_network(FLAT.format(body), **used))


def test_several_outputs_are_refused() -> None:
    network = float_network(
        "g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Gemm <transB=1> (x, w, b) "
        "z = Gemm <transB=1> (x, w, b) }",
        w=seeded(4, 4), b=seeded(4),
    )  # fmt: skip
    with pytest.raises(QuantizationError, match="the network has 2 outputs"):
        last_layer(network)
