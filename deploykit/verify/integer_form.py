"""The float graph that the integer network follows, node by node.

`export` plans it; `verify` makes it again from model.float.onnx and holds the integers against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.graph.lowering import lower
from deploykit.graph.lowering.first_axis import free_first_axis
from deploykit.graph.tracking import apply_pass
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.denominators import separate_denominators
from deploykit.quantize.in_float import leave_in_float
from deploykit.quantize.separate_grids import separate_grids
from deploykit.quantize.sharing import separate_concats
from deploykit.quantize.whole_numbers import check_whole_inputs, check_whole_outputs
from deploykit.spec.network import Network
from deploykit.spec.quantized import Batch

PASSING = frozenset(("Dropout", "Identity"))
"""Operators that hand an input on to an output; between other tensors none is left."""


def integer_form(network: Network, batch: Batch = Batch.FIXED) -> Network:
    """The same function in operators that have an integer form. network: canonical.

    batch: of the files; where it is dynamic, nothing is cut along axis 0.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    _check_outputs(network)
    lowered = lower(network)
    if batch is Batch.DYNAMIC:
        lowered = apply_pass("free_first_axis", free_first_axis, lowered)
    check_whole_inputs(lowered)
    check_whole_outputs(lowered)
    return separate_concats(separate_grids(separate_denominators(lowered)))


def planned_form(network: Network, plan: Mapping[str, Any]) -> Network:
    """`integer_form` as a plan.json has it: for its batch, with the layers left in float marked.

    Raises UnsupportedOperatorError, or QuantizationError where it names layers that are not there.
    """
    lowered = integer_form(network, Batch(plan["network"]["batch"]))
    names = [str(name) for name in plan.get("in_float", ())]
    stated = WeightBits(stated={name: f"plan.json: in_float lists {name}" for name in names})
    return leave_in_float(lowered, names, stated)


def _passed_on(value: ir.Value) -> ir.Value:
    """What an Identity or Dropout hands on, or the value itself."""
    node = value.producer()
    while node is not None and node.op_type in PASSING and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _check_outputs(network: Network) -> None:
    """Each is a tensor of its own that the network computes: a port has integers behind it."""
    graph = network.model.graph
    for index, value in enumerate(graph.outputs):
        source = _passed_on(value)
        if source.producer() is not None and value not in graph.outputs[:index]:
            continue
        if source.producer() is not None:
            why = "is there twice, under two names in the source: return it once"
        elif source in graph.inputs and source.name not in graph.initializers:
            why = f"is the input {source.name!r} as it is: the app has it already; leave it out"
        else:
            why = "depends on no input: it is a constant; leave it out"
        raise UnsupportedOperatorError(f"the network's output {value.name!r} {why}")
