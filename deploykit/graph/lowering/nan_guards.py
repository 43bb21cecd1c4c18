"""A softmax that exporters guard against rows without a single score, where there are none.

    where(isnan(p), 0, p) = p        p = softmax(s), s = t + k or min(t, k)

with a constant k that is finite at one place of each row at least: only a row of nothing but minus
infinity has no softmax. torch writes the guard behind scaled_dot_product_attention with a mask of
booleans.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import attribute_int, bypass, floats, readers
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.network import Network, static_shape

MASKING = frozenset({"Add", "Min"})
LONGEST = 16
"""Nodes between a mask and the product of queries and keys; more are none that exporters write."""


def drop_nan_guards(network: Network) -> Rewritten:
    """Remove each such Where, and its IsNaN."""
    if not any(_guarded(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    for node in list(model.graph):
        softmax = _guarded(node)
        if softmax is None:
            continue
        test = node.inputs[0].producer() if node.inputs[0] is not None else None
        bypass(model.graph, node, softmax.outputs[0])
        if test is not None and not readers(test.outputs[0]):
            model.graph.remove(test, safe=True)
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def _guarded(node: ir.Node) -> ir.Node | None:
    """The Softmax behind a guard that never replaces anything."""
    if node.op_type != "Where":
        return None
    test, _, kept = (None if value is None else value.producer() for value in node.inputs)
    if test is None or kept is None or test.op_type != "IsNaN" or kept.op_type != "Softmax":
        return None
    alike = test.inputs[0] is node.inputs[2]
    return kept if alike and _has_scores(kept) else None


def _has_scores(softmax: ir.Node) -> bool:
    """Whether every row of a softmax has a score: one mask at most is infinite, never in a row."""
    source, shape = softmax.inputs[0], static_shape(softmax.inputs[0])
    if source is None or shape is None:
        return False
    infinite = 0
    for _ in range(LONGEST):
        maker = source.producer()
        computed = [] if maker is None else [v for v in maker.inputs if v and floats(v) is None]
        if maker is None or len(computed) != 1:
            return infinite <= 1
        for held in (array for value in maker.inputs if (array := floats(value)) is not None):
            if np.isfinite(held).all():
                continue
            axis = attribute_int(softmax, "axis", -1)
            rows = np.broadcast_to(held, shape) if maker.op_type in MASKING else None
            if rows is None or np.isnan(rows).any() or np.isneginf(rows.max(axis=axis)).any():
                return False
            infinite += 1
        source = computed[0]
    return False
