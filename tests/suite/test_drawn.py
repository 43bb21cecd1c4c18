"""Any network of any operator family gives the same integers in all three."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.emit.onnx_reader import read_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_reader import read_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.reference import integer
from deploykit.runtime import litert, ort
from deploykit.spec.record import first_difference, record_network
from tests.suite.drawing import FAMILIES, inputs
from tests.suite.runners import RUNNERS, computed
from tests.suite.test_round_trips import named, without_idle_pads

MISSING = [
    name for name, version in (("ort", ort.version), ("litert", litert.version)) if not version()
]


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_a_drawn_network_gives_the_same_integers_everywhere(
    family: str, data: st.DataObject
) -> None:
    network = FAMILIES[family](data)
    given_inputs = inputs(data, network)
    expected = computed(network, integer.run(network, given_inputs))
    for runner in ("ort", "litert"):
        found = computed(network, RUNNERS[runner]()(network, given_inputs))
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=f"{runner}: {name}")
    stated = without_idle_pads(network)
    for found_network in (read_onnx(write_onnx(stated)), read_tflite(write_tflite(stated))):
        record = record_network(named(found_network, stated))
        assert first_difference(record_network(stated), record) is None
