"""Layers of equal weights are found, and their moments are their mean."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.quantize.blocking import blocking_of
from deploykit.quantize.moments import InputMoments
from deploykit.quantize.structure import build_structure
from deploykit.quantize.tied import joint_moments, tied_layers
from tests.quantize.graphs import float_network, seeded


def test_layers_of_equal_weights_belong_together() -> None:
    weight = seeded(4, 4)
    network = float_network(
        "g (float[1,4] x) => (float[1,4] z) { a = Gemm <transB=1> (x, w, b) "
        "y = Gemm <transB=1> (a, v, b) z = Gemm <transB=1> (y, u, c) }",
        w=weight, v=weight.copy(), u=weight + np.float32(0.5), b=seeded(4), c=seeded(4, seed=2),
    )  # fmt: skip
    found = tied_layers(build_structure(network))
    names = {name: [layer.name for layer in group] for name, group in found.items()}
    assert names == {"a": ["a", "y"], "y": ["a", "y"], "z": ["z"]}
    assert joint_moments(found["a"], {"a": moments(1.0, 10)}) is None
    joint = joint_moments(found["a"], {"a": moments(1.0, 10), "y": moments(4.0, 30)})
    assert joint is not None and joint.positions == 40
    assert joint.blocks.ravel()[0] == pytest.approx(1.0 / 4 + 4.0 * 3 / 4)


def moments(value: float, positions: int) -> InputMoments:
    blocks = np.full((1, 4, 4), value, np.float32)
    return InputMoments(blocking_of(np.zeros((4, 4)), 4), blocks, positions)
