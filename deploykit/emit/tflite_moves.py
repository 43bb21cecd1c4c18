"""The TFLite form of operators that join, cut, pick and repeat integers."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.emit.tflite_graph import Options, per_tensor
from deploykit.emit.tflite_lowering import reshape
from deploykit.emit.tflite_site import Site, axis_of
from deploykit.spec.operators import ArgMax, Concat, Embedding, Gather, Repeat, Slice
from deploykit.spec.quantized import Batch

WHOLE_BATCH = 1
"""endMask of a STRIDED_SLICE that takes the first axis to its end, whatever it states."""

ELEMENT_TYPES: Mapping[str, int] = {"int32": 2, "int64": 4}
"""The schema's numbers of element types."""

MOST_JOINED = 5
"""Inputs of a CONCATENATION that XNNPACK takes, in LiteRT 2.3."""


def write_concat(operator: Concat, site: Site) -> None:
    """In parts of MOST_JOINED, which XNNPACK takes at a time."""
    output = site.index[operator.output]
    axis = axis_of(site, operator.output, operator.axis)
    options = Options("ConcatenationOptions", {"axis": axis})
    held = [site.index[name] for name in operator.inputs]
    while len(held) > MOST_JOINED:
        first = tuple(held[:MOST_JOINED])
        shape = list(site.graph.tensors[output].shape)
        shape[axis] = sum(site.graph.tensors[index].shape[axis] for index in first)
        part = site.graph.like(output, f"{operator.output}/part", tuple(shape))
        site.graph.operator("CONCATENATION", first, part, options)
        held = [part, *held[MOST_JOINED:]]
    site.graph.operator("CONCATENATION", tuple(held), output, options)


def write_slice(operator: Slice, site: Site) -> None:
    """SLICE, or STRIDED_SLICE where it steps."""
    source, output = site.index[operator.input], site.index[operator.output]
    shape = site.graph.tensors[source].shape
    axis = axis_of(site, operator.input, operator.axis)
    begin, end, strides = [0] * len(shape), list(shape), [1] * len(shape)
    begin[axis], end[axis], strides[axis] = operator.start, operator.stop, operator.step
    if operator.step == 1:
        sizes = site.graph.any_batch([stop - start for start, stop in zip(begin, end, strict=True)])
        start, size = site.graph.integers("begin", begin), site.graph.integers("size", sizes)
        site.graph.operator("SLICE", (source, start, size), output, Options("SliceOptions"))
        return
    places = tuple(
        site.graph.integers(name, numbers)
        for name, numbers in (("begin", begin), ("end", end), ("strides", strides))
    )
    dynamic = site.network.batch is Batch.DYNAMIC
    options = Options("StridedSliceOptions", {"endMask": WHOLE_BATCH} if dynamic else {})
    site.graph.operator("STRIDED_SLICE", (source, *places), output, options)


def write_gather(operator: Gather, site: Site) -> None:
    """GATHER along one axis."""
    source, output = site.index[operator.input], site.index[operator.output]
    indices = site.graph.integers("indices", operator.indices)
    options = Options("GatherOptions", {"axis": axis_of(site, operator.input, operator.axis)})
    site.graph.operator("GATHER", (source, indices), output, options)


def write_embedding(operator: Embedding, site: Site) -> None:
    """GATHER of rows; a table that several operators read is stored once for each quantization."""
    into, table = site.network.tensors[operator.output].quantization, operator.table
    key = f"{table.name} {into}"
    if key not in site.constants:
        site.constants[key] = site.graph.constant(table.name, table.values, per_tensor(into))
    inputs = (site.constants[key], site.index[operator.input])
    output, options = site.index[operator.output], Options("GatherOptions", {"axis": 0})
    site.graph.operator("GATHER", inputs, output, options)


def write_arg_max(operator: ArgMax, site: Site) -> None:
    """ARG_MAX, whose result lacks the axis; the elements lie in one order with it and without."""
    source, output = site.index[operator.input], site.index[operator.output]
    axis, graph = axis_of(site, operator.input, operator.axis), site.graph
    shape, held = list(graph.tensors[source].shape), graph.tensors[output]
    del shape[axis]
    into = output
    if len(shape) != len(held.shape):
        name = f"{operator.output}/flat"
        into = graph.activation(name, tuple(shape), None, held.dtype.type)
    options = Options("ArgMaxOptions", {"outputType": ELEMENT_TYPES[held.dtype.name]})
    graph.operator("ARG_MAX", (source, graph.integers("axis", [axis])), into, options)
    if into != output:
        reshape(graph, into, output)


def write_repeat(operator: Repeat, site: Site) -> None:
    """RESIZE_NEAREST_NEIGHBOR."""
    source, output = site.index[operator.input], site.index[operator.output]
    size = site.graph.integers("size", site.graph.tensors[output].shape[1:3])
    options = Options("ResizeNearestNeighborOptions")
    site.graph.operator("RESIZE_NEAREST_NEIGHBOR", (source, size), output, options)
