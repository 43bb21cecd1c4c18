"""Whole numbers that enter or leave a network: what may read and compute them, as what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploykit.errors import UnsupportedOperatorError
from deploykit.quantize.histogram import Histogram, empty_histogram, observe
from deploykit.quantize.nodes import arg_axis, parameter
from deploykit.quantize.operators import Kind, kind_of
from deploykit.quantize.structure import Layer
from deploykit.spec.network import Network, static_shape
from deploykit.spec.operators import IntegerTable
from deploykit.spec.quantized import IndexTensor, Quantization
from deploykit.spec.whole_numbers import (
    answer_of,
    readers_of_ids,
    row_counts,
    whole_inputs,
    whole_outputs,
)

FORM = (
    "deploykit takes whole numbers [batch] or [batch, tokens] as rows of a constant table [rows, "
    "columns] (an embedding)"
)


def check_whole_inputs(network: Network) -> None:
    """Raise UnsupportedOperatorError where something but an embedding reads an input of ids."""
    for value in whole_inputs(network):
        for node, _ in readers_of_ids(value):
            if kind_of(node) is not Kind.EMBEDDING:
                raise UnsupportedOperatorError(
                    f"{node.name}: operator {node.op_type} reads the whole numbers of the input "
                    f"{value.name!r} {list(static_shape(value) or ())}; {FORM}. Compute the rest "
                    "in the app, or make it a float32 input"
                )
        if not value.uses():
            raise UnsupportedOperatorError(
                f"nothing reads the whole numbers of the input {value.name!r}; leave it out"
            )


def check_whole_outputs(network: Network) -> None:
    """Raise UnsupportedOperatorError where an ArgMax is none that the runtimes have on integers."""
    for node in network.model.graph:
        if node.op_type == "ArgMax" and kind_of(node) is None:
            raise UnsupportedOperatorError(
                f"{node.name}: operator ArgMax has an integer form at the end of a network alone, "
                "as int64 or int32, for the first of the largest entries, and along the channels "
                "where it is of images. Write it so, or end the network before it"
            )


def index_tensors(network: Network) -> dict[str, IndexTensor]:
    """By input or output of whole numbers; called as the graph calls it."""
    rows, found = row_counts(network), {}
    for value in whole_inputs(network):
        name, limit = str(value.name), rows[str(value.name)]
        assert limit is not None and value.dtype is not None
        shape, element = static_shape(value) or (), value.dtype.numpy().name
        found[name] = IndexTensor(name, shape, limit, element)
    for value in whole_outputs(network):
        name, node = str(value.name), answer_of(value)
        assert node is not None and value.dtype is not None
        entries = (static_shape(node.inputs[0]) or ())[arg_axis(node)]
        element = value.dtype.numpy().name
        found[name] = IndexTensor(name, static_shape(value) or (), entries, element)
    return found


def table_histograms(layers: Sequence[Layer]) -> Mapping[str, Histogram]:
    """By output of an embedding: of its whole table, as any row may be asked for."""
    return {
        layer.output: observe(empty_histogram(), parameter(layer.nodes[0], 0))
        for layer in layers
        if layer.kind is Kind.EMBEDDING
    }


def integer_table(layer: Layer, into: Quantization) -> IntegerTable:
    """Every number of an embedding's table, to the nearest integer of its output."""
    value = layer.nodes[0].inputs[0]
    assert value is not None and value.const_value is not None
    return IntegerTable(str(value.name), into.quantize(value.const_value.numpy()))
