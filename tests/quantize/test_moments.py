"""Second moments of layers' inputs, against all patches written out."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.quantize.moments import FEWEST, InputMoments, MomentSums
from deploykit.quantize.structure import Layer, build_structure
from deploykit.spec.arrays import AnyArray
from tests.quantize.graphs import float_network, seeded

CONVOLUTIONS = {
    "padded": ("kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], dilations=[1,1]", (4, 2, 3, 3)),
    "strided, uneven padding": (
        "kernel_shape=[3,2], strides=[2,1], pads=[0,1,1,0], dilations=[1,1]", (4, 2, 3, 2)
    ),
    "dilated": ("kernel_shape=[2,2], strides=[1,1], pads=[1,1,1,1], dilations=[2,2]", (4, 2, 2, 2)),
    "depthwise": (
        "group=2, kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], dilations=[1,1]", (4, 1, 3, 3)
    ),
}  # fmt: skip


def conv_layer(name: str) -> Layer:
    attributes, shape = CONVOLUTIONS[name]
    text = f"""
        one (float[1, 2, 6, 5] input) => (float[1, 4, oh, ow] output) {{
            output = Conv <{attributes}> (input, w, b)
        }}
    """
    (layer,) = build_structure(float_network(text, w=seeded(*shape), b=seeded(4)))
    return layer


def measured(layer: Layer, inputs: AnyArray, means: AnyArray) -> InputMoments:
    sums = MomentSums(layer, len(inputs))
    for index, sample in enumerate(inputs):
        sums.add(sample[None], index)
    return sums.about(means)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_rounding_errors_have_the_variance_that_the_moments_say(name: str) -> None:
    layer = conv_layer(name)
    inputs = seeded(7, 2, 6, 5, seed=3) + 2
    means = inputs.mean(axis=(0, 2, 3), dtype=np.float64)
    _, shape = CONVOLUTIONS[name]
    error = seeded(*shape, seed=4)
    found = measured(layer, inputs, means)
    rows = found.blocking.split(error.astype(np.float64))
    variance = np.einsum("bri,bij,brj->br", rows, found.blocks, rows).reshape(-1)
    np.testing.assert_allclose(variance, errors_squared(layer, inputs, error, means), rtol=1e-4)


def errors_squared(layer: Layer, inputs: AnyArray, error: AnyArray, means: AnyArray) -> AnyArray:
    """Mean square of the error's own convolution less what the means give inside. [O]"""
    from deploykit.runtime import ort

    node = layer.nodes[0]
    attributes = ", ".join(
        f"{name}={list(node.attributes[name].as_ints())}"
        for name in ("kernel_shape", "strides", "pads", "dilations")
    )
    groups = inputs.shape[1] // error.shape[1]
    text = f"""
        one (float[1, 2, 6, 5] input) => (float[1, 4, oh, ow] output) {{
            output = Conv <group={groups}, {attributes}> (input, w)
        }}
    """
    made = ort.evaluate(float_network(text, w=error), inputs)["output"].astype(np.float64)
    per_group = len(error) // groups
    seen = means.reshape(groups, -1).repeat(per_group, axis=0)
    inside = (error.reshape(*error.shape[:2], -1).sum(2) * seen).sum(1)
    return np.asarray(((made - inside[:, None, None]) ** 2).mean(axis=(0, 2, 3)))


def test_of_many_positions_some_are_drawn_the_same_ones_every_time() -> None:
    layer = conv_layer("padded")
    inputs = seeded(2 * FEWEST, 2, 6, 5, seed=5)
    means = np.zeros(2)
    once, again = measured(layer, inputs, means), measured(layer, inputs, means)
    assert once.positions == 2 * FEWEST
    np.testing.assert_array_equal(once.blocks, again.blocks)
    np.testing.assert_allclose(once.blocks[0, 4, 4], 1.0, atol=0.1)


def test_few_positions_are_trusted_less() -> None:
    layer = conv_layer("depthwise")
    few = measured(layer, seeded(1, 2, 6, 5), np.zeros(2))
    assert few.positions == 30
    whole, trusted = few.blocks[0], few.trusted()[0]
    np.testing.assert_array_equal(np.diag(trusted), np.diag(whole))
    off = ~np.eye(9, dtype=bool)
    np.testing.assert_allclose(trusted[off], whole[off] * 30 / 39, rtol=1e-6)
