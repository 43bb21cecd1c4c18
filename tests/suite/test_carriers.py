"""The table of carriers says what the installed runtimes do: a row that is wrong fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploykit.emit.packing import pack
from deploykit.emit.tflite_layout import TfliteLayout
from deploykit.errors import GraphError
from deploykit.reference import integer
from deploykit.runtime import litert, ort
from deploykit.spec.carriers import (
    OLDEST_ORT,
    TABLE,
    Carrier,
    CarrierOptions,
    Carriers,
    Layer,
    Row,
    Version,
)
from deploykit.spec.operators import Conv, Linear
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.stem import BLOCKS_FORM, stem_forms
from deploykit.verify.formats import Format, OnnxFormat, TfliteFormat
from tests.suite.building import Builder
from tests.suite.cases import square

FORMATS: dict[str, Format] = {"onnx": OnnxFormat(), "tflite": TfliteFormat(TfliteLayout.NHWC)}
VERSIONS = {"onnx": ort.version, "tflite": litert.version}
MOST_STEPS = 0.02
"""Share of its integers that a builtin kernel of LiteRT rounds to the next step."""

BUILDS: Mapping[Layer, tuple[tuple[int, ...], Callable[[Builder], str]]] = {
    Layer.LINEAR: ((64,), lambda b: b.linear(b.input, 40)),
    Layer.POINTWISE: ((64, 7, 6), lambda b: b.conv(b.input, 40, square(1))),
    Layer.WINDOW: ((16, 9, 8), lambda b: b.conv(b.input, 24, square(3, pad=1))),
    Layer.GROUPED: ((48, 9, 8), lambda b: b.conv(b.input, 48, square(3, pad=1), 48)),
}


def built(
    layer: Layer, carrier: Carrier, bits: int, inputs: int | None = None
) -> tuple[QuantizedNetwork, Mapping[str, np.ndarray]]:
    """One layer whose weight has a carrier in both formats, and samples."""
    shape, build = BUILDS[layer]
    if inputs is not None:
        shape = (inputs, *shape[1:])
    rng = np.random.default_rng(1)
    builder = Builder(rng, (1, *shape), bits)
    network = builder.network(build(builder))
    (operator,) = network.operators
    assert isinstance(operator, Conv | Linear)
    weight = replace(operator.weight, carriers=Carriers(carrier, carrier))
    network = replace(network, operators=(replace(operator, weight=weight),))
    return network, {"input": rng.integers(-128, 128, (4, *shape)).astype(np.int8)}


def kernel(fmt: str, network: QuantizedNetwork) -> str | None:
    form = FORMATS[fmt]
    return form.kernels(form.write(network), network)[network.operators[0].output]


def rows() -> list[tuple[Row, Layer]]:
    return [(row, layer) for row in TABLE for layer in row.kernels]


@pytest.mark.parametrize(
    ("row", "layer"), rows(),
    ids=[f"{row.format}-{row.carrier.value}-{layer.name}" for row, layer in rows()],
)  # fmt: skip
def test_a_row_is_what_its_runtime_does(row: Row, layer: Layer) -> None:
    if VERSIONS[row.format]() is None:
        pytest.skip(f"the runtime of {row.format} is not installed")
    network, inputs = built(layer, row.carrier, row.carrier.bits)
    assert kernel(row.format, network) == row.kernels[layer]
    output = network.operators[0].output
    form = FORMATS[row.format]
    found = form.run_all(form.write(network), network, inputs)[output].astype(int)
    distance = np.abs(found - integer.run(network, inputs)[output])
    assert len(np.unique(found)) > 20
    if row.exact:
        assert distance.max() == 0
    else:
        assert distance.max() == 1
        assert 0 < np.mean(distance) < MOST_STEPS


@pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")
@pytest.mark.parametrize(
    ("layer", "carrier", "inputs"),
    [
        (Layer.LINEAR, Carrier.INT4, 63),
        (Layer.POINTWISE, Carrier.INT4, 63),
        (Layer.LINEAR, Carrier.INT2, 62),
        (Layer.POINTWISE, Carrier.INT2, 62),
        (Layer.WINDOW, Carrier.INT4, 16),
    ],
)
def test_xnnpack_still_refuses_what_the_table_leaves_out(
    layer: Layer, carrier: Carrier, inputs: int
) -> None:
    network, _ = built(layer, carrier, carrier.bits, inputs)
    assert kernel("tflite", network) in {"FULLY_CONNECTED", "CONV_2D"}


def test_two_bits_in_a_convolution_are_never_written() -> None:
    network, _ = built(Layer.WINDOW, Carrier.INT2, 2)
    with pytest.raises(GraphError, match=r"CONV_2D.*int2"):
        FORMATS["tflite"].write(network)


def direct(carrier: Carrier) -> bytes:
    """A convolution whose DequantizeLinear reads 4- or 2-bit weights, as quantizers write it."""
    network, _ = built(Layer.WINDOW, Carrier.INT8, carrier.bits)
    model = onnx.load_from_string(FORMATS["onnx"].write(network))
    (operator,) = network.operators
    assert isinstance(operator, Conv)
    kind = TensorProto.INT4 if carrier is Carrier.INT4 else TensorProto.INT2
    values = operator.weight.values
    kept = [
        one
        for one in model.graph.initializer
        if one.name not in (operator.weight.name, f"{operator.weight.name}.zero_point")
    ]
    held = {
        operator.weight.name: values,
        f"{operator.weight.name}.zero_point": 0 * values[:, 0, 0, 0],
    }
    kept += [
        TensorProto(
            name=name, data_type=kind, dims=one.shape, raw_data=pack(one, carrier).tobytes()
        )
        for name, one in held.items()
    ]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.opset_import[0].version = 25
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@pytest.mark.skipif(ort.version() is None, reason="onnxruntime is not installed")
def test_four_bits_without_a_cast_still_drop_out_of_the_kernel() -> None:
    network, _ = built(Layer.WINDOW, Carrier.INT8, 4)
    kernels = ort.kernels(direct(Carrier.INT4))
    assert kernels[network.operators[0].output] == "QuantizeLinear"


@pytest.mark.skipif(ort.version() is None, reason="onnxruntime is not installed")
def test_two_bits_without_a_cast_still_do_not_load() -> None:
    with pytest.raises(GraphError, match="does not load"):
        ort.kernels(direct(Carrier.INT2))


def stated(network: QuantizedNetwork) -> str:
    model = onnx.load_from_string(FORMATS["onnx"].write(network))
    held = {str(entry.key): str(entry.value) for entry in model.metadata_props}
    return held["deploykit.min_onnxruntime"]


@pytest.mark.parametrize(
    ("carrier", "oldest"),
    [
        (Carrier.INT8, "1.20"), (Carrier.TABLE4, "1.20"), (Carrier.TABLE2, "1.20"),
        (Carrier.INT4, "1.23"), (Carrier.INT2, "1.24"),
    ],
)  # fmt: skip
def test_a_file_states_the_oldest_runtime_that_loads_it(carrier: Carrier, oldest: str) -> None:
    network, _ = built(Layer.LINEAR, carrier, 2)
    assert stated(network) == oldest


def stem(min_ort: Version | None) -> QuantizedNetwork:
    options = CarrierOptions(min_ort)
    builder = Builder(np.random.default_rng(2), (1, 3, 16, 16), carriers=options)
    return builder.network(builder.conv(builder.input, 8, square(3, 2, 1)))


@pytest.mark.parametrize(
    ("min_ort", "oldest"), [(None, "1.28"), (Version(1, 28), "1.28"), (Version(1, 27), "1.20")]
)
def test_an_old_runtime_gets_no_blocks_of_pixels(min_ort: Version | None, oldest: str) -> None:
    assert stated(stem(min_ort)) == oldest
    forms = stem_forms(stem(min_ort))
    assert forms["x1"]["onnxruntime"] == ("Conv" if oldest == "1.20" else BLOCKS_FORM)
    read = FORMATS["onnx"].read(FORMATS["onnx"].write(stem(min_ort)))
    assert FORMATS["onnx"].write(read) == FORMATS["onnx"].write(stem(min_ort))


def test_an_operator_that_an_old_runtime_lacks_is_refused() -> None:
    builder = Builder(np.random.default_rng(2), (1, 4, 6, 6), carriers=CarrierOptions(OLDEST_ORT))
    network = builder.network(
        builder.maximum(builder.input, builder.gather(builder.input, 3, 0, 1, 2))
    )
    with pytest.raises(GraphError, match=r"Maximum.*needs ONNX Runtime 1.24.*--min-ort 1.24"):
        FORMATS["onnx"].write(network)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_carrier_of_few_bits_is_taken_only_where_the_file_gets_smaller(fmt: str) -> None:
    for row in (one for one in TABLE if one.format == fmt and one.carrier is not Carrier.INT8):
        for layer in row.kernels:
            network, _ = built(layer, row.carrier, row.carrier.bits)
            (operator,) = network.operators
            assert isinstance(operator, Conv | Linear)
            wide = replace(operator.weight, carriers=Carriers())
            plain = replace(network, operators=(replace(operator, weight=wide),))
            sizes = [len(FORMATS[fmt].write(one)) for one in (network, plain)]
            saved = sizes[1] - sizes[0]
            count = operator.weight.values.size
            spent = count - row.carrier.size_bytes(count) - saved
            at_fewest = row.fewest - row.carrier.size_bytes(row.fewest) - spent
            assert at_fewest > 0 or row.fewest == 0, (row.carrier, layer, spent)
