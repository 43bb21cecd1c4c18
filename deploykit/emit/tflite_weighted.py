"""Convolutions and linears in a .tflite file, in the form that takes their weights' carrier.

    CONV_2D, DEPTHWISE_CONV_2D   int8; INT4 where there are no groups, on a builtin kernel
    FULLY_CONNECTED              int8, INT4, INT2; of four axes it is a 1x1 convolution

Source: what XNNPACK's delegate takes, which spec.carriers has as a table.
"""

from __future__ import annotations

import numpy as np

from deploykit.emit.tflite_graph import Options, TfliteQuantization
from deploykit.emit.tflite_lowering import columns_as_hwc, convolution_form, padded
from deploykit.emit.tflite_site import Site
from deploykit.errors import GraphError
from deploykit.spec.arrays import Int8Array, Int32Array
from deploykit.spec.carriers import Carrier, Layer
from deploykit.spec.operators import Conv, IntegerWeight, Linear
from deploykit.spec.quantized import ActivationTensor
from deploykit.spec.storage import kind_of

CONVOLUTIONS = frozenset(("CONV_2D", "CONV_2D/grouped", "CONV_2D/int4", "DEPTHWISE_CONV_2D"))

KEEPING = Options("FullyConnectedOptions", {"keepNumDims": True})
"""Of a product along the last of four axes."""


def write_conv(operator: Conv, site: Site) -> None:
    """A convolution; GraphError where no kernel takes its weights as they are stored."""
    carrier, output = operator.weight.carriers.tflite, site.index[operator.output]
    kernel, window = operator.weight.values, operator.window
    if carrier is not Carrier.INT8 and kind_of(operator) is Layer.POINTWISE:
        _fully_connected(operator, kernel.reshape(kernel.shape[:2]), site, KEEPING)
        return
    source = site.network.tensors[operator.input]
    data, padding = padded(site.graph, site.index[operator.input], output, window, operator.output)
    form = convolution_form(kernel, window, operator.groups, source.shape[1], padding)
    weight = _weight(site, operator.weight, form.kernel, form.output_axis)
    bias = _bias(site, operator.name, operator.bias, source, operator.weight)
    code = form.code if carrier is Carrier.INT8 else f"{form.code}/{carrier.value}"
    if code not in CONVOLUTIONS:
        raise GraphError(
            f"{operator.name}: no TFLite kernel runs {form.code} with {carrier.value} weights; "
            "store them as int8."
        )
    site.graph.operator(code, (data, weight, bias), output, form.options)


def write_linear(operator: Linear, site: Site) -> None:
    """A fully connected layer; its columns follow a flattened input's order."""
    stored = operator.weight.values
    if operator.input in site.flattened:
        stored = columns_as_hwc(stored, site.flattened[operator.input])
    _fully_connected(operator, stored, site, Options("FullyConnectedOptions"))


def _fully_connected(
    operator: Conv | Linear, stored: Int8Array, site: Site, options: Options
) -> None:
    """stored: [O, I]."""
    weight = _weight(site, operator.weight, stored, 0)
    source = site.network.tensors[operator.input]
    bias = _bias(site, operator.name, operator.bias, source, operator.weight)
    inputs, output = (site.index[operator.input], weight, bias), site.index[operator.output]
    carrier = operator.weight.carriers.tflite
    code = "FULLY_CONNECTED"
    if carrier is not Carrier.INT8:
        code = f"{code}/{carrier.value}"
    site.graph.operator(code, inputs, output, options)


def _weight(site: Site, weight: IntegerWeight, stored: Int8Array, dimension: int) -> int:
    """Index of a weight; of several operators that store the same one, the first's."""
    scale, carrier = np.asarray(weight.scale, dtype=np.float32), weight.carriers.tflite
    key = (weight.name, stored.shape, stored.tobytes(), scale.tobytes(), dimension, carrier)
    if key not in site.weights:
        quantization = TfliteQuantization(scale, 0, dimension)
        values = np.ascontiguousarray(stored)
        site.weights[key] = site.graph.weight(weight.name, values, quantization, carrier)
    return site.weights[key]


def _bias(
    site: Site, name: str, bias: Int32Array, source: ActivationTensor, weight: IntegerWeight
) -> int:
    """Bias in steps of sx * sw, the product taken in float32 as the runtimes take it."""
    scale = np.float32(source.quantization.scale) * weight.scale.astype(np.float32)
    quantization = TfliteQuantization(np.asarray(scale, dtype=np.float32), 0)
    return site.graph.constant(f"{name}/bias", bias.astype(np.int32), quantization)
