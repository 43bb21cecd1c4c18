"""A softmax or log-softmax at the end of a network of any rank, in both files and both layouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.reference import integer
from deploykit.runtime import litert, ort
from deploykit.spec.quantized import QuantizedNetwork, Tail
from deploykit.spec.record import first_difference, record_network
from deploykit.verify.formats import Format, OnnxFormat, TfliteFormat, named_as_planned
from tests.suite.cases import Case, square

CASES = {
    "features": Case("tail-features", (12,), lambda b: b.linear(b.input, 5)),
    "tokens": Case("tail-tokens", (6, 9), lambda b: b.clamp(b.input, -100, 90)),
    "channels": Case("tail-channels", (4, 5, 6), lambda b: b.conv(b.input, 7, square(1))),
}
SUMMED = {"features": 1, "tokens": 2, "channels": 1}
"""The axis along which the results' probabilities are one."""

FORMATS: dict[str, Format] = {
    "onnx": OnnxFormat(),
    "tflite": TfliteFormat(TfliteLayout.NHWC),
    "tflite-nchw": TfliteFormat(TfliteLayout.NCHW),
}
VERSIONS = {"onnx": ort.version, "tflite": litert.version, "tflite-nchw": litert.version}


def network_of(name: str, tail: Tail | None) -> QuantizedNetwork:
    network = CASES[name].network()
    (port,) = network.outputs
    return replace(network, outputs=(replace(port, tail=tail),))


@pytest.mark.parametrize("tail", list(Tail))
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_computes_it_behind_the_references_integers(
    form: str, name: str, tail: Tail
) -> None:
    if VERSIONS[form]() is None:
        pytest.skip(f"the runtime of {form} is not installed")
    network, inputs = network_of(name, tail), CASES[name].inputs()
    (source,), (port,) = network.inputs, network.outputs
    real = network.tensors[source.tensor].quantization.dequantize(inputs["input"])
    outputs = FORMATS[form].run_outputs(FORMATS[form].write(network), network, {"input": real})
    last = integer.run(network, inputs)[port.tensor]
    logits = network.tensors[port.tensor].quantization.dequantize(last).astype(np.float64)
    powers = np.exp(logits - logits.max(SUMMED[name], keepdims=True))
    shares = powers / powers.sum(SUMMED[name], keepdims=True)
    wanted = shares if tail is Tail.SOFTMAX else np.log(shares)
    assert wanted.std() > 0.01
    np.testing.assert_allclose(outputs[port.name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tail", list(Tail))
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_comes_back(form: str, name: str, tail: Tail) -> None:
    network = network_of(name, tail)
    found = FORMATS[form].read(FORMATS[form].write(network))
    plan = {
        "network": record_network(network),
        "names": {operator.output: operator.name for operator in network.operators},
    }
    again = record_network(named_as_planned(found, plan))
    assert first_difference(record_network(network), again) is None
    assert first_difference(record_network(network_of(name, None)), again) is not None
