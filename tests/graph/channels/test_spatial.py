"""Operators that treat each channel's map by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from deploykit.graph.channels.liveness import analyse
from deploykit.spec.network import Network
from deploykit.spec.removal import Reason, RemovedChannel
from tests.graph.removing import (
    channels,
    first_layer,
    four_channels,
    pruned_to,
    reading_three,
    removed,
    second_layer,
)
from tests.graph.text import graph, values, weights


def through(call: str, size: str, size_in: str = "6,6", **constants: npt.ArrayLike) -> Network:
    """Channels live, zero, constant 2, live but unread; `call`; a 1 x 1 layer."""
    return graph(
        f"""
        (float[1,1,{size_in}] input) => (float[1,2,{size}] output) {{
            a = Conv(input, w, b)
            x = {call}
            output = Conv(x, v, c)
        }}
        """,
        {**four_channels(), **constants, "v": reading_three(), "c": weights(2)},
    )


CONSTANT_STAYS = {
    "MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)": "3,3",
    "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)": "6,6",
    "MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(a)": "3,3",
    "MaxPool<kernel_shape=[2,2], dilations=[2,2]>(a)": "4,4",
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)": "6,6",
    "AveragePool<kernel_shape=[3,3], count_include_pad=1>(a)": "4,4",
    "GlobalAveragePool(a)": "1,1",
    "GlobalMaxPool(a)": "1,1",
}
CONSTANT_IS_LOST = {
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(a)": "6,6",
    "AveragePool<kernel_shape=[3,3], pads=[0,0,0,1], count_include_pad=1>(a)": "4,5",
    "AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, count_include_pad=1>(a)": "3,3",
}


@pytest.mark.parametrize(("call", "size"), CONSTANT_STAYS.items())
def test_a_constant_goes_through_a_pool(call: str, size: str) -> None:
    pruned, report = removed(through(call, size))
    assert channels(pruned) == {"a": 1, "x": 1, "output": 2}
    assert report.tensors[0].removed == (
        RemovedChannel(1, Reason.ZERO, 0.0),
        RemovedChannel(2, Reason.FOLDED, 2.0),
        RemovedChannel(3, Reason.UNREAD),
    )


@pytest.mark.parametrize(("call", "size"), CONSTANT_IS_LOST.items())
def test_a_constant_is_smaller_where_a_pool_counts_padding_but_a_zero_is_zero(
    call: str, size: str
) -> None:
    pruned, report = removed(through(call, size))
    assert channels(pruned)["a"] == 2
    assert report.tensors[0].removed == (
        RemovedChannel(1, Reason.ZERO, 0.0),
        RemovedChannel(3, Reason.UNREAD),
    )


def test_a_pool_that_says_where_its_maximum_was_is_a_border() -> None:
    network = graph(
        """
        (float[1,1,6,6] input) => (float[1,2,3,3] output, int64[1,4,3,3] where) {
            a = Conv(input, w, b)
            x, where = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)
            output = Conv(x, v, c)
        }
        """,
        {**four_channels(), "v": reading_three(), "c": weights(2)},
    )
    found = analyse(network.model.graph)
    assert found.structure.borders == ("x (MaxPool)",)
    assert found.kept[found.structure.labels["a"]].all()


RESIZES = {
    "scales": (
        'Resize<mode="nearest">(a, , scales)', "12,12",
        "Resize<mode=nearest>(a, -, scales[4])",
    ),
    "sizes": (
        'Resize<mode="linear">(a, , , sizes)', "9,9",
        "Resize<mode=linear>(a, -, -, x.sizes[4])",
    ),
    "corners": (
        'Resize<mode="linear", coordinate_transformation_mode="align_corners">(a, , scales)',
        "12,12",
        "Resize<coordinate_transformation_mode=align_corners mode=linear>(a, -, scales[4])",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "size", "shown"), RESIZES.values(), ids=RESIZES)
def test_a_constant_goes_through_a_resize_whose_sizes_name_the_channels_that_stay(
    call: str, size: str, shown: str
) -> None:
    network = through(
        call, size, scales=np.array([1, 1, 2, 2], np.float32), sizes=np.array([1, 4, 9, 9])
    )
    pruned = pruned_to(
        network,
        f"""
        a[1,1,6,6] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,{size}] = {shown}
        output[1,2,{size}] = Conv(x, v[2,1,1,1], c[2])
        """,
    )
    if "sizes" in shown:
        assert values(pruned)["x.sizes"].tolist() == [1, 1, 9, 9]


def test_a_cubic_resize_carries_channels_but_no_constant() -> None:
    call = 'Resize<mode="cubic">(a, , scales)'
    pruned, _ = removed(through(call, "12,12", scales=np.array([1, 1, 2, 2], np.float32)))
    assert channels(pruned)["a"] == 3


def test_a_resize_along_the_channels_is_a_border() -> None:
    network = graph(
        """
        (float[1,1,4,4] input) => (float[1,4,4,4] output) {
            a = Conv(input, w, b)
            output = Resize<mode="nearest">(a, , scales)
        }
        """,
        {**first_layer([0.5, 0.0], live=[0]), "scales": np.array([1, 2, 1, 1], np.float32)},
    )
    pruned, report = removed(network)
    assert channels(pruned)["a"] == 2
    assert report.borders == ("output (Resize)",)


def test_a_normalized_map_is_its_offset_where_it_is_flat_or_its_scale_is_zero() -> None:
    """live, zero (offset 3), constant 2 (offset 0), scale zero (offset 5)."""
    network = graph(
        """
        (float[1,1,6,6] input) => (float[1,2,6,6] output) {
            a = Conv(input, w, b)
            x = InstanceNormalization(a, s, t)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 2.0, 0.5], live=[0, 3]), "s": np.array([1.0, 1.0, 1.0, 0.0]),
         "t": np.array([1.0, 3.0, 0.0, 5.0]), "v": second_layer(1, 1, 1, 1, size=1),
         "c": weights(2)},
    )  # fmt: skip
    pruned = pruned_to(
        network,
        """
        a[1,1,6,6] = Conv(input, w[1,1,1,1], b[1])
        x[1,1,6,6] = InstanceNormalization(a, s[1], t[1])
        output[1,2,6,6] = Conv(x, v[2,1,1,1], c[2])
        """,
    )
    assert values(pruned)["t"].tolist() == [1.0]
    _, report = removed(network)
    assert [gone.constant for gone in report.tensors[0].removed] == [3.0, 0.0, 5.0]


GROUP_NORM = """
    (float[1,1,4,4] input) => (float[1,2,4,4] output) {
        a = Conv(input, w, b)
        rows = Reshape(a, to)
        n = InstanceNormalization(rows, one, zero)
        back = Reshape(n, from)
        x = Mul(back, s)
        y = Add(x, t)
        output = Conv(y, v, c)
    }"""


def group_norm(live: list[int], reads: list[float]) -> Network:
    """Six channels in three groups of two."""
    return graph(
        GROUP_NORM,
        {**first_layer([0.5 * (k in live) for k in range(6)], live=live),
         "to": np.array([1, 3, 32]), "one": np.ones(3),
         "zero": np.zeros(3), "from": np.array([1, 6, 4, 4]),
         "s": weights(6, 1, 1), "t": weights(6, 1, 1), "v": second_layer(*reads, size=1),
         "c": weights(2)},
    )  # fmt: skip


def test_a_group_that_is_normalized_together_goes_as_a_whole() -> None:
    """Group 1 is dead; channel 0 is dead beside a live one, whose mean it moves."""
    pruned_to(
        group_norm([1, 4, 5], [1, 1, 1, 1, 1, 1]),
        """
        a[1,4,4,4] = Conv(input, w[4,1,1,1], b[4])
        rows[1,2,32] = Reshape(a, to.cut[3])
        n[1,2,32] = InstanceNormalization(rows, one[2], zero[2])
        back[1,4,4,4] = Reshape(n, from.cut[4])
        x[1,4,4,4] = Mul(back, s[4,1,1])
        y[1,4,4,4] = Add(x, t[4,1,1])
        output[1,2,4,4] = Conv(y, v[2,4,1,1], c[2])
        """,
    )


def test_a_group_that_nobody_reads_goes_though_it_is_live() -> None:
    pruned, _ = removed(group_norm([0, 1, 2, 3, 4, 5], [1, 0, 0, 0, 1, 1]))
    assert channels(pruned)["a"] == 4


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_the_channels_that_make_one_deeper_map_go_together(mode: str) -> None:
    """Of two maps, the first is not read: in DCR channels 0, 2, 4, 6, in CRD 0 to 3."""
    network = graph(
        f"""
        (float[1,1,3,3] input) => (float[1,2,6,6] output) {{
            a = Conv(input, w, b)
            x = DepthToSpace<blocksize=2, mode="{mode}">(a)
            output = Conv(x, v, c)
        }}
        """,
        {"w": weights(8, 1, 1, 1), "b": weights(8), "v": second_layer(0, 1, size=1),
         "c": weights(2)},
    )  # fmt: skip
    pruned = pruned_to(
        network,
        f"""
        a[1,4,3,3] = Conv(input, w[4,1,1,1], b[4])
        x[1,1,6,6] = DepthToSpace<blocksize=2 mode={mode}>(a)
        output[1,2,6,6] = Conv(x, v[2,1,1,1], c[2])
        """,
    )
    stays = [1, 3, 5, 7] if mode == "DCR" else [4, 5, 6, 7]
    np.testing.assert_array_equal(values(pruned)["b"], values(network)["b"][stays])


def test_a_deeper_map_is_constant_where_all_that_make_it_are_alike() -> None:
    """Map 0 from four twos; map 1 from 1, 1, 1, 2 is none."""
    biases = np.array([2.0, 1, 2, 1, 2, 1, 2, 2])
    network = graph(
        """
        (float[1,1,3,3] input) => (float[1,2,6,6] output) {
            a = Conv(input, w, b)
            x = DepthToSpace<blocksize=2>(a)
            output = Conv(x, v, c)
        }
        """,
        {
            "w": np.zeros((8, 1, 1, 1)),
            "b": biases,
            "v": second_layer(1, 1, size=1),
            "c": weights(2),
        },
    )
    pruned, _ = removed(network)
    assert channels(pruned)["x"] == 1
    told = values(network)["c"] + 2 * values(network)["v"][:, 0, 0, 0]
    np.testing.assert_allclose(values(pruned)["c"], told, rtol=1e-6)


def test_a_map_that_is_written_as_channels_goes_with_all_of_them() -> None:
    """Space to depth: channel 1 is zero; of channel 2 nobody reads any of the four."""
    reads = np.ones((2, 12, 1, 1), np.float32) * weights(2, 12, 1, 1)
    reads[:, [2, 5, 8, 11]] = 0.0
    network = graph(
        """
        (float[1,1,6,6] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            x = SpaceToDepth<blocksize=2>(a)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5, 0.0, 0.5], live=[0, 2]), "v": reads, "c": weights(2)},
    )
    pruned = pruned_to(
        network,
        """
        a[1,1,6,6] = Conv(input, w[1,1,1,1], b[1])
        x[1,4,3,3] = SpaceToDepth<blocksize=2>(a)
        output[1,2,3,3] = Conv(x, v[2,4,1,1], c[2])
        """,
    )
    np.testing.assert_array_equal(values(pruned)["v"], reads[:, [0, 3, 6, 9]])


def test_one_of_the_four_positions_that_is_read_keeps_the_map() -> None:
    reads = np.zeros((2, 8, 1, 1), np.float32)
    reads[:, [0, 5]] = 1.0
    network = graph(
        """
        (float[1,1,6,6] input) => (float[1,2,3,3] output) {
            a = Conv(input, w, b)
            x = SpaceToDepth<blocksize=2>(a)
            output = Conv(x, v, c)
        }
        """,
        {**first_layer([0.5, 0.5], live=[0, 1]), "v": reads, "c": weights(2)},
    )
    pruned, _ = removed(network)
    assert channels(pruned) == {"a": 2, "x": 8, "output": 2}
