"""Tensors between a layer and a given grid: they reach as far, and coarser ones are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.quantize.hidden import needed_ranges
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.separate_grids import separate_grids
from deploykit.quantize.settling import Runners
from deploykit.quantize.sharing import find_groups
from deploykit.quantize.structure import build_structure
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec.given import ActivationGrid, Given
from deploykit.spec.network import Network
from deploykit.spec.plan import QuantPlan
from deploykit.spec.samples import Samples
from tests.quantize.graphs import float_network, seeded

HEAD = "c = Conv <kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1]> (x, w, b)"
SAMPLES = Samples(seeded(20, 3, 8, 8, seed=9))


def behind_a_convolution(body: str, **grids: ActivationGrid) -> Network:
    network = float_network(
        f"net (float[1, 3, 8, 8] x) => (float[1, 3, 8, 8] y) {{ {HEAD} {body} }}",
        w=seeded(3, 3, 1, 1, seed=1), b=seeded(3, seed=3), zero=np.zeros((1, 1, 1, 1), np.float32),
        share=np.array([1.0, 2.0, 4.0], np.float32).reshape(1, 3, 1, 1),
    )  # fmt: skip
    return replace(network, given=Given({}, grids))


def planned(network: Network) -> QuantPlan:
    runners = Runners(ort.evaluate, ReferenceRunner(), ())
    return plan_quantization(network, SAMPLES, QuantizationOptions(), runners)


def needed(network: Network) -> dict[str, tuple[float, float]]:
    layers = build_structure(network)
    return dict(needed_ranges(layers, find_groups(layers, ["x"]), network.given.activations))


FAR = ActivationGrid.symmetric(1.0, 8)
FINE = ActivationGrid.symmetric(0.001, 8)


def test_what_zero_is_added_to_reaches_as_far_as_the_grid() -> None:
    network = behind_a_convolution("y = Add (c, zero)", y=FAR)
    assert needed(network) == {"c": FAR.ends}
    plan = planned(network)
    assert plan.tensors["c"].scale == pytest.approx(254.0 / 255.0)
    assert [use.why for use in plan.given] == [""]


def test_a_factor_over_one_needs_no_more_than_its_smallest_leaves() -> None:
    assert needed(behind_a_convolution("y = Mul (c, share)", y=FAR)) == {"c": FAR.ends}


def test_two_grids_need_the_union_and_the_finer_is_told() -> None:
    other = ActivationGrid.unsigned(0.5, 8)
    network = behind_a_convolution("d = Add (c, zero) e = Add (c, zero) y = Add (d, e)",
                                   d=FAR, e=other)  # fmt: skip
    assert needed(network) == {"c": (-127.0, 127.5)}
    told = {use.name: use.why for use in planned(network).given}
    assert told["d"] == ""
    assert "come from c, in steps up to 2 times as large" in told["e"]


def test_what_calibration_sees_beyond_the_grid_makes_coarser_steps() -> None:
    plan = planned(behind_a_convolution("y = Add (c, zero)", y=FINE))
    (use,) = plan.given
    assert plan.tensors["c"].scale > 10 * FINE.quantization.scale
    assert "come from c, in steps up to" in use.why
    assert not use.kept


def test_a_curve_s_output_asks_what_is_before_it() -> None:
    network = separate_grids(behind_a_convolution("y = LeakyRelu <alpha=0.1> (c)", y=FAR))
    assert needed(network)["c"] == FAR.ends
    plan = planned(network)
    assert plan.tensors["c"] == plan.tensors["y.rescaled.from"]
    assert [use.why for use in plan.given] == [""]


def test_a_tensor_on_a_grid_of_its_own_is_as_it_is_given() -> None:
    network = behind_a_convolution("y = Add (c, zero)", c=FAR, y=FINE)
    assert needed(network) == {}
    plan = planned(network)
    assert plan.tensors["c"] == FAR.quantization
    assert {use.name: use.why for use in plan.given}["c"] == ""
