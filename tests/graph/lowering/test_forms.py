"""Arithmetic, rectifiers, reductions, pads, slices and signals in the operators that stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.graph.lowering import lower
from deploykit.quantize.operators import kind_of
from deploykit.quantize.regions import find_regions
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.graph.lowering.test_lowering import assert_same_function, between, operators
from tests.quantize.graphs import CONV1, CONV3, float_network, seeded

ONE, TWO = np.array(0.7, np.float32), np.array(2.0, np.float32)
PER_CHANNEL = seeded(4, 1, 1, seed=9)
PIXELS = np.array([2, 3], np.int64)


def whole(network: Network) -> bool:
    """Whether every node has an integer form."""
    return all(kind_of(node) is not None for node in network.model.graph)


CONSTANTS: dict[str, AnyArray] = {"k": ONE, "two": TWO, "s": PER_CHANNEL, "hw": PIXELS}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("r = Relu (x) y = Sub (r, k)", {"Conv": 2, "Relu": 1, "Add": 1}),
        # -1 * r + k is one depthwise convolution.
        ("r = Relu (x) y = Sub (k, r)", {"Conv": 3, "Relu": 1}),
        ("r = Relu (x) y = Sub (r, x)", {"Conv": 2, "Relu": 1, "Sub": 1}),
        ("r = Tanh (x) y = Div (r, k)", {"Conv": 2, "Tanh": 1}),
        ("r = Tanh (x) y = Neg (r)", {"Conv": 2, "Tanh": 1, "Mul": 1}),
        ("y = Abs (x)", {"Conv": 2, "Mul": 1, "Max": 1}),
        ("y = Pow (x, two)", {"Conv": 2, "Mul": 1}),
        ("r = Relu (x) y = Max (x, r)", {"Conv": 2, "Relu": 1, "Max": 1}),
        ("y = Max (x, k)", {"Conv": 2, "Clip": 1}),
        ("y = Min (k, x)", {"Conv": 2, "Clip": 1}),
        ("t = Tanh (x) r = Relu (x) y = Min (x, t, r)",
         {"Conv": 2, "Tanh": 1, "Relu": 1, "Min": 2}),
        ("t = Tanh (x) r = Relu (x) y = Sum (x, t, r)",
         {"Conv": 2, "Tanh": 1, "Relu": 1, "Add": 2}),
        ("t = Tanh (x) y = Mean (x, t)", {"Conv": 2, "Tanh": 1, "Add": 1}),
        ("y = LeakyRelu (x)", {"Conv": 2, "LeakyRelu": 1}),
        ("y = LeakyRelu <alpha=-0.3> (x)", {"Conv": 2, "Clip": 1, "Mul": 1, "Add": 1}),
        ("y = LeakyRelu <alpha=0.0> (x)", {"Conv": 2, "Clip": 1}),
        ("y = PRelu (x, k)", {"Conv": 2, "LeakyRelu": 1}),
        ("y = PRelu (x, s)", {"Conv": 3, "Clip": 1, "Add": 1}),
        ("y = Elu <alpha=0.4> (x)", {"Conv": 2, "Elu": 1, "LeakyRelu": 1}),
        ("y = Selu (x)", {"Conv": 2, "Elu": 1, "LeakyRelu": 1}),
        ("y = Celu <alpha=2.0> (x)", {"Conv": 2, "Elu": 1, "Mul": 1}),
        ("m = ReduceMax (x, hw) y = Add (x, m)", {"Conv": 2, "MaxPool": 1, "Add": 1}),
        ("m = GlobalMaxPool (x) y = Mul (x, m)", {"Conv": 2, "MaxPool": 1, "Mul": 1}),
        ("m = ReduceSum (x, hw) y = Add (x, m)",
         {"Conv": 2, "GlobalAveragePool": 1, "Mul": 1, "Add": 1}),
        ("m = ReduceMean (x, h) y = Add (x, m)", {"Conv": 3, "Add": 1}),
        ("m = ReduceMean (x, ch) y = Add (x, m)", {"Conv": 3, "Add": 1}),
        ("m = ReduceSum (x, w3) y = Add (x, m)", {"Conv": 3, "Add": 1}),
        ("m = ReduceL1 (x, w3) y = Add (x, m)", {"Conv": 3, "Mul": 1, "Max": 1, "Add": 1}),
        ("m = ReduceSumSquare (x, h) y = Add (x, m)", {"Conv": 3, "Mul": 1, "Add": 1}),
        ("y = MaxPool <kernel_shape=[3,3], strides=[1,1], dilations=[2,2], pads=[0,0,0,0]> (x)",
         {"Conv": 2, "Slice": 6, "Max": 4}),
        ("y = MaxPool <kernel_shape=[3,3], strides=[1,1], dilations=[2,2], pads=[2,2,2,2]> (x)",
         {"Conv": 2, "Gather": 4, "Max": 4}),
        ("y = MaxPool <kernel_shape=[2,3], strides=[2,1], dilations=[2,1], pads=[0,1,1,1]> (x)",
         {"Conv": 2, "Gather": 2, "Max": 1, "MaxPool": 1}),
        ("y = MaxPool <kernel_shape=[3,3], strides=[2,2], dilations=[1,2], pads=[1,0,1,1]> (x)",
         {"Conv": 2, "Gather": 3, "Max": 2, "MaxPool": 1}),
        ("r = SpaceToDepth <blocksize=2> (x) y = DepthToSpace <blocksize=2> (r)",
         {"Conv": 2, "SpaceToDepth": 1, "DepthToSpace": 1}),
        ("p = Slice (x, a, e, hw) q = Pad (p, wide) y = Relu (q)",
         {"Conv": 2, "Slice": 2, "Pad": 1, "Relu": 1}),
    ],
)  # fmt: skip
def test_the_function_stays(text: str, left: dict[str, int]) -> None:
    more = {
        "h": np.array([2], np.int64), "w3": np.array([3], np.int64), "ch": np.array([1], np.int64),
        "a": np.array([1, -5], np.int64), "e": np.array([5, 9], np.int64),
        "wide": np.array([0, 0, 1, 0, 0, 0, 1, 1], np.int64),
    }  # fmt: skip
    network = between(text, **CONSTANTS, **more)
    lowered = lower(network)
    assert operators(lowered) == left
    assert_same_function(network, lowered, atol=2e-5)
    assert whole(lowered)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("n = ReduceL2 (x, ch) m = Max (n, k) e = Expand (m, sizes) y = Div (x, e)",
         {"Mul": 1, "ReduceSum": 1, "Sqrt": 1, "Clip": 1, "Div": 1}),
        ("y = LpNormalization <axis=1> (x)",
         {"Mul": 1, "ReduceSum": 1, "Sqrt": 1, "Clip": 1, "Div": 1}),
        ("y = LpNormalization <axis=-1, p=1> (x)",
         {"Mul": 1, "Max": 1, "ReduceSum": 1, "Clip": 1, "Div": 1}),
        ("n = ReduceL2 <noop_with_empty_axes=0> (x) y = Div (x, n)",
         {"Mul": 1, "ReduceSum": 1, "Sqrt": 1, "Div": 1}),
    ],
)  # fmt: skip
def test_a_norm_is_one_region_with_what_divides_by_it(text: str, left: dict[str, int]) -> None:
    held = {"ch": np.array([1], np.int64), "sizes": np.array([1, 4, 6, 6], np.int64)}
    network = between(text, **CONSTANTS, **held)
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 2, **left}
    assert_same_function(network, lowered, atol=2e-5)
    (region,) = find_regions(lowered, ()).values()
    assert sum(left.values()) == len(region.nodes)


def test_a_norm_of_zeros_is_zero() -> None:
    network = between("z = Sub (x, x) y = LpNormalization <axis=1> (z)")
    assert_same_function(network, lower(network))


def test_a_pad_of_zeros_goes_into_the_convolutions_that_read_it() -> None:
    network = float_network(
        f"g (float[1,3,6,6] input) => (float[1,4,8,8] output) {{"
        f" p = Pad (input, wide) a = Conv <{CONV3}> (p, w, b) c = Conv <{CONV3}> (p, w, b)"
        f" output = Add (a, c) }}",
        w=seeded(4, 3, 3, 3), b=seeded(4), wide=np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 2, "Add": 1}
    assert_same_function(network, lowered)


def test_a_pad_that_others_read_too_stays_for_them() -> None:
    network = float_network(
        f"g (float[1,3,6,6] input) => (float[1,3,8,8] output) {{"
        f" p = Pad (input, wide) a = Conv <{CONV1}> (p, w, b) output = Add (a, p) }}",
        w=seeded(3, 3, 1, 1), b=seeded(3), wide=np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 1, "Add": 1, "Pad": 1}
    assert_same_function(network, lowered)


SIGNAL = """
g (float[1,3,24] input) => (float[1,5] output) {
    x = Conv <kernel_shape=[3], strides=[1], pads=[1,1], dilations=[1]> (input, w, b)
    n = BatchNormalization (x, g, t, m, s)
    r = LeakyRelu <alpha=0.1> (n)
    p = MaxPool <kernel_shape=[2], strides=[2], pads=[0,0], dilations=[1]> (r)
    k = Mul (p, scale)
    d = Conv <kernel_shape=[3], strides=[1], pads=[1,1], dilations=[1], group=4> (k, v, b)
    u = Relu (d)
    joined = Concat <axis=1> (u, p)
    mean = ReduceMean <keepdims=0> (joined, axes)
    output = Gemm <transB=1> (mean, z, c)
}
"""


def signal() -> Network:
    return float_network(
        SIGNAL, w=seeded(4, 3, 3), b=seeded(4), g=seeded(4, seed=4), t=seeded(4, seed=5),
        m=seeded(4, seed=6), s=np.abs(seeded(4, seed=7)), scale=seeded(4, 1, seed=8),
        v=seeded(4, 1, 3), z=seeded(5, 8), c=seeded(5), axes=np.array([-1], np.int64),
    )  # fmt: skip


def test_a_signal_has_one_reshape_at_its_border() -> None:
    network = signal()
    lowered = lower(network)
    counts = operators(lowered)
    assert counts["Unsqueeze"] == 1
    assert counts["Squeeze"] == 0
    assert counts["GlobalAveragePool"] == 1
    assert_same_function(network, lowered)
    assert whole(lowered)


def test_a_signal_may_end_as_one() -> None:
    network = float_network(
        "g (float[1,3,9] input) => (float[1,4,9] output) {"
        " x = Conv <kernel_shape=[3], strides=[1], pads=[1,1], dilations=[1]> (input, w, b)"
        " q = Pad (x, wide) s = Slice (q, one, nine, axis) output = Sigmoid (s) }",
        w=seeded(4, 3, 3), b=seeded(4), wide=np.array([0, 0, 1, 0, 0, 2], np.int64),
        one=np.array([1], np.int64), nine=np.array([10], np.int64), axis=np.array([2], np.int64),
    )  # fmt: skip
    for node in network.model.graph:
        node.name = str(node.outputs[0].name)
    lowered = lower(network)
    assert operators(lowered)["Squeeze"] == operators(lowered)["Unsqueeze"] == 1
    names = [node.name for node in lowered.model.graph]
    assert len(set(names)) == len(names)
    assert_same_function(network, lowered)
    assert whole(lowered)


def test_variances_follow_the_weights_of_a_signal() -> None:
    network = signal()
    spread = Network(network.model, {"w": np.ones((4, 3, 3), np.float32)})
    assert lower(spread).variance["w"].shape == (4, 3, 1, 3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slices_of_several_axes_are_slices(data: st.DataObject) -> None:
    size = [data.draw(st.integers(1, 6), name) for name in ("height", "width")]
    starts = [data.draw(st.integers(-8, 5)) for _ in size]
    stops = [data.draw(st.integers(1, 9)) for _ in size]
    steps = [data.draw(st.integers(1, 3)) for _ in size]
    spans = [slice(*span) for span in zip(starts, stops, steps, strict=True)]
    left = [len(range(*span.indices(n))) for span, n in zip(spans, size, strict=True)]
    if not all(left):
        return
    held = {
        name: np.array(values, np.int64)
        for name, values in (("a", starts), ("e", stops), ("d", [2, 3]), ("q", steps))
    }
    network = float_network(
        f"g (float[1,2,{size[0]},{size[1]}] input) => (float[1,2,{left[0]},{left[1]}] output) "
        "{ r = Relu (input) s = Slice (r, a, e, d, q) output = Relu (s) }",
        **held,
    )
    lowered = lower(network)
    assert_same_function(network, lowered)
    assert whole(lowered)
