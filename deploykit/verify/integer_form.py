"""The float graph that the integer network follows, node by node.

`export` plans it; `verify` makes it again from model.float.onnx and holds the integers against it.
"""

from __future__ import annotations

from deploykit.graph.lowering import lower
from deploykit.quantize.sharing import separate_concats
from deploykit.quantize.whole_numbers import check_whole_inputs, check_whole_outputs
from deploykit.spec.network import Network


def integer_form(network: Network) -> Network:
    """The same function in operators that have an integer form. network: canonical.

    Raises UnsupportedOperatorError naming operator, node, and what to do.
    """
    lowered = lower(network)
    check_whole_inputs(lowered)
    check_whole_outputs(lowered)
    return separate_concats(lowered)
