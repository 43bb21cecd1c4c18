"""Linear and convolution layers with a fixed mask by weight, as cplxmodule deploys sparsity.

weight, and a buffer mask of its shape; evaluation multiplies them. Nothing is random: what
training found irrelevant was decided when the mask was deployed.
Source: cplxmodule 2022.6, nn.masked.
"""

from __future__ import annotations

import numpy as np

from deploykit.posterior.family import Closes, EvalForward, Family, GateRule
from deploykit.posterior.gated import GatedLayer, Gates, gated_posterior, gated_sample
from deploykit.posterior.moments import float64
from deploykit.spec.arrays import Float64Array, Tensors

NAME = "masked weights (cplxmodule)"


def _layer(tensors: Tensors) -> GatedLayer:
    bias = float64(tensors["bias"]) if "bias" in tensors else None
    return GatedLayer(float64(tensors["weight"]), bias, axis=None)


def _gates(tensors: Tensors) -> Gates:
    mask = float64(tensors["mask"])
    return Gates(mask, np.zeros_like(mask), mask)


def _mask(tensors: Tensors, _: np.random.Generator) -> Float64Array:
    return float64(tensors["mask"])


MASKED_WEIGHTS = Family(
    name=NAME,
    signature=frozenset({"weight", "mask"}),
    optional=(frozenset({"bias"}),),
    posterior=gated_posterior(NAME, _layer, _gates),
    sample=gated_sample(_layer, _mask),
    gate_rule=GateRule(
        score="mask",
        closes=Closes.AT_OR_BELOW,
        threshold=0.0,
        source="a mask of zero is a weight of zero",
    ),
    eval_forward=EvalForward.MEAN,
    source="cplxmodule 2022.6, nn.masked",
    fits=lambda tensors: tensors["mask"].shape == tensors["weight"].shape,
)
