"""Which operators of a .tflite file are the inside of an island or a rearrangement.

    island       whatever computes a float tensor that a QUANTIZE rounds, back to DEQUANTIZEs
    rearranged   whatever leads from one int8 tensor to another, where the file's metadata says so

The reader takes them as a whole: what they compute is the float graph's matter, and is proved by
running them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploykit.emit.tflite_parts import FileOperator, FileTensor, TfliteFile
from deploykit.emit.tflite_views import Order, ReaderState, operand
from deploykit.errors import GraphError
from deploykit.spec.operators import Island, Rearrange

REARRANGING = frozenset(("RESHAPE", "TRANSPOSE"))


@dataclass(frozen=True)
class FileRegion:
    """kind: of the operator. sources: the int8 tensors that it reads. inner: positions inside."""

    kind: type[Island] | type[Rearrange]
    sources: tuple[FileTensor, ...]
    inner: frozenset[int]


def find_regions(file: TfliteFile) -> Mapping[int, FileRegion]:
    """By position of the operator that gives the region's result."""
    makers = {tensor.index: one for one in file.operators for tensor in one.outputs}
    ports = {port.tensor.index for port in file.inputs}
    found: dict[int, FileRegion] = {}
    for operator in file.operators:
        source = operator.inputs[0] if operator.inputs else None
        rounded = operator.code == "QUANTIZE" and source is not None
        if rounded and source is not None and source.dtype == np.float32:
            if source.index not in ports:
                found[operator.position] = _island(operator, makers)
        elif operator.outputs[0].name in file.rearranged:
            start = file.rearranged[operator.outputs[0].name]
            found[operator.position] = _rearranged(operator, makers, start)
    return found


def read_region(state: ReaderState, operator: FileOperator, region: FileRegion) -> None:
    """The region as one operator; its result has the order that integer tensors have."""
    views = []
    for tensor in region.sources:
        if tensor.index in state.waiting:
            state.resolve(tensor, state.waiting[tensor.index], Order.NHWC)
        if tensor.index not in state.views:
            raise operator.refuse(f"it reads {tensor.name!r}, which nothing before it computes.")
        views.append(state.own_pads(state.own_shape(state.views[tensor.index])))
    shape, order = operator.output.shape, Order.FLAT
    if len(shape) == 4:
        batch, height, width, channels = shape
        shape, order = (batch, channels, height, width), Order.NHWC
    result = state.define(operator.output, shape, order)
    names = tuple(view.tensor.name for view in views)
    if region.kind is Island:
        state.operators.append(Island(result.name, names, result.name, None))
    else:
        state.operators.append(Rearrange(result.name, names[0], result.name, None))


def _island(quantize: FileOperator, makers: Mapping[int, FileOperator]) -> FileRegion:
    inner: set[int] = set()
    sources: dict[int, FileTensor] = {}
    waiting = [operand(quantize, 0)]
    while waiting:
        tensor = waiting.pop()
        if tensor.values is not None:
            continue
        maker = makers.get(tensor.index)
        if maker is None:
            raise quantize.refuse(f"its values come from {tensor.name!r}, which nothing computes.")
        if maker.position in inner:
            continue
        inner.add(maker.position)
        if maker.code != "DEQUANTIZE":
            waiting.extend(read for read in maker.inputs if read is not None)
        elif operand(maker, 0).values is None:
            sources[operand(maker, 0).index] = operand(maker, 0)
    return FileRegion(Island, tuple(sources.values()), frozenset(inner))


def _rearranged(last: FileOperator, makers: Mapping[int, FileOperator], start: str) -> FileRegion:
    inner: set[int] = set()
    operator = last
    while True:
        source = operand(operator, 0)
        if operator.code not in REARRANGING:
            raise last.refuse(f"{operator.code} computes, where the file says it rearranges.")
        if source.name == start:
            return FileRegion(Rearrange, (source,), frozenset(inner))
        if source.index not in makers:
            raise GraphError(
                f"Tensor {last.output.name!r} does not come from {start!r}, as the file's metadata "
                "says; write it again."
            )
        operator = makers[source.index]
        inner.add(operator.position)
