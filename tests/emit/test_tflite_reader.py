"""Reading back gives the network that was written; everything else is refused in a sentence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.emit.tflite_layout import TfliteLayout, tensor_names
from deploykit.emit.tflite_padding import padding_form
from deploykit.emit.tflite_reader import read_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.errors import GraphError
from deploykit.reference.integer import run
from deploykit.spec.operators import Conv, Linear, MaxPool, Operator, Window
from deploykit.spec.quantized import IoType, QuantizedNetwork
from tests.emit.tflite_networks import (
    conv_networks,
    every_operator,
    headed_networks,
    plain_cnn,
    random_inputs,
)

ROOT = Path(__file__).parents[2]


def assert_same_network(written: QuantizedNetwork, layout: TfliteLayout) -> None:
    """Equal structure, parameters and integers; pads behind the last window do not count."""
    back = read_tflite(write_tflite(written, layout))
    names = tensor_names(written, layout)
    assert back.io is written.io
    assert [port.name for port in back.inputs] == [port.name for port in written.inputs]
    assert [(port.name, port.tensor) for port in back.outputs] == [
        (port.name, names[port.tensor]) for port in written.outputs
    ]
    assert back.tensors.keys() == set(names.values())
    for name, tensor in written.tensors.items():
        assert back.tensors[names[name]] == replace(tensor, name=names[name])
    for before, after in zip(written.operators, back.operators, strict=True):
        assert_same_operator(before, after, written)
    inputs = random_inputs(written)
    expected, actual = run(written, inputs), run(back, inputs)
    for name, integers in expected.items():
        np.testing.assert_array_equal(actual[names[name]], integers)


def assert_same_operator(before: Operator, after: Operator, network: QuantizedNetwork) -> None:
    assert type(before) is type(after)
    if isinstance(before, Conv | Linear) and isinstance(after, Conv | Linear):
        np.testing.assert_array_equal(before.weight.values, after.weight.values)
        np.testing.assert_array_equal(before.weight.scale, after.weight.scale)
        np.testing.assert_array_equal(before.bias, after.bias)
        assert before.weight.name == after.weight.name
    if isinstance(before, Conv) and isinstance(after, Conv):
        assert before.groups == after.groups
    if isinstance(before, Conv | MaxPool) and isinstance(after, Conv | MaxPool):
        assert replace(before.window, pads=(0, 0, 0, 0)) == replace(after.window, pads=(0, 0, 0, 0))
        assert before.window.pads[:2] == after.window.pads[:2]


@settings(max_examples=60, deadline=None)
@given(conv_networks(), st.sampled_from(TfliteLayout))
def test_convolutions_come_back(network: QuantizedNetwork, layout: TfliteLayout) -> None:
    assert_same_network(network, layout)


@settings(max_examples=60, deadline=None)
@given(headed_networks(), st.sampled_from(TfliteLayout))
def test_pools_and_heads_come_back(network: QuantizedNetwork, layout: TfliteLayout) -> None:
    assert_same_network(network, layout)


@pytest.mark.parametrize("layout", TfliteLayout)
@pytest.mark.parametrize("io", IoType)
def test_every_operator_comes_back(io: IoType, layout: TfliteLayout) -> None:
    assert_same_network(every_operator(io), layout)
    assert_same_network(plain_cnn(io), layout)


def test_second_writing_gives_the_same_bytes() -> None:
    data = write_tflite(plain_cnn())
    again = write_tflite(read_tflite(data))
    assert write_tflite(read_tflite(again)) == again


def test_pads_no_window_reaches_are_left_out() -> None:
    window = Window((3, 3), (2, 2), (1, 1, 1, 1))
    assert padding_form(window, (8, 8), (4, 4)).before == (1, 1, 0, 0)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 64, b"PK\3\4" + bytes(100), b"\xff" * 200])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError, match=r"not a \.tflite file"):
        read_tflite(data)


def test_every_truncation_is_refused_or_harmless() -> None:
    """A sentence for every length; only bytes behind the last table may be missing."""
    data = write_tflite(plain_cnn())
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(GraphError, match=r"[.;]"):
            read_tflite(data[:length])


@settings(max_examples=1500, deadline=None)
@given(st.data())
def test_damage_never_escapes_as_another_error(draw: st.DataObject) -> None:
    data = bytearray(write_tflite_once())
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(st.integers(0, len(data) - 1))
        data[place] = draw.draw(st.integers(0, 255))
    try:
        network = read_tflite(bytes(data))
    except GraphError as error:
        assert len(str(error)) > 20
    else:
        assert network.operators


WRITTEN: list[bytes] = []


def write_tflite_once() -> bytes:
    if not WRITTEN:
        WRITTEN.append(write_tflite(every_operator(IoType.FLOAT), TfliteLayout.NCHW))
    return WRITTEN[0]


def test_reading_needs_neither_the_schema_nor_the_runtime() -> None:
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['ai_edge_litert', 'flatbuffers', 'tflite_runtime']))\n"
        "from deploykit.emit.tflite_reader import read_tflite\n"
        "print(len(read_tflite(sys.stdin.buffer.read()).operators))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=write_tflite(plain_cnn()),
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    assert int(result.stdout) == len(plain_cnn().operators)


def test_writing_does_not_load_the_interpreter() -> None:
    program = (
        "import sys\n"
        "sys.modules['ai_edge_litert.interpreter'] = None\n"
        "from tests.emit.tflite_networks import plain_cnn\n"
        "from deploykit.emit.tflite_writer import write_tflite\n"
        "from deploykit.emit.tflite_probe import probe_tflite\n"
        "print(len(probe_tflite(write_tflite(plain_cnn()))))\n"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT)
