"""Where tensors hold the samples of a batch, and what lets samples meet."""

from __future__ import annotations

import pytest

from deploykit.errors import GraphError
from deploykit.graph.sample_axis import sample_places
from deploykit.graph.sample_place import FRONT, SamplePlace, after_reshape
from deploykit.spec.arrays import AnyArray
from tests.graph.text import graph, weights


@pytest.mark.parametrize(
    ("place", "shape", "into", "batch", "expected"),
    [
        (FRONT, (2, 3, 4), (2, 12), 2, FRONT),
        (FRONT, (2, 3, 4), (6, 4), 2, SamplePlace(0, 1, 3)),
        (SamplePlace(0, 1, 3), (6, 4), (2, 3, 4), 2, FRONT),
        (SamplePlace(1), (98, 1, 128), (98, 4, 32), 1, SamplePlace(1, 1, 4)),
        (SamplePlace(1), (98, 1, 128), (98, 128), 1, SamplePlace(0, 98, 1)),
        (FRONT, (1, 98, 128), (98, 128), 1, SamplePlace(0, 1, 98)),
        (FRONT, (1, 98, 128), (1, 1, 98, 128), 1, FRONT),
        (SamplePlace(1), (3, 2, 4), (2, 12), 2, None),
        (SamplePlace(0, 48, 4), (192, 8), (48, 4, 8), 1, SamplePlace(1, 1, 4)),
        (SamplePlace(0, 1, 4), (4, 48, 8), (4, 6, 8, 8), 1, SamplePlace(0, 1, 4)),
        (SamplePlace(1, 1, 4), (48, 4, 24), (48, 4, 3, 8), 1, SamplePlace(1, 1, 4)),
    ],
)
def test_a_reshape_keeps_the_samples_along_one_axis_where_it_can(
    place: SamplePlace,
    shape: tuple[int, ...],
    into: tuple[int, ...],
    batch: int,
    expected: SamplePlace | None,
) -> None:
    assert after_reshape(place, shape, into, batch) == expected


def test_times_in_front_and_heads_behind_samples() -> None:
    network = graph(
        """(float[2,5,8] input) => (float[2,5,8] output) {
            t = Transpose <perm=[1,0,2]> (input)
            h = Reshape (t, heads)
            s = Transpose <perm=[1,0,2]> (h)
            k = Transpose <perm=[0,2,1]> (s)
            p = MatMul (s, k)
            q = Softmax <axis=-1> (p)
            m = MatMul (q, s)
            u = Transpose <perm=[1,0,2]> (m)
            w = Reshape (u, whole)
            output = Transpose <perm=[1,0,2]> (w)
        }""",
        {"heads": [5, 8, 2], "whole": [5, 2, 8]},
    )
    found = sample_places(network)
    assert found["t"] == SamplePlace(1)
    assert found["h"] == SamplePlace(1, 1, 4)
    assert found["q"] == SamplePlace(0, 1, 4)
    assert found["output"] == FRONT


def test_an_axis_of_one_that_comes_or_goes_holds_no_samples() -> None:
    """As where an encoder layer takes queries, keys and values apart, of four windows each."""
    network = graph(
        """(float[1,4,48,8] input) => (float[1,4,48,8] output) {
            w = Reshape (input, windows)
            t = Transpose <perm=[1,0,2]> (w)
            u = Unsqueeze (t, front)
            s = Squeeze (u, front)
            r = Transpose <perm=[1,0,2]> (s)
            a = Add (r, w)
            output = Reshape (a, whole)
        }""",
        {"windows": [4, 48, 8], "front": [0], "whole": [1, 4, 48, 8]},
    )
    found = sample_places(network)
    assert found["u"] == SamplePlace(2, 1, 4)
    assert found["a"] == SamplePlace(0, 1, 4)
    assert found["output"] == FRONT


MEETING: dict[str, tuple[str, dict[str, AnyArray | list[int]]]] = {
    "sum over samples": ("float[1,4] y) { y = ReduceSum (input, k)", {"k": [0]}),
    "softmax over samples": ("float[2,4] y) { y = Softmax <axis=0> (input)", {}),
    "a constant for each sample": ("float[2,4] y) { y = Add (input, k)", {"k": weights(2, 4)}),
    "one of the samples": ("float[1,4] y) { y = Gather (input, k)", {"k": [0]}),
    "products of samples": (
        "float[2,2] y) { t = Transpose <perm=[1,0]> (input) y = MatMul (input, t)", {}),
    "samples behind samples": ("float[4,4] y) { y = Concat <axis=0> (input, input)", {}),
    "a cut among samples": (
        "float[1,4] y) { y = Slice (input, a, b, k)", {"a": [0], "b": [1], "k": [0]}),
    "samples in reverse": (
        "float[2,4] y) { y = Slice (input, a, b, k, a)", {"a": [-1], "b": [-9], "k": [0]}),
    "samples moved by one": (
        "float[2,4] y) { y = Pad (input, k)", {"k": [1, 0, -1, 0]}),
    "samples in another order": (
        "float[2,4] y) { y = Gather (input, k)", {"k": [1, 0]}),
    "samples that end elsewhere": ("float[4,2] y) { y = Transpose <perm=[1,0]> (input)", {}),
    "samples that end beside rows": (
        "float[4,2] y) { y = Reshape (input, k)", {"k": [4, 2]}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "constants"), MEETING.values(), ids=MEETING)
def test_samples_that_meet_are_refused_with_the_node(
    text: str, constants: dict[str, AnyArray | list[int]]
) -> None:
    network = graph(f"(float[2,4] input) => ({text} }}", constants)
    for node in network.model.graph:
        node.name = node.outputs[0].name
    with pytest.raises(GraphError, match=r"^y: operator .* leave --batch out"):
        sample_places(network)


TURNED: dict[str, tuple[str, dict[str, AnyArray | list[int]]]] = {
    "in reverse": ("y = Slice (input, a, b, k, a)", {"a": [-1], "b": [-9], "k": [0]}),
    "the last one": ("y = Slice (input, a, b, k)", {"a": [-1], "b": [9], "k": [0]}),
    "every second": ("y = Slice (input, k, b, k, s)", {"s": [2], "b": [9], "k": [0]}),
    "moved by one": ("y = Pad (input, k)", {"k": [1, 0, -1, 0]}),
}


@pytest.mark.parametrize(("text", "constants"), TURNED.values(), ids=TURNED)
def test_a_batch_of_one_hides_no_other_order_of_samples(
    text: str, constants: dict[str, AnyArray | list[int]]
) -> None:
    network = graph(f"(float[1,4] input) => (float[1,4] y) {{ {text} }}", constants)
    for node in network.model.graph:
        node.name = node.outputs[0].name
    with pytest.raises(GraphError, match=r"^y: operator .* leave --batch out"):
        sample_places(network)


def test_other_axes_are_cut_turned_and_padded() -> None:
    network = graph(
        """(float[1,4] input) => (float[1,4] output) {
            r = Slice (input, a, b, k, a)
            p = Pad (r, w)
            output = Slice (p, f, e)
        }""",
        {"a": [-1], "b": [-9], "k": [1], "w": [0, 1, 0, -1], "f": [0, 0], "e": [9, 9]},
    )
    assert sample_places(network)["output"] == FRONT
