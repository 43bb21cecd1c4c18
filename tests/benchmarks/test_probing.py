"""What probing calls removable, on graphs small enough to tell by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from probing import probe
from removal_graph import Graph, Session, graph_of, random_input
from removal_masks import Pattern, draw, masked
from removal_torch import evaluate
from removal_walk import walk

Floats = npt.NDArray[np.float32]


def parsed(text: str, weights: Mapping[str, npt.ArrayLike]) -> Graph:
    """An opset-20 graph with float32 initializers, int64 where they are whole."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> g {text}')
    for name, value in weights.items():
        array = np.asarray(value)
        array = array if array.dtype == np.int64 else array.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model)
    return graph_of(model)


def random(*shape: int, seed: int = 0, dead: tuple[int, ...] = ()) -> Floats:
    """Normal; rows `dead` are zero."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    values[list(dead)] = 0.0
    return values


def padded_pair(bias: npt.ArrayLike, dead: tuple[int, ...]) -> Graph:
    """Conv 3 -> 6 with rows `dead`, relu, padded 3x3 conv 6 -> 2."""
    return parsed(
        """(float[1,3,8,8] x) => (float[1,2,8,8] y) {
            a = Conv(x, w, b)
            r = Relu(a)
            y = Conv<pads=[1,1,1,1]>(r, v)
        }""",
        {"w": random(6, 3, 1, 1, dead=dead), "b": bias, "v": random(2, 6, 3, 3, seed=1)},
    )


def widths_left(graph: Graph) -> list[int]:
    """Channels of each layer's output that have to stay."""
    found = probe(graph)
    return [
        sum(label not in found.classes for label in layer.gives.tolist())
        for layer in found.walk.layers
    ]


def test_zero_channels_go_and_one_constant_carries_the_border() -> None:
    assert widths_left(padded_pair(np.zeros(6), dead=(1, 4))) == [4, 2]
    assert widths_left(padded_pair([1.0, 1.0, 1.0, 1.0, 2.0, 1.0], dead=(1, 4, 5))) == [4, 2]
    closed = padded_pair([1.0, -1.0, 1.0, 1.0, -2.0, 1.0], dead=(1, 4))
    assert widths_left(closed) == [4, 2]


def test_macs_are_those_of_the_layers_that_shrink() -> None:
    found = probe(padded_pair(np.zeros(6), dead=(1, 4)))
    assert found.macs == 64 * (3 * 6 + 6 * 2 * 9)
    assert found.macs_left == 64 * (3 * 4 + 4 * 2 * 9)


def test_a_sums_channel_goes_only_if_both_addends_are_dead() -> None:
    graph = parsed(
        """(float[1,3,8,8] x) => (float[1,2,8,8] y) {
            a = Conv(x, w)
            b = Conv(x, v)
            s = Add(a, b)
            y = Conv(s, u)
        }""",
        {
            "w": random(6, 3, 1, 1, dead=(0, 1, 2)),
            "v": random(6, 3, 1, 1, seed=1, dead=(2, 3)),
            "u": random(2, 6, 1, 1, seed=2),
        },
    )
    assert widths_left(graph) == [5, 5, 2]


def test_a_channel_that_nobody_weighs_is_unread() -> None:
    reader = random(2, 6, 1, 1, seed=1)
    reader[:, [0, 3]] = 0.0
    graph = parsed(
        """(float[1,3,8,8] x) => (float[1,2,8,8] y) {
            a = Conv(x, w)
            y = Conv(a, v)
        }""",
        {"w": random(6, 3, 1, 1), "v": reader},
    )
    assert widths_left(graph) == [4, 2]


def test_a_depthwise_constant_stays_where_it_varies_at_the_border() -> None:
    weights: dict[str, npt.ArrayLike] = {
        "w": random(4, 3, 1, 1, dead=(0, 1)),
        "b": [1.0, 1.0, 0.0, 0.0],
        "d": np.abs(random(4, 1, 3, 3, seed=1, dead=(1,))),
        "v": random(2, 4, 1, 1, seed=2),
    }
    text = """(float[1,3,8,8] x) => (float[1,2,8,8] y) {
        a = Conv(x, w, b)
        c = Conv<group=4, pads=[1,1,1,1]>(a, d)
        y = Conv(c, v)
    }"""
    assert widths_left(parsed(text, weights)) == [3, 3, 2]
    unpadded = text.replace(", pads=[1,1,1,1]", "").replace("[1,2,8,8] y", "[1,2,6,6] y")
    assert widths_left(parsed(unpadded, weights)) == [2, 2, 2]


def test_a_shuffle_moves_labels_with_its_channels() -> None:
    graph = parsed(
        """(float[1,3,4,4] x) => (float[1,4,4,4] y) {
            a = Conv(x, w)
            split = Reshape(a, two)
            turned = Transpose<perm=[0,2,1,3,4]>(split)
            mixed = Reshape(turned, one)
            y = Conv(mixed, v)
        }""",
        {
            "w": random(4, 3, 1, 1),
            "v": random(4, 4, 1, 1),
            "two": np.array([1, 2, 2, 4, 4]),
            "one": np.array([1, 4, 4, 4]),
        },
    )
    found = walk(graph)
    first, second = found.layers
    assert second.reads.tolist() == first.gives[[0, 2, 1, 3]].tolist()


def test_heads_keep_equal_numbers() -> None:
    """q, k [1, 2 heads, 5, 4], v alike; head 0 loses two dims of q, head 1 one."""
    text = """(float[1,5,3] x) => (float[1,5,2] y) {
        q0 = MatMul(x, wq)
        q1 = Reshape(q0, heads)
        q = Transpose<perm=[0,2,1,3]>(q1)
        k0 = MatMul(x, wk)
        k1 = Reshape(k0, heads)
        k = Transpose<perm=[0,2,3,1]>(k1)
        v0 = MatMul(x, wv)
        v1 = Reshape(v0, heads)
        v = Transpose<perm=[0,2,1,3]>(v1)
        s = MatMul(q, k)
        p = Softmax<axis=-1>(s)
        m = MatMul(p, v)
        t = Transpose<perm=[0,2,1,3]>(m)
        j = Reshape(t, joined)
        y = MatMul(j, wo)
    }"""
    dead_q = random(8, 3, dead=(0, 2, 5)).T
    weights: dict[str, npt.ArrayLike] = {
        "wq": dead_q, "wk": random(3, 8, seed=1), "wv": random(3, 8, seed=2),
        "wo": random(8, 2, seed=3), "heads": np.array([1, 5, 2, 4]), "joined": np.array([1, 5, 8]),
    }  # fmt: skip
    assert widths_left(parsed(text, weights)) == [6, 6, 8, 2]
    whole = {**weights, "wv": random(8, 3, seed=2, dead=(4, 5, 6, 7)).T}
    assert widths_left(parsed(text, whole)) == [2, 2, 4, 2]


OPERATORS = {
    "ConvTranspose": (
        "ConvTranspose<strides=[2,2], pads=[1,0,0,1], output_padding=[1,0]>(x, w)",
        (1, 2, 16, 15),
    ),
    "MaxPool": ("MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]>(x)", (1, 3, 4, 4)),
    "AveragePool": ("AveragePool<kernel_shape=[3,3], pads=[1,0,0,1]>(x)", (1, 3, 7, 7)),
    "AveragePool, padding counted": (
        "AveragePool<kernel_shape=[3,3], pads=[1,0,0,1], count_include_pad=1>(x)",
        (1, 3, 7, 7),
    ),
    "Slice": ("Slice(x, from, to, axes, steps)", (1, 3, 3, 2)),
    "Gather": ("Gather<axis=2>(x, axes)", (1, 3, 2, 8)),
    "HardSigmoid": ("HardSigmoid<alpha=0.3, beta=0.4>(x)", (1, 3, 8, 8)),
    "Clip": ("Clip(x, low)", (1, 3, 8, 8)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_torch_evaluation_agrees_with_onnxruntime(name: str) -> None:
    call, shape = OPERATORS[name]
    sizes = ",".join(map(str, shape))
    graph = parsed(
        f"(float[1,3,8,8] x) => (float[{sizes}] y) {{ y = {call} }}",
        {
            "w": random(3, 2, 2, 2), "low": -0.5, "from": np.array([7, -8]),
            "to": np.array([-9, 4]), "axes": np.array([2, 3]), "steps": np.array([-3, 2]),
        },
    )  # fmt: skip
    inputs = random_input(graph, 0)
    expected = Session(graph.model).run({"x": inputs})["y"]
    (found,) = evaluate(graph, inputs)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", [Pattern.BEFORE_NORM, Pattern.AFTER_NORM])
def test_masks_leave_a_constant_before_the_norm_and_zero_behind_it(pattern: Pattern) -> None:
    graph = parsed(
        """(float[1,3,8,8] x) => (float[1,2,8,8] y) {
            a = Conv(x, w)
            n = BatchNormalization(a, g, t, m, s)
            y = Conv(n, v)
        }""",
        {
            "w": random(10, 3, 1, 1), "v": random(2, 10, 1, 1), "g": np.full(10, 2.0),
            "t": np.arange(1.0, 11.0), "m": np.zeros(10), "s": np.ones(10),
        },
    )  # fmt: skip
    mask = draw(graph, walk(graph), 0.3, pattern)
    assert {name: len(dead) for name, dead in mask.dead.items()} == {"w": 3}
    changed = graph_of(masked(graph, mask))
    values = Session(changed.model).run({"x": random_input(graph, 0)})["n"]
    dead = list(mask.dead["w"])
    shift = np.arange(1.0, 11.0)[dead] if pattern is Pattern.BEFORE_NORM else np.zeros(3)
    expected = np.broadcast_to(shift.reshape(1, 3, 1, 1), (1, 3, 8, 8))
    np.testing.assert_array_equal(values[:, dead], expected)
    assert np.ptp(np.delete(values, dead, axis=1), axis=(2, 3)).min() > 0
