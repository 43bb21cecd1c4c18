"""The probe file is the file itself with more outputs."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.emit.tflite_file import parse_tflite
from deploykit.emit.tflite_layout import tensor_names, to_tflite_layout
from deploykit.emit.tflite_probe import probe_tflite
from deploykit.emit.tflite_reader import read_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.errors import GraphError
from deploykit.runtime import litert
from deploykit.spec.quantized import IoType
from tests.emit.tflite_networks import every_operator, plain_cnn, random_inputs

needs_litert = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")


def test_operators_and_constants_are_untouched() -> None:
    data = write_tflite(every_operator())
    before, after = parse_tflite(data), parse_tflite(probe_tflite(data))
    assert [operator.code for operator in before.operators] == [
        operator.code for operator in after.operators
    ]
    for left, right in zip(before.tensors, after.tensors, strict=True):
        assert (left.name, left.shape) == (right.name, right.shape)
        np.testing.assert_array_equal(left.scale, right.scale)
        np.testing.assert_array_equal(left.values, right.values)


@needs_litert
@pytest.mark.parametrize("io", IoType)
def test_every_integer_tensor_is_returned_and_the_outputs_stay(io: IoType) -> None:
    network = every_operator(io)
    data = write_tflite(network)
    inputs = to_tflite_layout(network, random_inputs(network))
    raw = litert.run_probe(probe_tflite(data), inputs)
    assert set(tensor_names(network).values()) <= raw.keys()
    plain, probed = litert.run(data, inputs), litert.run(probe_tflite(data), inputs)
    assert plain.keys() == probed.keys()
    for name, values in plain.items():
        np.testing.assert_array_equal(values, probed[name])


@needs_litert
def test_probing_keeps_the_delegate_whole() -> None:
    data = write_tflite(plain_cnn())
    assert litert.partitions(probe_tflite(data)) == 1
    assert litert.kernels(probe_tflite(data)) == litert.kernels(data)


def test_probing_twice_changes_nothing() -> None:
    once = probe_tflite(write_tflite(plain_cnn()))
    assert probe_tflite(once) == once
    assert read_tflite(once).operators[0].output == read_tflite(once).operators[0].name


@pytest.mark.parametrize("keep", [0, 6, 40, 300])
def test_a_cut_off_file_is_refused(keep: int) -> None:
    with pytest.raises(GraphError):
        probe_tflite(write_tflite(plain_cnn())[:keep])
