"""The float graph's fixed sequence of passes between capture and removal."""

from __future__ import annotations

import onnx_ir as ir

from deploykit.errors import UnsupportedOperatorError
from deploykit.graph.edit import label
from deploykit.graph.passes.batchnorm import fold_batchnorm
from deploykit.graph.passes.bounds import merge_bounds
from deploykit.graph.passes.canonical import canonicalize
from deploykit.graph.passes.constants import fold_constants
from deploykit.graph.passes.scales import fold_channel_scales
from deploykit.graph.passes.simplify import simplify
from deploykit.graph.tracking import Pass, apply_pass
from deploykit.spec.network import Network

PASSES: tuple[tuple[str, Pass], ...] = (
    ("fold_constants", fold_constants),
    ("fold_batchnorm", fold_batchnorm),
    ("fold_channel_scales", fold_channel_scales),
    ("fold_batchnorm_behind_scales", fold_batchnorm),
    ("simplify", simplify),
    ("canonicalize", canonicalize),
    ("merge_bounds", merge_bounds),
)
"""Our own folding goes before onnxsim: it would fold gates and rename, and lose the variances."""


GRAPHS = frozenset((ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS))


def normalize(network: Network) -> Network:
    """Run every pass in order, each checked for what it does to variances.

    Raises UnsupportedOperatorError where a node holds graphs of its own.
    """
    for node in network.model.graph:
        if any(one.type in GRAPHS for one in node.attributes.values()):
            raise UnsupportedOperatorError(
                f"{node.op_type} {label(node)!r} chooses between graphs at run time; export the "
                "network without control flow"
            )
    for name, rewrite in PASSES:
        network = apply_pass(name, rewrite, network)
    return network
