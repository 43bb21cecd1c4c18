"""Groups that keep different numbers of channels: equal, or a convolution for every width."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.graph import removal
from deploykit.graph.cost import totals
from deploykit.graph.options import Groups, RemovalOptions
from deploykit.graph.passes.groups import join_groups, split_groups
from deploykit.graph.removal import cut_channels, remove_dead_channels
from deploykit.graph.tracking import apply_pass
from deploykit.reference.float import evaluate
from deploykit.spec.network import Network, static_shape
from deploykit.spec.removal import Reason, RemovedChannel
from tests.graph.removing import assert_equal_in_runtime
from tests.graph.text import (
    assert_same_function,
    expected,
    graph,
    values,
    weights,
    written,
)

SPLIT, EQUAL = RemovalOptions(groups=Groups.SPLIT), RemovalOptions(groups=Groups.EQUAL)


@pytest.fixture(autouse=True, scope="module")
def calls_cost_nothing() -> Iterator[None]:
    """Small convolutions are split as large ones would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "LEAST_SAVED", 0)
        yield


def grouped(
    groups: int, dead_in: tuple[int, ...], dead_out: tuple[int, ...], channels: int = 8
) -> Network:
    """Pointwise, grouped 3 x 3 between two Relus, pointwise."""
    first, middle = weights(channels, 2, 1, 1), weights(channels, channels // groups, 3, 3, seed=1)
    bias, offset = weights(channels, seed=2), weights(channels, seed=3)
    for array, dead in ((first, dead_in), (bias, dead_in), (middle, dead_out), (offset, dead_out)):
        array[list(dead)] = 0.0
    return graph(
        f"""
        (float[1,2,5,5] input) => (float[1,3,5,5] output) {{
            a = Conv(input, "a.weight", "a.bias")
            r = Relu(a)
            g = Conv<group={groups}, pads=[1,1,1,1]>(r, "g.weight", "g.bias")
            q = Relu(g)
            output = Conv(q, v, e)
        }}
        """,
        {
            "a.weight": first, "a.bias": bias, "g.weight": middle, "g.bias": offset,
            "v": weights(3, channels, 1, 1, seed=4), "e": weights(3),
        },
        variance=["g.weight", "g.bias", "v"],
    )  # fmt: skip


def test_groups_of_different_widths_are_split_and_equal_neighbours_joined() -> None:
    network = grouped(4, dead_in=(2, 5, 6, 7), dead_out=(3, 4, 6, 7))
    pruned, report = remove_dead_channels(network, evaluate, SPLIT)
    assert written(pruned) == expected(
        """
        a[1,4,5,5] = Conv(input, a.weight[4,2,1,1], a.bias[4])
        r[1,4,5,5] = Relu(a)
        g.in0.run[1,2,5,5], g.in1.run[1,2,5,5] = Split<axis=1>(r, g.split.cut.sizes[2])
        g.group0.joined[1,2,5,5] = Conv<pads=1,1,1,1>(g.in0.run, g.weight[2,2,3,3], g.bias[2])
        g.group1.joined[1,2,5,5] = Conv<group=2 pads=1,1,1,1>(g.in1.run, g.weight_1[2,1,3,3], g.bias_1[2])
        g[1,4,5,5] = Concat<axis=1>(g.group0.joined, g.group1.joined)
        q[1,4,5,5] = Relu(g)
        output[1,3,5,5] = Conv(q, v[3,4,1,1], e[3])
        """  # noqa: E501
    )
    assert_equal_in_runtime(network, pruned)
    assert report.macs_after == 25 * (4 * 2 + 2 * 2 * 9 + 2 * 9 + 3 * 4)
    variance = network.variance["g.weight"]
    np.testing.assert_array_equal(pruned.variance["g.weight"], variance[[0, 1]])
    second = np.stack([variance[2, 1:], variance[5, :1]])
    np.testing.assert_array_equal(pruned.variance["g.weight_1"], second)


def test_the_report_speaks_of_the_layer_and_its_channels() -> None:
    network = grouped(4, dead_in=(2, 5, 6, 7), dead_out=(3, 4, 6, 7))
    _, report = remove_dead_channels(network, evaluate, SPLIT)
    layers = [(entry.operator, entry.channels_before, entry.channels_after)
              for entry in report.tensors]  # fmt: skip
    assert layers == [("a", 8, 4), ("g", 8, 4), ("output", 3, 3)]
    zeros = [RemovedChannel(k, Reason.ZERO, 0.0) for k in (3, 4, 6, 7)]
    assert list(report.tensors[1].removed) == zeros
    assert report.split == ("g",)


def test_a_constant_that_merges_is_named_by_its_place_in_the_whole_tensor() -> None:
    network = grouped(2, dead_in=(), dead_out=(0, 1, 2))
    held = network.model.graph.initializers
    first, bias = (values(network)[name].copy() for name in ("a.weight", "a.bias"))
    first[[4, 5, 6]], bias[[4, 5, 6]] = 0.0, (1.0, 3.0, 2.0)
    held["a.weight"].const_value, held["a.bias"].const_value = ir.tensor(first), ir.tensor(bias)
    options = RemovalOptions(groups=Groups.SPLIT, max_growth=np.inf)
    _, report = remove_dead_channels(network, evaluate, options)
    merged = [gone for gone in report.tensors[0].removed if gone.reason is Reason.COLLAPSED]
    assert [(gone.channel, gone.into) for gone in merged] == [(5, 4), (6, 4)]


def test_equal_widths_stay_one_grouped_convolution() -> None:
    network = grouped(4, dead_in=(1, 2, 4, 7), dead_out=(0, 3, 5, 6))
    split, report = remove_dead_channels(network, evaluate, SPLIT)
    assert report.split == ()
    equal, _ = remove_dead_channels(network, evaluate, EQUAL)
    assert written(split) == written(equal)


def test_where_little_is_saved_the_groups_stay_equal() -> None:
    network = grouped(2, dead_in=(7,), dead_out=())
    split, report = remove_dead_channels(network, evaluate, SPLIT)
    assert report.split == ()
    equal, _ = remove_dead_channels(network, evaluate, EQUAL)
    assert written(split) == written(equal)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_taken_apart_and_put_together_is_the_same_network(operator: str) -> None:
    network = graph(
        f"""
        (float[1,6,5,5] input) => (float[1,4,5,5] output) {{
            output = {operator}<group=2, pads=[1,1,1,1]>(input, w, b)
        }}
        """,
        {"w": weights(*((4, 3) if operator == "Conv" else (6, 2)), 3, 3), "b": weights(4)},
        variance=["w", "b"],
    )
    rewritten, parts = split_groups(network)
    assert [node.op_type for node in rewritten.network.model.graph] == [
        "Split", operator, operator, "Concat"
    ]  # fmt: skip
    assert_same_function(network, rewritten.network)
    joined = apply_pass("join", lambda held: join_groups(held, parts), rewritten.network)
    assert written(joined) == written(network)
    for name, held in values(network).items():
        np.testing.assert_array_equal(values(joined)[name], held)
        np.testing.assert_array_equal(joined.variance[name], network.variance[name])


def shapes(network: Network) -> list[tuple[str, tuple[int, ...] | None]]:
    return [(node.op_type, static_shape(node.outputs[0])) for node in network.model.graph]


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.sampled_from([(2, 8), (4, 8), (4, 16), (3, 12)]),
    st.sets(st.integers(0, 15)),
    st.sets(st.integers(0, 15)),
)
def test_split_is_never_larger_than_equal_and_loses_what_could_go(
    sizes: tuple[int, int], dead_in: set[int], dead_out: set[int]
) -> None:
    groups, channels = sizes
    ins = tuple(k for k in sorted(dead_in) if k < channels)
    outs = tuple(k for k in sorted(dead_out) if k < channels)
    network = grouped(groups, ins, outs, channels)
    made = cut_channels(network, SPLIT)
    assert totals(made.exact.model)[1] <= totals(cut_channels(network, EQUAL).exact.model)[1]
    pruned, report = remove_dead_channels(network, evaluate, SPLIT)
    assert report.certificate.max_relative <= 1e-12
    onnx.checker.check_model(ir.to_proto(pruned.model), full_check=True)
    assert_equal_in_runtime(network, pruned)
    again, second = remove_dead_channels(pruned, evaluate, SPLIT)
    assert second.macs_after == report.macs_after
    assert shapes(again) == shapes(pruned)
    for name, variance in pruned.variance.items():
        assert values(pruned)[name].shape == variance.shape
