"""Each lowering keeps the function, and leaves operators that have an integer form."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploykit.graph.lowering import lower
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network, static_shape
from tests.quantize.graphs import CONV1, CONV3, float_network, seeded


def operators(network: Network) -> Counter[str]:
    return Counter(node.op_type for node in network.model.graph)


def assert_same_function(before: Network, after: Network, atol: float = 1e-5) -> None:
    shape = static_shape(before.model.graph.inputs[0])
    assert shape is not None
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 3
    name = str(before.model.graph.outputs[0].name)
    assert name == after.model.graph.outputs[0].name
    expected, found = evaluate(before, values)[name], evaluate(after, values)[name]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=atol, rtol=1e-5)


def between(text: str, **more: AnyArray) -> Network:
    """conv `x` -> `text`, which gives y -> conv -> output, on 4 channels of 6x6."""
    return float_network(
        f"g (float[1,3,6,6] input) => (float[1,5,6,6] output) {{"
        f" x = Conv <{CONV3}> (input, w, b) {text} output = Conv <{CONV1}> (y, v, c) }}",
        w=seeded(4, 3, 3, 3), b=seeded(4, seed=1), u=seeded(4, 4, 1, 1, seed=8),
        d=seeded(4, seed=9), v=seeded(5, 4, 1, 1, seed=2), c=seeded(5, seed=3),
        **{"hw": np.array([2, 3]), **more},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("y = HardSwish (x)", {"Conv": 2, "Add": 1, "Clip": 1, "Mul": 1}),
        # The shift of a gate ends in the bias of the layer before it.
        ("y = HardSigmoid <alpha=0.16666667, beta=0.5> (x)", {"Conv": 2, "Clip": 1}),
        ("y = HardSigmoid (x)", {"Conv": 2, "Clip": 1}),
        ("r = Relu (x) y = HardSigmoid (r)", {"Conv": 2, "Relu": 1, "Add": 1, "Clip": 1}),
        ("s = HardSigmoid (x) y = Mul (s, x)", {"Conv": 2, "Add": 1, "Clip": 1, "Mul": 1}),
        ("r = Relu (x) y = HardSwish (r)", {"Conv": 2, "Relu": 1, "Add": 1, "Clip": 1, "Mul": 1}),
        # The factors of the gate and of the activation both end in the last layer.
        (
            f"r = Relu (x) h = HardSwish (r) p = GlobalAveragePool (h) q = Conv <{CONV1}> (p, u, d)"
            " g = HardSigmoid <alpha=0.16666667, beta=0.5> (q) y = Mul (h, g)",
            {"Conv": 3, "Relu": 1, "Add": 1, "Clip": 2, "Mul": 2, "GlobalAveragePool": 1},
        ),
        # x + 3 is not six times as large where x is.
        (
            "r = Relu (x) h = HardSwish (r) p = GlobalAveragePool (h) g = HardSigmoid (p) "
            "y = Mul (h, g)",
            {"Conv": 2, "Relu": 1, "Add": 2, "Clip": 2, "Mul": 3, "GlobalAveragePool": 1},
        ),
        # A square would take the factor twice: it stays.
        ("r = Relu (x) h = HardSwish (r) y = Mul (h, h)",
         {"Conv": 2, "Relu": 1, "Add": 1, "Clip": 1, "Mul": 3}),
        # The layer before it takes the root of the factor, whoever reads the activation.
        ("h = HardSwish (x) y = Mul (h, h)", {"Conv": 2, "Add": 1, "Clip": 1, "Mul": 2}),
        # One side of a sum alone cannot carry it, and the layer has another reader.
        ("h = HardSwish (x) y = Add (h, x)", {"Conv": 2, "Add": 2, "Clip": 1, "Mul": 2}),
        ("h = HardSwish (x) y = MaxPool <kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1]> (h)",
         {"Conv": 2, "Add": 1, "Clip": 1, "Mul": 1, "MaxPool": 1}),
        (f"y = AveragePool <{CONV3.replace(', dilations=[1,1]', '')}, count_include_pad=1> (x)",
         {"Conv": 3}),
        ("y = AveragePool <kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1], count_include_pad=1,"
         " ceil_mode=1> (x)",
         {"Conv": 3}),
        # Windows at the border hold fewer numbers: a product with a map makes up for it.
        (f"y = AveragePool <{CONV3.replace(', dilations=[1,1]', '')}> (x)",
         {"Conv": 3, "Mul": 1}),
        ("p = AveragePool <kernel_shape=[3,2], strides=[2,2], ceil_mode=1> (x)"
         " m = ReduceMax (p, hw) y = Add (x, m)", {"Conv": 3, "Mul": 1, "MaxPool": 1, "Add": 1}),
    ],
)  # fmt: skip
def test_the_function_stays(text: str, left: dict[str, int]) -> None:
    network = between(text)
    lowered = lower(network)
    assert operators(lowered) == left
    assert_same_function(network, lowered)


def test_nested_concatenations_are_one() -> None:
    network = float_network(
        "g (float[1,2,3,3] input) => (float[1,10,3,3] output) {"
        " a = Relu (input) b = Concat <axis=1> (input, a) c = Concat <axis=-3> (a, b)"
        " output = Concat <axis=1> (c, c, input) }"
    )
    lowered = lower(network)
    assert operators(lowered) == {"Relu": 1, "Concat": 1}
    assert_same_function(network, lowered)


def test_a_factor_before_an_output_stays_a_product() -> None:
    network = float_network(
        f"g (float[1,3,6,6] input) => (float[1,4,6,6] output) {{"
        f" r = Conv <{CONV3}> (input, w, b) x = Relu (r) output = HardSwish (x) }}",
        w=seeded(4, 3, 3, 3), b=seeded(4, seed=1),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 1, "Relu": 1, "Add": 1, "Clip": 1, "Mul": 2}
    assert_same_function(network, lowered)


def test_a_batch_norm_without_a_layer_is_a_depthwise_convolution() -> None:
    network = between(
        "r = Relu (x) n = BatchNormalization (r, g, t, m, s) y = Relu (n)",
        g=seeded(4, seed=4), t=seeded(4, seed=5), m=seeded(4, seed=6), s=np.abs(seeded(4, seed=7)),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 3, "Relu": 2}
    (affine,) = (node for node in lowered.model.graph if node.outputs[0].name == "n")
    assert affine.attributes["group"].as_int() == 4
    assert_same_function(network, lowered)


def test_a_product_and_a_sum_per_channel_are_one_convolution() -> None:
    network = between(
        "r = Relu (x) p = Mul (r, g) y = Add (p, t)",
        g=seeded(1, 4, 1, 1, seed=4), t=seeded(4, 1, 1, seed=5),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 3, "Relu": 1}
    assert_same_function(network, lowered)


def test_what_lowering_does_not_touch_is_the_same_object() -> None:
    network = between("y = Relu (x)")
    assert lower(network) is network


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_transposed_convolution_is_a_convolution_and_pixels(data: st.DataObject) -> None:
    strides = [data.draw(st.integers(1, 3), name) for name in ("down", "across")]
    dilations = [data.draw(st.integers(1, 2), name) for name in ("between", "apart")]
    groups = data.draw(st.sampled_from([1, 2]), "groups")
    kernel = [data.draw(st.integers(1, 5), name) for name in ("rows", "columns")]
    pads = [data.draw(st.integers(0, 2), name) for name in ("top", "left", "bottom", "right")]
    extra = [
        data.draw(st.integers(0, strides[i] - 1), name)
        for i, name in enumerate(("below", "beside"))
    ]
    size = [data.draw(st.integers(1, 5), name) for name in ("height", "width")]
    reach = [dilations[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    full = [(size[i] - 1) * strides[i] + reach[i] + extra[i] for i in (0, 1)]
    result = [full[i] - pads[i] - pads[i + 2] for i in (0, 1)]
    assume(min(result) > 0)
    # A written shape decides the pads itself.
    decided = data.draw(st.sampled_from(["pads", "output_shape", "SAME_UPPER", "SAME_LOWER"]))
    written = {"pads": f"pads={pads}", "output_shape": f"output_shape={result}"}
    if decided.startswith("SAME"):
        result = [size[i] * strides[i] for i in (0, 1)]
        assume(all(full[i] >= result[i] for i in (0, 1)))
    shown = written.get(decided, f'auto_pad="{decided}"')
    network = float_network(
        f"g (float[2,4,{size[0]},{size[1]}] input) => (float[2,6,{result[0]},{result[1]}] output) "
        f"{{ output = ConvTranspose <strides={strides}, {shown}, group={groups}, "
        f"dilations={dilations}, output_padding={extra}> (input, w, b) }}",
        w=seeded(4, 6 // groups, *kernel), b=seeded(6, seed=1),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered)["ConvTranspose"] == 0
    assert operators(lowered)["Conv"] == 1
    assert_same_function(network, lowered)


def test_a_doubling_transposed_convolution_is_one_by_one() -> None:
    network = float_network(
        "g (float[1,3,4,4] input) => (float[1,2,8,8] output) "
        "{ output = ConvTranspose <strides=[2,2]> (input, w) }",
        w=seeded(3, 2, 2, 2),
    )
    lowered = lower(network)
    assert operators(lowered) == {"Conv": 1, "DepthToSpace": 1}
    (conv,) = (node for node in lowered.model.graph if node.op_type == "Conv")
    assert tuple(conv.inputs[1].shape or ()) == (8, 3, 1, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(1, 5, 6), (1, 3, 2, 6)])
def test_a_sequence_times_a_matrix_is_a_linear_over_its_rows(shape: tuple[int, ...]) -> None:
    network = float_network(
        f"g (float{list(shape)} input) => (float{[*shape[:-1], 4]} output) "
        "{ r = Relu (input) output = MatMul (r, w) }",
        w=seeded(6, 4),
    )
    lowered = lower(network)
    assert operators(lowered) == {"Relu": 1, "Reshape": 2, "Gemm": 1}
    assert_same_function(network, lowered)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("output = Add (m, b)", {}),
        ("output = Add (b, m)", {}),
        ("output = Add (m, rows)", {"Add": 1}),
        ("output = Mul (m, b)", {"Mul": 1}),
        ("r = Relu (m) s = Add (m, b) output = Add (r, s)", {"Relu": 1, "Add": 2}),
    ],
)
def test_a_sum_behind_it_is_its_bias(text: str, left: dict[str, int]) -> None:
    network = float_network(
        f"g (float[1,5,6] input) => (float[1,5,4] output) {{ m = MatMul (input, w) {text} }}",
        w=seeded(6, 4), b=seeded(4, seed=1), rows=seeded(5, 4, seed=2),
    )  # fmt: skip
    lowered = lower(network)
    assert operators(lowered) == {"Reshape": 2, "Gemm": 1, **left}
    assert_same_function(network, lowered)


@pytest.mark.parametrize(
    ("sizes", "matrix", "left"),
    [
        ("1,6,9", (4, 6), {"Unsqueeze": 1, "Conv": 1, "Squeeze": 1}),
        ("1,6,9", (1, 4, 6), {"Unsqueeze": 1, "Conv": 1, "Squeeze": 1}),
        ("1,3,6,9", (4, 6), {"Transpose": 2, "Reshape": 2, "Gemm": 1}),
        ("6,9", (4, 6), {"Transpose": 2, "Gemm": 1}),
    ],
)
@pytest.mark.parametrize("bias", [(4, 1), (1, 9)])
def test_a_matrix_on_the_left(
    sizes: str, matrix: tuple[int, ...], left: dict[str, int], bias: tuple[int, ...]
) -> None:
    result = ",".join([*sizes.split(",")[:-2], "4", "9"])
    network = float_network(
        f"g (float[{sizes}] input) => (float[{result}] output) "
        "{ r = Relu (input) m = MatMul (w, r) output = Add (m, b) }",
        w=seeded(*matrix), b=seeded(*bias, seed=1),
    )  # fmt: skip
    lowered = lower(network)
    behind = {"Add": 1} if bias == (1, 9) else {}
    assert operators(lowered) == {"Relu": 1, **left, **behind}
    assert_same_function(network, lowered)


@pytest.mark.parametrize("text", ["MatMul (u, input)", "MatMul (input, v)"])
def test_other_products_stay(text: str) -> None:
    network = float_network(
        f"g (float[1,6,6] input) => (float[1,6,6] output) {{ output = {text} }}",
        u=seeded(2, 6, 6), v=seeded(1, 6, 6),
    )  # fmt: skip
    assert operators(lower(network)) == {"MatMul": 1}


def test_variances_of_weights_that_change_shape_are_dropped_by_name() -> None:
    network = float_network(
        "g (float[1,3,4,4] input) => (float[1,2,8,8] output) "
        "{ output = ConvTranspose <strides=[2,2]> (input, w) }",
        w=seeded(3, 2, 2, 2),
    )
    spread = Network(network.model, {"w": np.ones((3, 2, 2, 2), np.float32)})
    assert lower(spread).variance == {}
