"""Small graphs at which removal is easily wrong, found on random networks."""

from __future__ import annotations

import numpy as np

from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate
from deploykit.runtime import ort
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network, static_shape
from tests.graph.removing import channels, found, removed
from tests.graph.text import graph, weights


def image_weights(outputs: int, inputs: int, dead: int = 0) -> Float32Array:
    kernel = weights(outputs, inputs, 1, 1)
    kernel[:dead] = 0.0
    return kernel


def test_the_larger_of_a_map_and_one_number_per_channel() -> None:
    network = graph(
        """
        (float[1,2,4,4] input) => (float[1,1,4,4] output) {
            a = Conv(input, w, b)
            p = GlobalAveragePool(a)
            m = Max(a, p)
            output = Conv(m, v, c)
        }
        """,
        {
            "w": image_weights(3, 2, dead=1),
            "b": [2.0, 0.0, 0.0],
            "v": weights(1, 3, 1, 1),
            "c": [0.0],
        },
    )
    pruned, _ = removed(network)
    assert channels(pruned)["m"] == 2


def test_a_constant_operand_that_gives_the_product_its_size() -> None:
    """The layer with no weights is 1 everywhere, and the gate is one number per channel."""
    network = graph(
        """
        (float[1,2,4,3] input) => (float[1,2,4,3] output) {
            a = Conv(input, w, b)
            ones = Conv(a, z, one)
            p = GlobalAveragePool(input)
            output = Mul(p, ones)
        }
        """,
        {
            "w": weights(2, 2, 1, 1),
            "b": [0.0, 0.0],
            "z": np.zeros((2, 2, 1, 1)),
            "one": [1.0, 1.0],
        },
    )
    pruned, report = removed(network)
    assert "a" not in channels(pruned)
    assert report.macs_after == 0


def test_splits_without_names_stay_apart() -> None:
    network = graph(
        """
        (float[1,6] input) => (float[1,2] x, float[1,1] y, float[1,1] z) {
            a = Gemm<transB=1>(input, w, b)
            x, rest, unread = Split<axis=1>(a, three)
            y, z = Split<axis=1>(rest, two)
        }
        """,
        {
            "w": weights(6, 6),
            "b": weights(6),
            "three": np.array([2, 2, 2]),
            "two": np.array([1, 1]),
        },
    )
    pruned, _ = removed(network)
    assert channels(pruned)["a"] == 4
    assert {"x", "y", "z"} <= set(ort.evaluate(pruned, np.ones((1, 6), np.float32)))


def attention_behind_a_token() -> Network:
    """A sequence that the network is given, with a constant token before it. Width 3 of 4 lives."""
    dead = weights(4, 4)
    dead[:, 3] = 0.0
    return graph(
        """
        (float[1,5,4] input) => (float[1,6,4] output) {
            x = Concat<axis=1>(token, input)
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            turned = Transpose<perm=[0,2,1]>(k)
            scores = MatMul(q, turned)
            shares = Softmax<axis=-1>(scores)
            mixed = MatMul(shares, v)
            o = MatMul(mixed, wo)
            output = Add(x, o)
        }
        """,
        {
            "token": weights(1, 1, 4),
            "wq": dead,
            "wk": weights(4, 4, seed=1),
            "wv": weights(4, 4, seed=2),
            "wo": weights(4, 4, seed=3) * np.array([1, 1, 1, 0]).reshape(4, 1),
        },
    )


def test_a_token_before_a_sequence_that_is_given_stops_nothing() -> None:
    network = attention_behind_a_token()
    assert found(network).structure.borders == ()
    pruned, _ = removed(network)
    shapes = {
        str(out.name): static_shape(out) or ()
        for node in pruned.model.graph
        for out in node.outputs
    }
    assert [shapes[name][-1] for name in ("q", "k", "v", "o")] == [3, 3, 3, 4]


def test_channels_of_a_depthwise_that_nothing_cuts_are_counted() -> None:
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,4,2,2] output) {
            s = SpaceToDepth<blocksize=2>(input)
            output = Conv<group=4>(s, w, b)
        }
        """,
        {"w": weights(4, 1, 1, 1), "b": weights(4)},
    )
    _, report = removed(network)
    assert [(t.channels_before, t.channels_after) for t in report.tensors] == [(4, 4)]


def numbers_at_every_position() -> Network:
    """Of a grouped layer one group reads a channel less, which therefore stays, but idle."""
    reads = np.ones((2, 2, 1, 1), np.float32)
    reads[1, 1] = 0.0
    into = np.zeros((4, 2, 1, 1), np.float32)
    into[:3, 0], into[3, 1] = 1.0, 1.0
    return graph(
        """
        (float[1,1,4,4] input) => (float[1,2,4,4] output) {
            a = Conv(input, w, b)
            h = Conv(a, v, c)
            p = Add(h, positions)
            output = Conv<group=2>(p, u, d)
        }
        """,
        {
            "w": weights(2, 1, 1, 1),
            "b": weights(2),
            "v": into,
            "c": weights(4),
            "positions": weights(4),
            "u": reads,
            "d": weights(2),
        },
    )


def test_different_numbers_at_every_position_keep_no_channel_alive() -> None:
    """The Add has no one constant per channel, and yet nobody divides by it."""
    pruned, _ = removed(numbers_at_every_position())
    assert (channels(pruned)["a"], channels(pruned)["h"]) == (1, 4)


def test_an_output_that_no_sample_changes_is_proved_too() -> None:
    network = graph(
        """
        (float[1,2] input) => (float[1,1] output) {
            a = Gemm<transB=1>(input, w, b)
            both = Concat<axis=1>(held, a)
            output, rest = Split<axis=1>(both, sizes)
        }
        """,
        {"w": weights(2, 2), "b": weights(2), "held": [[3.0]], "sizes": np.array([1, 2])},
    )
    pruned, report = remove_dead_channels(network, evaluate)
    assert report.certificate.max_absolute == 0.0
    assert "a" not in channels(pruned)
