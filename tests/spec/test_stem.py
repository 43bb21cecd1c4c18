"""A stem in two forms: the same integers, in every file, and what a file states is held to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploykit.emit.onnx_format import STEM_KEY
from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_file import parse_tflite
from deploykit.emit.tflite_reader import read_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.errors import GraphError
from deploykit.reference import integer
from deploykit.spec.operators import Conv, SpaceToDepth, Window
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.record import record_network
from deploykit.spec.stem import (
    FEWEST_TAPS,
    Runtime,
    blocks_of,
    stated_window,
    stems_as_blocks,
    stems_from_blocks,
)
from tests.suite.building import Builder


def network(
    window: Window, source: tuple[int, ...] = (3, 16, 12), outputs: int = 5
) -> QuantizedNetwork:
    """One convolution of an image."""
    build = Builder(np.random.default_rng(0), (1, *source))
    return build.network(build.conv(build.input, outputs, window))


def everywhere(found: QuantizedNetwork) -> tuple[QuantizedNetwork, dict[str, str]]:
    written, stated = stems_as_blocks(found, Runtime.ONNXRUNTIME)
    return written, dict(stated)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_blocks_give_the_same_integers_and_come_back_whole(data: st.DataObject) -> None:
    channels = data.draw(st.integers(1, 4), "channels")
    height, width = (data.draw(st.integers(2, 7), name) for name in ("rows", "columns"))
    top, left, bottom, right = (data.draw(st.integers(0, 3), f"pad {i}") for i in range(4))
    size = tuple(2 * data.draw(st.integers(1, 6), name) for name in ("height", "width"))
    window = Window((height, width), (2, 2), (top, left, bottom, right))
    sums = (size[0] + top + bottom - height, size[1] + left + right - width)
    assume(min(sums) >= 0)
    before = network(window, (channels, *size))
    written, stated = everywhere(before)
    # A block that no window reads has no place in a convolution without negative pads.
    read = all(
        2 * (total // 2) - begin + kernel > length - 2
        for total, begin, kernel, length in zip(
            sums, (top, left), (height, width), size, strict=True
        )
    )
    kinds = [type(operator) for operator in written.operators]
    assert kinds == ([SpaceToDepth, Conv] if read else [Conv])
    inputs = {"input": np.random.default_rng(0).integers(-128, 128, (2, channels, *size), np.int8)}
    (output,) = (operator.output for operator in before.operators)
    expected = integer.run(before, inputs)[output]
    np.testing.assert_array_equal(integer.run(written, inputs)[output], expected)
    assert record_network(stems_from_blocks(written, stated)) == record_network(before)


@pytest.mark.parametrize(
    ("window", "source", "groups"),
    [
        (Window((3, 3), (2, 2), (1, 1, 1, 1)), (1, 3, 9, 8), 1),
        (Window((3, 3), (2, 2), (1, 1, 1, 1)), (1, 5, 8, 8), 1),
        (Window((3, 3), (2, 1), (1, 1, 1, 1)), (1, 3, 8, 8), 1),
        (Window((3, 3), (2, 2), (2, 2, 2, 2), (2, 2)), (1, 3, 8, 8), 1),
        (Window((3, 3), (2, 2), (1, 1, 1, 1)), (1, 4, 8, 8), 4),
        (Window((3, 3), (1, 1), (1, 1, 1, 1)), (1, 3, 8, 8), 1),
    ],
    ids=["odd", "channels", "strides", "dilated", "depthwise", "stride 1"],
)
def test_what_is_no_stem_stays(window: Window, source: tuple[int, ...], groups: int) -> None:
    assert blocks_of(window, source, groups) is None


def operators_of(data: bytes) -> list[str]:
    return [operator.code for operator in parse_tflite(data).operators]


@pytest.mark.parametrize(("kernel", "blocks"), [(3, False), (4, True), (7, True)])
def test_each_file_has_the_form_that_its_runtime_is_fast_in(kernel: int, blocks: bool) -> None:
    begin, end = kernel // 2, kernel - 2 - kernel // 2
    window = Window((kernel, kernel), (2, 2), (begin, begin, end, end))
    found = network(window, (3, 32, 32))
    nodes = [node.op_type for node in onnx.load_from_string(write_onnx(found)).graph.node]
    assert nodes.count("SpaceToDepth") == 1
    assert ("SPACE_TO_DEPTH" in operators_of(write_tflite(found))) is blocks
    assert (kernel**2 >= FEWEST_TAPS[Runtime.LITERT]) is blocks
    for read in (read_onnx(write_onnx(found)), read_tflite(write_tflite(found))):
        (operator,) = read.operators
        assert isinstance(operator, Conv)
        assert operator.window == window
        np.testing.assert_array_equal(
            operator.weight.values,
            found.operators[0].weight.values,  # type: ignore[union-attr]
        )


def test_outer_rows_of_zeros_come_back() -> None:
    """What blocks alone do not say: a 4x4 kernel may look like a 3x3 one."""
    found = network(Window((4, 4), (2, 2), (2, 2, 1, 1)))
    (conv,) = found.operators
    assert isinstance(conv, Conv)
    values = conv.weight.values.copy()
    values[:, :, 0] = values[:, :, :, 0] = 0
    conv = replace(conv, weight=replace(conv.weight, values=values))
    found = replace(found, operators=(conv,))
    for read in (read_onnx(write_onnx(found)), read_tflite(write_tflite(found))):
        assert [one.window for one in read.operators if isinstance(one, Conv)] == [conv.window]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3,3,1,1,1", "not enough values"),
        ("a,3,1,1,1,1", "invalid literal"),
        ("9,9,1,1,1,1", "does not make its blocks"),
        ("3,4,1,2,1,1", "weights outside"),
    ],
)
def test_a_window_that_does_not_fit_is_refused(text: str, said: str) -> None:
    written, stated = everywhere(network(Window((4, 4), (2, 2), (2, 2, 1, 1))))
    with pytest.raises(GraphError, match=said):
        stems_from_blocks(written, dict.fromkeys(stated, text))


def test_a_stem_that_is_none_is_refused() -> None:
    found = network(Window((3, 3), (2, 2), (1, 1, 1, 1)))
    (conv,) = found.operators
    with pytest.raises(GraphError, match="it is none"):
        stems_from_blocks(found, {conv.output: "3,3,1,1,1,1"})
    model = onnx.load_from_string(write_onnx(found))
    (entry,) = (one for one in model.metadata_props if one.key.startswith(STEM_KEY))
    entry.value = "5,5,2,2,2,2"
    with pytest.raises(GraphError, match="window '5,5,2,2,2,2'"):
        read_onnx(model.SerializeToString())


def test_blocks_that_others_read_are_refused() -> None:
    build = Builder(np.random.default_rng(0), (1, 3, 8, 8))
    deep = build.space_to_depth(build.input, 2)
    one = build.conv(deep, 4, Window((2, 2), pads=(1, 1, 0, 0)))
    build.conv(deep, 4, Window((1, 1)))
    with pytest.raises(GraphError, match="read by others"):
        stems_from_blocks(
            build.network(one), {one: stated_window(Window((4, 4), (2, 2), (2, 2, 1, 1)))}
        )
