"""The float graph that the integer network follows, node by node.

`export` plans it; `verify` makes it again from model.float.onnx and holds the integers against it.
"""

from __future__ import annotations

from deploykit.errors import UnsupportedOperatorError
from deploykit.graph.lowering import lower
from deploykit.quantize.denominators import separate_denominators
from deploykit.quantize.sharing import separate_concats
from deploykit.quantize.whole_numbers import check_whole_inputs, check_whole_outputs
from deploykit.spec.network import Network


def integer_form(network: Network) -> Network:
    """The same function in operators that have an integer form. network: canonical.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    _check_outputs(network)
    lowered = lower(network)
    check_whole_inputs(lowered)
    check_whole_outputs(lowered)
    return separate_concats(separate_denominators(lowered))


def _check_outputs(network: Network) -> None:
    """Each is a tensor of its own that the network computes: a port has integers behind it."""
    graph = network.model.graph
    for index, value in enumerate(graph.outputs):
        if value.producer() is not None and value not in graph.outputs[:index]:
            continue
        if value.producer() is not None:
            why = "is there twice, under two names in the source: return it once"
        elif value in graph.inputs and value.name not in graph.initializers:
            why = "is one of the inputs as it is: the app has it already; leave it out"
        else:
            why = "depends on no input: it is a constant; leave it out"
        raise UnsupportedOperatorError(f"the network's output {value.name!r} {why}")
