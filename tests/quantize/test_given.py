"""Grids that a network came with: kept, moved only where nothing else can, and told if not kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from deploykit.graph.edit import set_initializer
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.separate_grids import separate_grids
from deploykit.quantize.settling import Runners
from deploykit.quantize.structure import build_structure
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Float32Array, Int8Array, Tensors
from deploykit.spec.carriers import IN_INT8
from deploykit.spec.given import ActivationGrid, Given, WeightGrid
from deploykit.spec.network import Network
from deploykit.spec.operators import Add, Conv
from deploykit.spec.plan import QuantPlan, Rounding
from deploykit.spec.quantized import IoType, QuantizedNetwork
from deploykit.spec.samples import Samples
from tests.quantize.graphs import float_network, residual_network, seeded

SAMPLES = Samples(seeded(40, 3, 8, 8, seed=9))
FINE = np.float32(0.011)


@dataclass
class Objecting:
    """A runtime that rounds sums otherwise for the first few scales that it is asked about."""

    objections: int
    name: str = "objecting"
    _reference: ReferenceRunner = field(default_factory=ReferenceRunner)

    def __call__(self, network: QuantizedNetwork, inputs: Tensors) -> Mapping[str, Int8Array]:
        found = dict(self._reference(network, inputs))
        if self.objections and isinstance(network.operators[0], Add):
            self.objections -= 1
            found["result"] = found["result"] ^ np.int8(1)
        return found


def planned(
    network: Network, objections: int = 0, rounding: Rounding = Rounding.COMPENSATED
) -> QuantPlan:
    runners = Runners(ort.evaluate, ReferenceRunner(), (Objecting(objections),))
    return plan_quantization(network, SAMPLES, QuantizationOptions(rounding=rounding), runners)


def on_grid(shape: tuple[int, ...], largest: int, scale: Float32Array | np.float32) -> AnyArray:
    codes = np.random.default_rng(1).integers(-largest, largest + 1, shape)
    return (codes.astype(np.float32) * scale).astype(np.float32)


def with_weight(network: Network, name: str, array: AnyArray) -> Network:
    model = network.model.clone()
    set_initializer(model.graph, name, array)
    return replace(network, model=model)


def given(network: Network, **grids: WeightGrid | ActivationGrid) -> Network:
    weights = {name: grid for name, grid in grids.items() if isinstance(grid, WeightGrid)}
    activations = {name: grid for name, grid in grids.items() if isinstance(grid, ActivationGrid)}
    return replace(network, given=Given(weights, activations))


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize(("bits", "largest"), [(2, 1), (4, 7), (8, 127)])
@pytest.mark.parametrize("by_channel", [False, True])
def test_a_weight_keeps_its_integers(
    rounding: Rounding, bits: int, largest: int, by_channel: bool
) -> None:
    scales = np.linspace(0.01, 0.04, 6, dtype=np.float32) if by_channel else np.array([FINE])
    array = on_grid((6, 3, 3, 3), largest, scales.reshape(-1, 1, 1, 1))
    network = with_weight(residual_network(), "w1", array)
    network = given(network, w1=WeightGrid(bits, scales))
    plan = planned(network, rounding=rounding)
    (layer, *_) = plan.layers
    assert layer.weight is not None
    assert layer.weight.bits == bits
    assert layer.weight.carriers == IN_INT8  # 162 integers: too few to be worth a Cast
    np.testing.assert_array_equal(layer.weight.scale, np.broadcast_to(scales, (6,)))
    wide = layer.weight.scale[:, None, None, None]
    np.testing.assert_array_equal(layer.weight.values.astype(np.float32) * wide, array)
    assert [(use.kind, use.name, use.bits, use.kept) for use in plan.given] == [
        ("weight", "c1", bits, True)
    ]
    operator = apply_plan(network, plan).operators[0]
    assert isinstance(operator, Conv)
    np.testing.assert_array_equal(operator.weight.values, layer.weight.values)


def test_a_weight_that_left_its_grid_is_planned_as_a_float_one() -> None:
    network = given(residual_network(), w1=WeightGrid(4, np.array([FINE])))
    plan, plain = planned(network), planned(residual_network())
    np.testing.assert_array_equal(plan.layers[0].weight.scale, plain.layers[0].weight.scale)  # type: ignore[union-attr]
    (use,) = plan.given
    assert not use.kept
    assert "no longer on the grid" in use.why


def test_a_layer_that_is_gone_is_told() -> None:
    plan = planned(given(residual_network(), gone=WeightGrid(4, np.array([FINE]))))
    assert [(use.name, use.why) for use in plan.given] == [
        ("gone", "no layer of that name is left")
    ]


def test_a_tensor_that_is_gone_is_told() -> None:
    plan = planned(given(residual_network(), gone=ActivationGrid.unsigned(0.03, 8)))
    (use,) = plan.given
    assert not use.kept and "folded into another operator" in use.why


def test_a_bias_that_the_scale_cannot_carry_is_told() -> None:
    network = with_weight(residual_network(), "w1", on_grid((6, 3, 3, 3), 7, np.float32(1e-12)))
    plan = planned(given(network, w1=WeightGrid(4, np.array([1e-12], np.float32))))
    (use,) = plan.given
    assert "biases" in use.why


def test_tensors_keep_scale_and_zero_point() -> None:
    grids = {"r1": ActivationGrid.unsigned(0.03, 8), "c2": ActivationGrid.symmetric(0.05, 8)}
    plan = planned(given(residual_network(), **grids))
    assert all(plan.tensors[name] == grid.quantization for name, grid in grids.items())
    assert all(use.kept for use in plan.given)


def test_sums_move_an_input_that_was_not_given() -> None:
    grids = {"r1": ActivationGrid.unsigned(0.03, 8), "r2": ActivationGrid.unsigned(0.04, 8)}
    calm = planned(given(residual_network(), **grids))
    moved = planned(given(residual_network(), **grids), objections=2)
    for name in ("r1", "r2", "pooled", "clipped"):
        assert moved.tensors[name] == calm.tensors[name]
    assert moved.tensors["c2"].scale > calm.tensors["c2"].scale
    assert all(use.kept for use in moved.given)
    (proof,) = (one for one in moved.proofs if one.layer == "total")
    assert proof.nudges == 2


def test_a_sum_of_given_scales_moves_its_own_and_says_so() -> None:
    grids = {
        "r1": ActivationGrid.unsigned(0.03, 8), "c2": ActivationGrid.symmetric(0.05, 8),
        "r2": ActivationGrid.unsigned(0.04, 8),
    }  # fmt: skip
    plan = planned(given(residual_network(), **grids), objections=1)
    told = {use.name: use.why for use in plan.given}
    assert told["r1"] == told["c2"] == ""
    assert "its scale moved by 0.03%" in told["r2"]
    assert plan.tensors["r2"].scale == pytest.approx(0.04 * 1.0003)


def test_a_scale_finer_than_runtimes_multiply_moves_and_says_so() -> None:
    plan = planned(given(residual_network(), c2=ActivationGrid.symmetric(1e-9, 8)))
    (use,) = plan.given
    assert "moved" in use.why
    assert plan.tensors["c2"].scale > 1e-9


def joined() -> Network:
    return float_network(
        """
        joined (float[1, 3, 8, 8] input) => (float[1, 6, 8, 8] output) {
            a = Relu (input)
            c = Conv <kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]> (a, w, b)
            d = Relu (c)
            e = Conv <kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]> (a, v, b)
            f = Relu (e)
            output = Concat <axis=1> (d, f)
        }
        """,
        w=seeded(3, 3, 1, 1, seed=1), v=seeded(3, 3, 1, 1, seed=2), b=seeded(3, seed=3),
    )  # fmt: skip


def test_tensors_that_share_a_scale_keep_the_first_grid() -> None:
    grids = {"d": ActivationGrid.unsigned(0.03, 8), "f": ActivationGrid.unsigned(0.04, 8)}
    plan = planned(given(joined(), **grids))
    told = {use.name: use.why for use in plan.given}
    assert sorted(told.values())[0] == ""
    assert "which has another grid" in sorted(told.values())[1]
    assert plan.tensors["d"] == plan.tensors["f"]


def test_a_tensor_that_shares_the_input_s_scale_has_no_grid() -> None:
    plan = planned(given(joined(), a=ActivationGrid.unsigned(0.03, 8)))
    (use,) = plan.given
    assert "it shares its scale with an input of the network" in use.why


@pytest.mark.parametrize(
    ("scale", "io"), [(0.03125, IoType.FLOAT), (0.03, IoType.INT8), (0.03, IoType.UINT8)]
)
def test_an_input_keeps_a_power_of_two_and_integers_keep_any(scale: float, io: IoType) -> None:
    held = ActivationGrid.unsigned(float(np.float32(scale)), 8)
    runners = Runners(ort.evaluate, ReferenceRunner(), ())
    plan = plan_quantization(
        given(joined(), input=held), SAMPLES, QuantizationOptions(io=io), runners
    )
    assert [use.kept for use in plan.given] == [True]
    assert plan.tensors["input_quantized"] == held.quantization


@pytest.mark.parametrize(
    ("held", "kinds"),
    [
        (ActivationGrid.unsigned(0.03, 8), ["Conv"]),
        (ActivationGrid.symmetric(0.03, 8), ["Conv", "Clamp"]),
        (ActivationGrid.unsigned(0.03, 4), ["Conv", "Clamp"]),
    ],
)
def test_a_layer_takes_in_what_the_grid_s_saturation_does(
    held: ActivationGrid, kinds: list[str]
) -> None:
    layers = build_structure(given(residual_network(), r1=held))
    made = [layer.kind.value for layer in layers if layer.nodes[-1].outputs[0].name in ("c1", "r1")]
    assert made == kinds


POOLED = """
    pooled (float[1, 3, 8, 8] input) => (float[1, 3, 8, 8] pooled) {
        c = Conv <kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]> (input, w, b)
        r1 = Relu (c)
        pooled = MaxPool <kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]> (r1)
    }
"""


def test_two_grids_meet_in_a_sum_with_zero() -> None:
    grids = {"r1": ActivationGrid.unsigned(0.03, 8), "pooled": ActivationGrid.unsigned(0.05, 8)}
    network = given(
        float_network(POOLED, w=seeded(3, 3, 1, 1, seed=1), b=seeded(3, seed=3)), **grids
    )
    separated = separate_grids(network)
    names = [node.op_type for node in separated.model.graph]
    assert names == ["Conv", "Relu", "Add", "MaxPool"]
    plan = planned(separated)
    assert all(use.kept for use in plan.given)
    assert plan.tensors["r1"] == grids["r1"].quantization
    assert plan.tensors["pooled_quantized"] == grids["pooled"].quantization


def test_a_tensor_joined_with_itself_is_rescaled_once() -> None:
    text = POOLED.replace("MaxPool <kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], "
                          "dilations=[1,1]> (r1)", "Concat <axis=1> (r1, r1)")  # fmt: skip
    text = text.replace("float[1, 3, 8, 8] pooled", "float[1, 6, 8, 8] pooled")
    grids = {"r1": ActivationGrid.unsigned(0.03, 8), "pooled": ActivationGrid.unsigned(0.05, 8)}
    network = given(float_network(text, w=seeded(3, 3, 1, 1, seed=1), b=seeded(3, seed=3)), **grids)
    separated = separate_grids(network)
    names = [node.op_type for node in separated.model.graph]
    assert names == ["Conv", "Relu", "Add", "Concat"]
    plan = planned(separated)
    assert all(use.kept for use in plan.given)
    assert plan.tensors["r1"] == grids["r1"].quantization


ONE_BY_ONE = "<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]>"


@pytest.mark.parametrize("other", ["b", "none"])
def test_a_concatenation_without_a_grid_reaches_as_far_as_its_parts(other: str) -> None:
    text = f"""
        g (float[1, 3, 8, 8] input) => (float[1, 6, 8, 8] both) {{
            a = Conv {ONE_BY_ONE} (input, w, b)
            r = Relu (a)
            c = Conv {ONE_BY_ONE} (input, v, b)
            s = Relu (c)
            both = Concat <axis=1> (r, s)
        }}
    """
    grids = {"r": ActivationGrid.unsigned(0.001, 8), "s": ActivationGrid.unsigned(0.05, 8)}
    if other == "none":
        del grids["s"]
    network = given(
        float_network(
            text, w=seeded(3, 3, 1, 1, seed=1), v=seeded(3, 3, 1, 1, seed=2), b=seeded(3, seed=3)
        ),
        **grids,
    )  # fmt: skip
    plan = planned(separate_grids(network))
    assert all(use.kept for use in plan.given)
    low, high = plan.tensors["both_quantized"].ends
    reached = ort.evaluate(network, SAMPLES.inputs)["s"].max()
    assert low <= 0.0 and high > 0.9 * reached > 2 * grids["r"].ends[1]


def test_layers_that_share_a_weight_both_keep_its_grid() -> None:
    held = {"w": on_grid((3, 3, 1, 1), 7, FINE), "b": seeded(3, seed=3)}
    network = float_network(
        f"""
        shared (float[1, 3, 8, 8] input) => (float[1, 3, 8, 8] output) {{
            c = Conv {ONE_BY_ONE} (input, w, b)
            d = Relu (c)
            output = Conv {ONE_BY_ONE} (d, v, b)
        }}
        """,
        **held, v=held["w"],
    )  # fmt: skip
    grid = WeightGrid(4, np.array([FINE]))
    plan = planned(given(network, w=grid, v=grid))
    assert [(use.name, use.why) for use in plan.given] == [("c", ""), ("output", "")]
