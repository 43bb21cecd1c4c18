"""What lies on a grid is not scaled: factors behind and before it stay where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.graph.lowering.push_scales import push_scales
from deploykit.graph.passes.batchnorm import fold_batchnorm
from deploykit.graph.passes.scales import fold_channel_scales
from deploykit.graph.tracking import Pass, apply_pass
from deploykit.spec.arrays import AnyArray
from deploykit.spec.given import ActivationGrid, Given
from deploykit.spec.network import Network
from tests.graph.text import assert_same_function, graph, weights

GRID = ActivationGrid.symmetric(0.05, 8)
CONV = "c = Conv<pads=[1,1,1,1]>(input, w, b)"
STATISTICS = {
    "gamma": np.array([1.5, 2.0], np.float32), "beta": np.array([0.1, 0.2], np.float32),
    "mean": np.zeros(2, np.float32), "var": np.ones(2, np.float32),
}  # fmt: skip
FACTOR = {"k": np.array([[[[2.0]], [[3.0]]]], np.float32)}
NUMBER = {"k": np.array([2.0], np.float32)}


def network(body: str, constants: dict[str, AnyArray], given: tuple[str, ...]) -> Network:
    found = graph(
        f"(float[1,2,4,4] input) => (float[1,2,4,4] output) {{ {body} }}",
        {"w": weights(2, 2, 3, 3), "b": weights(2), "v": weights(2, 2, 3, 3, seed=1), **constants},
    )
    return replace(found, given=Given({}, dict.fromkeys(given, GRID)))


@pytest.mark.parametrize(
    ("rewrite", "body", "constants", "tensor"),
    [
        (fold_batchnorm,
         f"{CONV} output = BatchNormalization(c, gamma, beta, mean, var)", STATISTICS, "c"),
        (fold_channel_scales, f"{CONV} m = Mul(c, k) output = Relu(m)", FACTOR, "c"),
        (fold_channel_scales, f"{CONV} r = Relu(c) m = Mul(r, k) output = Tanh(m)", FACTOR, "r"),
        (fold_channel_scales, f"{CONV} r = Relu(c) m = Mul(r, k) output = Tanh(m)", FACTOR, "c"),
        (fold_channel_scales,
         "t = Tanh(input) m = Mul(t, k) output = Conv<pads=[1,1,1,1]>(m, v, b)", FACTOR, "m"),
        (push_scales,
         "t = Tanh(input) m = Mul(t, k) r = Relu(m) output = Conv<pads=[1,1,1,1]>(r, v, b)",
         NUMBER, "r"),
    ],
)  # fmt: skip
def test_a_factor_does_not_pass_a_grid(
    rewrite: Pass, body: str, constants: dict[str, AnyArray], tensor: str
) -> None:
    free, held = network(body, constants, ()), network(body, constants, (tensor,))
    count = len(list(free.model.graph))
    folded = apply_pass("rewrite", rewrite, free)
    assert len(list(folded.model.graph)) < count
    kept = apply_pass("rewrite", rewrite, held)
    assert len(list(kept.model.graph)) == count
    assert_same_function(held, kept)
    assert_same_function(free, folded)
