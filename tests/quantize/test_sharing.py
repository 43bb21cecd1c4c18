"""One scale for what a concatenation joins, and a sum with zero where a part cannot have it."""

from __future__ import annotations

import numpy as np

from deploykit.quantize.sharing import Bounds, find_groups, separate_concats
from deploykit.quantize.structure import build_structure
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.quantize.graphs import CONV1, float_network, seeded


def network(text: str, channels: int, **constants: AnyArray) -> Network:
    """convs a, b, c of 2 channels on the input -> `text`, which gives y of some channels."""
    convs = " ".join(f"{name} = Conv <{CONV1}> (input, w{name}, s{name})" for name in "abc")
    weights = {f"w{name}": seeded(2, 3, 1, 1, seed=i) for i, name in enumerate("abc")}
    biases = {f"s{name}": seeded(2, seed=9 + i) for i, name in enumerate("abc")}
    return float_network(
        f"g (float[1,3,4,4] input) => (float[1,{channels},4,4] y) {{ {convs} {text} }}",
        **weights, **biases, **constants,
    )  # fmt: skip


def rescaled(found: Network) -> list[str]:
    return [str(node.name) for node in found.model.graph if str(node.name).endswith(".rescaled")]


def groups(found: Network) -> dict[str, tuple[tuple[str, ...], Bounds]]:
    layers = build_structure(found)
    return {
        name: (tuple(sorted(group.makers)), group.bounds)
        for group in find_groups(layers, ("input",))
        for name in group.tensors
    }


OPEN, RELU, RELU6 = Bounds(None, None), Bounds(0.0, None), Bounds(0.0, 6.0)


def test_parts_of_one_range_share_it() -> None:
    made = network("p = Relu (a) q = Relu (b) y = Concat <axis=1> (p, q)", 4)
    assert separate_concats(made) is made
    assert groups(made)["p"] == groups(made)["y"] == (("p", "q"), RELU)


def test_a_relu_beside_negative_numbers_is_rescaled() -> None:
    made = network("p = Relu (a) y = Concat <axis=1> (p, b)", 4)
    found = separate_concats(made)
    assert rescaled(found) == ["p.in.y.rescaled"]
    assert groups(found)["p"] == (("p",), RELU)
    assert groups(found)["y"] == (("b", "p.in.y.rescaled"), OPEN)
    values = seeded(1, 3, 4, 4, seed=5)
    np.testing.assert_array_equal(evaluate(found, values)["y"], evaluate(made, values)["y"])


def test_a_relu6_beside_a_relu_is_rescaled() -> None:
    bounds = {"zero": np.array(0.0, np.float32), "six": np.array(6.0, np.float32)}
    made = network("k = Clip (a, zero, six) p = Relu (b) y = Concat <axis=1> (k, p)", 4, **bounds)
    assert rescaled(separate_concats(made)) == ["k.in.y.rescaled"]


def test_the_input_and_a_sigmoid_keep_scales_of_their_own() -> None:
    made = network("s = Sigmoid (a) y = Concat <axis=1> (input, s, b)", 7)
    found = separate_concats(made)
    assert rescaled(found) == ["input.in.y.rescaled", "s.in.y.rescaled"]
    assert groups(found)["s"][0] == ("s",)
    assert groups(found)["input"][0] == ("input",)


def test_a_sigmoid_alone_with_itself_is_rescaled_too() -> None:
    made = network("s = Sigmoid (a) t = Sigmoid (b) y = Concat <axis=1> (s, t)", 4)
    assert len(rescaled(separate_concats(made))) == 2


def test_a_part_of_two_concatenations_is_rescaled_where_it_must_be() -> None:
    """p and q share a range; with c, which has negative numbers, q cannot share it too."""
    made = network(
        "p = Relu (a) q = Relu (b) j = Concat <axis=1> (p, q) k = Concat <axis=1> (q, c) "
        "y = Concat <axis=1> (j, k)",
        8,
    )
    found = separate_concats(made)
    assert "q.in.k.rescaled" in rescaled(found)
    for name, (_, bounds) in groups(found).items():
        if name in {"p", "q"}:
            assert bounds == RELU


def test_what_only_moves_keeps_the_scale() -> None:
    made = network(
        "p = Relu (a) m = MaxPool <kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], "
        "dilations=[1,1]> (p) y = Concat <axis=1> (m, p)",
        4,
    )
    assert separate_concats(made) is made
    assert groups(made)["m"] == (("p",), RELU)
