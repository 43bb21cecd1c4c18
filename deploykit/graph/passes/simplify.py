"""onnxsim, kept away from everything that would rename or rewrite a weight with a variance."""

from __future__ import annotations

import onnx_ir as ir
import onnxsim

from deploykit.errors import GraphError
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network


def simplify(network: Network) -> Rewritten:
    """Shape inference, dead code and identities by onnxsim 0.8.

    It runs after our own folding, so that no batch norm or gate is left for it to fold. It merges
    initializers of equal content under one of their names; where that takes away a name that has a
    variance, `apply_pass` would refuse, so those merges are undone here by keeping our weights.
    """
    proto = ir.to_proto(network.model)
    simplified, equal = onnxsim.simplify(proto, skip_fuse_bn=True)
    if not equal:
        raise GraphError("onnxsim changed what the network computes; please report the model")
    model = ir.from_proto(simplified)
    model.producer_name, model.producer_version = "deploykit", ""
    lost = [name for name in network.variance if name not in model.graph.initializers]
    if lost:
        # Equal initializers were merged: the graph before is already folded and legal.
        return Rewritten(network)
    return Rewritten(Network(model, dict(network.variance)))
