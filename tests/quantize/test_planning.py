"""The plan of a small residual network, and the integer network that it makes."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from deploykit.errors import DataError, QuantizationError, UnsupportedOperatorError
from deploykit.quantize import observe
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.calibration import Calibration
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.reference import integer
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.operators import (
    Add,
    Clamp,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Window,
)
from deploykit.spec.pairs import LARGEST_PAIR, Target, largest_pairs
from deploykit.spec.plan import QuantPlan, Rounding
from deploykit.spec.quantized import Batch, IoType, QuantizedNetwork
from deploykit.spec.samples import Samples
from deploykit.verify.formats import OnnxFormat, TfliteFormat, WrittenRunner, quantized_inputs
from deploykit.verify.metrics import sqnr_by_tensor
from tests.quantize.graphs import CONV1, float_network, residual_network, seeded
from tests.suite.comparing import assert_same_network

SAMPLES = Samples(seeded(40, 3, 8, 8, seed=9))
RUNNERS = Runners(
    ort.evaluate,
    ReferenceRunner(),
    (WrittenRunner(OnnxFormat()), WrittenRunner(TfliteFormat())),
)


def planned(options: QuantizationOptions = QuantizationOptions(), **changed: Any) -> QuantPlan:  # noqa: B008
    return plan_quantization(
        changed.get("network", residual_network()),
        changed.get("samples", SAMPLES),
        options,
        RUNNERS,
    )


def assert_same_plan(found: QuantPlan, expected: QuantPlan) -> None:
    np.testing.assert_equal(asdict(found), asdict(expected))


@pytest.fixture(scope="module")
def plan() -> QuantPlan:
    return planned()


@pytest.fixture(scope="module")
def network(plan: QuantPlan) -> QuantizedNetwork:
    return apply_plan(residual_network(), plan)


def test_tensors_that_are_only_moved_share_one_quantization(plan: QuantPlan) -> None:
    assert plan.tensors["pooled"] == plan.tensors["clipped"] == plan.tensors["r2"]
    assert plan.tensors["flat"] == plan.tensors["mean"]


def test_what_a_relu_ends_in_has_the_lowest_zero_point(plan: QuantPlan) -> None:
    assert plan.tensors["r1"].zero_point == plan.tensors["r2"].zero_point == -128
    assert plan.tensors["c2"].zero_point > -128


def test_public_tensors_leave_their_names_to_the_ports(
    plan: QuantPlan, network: QuantizedNetwork
) -> None:
    assert plan.layers[0].inputs == ("input_quantized",)
    assert plan.layers[-1].output == "output_quantized"
    assert [(p.name, p.tensor) for p in network.inputs] == [("input", "input_quantized")]
    assert [(p.name, p.tensor) for p in network.outputs] == [("output", "output_quantized")]


def test_sums_and_averages_are_proved_against_every_runtime(plan: QuantPlan) -> None:
    assert [(proof.layer, proof.cases) for proof in plan.proofs] == [
        ("total", 65_536),
        ("mean", 255 * 16 + 1),
    ]
    assert {proof.runners for proof in plan.proofs} == {("onnxruntime", "litert")}


def test_planning_twice_gives_the_same_plan(plan: QuantPlan) -> None:
    assert_same_plan(planned(), plan)


@pytest.mark.parametrize("method", list(Calibration))
def test_the_plan_does_not_depend_on_how_many_samples_run_at_once(
    method: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = QuantizationOptions(calibration=method)
    together = planned(options)
    monkeypatch.setattr(observe, "BYTES_AT_ONCE", 1)
    assert_same_plan(planned(options), together)


def test_the_plan_says_how_it_was_made(plan: QuantPlan) -> None:
    assert (plan.calibration, plan.calibration_samples, plan.io) == ("mse", 40, IoType.FLOAT)
    weight = plan.layers[0].weight
    assert weight is not None
    assert (weight.name, weight.bits, weight.granularity) == ("w1", 8, "per-channel")
    assert weight.carriers.names() == {"onnx": "int8", "tflite": "int8"}
    assert plan.layers[0].nodes == ("c1", "r1")


def test_apply_makes_the_operators_of_the_plan(network: QuantizedNetwork) -> None:
    kinds = [type(operator) for operator in network.operators]
    assert kinds == [Conv, Conv, Add, MaxPool, Clamp, GlobalAveragePool, Flatten, Linear]
    assert [operator.name for operator in network.operators][:2] == ["c1", "c2"]
    pool = network.operators[3]
    assert isinstance(pool, MaxPool)
    assert pool.window == Window((2, 2), (2, 2))
    assert network.tensors["mean"].shape == (1, 6, 1, 1)


def test_a_clamp_has_its_bounds_in_integers(plan: QuantPlan, network: QuantizedNetwork) -> None:
    clamp = network.operators[4]
    assert isinstance(clamp, Clamp)
    scale = plan.tensors["r2"].scale
    assert clamp.low == -128
    assert clamp.high == min(round(9.0 / scale) - 128, 127)


def test_the_integer_network_computes_what_the_float_one_does(network: QuantizedNetwork) -> None:
    floats = ort.evaluate(residual_network(), SAMPLES.inputs)
    integers = integer.run(network, quantized_inputs(network, SAMPLES.inputs))
    found = sqnr_by_tensor(network, floats, integers)
    assert set(found) == set(network.tensors)
    assert min(found.values()) > 25.0


def test_apply_makes_no_choices(plan: QuantPlan, network: QuantizedNetwork) -> None:
    assert_same_network(apply_plan(residual_network(), plan), network)


def identity_linear() -> Network:
    return float_network(
        "g (float[1,4] input) => (float[1,4] output) { output = Gemm <transB=1> (input, w, b) }",
        w=np.eye(4, dtype=np.float32), b=np.zeros(4, np.float32),
    )  # fmt: skip


def test_a_plan_for_another_graph_is_refused(plan: QuantPlan) -> None:
    with pytest.raises(QuantizationError, match="made for another graph"):
        apply_plan(identity_linear(), plan)


def test_a_plan_without_weights_is_refused(plan: QuantPlan) -> None:
    bare = tuple(replace(layer, weight=None) for layer in plan.layers)
    with pytest.raises(QuantizationError, match="c1: the plan holds no weights"):
        apply_plan(residual_network(), replace(plan, layers=bare))


def test_a_tensor_that_becomes_infinite_is_named_with_its_samples() -> None:
    network = float_network(
        f"g (float[1,1,2,2] input) => (float[1,1,2,2] output) "
        f"{{ big = Conv <{CONV1}> (input, w, b) output = Conv <{CONV1}> (big, w2, b2) }}",
        w=np.full((1, 1, 1, 1), 1e38, np.float32), b=np.zeros(1, np.float32),
        w2=np.full((1, 1, 1, 1), 1e-38, np.float32), b2=np.zeros(1, np.float32),
    )  # fmt: skip
    inputs = np.ones((3, 1, 2, 2), np.float32)
    inputs[1] = 100.0
    with pytest.raises(DataError, match="tensor big is not finite on calibration samples 0 to 2"):
        planned(network=network, samples=Samples(inputs))


def test_progress_ends_with_all_samples() -> None:
    told: list[tuple[int, int]] = []
    plan_quantization(
        identity_linear(), Samples(seeded(10, 4)), QuantizationOptions(), RUNNERS,
        lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told[-1] == (10, 10)


def test_a_target_narrows_the_channels_that_need_it_and_only_these() -> None:
    plan = planned(QuantizationOptions(rounding=Rounding.NEAREST))
    for_any = planned(QuantizationOptions(target=Target.ANY, rounding=Rounding.NEAREST))
    assert (for_any.target, plan.target) == (Target.ANY, None)
    assert max(dict(largest_pairs(apply_plan(residual_network(), for_any))).values()) == 128
    for narrow, full in zip(for_any.layers, plan.layers, strict=True):
        if narrow.weight is None or full.weight is None:
            continue
        grew = narrow.weight.scale > full.weight.scale
        assert (narrow.weight.pairs.narrowed, full.weight.pairs.narrowed) == (grew.sum(), 0)
        assert narrow.weight.pairs.largest <= LARGEST_PAIR < full.weight.pairs.largest
        np.testing.assert_array_equal(narrow.weight.values[~grew], full.weight.values[~grew])
    assert for_any.tensors == plan.tensors


def test_compensated_weights_of_a_target_fit_16_bits_too() -> None:
    network = apply_plan(residual_network(), planned(QuantizationOptions(target=Target.ANY)))
    assert 120 < max(dict(largest_pairs(network)).values()) <= LARGEST_PAIR


def test_compensated_rounding_brings_outputs_closer_than_nearest() -> None:
    def sqnr(rounding: Rounding) -> float:
        """Of c2, behind two convolutions, on samples that the plan has not seen."""
        options = QuantizationOptions(rounding=rounding)
        found = planned(options, samples=Samples(smooth(40, seed=1)))
        assert found.rounding is rounding
        network, inputs = apply_plan(residual_network(), found), smooth(64, seed=2)
        integers = integer.run(network, quantized_inputs(network, inputs))
        return sqnr_by_tensor(network, ort.evaluate(residual_network(), inputs), integers)["c2"]

    assert sqnr(Rounding.COMPENSATED) > sqnr(Rounding.NEAREST) + 0.5


def smooth(count: int, seed: int) -> Float32Array:
    """Images whose neighbouring pixels are much alike, as those of cameras."""
    return np.asarray(seeded(count, 3, 1, 1, seed=seed) + seeded(count, 3, 8, 8, seed=seed) / 8)


DYNAMIC = QuantizationOptions(batch=Batch.DYNAMIC)


def test_a_dynamic_batch_is_the_networks(plan: QuantPlan) -> None:
    dynamic = planned(DYNAMIC)
    assert apply_plan(residual_network(), dynamic).batch is Batch.DYNAMIC
    assert_same_plan(replace(dynamic, batch=Batch.FIXED), plan)


def test_a_dynamic_batch_begins_at_one() -> None:
    network = float_network(
        f"g (float[2,1,2,2] input) => (float[2,1,2,2] output) {{ output = Conv <{CONV1}> (input, w, b) }}",  # noqa: E501
        w=np.ones((1, 1, 1, 1), np.float32), b=np.zeros(1, np.float32),
    )  # fmt: skip
    with pytest.raises(QuantizationError, match=r"input is \[2, 1, 2, 2\]; give it a batch of 1"):
        planned(DYNAMIC, network=network, samples=Samples(seeded(4, 1, 2, 2)))


def test_what_joins_samples_has_no_dynamic_batch() -> None:
    network = float_network(
        "g (float[1,4] input) => (float[2,4] output) "
        "{ low = Relu (input) output = Concat <axis=0> (low, low) }"
    )
    with pytest.raises(QuantizationError, match="output cuts or joins along the batch"):
        planned(DYNAMIC, network=network, samples=Samples(seeded(4, 4)))


def test_a_constant_with_rows_where_samples_lie_has_no_dynamic_batch() -> None:
    network = float_network(
        "g (float[1,6,8] input) => (float[1,6,8] output) { t = Transpose <perm=[1,0,2]> (input) "
        " z = Add (t, w) output = Transpose <perm=[1,0,2]> (z) }",
        w=np.ones((6, 1, 8), np.float32),
    )
    told = r"z reads a constant \[6, 1, 8\], whose 6 rows lie .* or leave --batch out"
    with pytest.raises(QuantizationError, match=told):
        planned(DYNAMIC, network=network, samples=Samples(seeded(4, 6, 8)))


def test_an_island_without_a_form_for_samples_has_no_dynamic_batch() -> None:
    network = float_network(
        "g (float[1,4,8] input) => (float[1,4,8] output) "
        "{ low = GRU <hidden_size=8, linear_before_reset=1> (input, w, r, , , h) "
        " s = Squeeze (low, one) output = Relu (s) }",
        w=np.ones((1, 24, 8), np.float32), r=np.ones((1, 24, 8), np.float32),
        h=np.ones((1, 4, 8), np.float32), one=np.array([1]),
    )  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match="low: GRU begins with a state"):
        planned(DYNAMIC, network=network, samples=Samples(seeded(4, 4, 8)))
