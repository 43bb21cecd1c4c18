"""A convolution of stride 2 over an image as SpaceToDepth(2) and a smaller one of stride 1.

With k - p = 2m + i, where p is the pad in front and i is 0 or 1, along each axis:

    y[o] = sum over k of w[k] * x[2*o + k - p] = sum over m, i of w[2m + i + p] * x[2*(o + m) + i]

and x[2*o + i] is what SpaceToDepth calls channel i at o. Padded positions hold the zero point in
both, so the integers are the same. Kernels run through input channels, of which an image has three
and twelve use them better, though the smaller kernel multiplies zeros too.

Microseconds of both forms at 224x224, int8 (benchmarks/kernels.py):

                        ONNX Runtime           LiteRT
    kernel, outputs     as it is   blocks      as it is   blocks
    3x3, 16                  357      233           122      163
    3x3, 32                  433      284           211      245
    3x3, 64                  573      406           393      413
    4x4, 32                  494      288           313      250
    5x5, 32                  625      403           431      383
    7x7, 64                 1245      974          1503     1073
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray, IntArray
from deploykit.spec.carriers import Version
from deploykit.spec.oldest import UINT8_SINCE
from deploykit.spec.operators import Conv, Operator, SpaceToDepth, Window, operator_inputs
from deploykit.spec.quantized import ActivationTensor, QuantizedNetwork

BLOCK = 2

BLOCKS_FORM = "SpaceToDepth, Conv"

MOST_CHANNELS = 4
"""Of a tensor that counts as an image."""


class Runtime(Enum):
    """For which a form is chosen."""

    ONNXRUNTIME = "onnxruntime"
    LITERT = "litert"


FEWEST_TAPS: Mapping[Runtime, int] = {Runtime.ONNXRUNTIME: 1, Runtime.LITERT: 16}
"""Kernel positions from which blocks are faster."""


@dataclass(frozen=True)
class Blocks:
    """rows, columns: [i, m], an index into the kernel's axis, or -1 for a zero. window: smaller."""

    rows: IntArray
    columns: IntArray
    window: Window


def blocks_of(window: Window, source: tuple[int, ...], groups: int) -> Blocks | None:
    """The smaller convolution of one over [N, C, H, W]; None where it is none over blocks."""
    if len(source) != 4 or source[1] > MOST_CHANNELS or groups != 1:
        return None
    if window.strides != (BLOCK, BLOCK) or window.dilations != (1, 1):
        return None
    top, left, bottom, right = window.pads
    rows = _axis(source[2], window.kernel[0], top, bottom)
    columns = _axis(source[3], window.kernel[1], left, right)
    if rows is None or columns is None:
        return None
    (down, above, below), (across, before, behind) = rows, columns
    kernel = (down.shape[1], across.shape[1])
    return Blocks(down, across, Window(kernel, pads=(above, before, below, behind)))


def as_blocks(weight: AnyArray, blocks: Blocks) -> AnyArray:
    """[O, C, kh, kw] -> [O, 4*C, taps down, taps across]; channel (i*2 + j)*C + c is pixel i, j."""
    wide = np.pad(weight, ((0, 0), (0, 0), (0, 1), (0, 1)))  # index -1 is a zero
    parts = [
        wide[:, :, down[:, None], across[None, :]]
        for down in blocks.rows
        for across in blocks.columns
    ]
    return np.concatenate(parts, axis=1)


def chosen_blocks(
    window: Window,
    source: tuple[int, ...],
    groups: int,
    runtime: Runtime,
    min_ort: Version | None = None,
) -> Blocks | None:
    """The same where they are faster in a runtime, and every release of it that counts has them."""
    old = min_ort is not None and min_ort < UINT8_SINCE[SpaceToDepth]
    if old and runtime is Runtime.ONNXRUNTIME:
        return None
    if window.kernel[0] * window.kernel[1] < FEWEST_TAPS[runtime]:
        return None
    return blocks_of(window, source, groups)


def stems_as_blocks(
    network: QuantizedNetwork, runtime: Runtime
) -> tuple[QuantizedNetwork, Mapping[str, str]]:
    """The network as a runtime's file holds it, and by their outputs what its stems were."""
    tensors = dict(network.tensors)
    operators: list[Operator] = []
    stated: dict[str, str] = {}
    for operator in network.operators:
        blocks = None
        if isinstance(operator, Conv):
            source = network.tensors[operator.input]
            place = (operator.window, source.shape, operator.groups)
            blocks = chosen_blocks(*place, runtime, network.min_ort)
        if not isinstance(operator, Conv) or blocks is None:
            operators.append(operator)
            continue
        name = f"{operator.output}/blocks"
        while name in tensors:
            name += "_"
        batch, channels, height, width = source.shape
        deep = (batch, BLOCK * BLOCK * channels, height // BLOCK, width // BLOCK)
        tensors[name] = ActivationTensor(name, deep, source.quantization)
        weight = replace(operator.weight, values=as_blocks(operator.weight.values, blocks))
        operators.append(SpaceToDepth(f"{operator.name}/blocks", operator.input, name, BLOCK))
        operators.append(replace(operator, input=name, weight=weight, window=blocks.window))
        stated[operator.output] = stated_window(operator.window)
    if not stated:
        return network, stated
    return replace(network, tensors=tensors, operators=tuple(operators)), stated


def stem_forms(network: QuantizedNetwork) -> dict[str, dict[str, str]]:
    """By output of every convolution that has two forms, the one that each runtime's file has."""
    forms: dict[str, dict[str, str]] = {}
    for operator in network.operators:
        if not isinstance(operator, Conv):
            continue
        place = (operator.window, network.tensors[operator.input].shape, operator.groups)
        if blocks_of(*place) is not None:
            forms[operator.output] = {
                runtime.value: "Conv"
                if chosen_blocks(*place, runtime, network.min_ort) is None
                else BLOCKS_FORM
                for runtime in Runtime
            }
    return forms


def stated_window(window: Window) -> str:
    """Kernel and pads, which blocks do not say: an outer row of a kernel may be zeros."""
    return ",".join(map(str, (*window.kernel, *window.pads)))


def stems_from_blocks(network: QuantizedNetwork, stated: Mapping[str, str]) -> QuantizedNetwork:
    """What `stems_as_blocks` undoes, in a network that was read from a file.

    Raises GraphError where the file's operators are not what it states.
    """
    if not stated:
        return network
    makers = {operator.output: operator for operator in network.operators}
    whole: dict[str, Conv] = {}
    for output, text in stated.items():
        small = makers.get(output)
        deep = makers.get(small.input) if isinstance(small, Conv) else None
        if not isinstance(small, Conv) or not isinstance(deep, SpaceToDepth):
            raise GraphError(
                f"The file states that {output!r} is a convolution over blocks of pixels, and it "
                "is none; write the file again."
            )
        whole[output] = _joined(small, deep, network, text)
    gone = {makers[output].input for output in whole}  # type: ignore[union-attr]
    read = [
        name
        for operator in network.operators
        if operator.output not in whole
        for name in operator_inputs(operator)
    ]
    if gone.intersection([*read, *(port.tensor for port in network.outputs)]):
        raise GraphError(
            "Blocks of pixels that the file states to be a stem's are read by others too; write "
            "the file again."
        )
    return replace(
        network,
        tensors={name: tensor for name, tensor in network.tensors.items() if name not in gone},
        operators=tuple(
            whole.get(operator.output, operator)
            for operator in network.operators
            if operator.output not in gone
        ),
    )


def _joined(small: Conv, deep: SpaceToDepth, network: QuantizedNetwork, text: str) -> Conv:
    """One convolution of stride 2 whose kernel and pads the file states."""
    try:
        height, width, *pads = (int(part) for part in text.split(","))
        top, left, bottom, right = pads
    except ValueError as error:
        raise GraphError(
            f"The window {text!r} that the file states for {small.output!r} is none ({error}); "
            "write the file again."
        ) from error
    window = Window((height, width), (BLOCK, BLOCK), (top, left, bottom, right))
    source = network.tensors[deep.input].shape
    blocks = blocks_of(window, source, small.groups)
    held = small.weight.values
    if blocks is None or deep.block != BLOCK or blocks.window != small.window:
        raise GraphError(
            f"The window {text!r} that the file states for {small.output!r} does not make its "
            "blocks; write the file again."
        )
    values = np.zeros((len(held), source[1], height, width), held.dtype)
    for pixel, (i, j) in enumerate(np.ndindex(BLOCK, BLOCK)):
        part = held[:, pixel * source[1] : (pixel + 1) * source[1]]
        for m, n in np.ndindex(*blocks.window.kernel):
            row, column = blocks.rows[i, m], blocks.columns[j, n]
            if min(row, column) >= 0:
                values[:, :, row, column] = part[:, :, m, n]
            elif part[:, :, m, n].any():
                raise GraphError(
                    f"{small.output!r} has weights outside of the window {text!r} that the file "
                    "states; write the file again."
                )
    weight = replace(small.weight, values=values)
    return replace(small, input=deep.input, weight=weight, window=window)


def _axis(source: int, kernel: int, begin: int, end: int) -> tuple[IntArray, int, int] | None:
    """Taps and both pads along one axis; None where blocks at an end would be read by nobody."""
    if source % BLOCK:
        return None
    result = (source + begin + end - kernel) // BLOCK + 1
    first, last = -begin // BLOCK, (kernel - 1 - begin) // BLOCK
    places = BLOCK * np.arange(first, last + 1) + np.arange(BLOCK)[:, None] + begin
    taps = np.where((places >= 0) & (places < kernel), places, -1)
    behind = result - 1 + last - (source // BLOCK - 1)
    return None if behind < 0 or first > 0 else (taps, -first, behind)
