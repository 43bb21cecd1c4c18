"""plan_weight_only: integers for the weights of a network that computes on float32.

Rounding minimises e' H e by output, with H = E[x x'] about zero: no bias is corrected afterwards,
as a MatMul may have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from deploykit.errors import DataError, QuantizationError
from deploykit.quantize.bits import WeightBits, unknown_layer
from deploykit.quantize.block_rounding import block_integers, block_scales
from deploykit.quantize.blocking import Blocking, blocking_of
from deploykit.quantize.clipping import clipped_scales
from deploykit.quantize.compensation import compensated_weights
from deploykit.quantize.moments import InputMoments
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.weights import round_weights
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, Int8Array
from deploykit.spec.inputs import count_samples, some_samples
from deploykit.spec.linears import flattened_images, linear_weight, linears
from deploykit.spec.listing import listed
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.plan import Rounding, WeightRange
from deploykit.spec.quantized import int_range
from deploykit.spec.samples import Samples
from deploykit.spec.weight_only import (
    BITS,
    BLOCK_BITS,
    SMALLEST_BLOCK_SCALE,
    LowBitLinear,
    WeightOnlyPlan,
)

WEIGHTED = frozenset(("Conv", "ConvTranspose", "GRU", "LSTM", "RNN"))
"""Operators with weights that are no linears."""
SMALLEST_SCALE = 2.0**-100
"""Of denormal weights, whose own would be rounded off."""
ROOM = 16.0
"""How far a layer's largest scale has to lie above the smallest of a block."""
LARGEST_BLOCK_SCALE = 2.0**15
"""Half of float16's largest number."""
AT_ONCE = 16
"""Samples that are evaluated together."""

Advance = Callable[[int, int], None]


def plan_weight_only(
    network: Network,
    samples: Samples,
    options: QuantizationOptions,
    block: int | None,
    evaluate: FloatEvaluator,
    advance: Advance,
) -> WeightOnlyPlan:
    """The integers of every linear. network: canonical, in float.

    block: inputs that share a scale, None for all of an output; layers that cannot have such
    blocks (`takes_blocks`) have one scale per output.

    Raises QuantizationError where layers other than linears have weights, where the network came
    with integers of its own, or where bits or a layer's name are none that can be.
    """
    check_linears(network)
    found = linears(network)
    bits = _bits(found, options.bits)
    shared: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for name in bits:
        weight = _weight(found[name])
        key = weight.shape, hashlib.sha256(weight.tobytes()).digest()
        shared.setdefault(key, []).append(name)
    moments: Mapping[str, _Sums] = {}
    if options.rounding is Rounding.COMPENSATED:
        moments = _observed(network, {name: found[name] for name in bits}, samples, evaluate,
                            advance)  # fmt: skip
    layers = {}
    for names in shared.values():
        asked = {name: bits[name] for name in names}
        if len(set(asked.values())) > 1:
            told = " and ".join(f"{name}={each}" for name, each in asked.items())
            raise QuantizationError(f"{told}: these layers share their weights; give them the same")
        real, held = _weight(found[names[0]]), found[names[0]].inputs[1]
        assert held is not None
        known = [moments[name] for name in names] if moments else []
        size = block
        if size is not None and not all(takes_blocks(found[one], bits[one], size) for one in names):
            size = None
        values, scale = _rounded(real, bits[names[0]], size, _together(known), options.weight_range)
        for name in names:
            output = str(found[name].outputs[0].name)
            layers[name] = LowBitLinear(name, output, str(held.name), bits[name], values, scale)
    if block is not None and all(layer.block is None for layer in layers.values()):
        raise QuantizationError(
            f"--block-size {block}: no layer takes such blocks, which are for weights of "
            f"{BLOCK_BITS} bits whose inputs fill two of them or more and are not flattened from "
            f"an image; give --bits {BLOCK_BITS}, another size, or leave --block-size out"
        )
    return WeightOnlyPlan(
        {name: layers[name] for name in bits}, tuple(name for name in found if name not in bits),
        options.rounding, options.weight_range, len(samples),
    )  # fmt: skip


def takes_blocks(node: ir.Node, bits: int, size: int) -> bool:
    """Whether both formats hold a linear's weight of so many bits in blocks of inputs.

    Not where blocks do not fill the row, or one is all of it (its scale is that of the output),
    where a .tflite file may have the columns in another order, or where the weights are so small
    that float16 has no scale for them.
    """
    weight = _weight(node)
    _, highest = int_range(bits)
    largest = float(np.abs(weight).max(initial=0.0)) / highest
    return (
        bits == BLOCK_BITS
        and weight.shape[1] % size == 0
        and weight.shape[1] > size
        and not flattened_images(node)
        and ROOM * SMALLEST_BLOCK_SCALE <= largest <= LARGEST_BLOCK_SCALE
    )


def check_linears(network: Network) -> None:
    """Raise QuantizationError where weights alone cannot be what this network quantizes."""
    others = [node for node in network.model.graph if node.op_type in WEIGHTED]
    if others:
        told = listed([f"{node.name} ({node.op_type})" for node in others])
        raise QuantizationError(
            f"--activations float is for networks whose weights are all in linears, and this one "
            f"has {told}: neither runtime multiplies float32 with their integers. Leave it out: "
            "--activations int8 quantizes every layer"
        )
    if network.given.weights or network.given.activations:
        raise QuantizationError(
            "--activations float: the network came with integers of its own, whose scales go with "
            "those of its activations; leave it out to keep them"
        )
    if not linears(network):
        raise QuantizationError(
            "--activations float: the network has no MatMul or Gemm with a constant matrix, so "
            "there is no weight to quantize; leave it out"
        )


def _bits(found: Mapping[str, ir.Node], asked: WeightBits) -> dict[str, int]:
    """By layer in graph order; those in float are left out."""
    for name in (*asked.layers, *asked.in_float):
        if name not in found:
            raise QuantizationError(unknown_layer(asked.entry(name), name, list(found), ()))
    bits = {}
    for name in found:
        if name in asked.in_float:
            continue
        chosen = asked.layers.get(name, asked.default)
        if chosen is None:
            raise QuantizationError(
                f"{asked.plan} states no bits for layer {name}; add it there, or give "
                f"--layer-bits {name}=8"
            )
        if chosen not in BITS:
            raise QuantizationError(
                f"{name} in {chosen} bits: with --activations float the runtimes' kernels take "
                f"weights of {' or '.join(map(str, BITS))} bits; choose one of them, or float"
            )
        bits[name] = chosen
    if not bits:
        raise QuantizationError(
            "every layer is left in float, so that there is nothing to quantize; leave one "
            "--layer-bits NAME=float out"
        )
    return bits


class _Sums:
    """x x' of one layer's inputs, over all rows."""

    def __init__(self, inputs: int) -> None:
        self.blocking = blocking_of(np.zeros((1, inputs)), inputs)
        size = inputs // self.blocking.parts
        self.products = np.zeros((self.blocking.parts, size, size))
        self.rows = 0

    def add(self, values: AnyArray) -> None:
        """values: [..., I]"""
        rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
        if not np.isfinite(rows).all():
            raise DataError(
                "a linear's input is not finite on the calibration data; check that they are "
                "preprocessed as in training"
            )
        split = self.blocking.split_inputs(rows)
        self.products += split.transpose(0, 2, 1) @ split
        self.rows += len(rows)


def _observed(
    network: Network,
    layers: Mapping[str, ir.Node],
    samples: Samples,
    evaluate: FloatEvaluator,
    advance: Advance,
) -> dict[str, _Sums]:
    read = {name: str(node.inputs[0].name) for name, node in layers.items() if node.inputs[0]}
    watched = _watched(network, read.values())
    sums = {name: _Sums(_weight(node).shape[1]) for name, node in layers.items()}
    count = count_samples(samples.inputs)
    for start in range(0, count, AT_ONCE):
        stop = min(start + AT_ONCE, count)
        values = evaluate(watched, some_samples(samples.inputs, slice(start, stop)))
        for name, source in read.items():
            sums[name].add(values[source])
        advance(stop, count)
    return sums


def _weight(node: ir.Node) -> Float32Array:
    """[O, I] of what `linears` gave."""
    weight = linear_weight(node)
    assert weight is not None
    return weight


def _watched(network: Network, names: Iterable[str]) -> Network:
    """The same graph with these tensors as its outputs; its own inputs are there anyway."""
    model = network.model.clone()
    computed = {str(value.name): value for node in model.graph for value in node.outputs}
    model.graph.outputs[:] = [computed[name] for name in dict.fromkeys(names) if name in computed]
    return network.rewritten(model)


def _together(sums: list[_Sums]) -> InputMoments | None:
    """Of all layers that read one weight."""
    if not sums:
        return None
    products = np.sum([one.products for one in sums], axis=0)
    rows = sum(one.rows for one in sums)
    blocking: Blocking = sums[0].blocking
    return InputMoments(blocking, (products / rows).astype(np.float32), rows)


def _rounded(
    weight: Float32Array,
    bits: int,
    size: int | None,
    moments: InputMoments | None,
    chosen: WeightRange,
) -> tuple[Int8Array, Float32Array]:
    """([O, I], [O, B]) of real weights [O, I]. size: of a block; None: B = 1."""
    real: Float64Array = weight.astype(np.float64)
    if not np.isfinite(real).all():
        raise QuantizationError("a weight is not finite; train the network again")
    if size is not None:
        scales = block_scales(real, bits, size, chosen)
        return block_integers(real, scales, bits, moments), scales
    _, highest = int_range(bits)
    largest = np.abs(real).max(axis=1)
    whole = float(largest.max(initial=0.0)) or 1.0
    full = np.maximum(np.where(largest > 0, largest, whole) / highest, SMALLEST_SCALE)
    scale = full.astype(np.float32)
    if chosen is WeightRange.LEAST_ERROR:
        floor = np.full(len(scale), SMALLEST_SCALE)
        scale = clipped_scales(real, scale, floor, moments, bits)
    if moments is None:
        return round_weights(real, scale, bits), scale[:, None]
    values, scale = compensated_weights(real, scale, moments, bits)
    return values, scale[:, None]
