"""Compute what depends on constants alone, and hold every constant as an initializer."""

from __future__ import annotations

import onnx_ir.passes.common as common
from onnxscript import optimizer

from deploykit.graph.edit import drop_unused_initializers
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network


def fold_constants(network: Network) -> Rewritten:
    """Exporters compute zero biases, shapes and axes by small subgraphs; they become initializers.

    A product of two parameters (a gate spelled out in the forward) becomes a new initializer, and
    the factors are dropped where nobody else reads them.
    """
    model = network.model.clone()
    optimizer.fold_constants(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    drop_unused_initializers(model.graph)
    kept = {name: v for name, v in network.variance.items() if name in model.graph.initializers}
    dropped = frozenset(network.variance) - frozenset(kept)
    return Rewritten(Network(model, kept), dropped=dropped)
