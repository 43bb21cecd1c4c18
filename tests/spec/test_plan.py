"""A plan prints as a table that a person can read."""

from __future__ import annotations

import numpy as np

from deploykit.spec.carriers import Carrier, Carriers
from deploykit.spec.plan import LayerPlan, PairPlan, QuantPlan, Rounding, WeightPlan
from deploykit.spec.quantized import IoType, Quantization


def test_plan_prints_as_a_table() -> None:
    weight = WeightPlan(
        "conv1.weight", 4, "per-channel", Carriers(Carrier.INT4, Carrier.INT8),
        np.ones(2, np.float32), np.ones((2, 1, 5, 5), np.int8), PairPlan(2),
    )  # fmt: skip
    plan = QuantPlan(
        tensors={
            "x_quantized": Quantization(2.0**-8, -128),
            "relu": Quantization(0.03125, -128),
            "pool": Quantization(0.03125, -128),
        },
        layers=(
            LayerPlan("conv1", "Conv", ("conv1", "relu"), ("x_quantized",), "relu", weight),
            LayerPlan("pool", "MaxPool", ("pool",), ("relu",), "pool"),
        ),
        calibration="mse",
        calibration_samples=256,
        io=IoType.FLOAT,
        rounding=Rounding.COMPENSATED,
    )
    assert str(plan) == (
        "calibration mse on 256 samples, rounding compensated\n"
        "input x_quantized: scale 0.00390625, zero point -128\n"
        "layer  operator  output  scale    zero point  weight   bits  carrier\n"
        "conv1  Conv      relu    0.03125  -128        2x1x5x5  4     int4, int8\n"
        "pool   MaxPool   pool    0.03125  -128"
    )
