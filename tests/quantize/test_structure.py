"""Which nodes become which integer operator, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import UnsupportedOperatorError
from deploykit.quantize.nodes import clip_bounds, window_of
from deploykit.quantize.structure import Layer, build_structure
from deploykit.spec.network import Network
from deploykit.spec.operators import Window
from tests.quantize.graphs import CONV1, CONV3, float_network, residual_network, seeded

WEIGHTS = {"w": seeded(4, 3, 3, 3), "b": seeded(4)}


def after_conv(text: str, **initializers: float) -> Network:
    """input -> conv `c` -> `text`, whose result is called output."""
    scalars = {name: np.array(value, np.float32) for name, value in initializers.items()}
    return float_network(
        f"g (float[1,3,6,6] input) => (float[1,4,6,6] output) "
        f"{{ c = Conv <{CONV3}> (input, w, b) {text} }}",
        **WEIGHTS, **scalars,
    )  # fmt: skip


def outlined(layers: tuple[Layer, ...]) -> list[str]:
    return [
        f"{layer.output} = {layer.kind.value}({', '.join(layer.inputs)})"
        + ("" if (layer.low, layer.high) == (None, None) else f" [{layer.low}, {layer.high}]")
        for layer in layers
    ]


def test_a_residual_network_has_one_layer_per_operator() -> None:
    assert outlined(build_structure(residual_network())) == [
        "r1 = Conv(input) [0.0, None]",
        "c2 = Conv(r1)",
        "r2 = Add(r1, c2) [0.0, None]",
        "pooled = MaxPool(r2)",
        "clipped = Clamp(pooled) [-1.0, 9.0]",
        "mean = GlobalAveragePool(clipped)",
        "flat = Flatten(mean)",
        "output = Linear(flat)",
    ]


@pytest.mark.parametrize(
    ("text", "scalars", "expected"),
    [
        ("output = Relu (c)", {}, ["output = Conv(input) [0.0, None]"]),
        (
            "output = Clip (c, low, high)",
            {"low": 0, "high": 6},
            ["output = Conv(input) [0.0, 6.0]"],
        ),
        ("output = Clip (c, low)", {"low": 0}, ["output = Conv(input) [0.0, None]"]),
        (
            "output = Clip (c, low, high)",
            {"low": 0, "high": np.inf},
            ["output = Conv(input) [0.0, None]"],
        ),
        (
            "output = Clip (c, low, high)",
            {"low": -1, "high": 1},
            ["c = Conv(input)", "output = Clamp(c) [-1.0, 1.0]"],
        ),
        (
            "output = Clip (c, low, high)",
            {"low": -np.inf, "high": 3},
            ["c = Conv(input)", "output = Clamp(c) [None, 3.0]"],
        ),
        (
            "output = Clip (c, , high)",
            {"high": 3},
            ["c = Conv(input)", "output = Clamp(c) [None, 3.0]"],
        ),
    ],
)  # fmt: skip
def test_an_activation_is_fused_where_saturation_can_do_it(
    text: str, scalars: dict[str, float], expected: list[str]
) -> None:
    assert outlined(build_structure(after_conv(text, **scalars))) == expected


def test_an_activation_whose_input_has_other_readers_stands_alone() -> None:
    network = after_conv("r = Relu (c) output = Add (c, r)")
    assert outlined(build_structure(network)) == [
        "c = Conv(input)", "r = Clamp(c) [0.0, None]", "output = Add(c, r)",
    ]  # fmt: skip


def test_an_activation_behind_a_public_tensor_stands_alone() -> None:
    network = float_network(
        f"g (float[1,3,6,6] input) => (float[1,4,6,6] c, float[1,4,6,6] output) "
        f"{{ c = Conv <{CONV3}> (input, w, b) output = Relu (c) }}",
        **WEIGHTS,
    )
    assert [layer.kind.value for layer in build_structure(network)] == ["Conv", "Clamp"]


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        ("output = CumSum (c, axis)", "CumSum"),
        ("k = Det (c) output = Add (c, k)", "Det"),
    ],
)
def test_an_unknown_operator_is_refused_by_name_and_node_with_what_to_do(
    text: str, operator: str
) -> None:
    with pytest.raises(UnsupportedOperatorError) as caught:
        build_structure(after_conv(text, axis=1))
    told = str(caught.value)
    node = text.split(" =", maxsplit=1)[0]
    assert told.startswith(f"{node}: operator {operator} has neither an integer form")
    assert "Replace it in the network, or end the network before it" in told


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("g (float[1,4] input, float limit) => (float[1,4] output) "
         "{ output = Clip (input, limit) }", "Clip"),
        ("g (float[1,4,6,6] input, float[2,4,1,1] k) => (float[1,2,6,6] output) "
         f"{{ output = Conv <{CONV1}> (input, k, b1) }}", "Conv"),
    ],
)  # fmt: skip
def test_a_form_that_would_compute_something_else_is_refused(text: str, refused: str) -> None:
    network = float_network(text, w1=seeded(2, 4, 1), b1=seeded(2))
    with pytest.raises(UnsupportedOperatorError, match=f"^output: operator {refused} "):
        build_structure(network)


def pooled(size: int, window: str) -> Network:
    return float_network(
        f"g (float[1,2,{size},{size}] input) => (float[1,2,N,M] output) "
        f"{{ output = MaxPool <{window}, dilations=[1,1]> (input) }}"
    )


def test_padding_behind_the_last_window_is_left_out() -> None:
    """Over 6 with pad 1 and stride 2, windows of 3 start at -1, 1, 3 and end at 5."""
    network = pooled(6, "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]")
    (layer,) = build_structure(network)
    assert window_of(layer.nodes[0]) == Window((3, 3), (2, 2), (1, 1, 0, 0))


def test_padding_that_a_window_reaches_stays() -> None:
    network = pooled(7, "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]")
    (layer,) = build_structure(network)
    assert window_of(layer.nodes[0]) == Window((3, 3), (2, 2), (1, 1, 1, 1))


def test_ceil_mode_that_reaches_beyond_the_padding_pads() -> None:
    network = pooled(6, "kernel_shape=[3,3], strides=[2,2], pads=[0,0,0,0], ceil_mode=1")
    (layer,) = build_structure(network)
    assert window_of(layer.nodes[0]) == Window((3, 3), (2, 2), (0, 0, 1, 1))


def test_ceil_mode_that_changes_nothing_is_a_max_pool() -> None:
    network = pooled(7, "kernel_shape=[3,3], strides=[2,2], pads=[0,0,0,0], ceil_mode=1")
    assert outlined(build_structure(network)) == ["output = MaxPool(input)"]


def test_bounds_that_are_no_number_do_not_bound() -> None:
    network = after_conv("output = Clip (c, low, high)", low=-np.inf, high=np.inf)
    node = next(node for node in network.model.graph if node.op_type == "Clip")
    assert clip_bounds(node) == (None, None)
