"""How far integers are from floats, and how often an answer is right."""

from __future__ import annotations

import math

import numpy as np

from deploykit.spec.arrays import AnyArray, FloatArray, Tensors
from deploykit.spec.quantized import QuantizedNetwork


def sqnr_db(real: FloatArray, approximation: FloatArray) -> float:
    """10 log10( sum x^2 / sum (x - x')^2 ), in dB; infinite where they are equal."""
    noise = float(np.square(real.astype(np.float64) - approximation).sum())
    signal = float(np.square(real.astype(np.float64)).sum())
    if noise == 0.0:
        return math.inf
    return -math.inf if signal == 0.0 else 10.0 * math.log10(signal / noise)


def float_names(network: QuantizedNetwork) -> dict[str, str]:
    """By integer tensor, the name of the float tensor that it stands for."""
    ports = (*network.inputs, *network.outputs)
    # Behind a tail the port's float values are not the tensor's.
    public = {port.tensor: port.name for port in ports if port.tail is None}
    return {name: public.get(name, name) for name in network.tensors}


def sqnr_by_tensor(
    network: QuantizedNetwork, floats: Tensors, integers: Tensors
) -> dict[str, float]:
    """SQNR of every integer tensor against the float tensor that it stands for."""
    return {
        name: sqnr_db(floats[real], network.tensors[name].quantization.dequantize(integers[name]))
        for name, real in float_names(network).items()
        if name in integers and real in floats
    }


def agreement(
    network: QuantizedNetwork, floats: AnyArray, outputs: Tensors, samples: int, count: int
) -> dict[str, float]:
    """By output of whole numbers, the share of samples with the float network's answer.

    floats: of all outputs, joined as spec.joined does; outputs: by tensor; both of N `samples`, of
    which the first `count` are compared.
    """
    shares, first = {}, 0
    rows, batch = floats.reshape(samples, -1), network.shape(network.inputs[0].tensor)[0]
    for port in network.outputs:
        size = math.prod(network.shape(port.tensor)) // batch
        if port.tensor in network.indices:
            integers = outputs[port.tensor].reshape(samples, -1)[:count]
            same = integers == rows[:count, first : first + size]
            shares[port.name] = float(same.mean())
        first += size
    return shares


def accuracy(outputs: AnyArray, labels: AnyArray) -> float:
    """Share of samples whose largest output [N, K] is the label [N].

    Whole numbers are answers already: of such a sample every one has to be the label.
    """
    if outputs.dtype.kind in "iu":
        return float((outputs.reshape(len(outputs), -1) == labels[:, None]).all(axis=1).mean())
    return float((outputs.reshape(len(outputs), -1).argmax(axis=1) == labels).mean())
