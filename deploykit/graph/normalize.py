"""The float graph's fixed sequence of passes between capture and removal."""

from __future__ import annotations

from deploykit.graph.passes.batchnorm import fold_batchnorm
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
    ("simplify", simplify),
    ("canonicalize", canonicalize),
)
"""Our own folding goes before onnxsim: it would fold gates and rename, and lose the variances."""


def normalize(network: Network) -> Network:
    """Run every pass in order, each checked for what it does to variances."""
    for name, rewrite in PASSES:
        network = apply_pass(name, rewrite, network)
    return network
