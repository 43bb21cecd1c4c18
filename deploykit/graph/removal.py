"""Remove dead and constant channels, and prove that the function stayed the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from deploykit.errors import RemovalError
from deploykit.graph.certificate import certify
from deploykit.graph.channels.liveness import Liveness, analyse
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.passing import Depthwise
from deploykit.graph.channels.rule import Kept, activations
from deploykit.graph.cost import totals
from deploykit.graph.edit import label, set_channels
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.removal import Reason, RemovalReport, RemovedChannel, TensorRemoval

MAX_RELATIVE = 1e-5
"""Largest accepted relative difference between masked and pruned, in float64 evaluation."""


def remove_dead_channels(
    network: Network, evaluate: FloatEvaluator
) -> tuple[Network, RemovalReport]:
    """The same function with fewer channels, and a report with the measured difference.

    `evaluate` computes both graphs for the certificate (float64 reference).

    Raises RemovalError where masked and pruned differ by more than MAX_RELATIVE.
    """
    found = analyse(network.model.graph)
    pruned = apply_pass("remove_dead_channels", lambda before: _apply(before, found), network)
    certificate = certify(network, pruned, evaluate)
    parameters_before, macs_before = totals(network.model)
    parameters_after, macs_after = totals(pruned.model)
    report = RemovalReport(
        _tensors(network.model.graph, found),
        parameters_before,
        parameters_after,
        macs_before,
        macs_after,
        dict(found.range_growth),
        found.borders,
        certificate,
    )
    if not certificate.max_relative <= MAX_RELATIVE:
        raise RemovalError(
            f"removing channels changed the network by {certificate.max_relative:.2e} of its "
            f"largest output, more than {MAX_RELATIVE:g}; this is a defect of deploykit: please "
            "report it, and export with --prune-rule none meanwhile"
        )
    return pruned, report


def _apply(network: Network, found: Liveness) -> Rewritten:
    model = network.model.clone()
    affine = Affine(model.graph, dict(network.variance))
    for before, node in zip(network.model.graph, model.graph, strict=True):
        rule = found.rules[before]
        if rule is None:
            continue
        sources = [str(value.name) for value in activations(node)]
        output = str(node.outputs[0].name)
        merge = found.merges.get(sources[0])
        merged = {} if merge is None else {j: (merge.into, r) for j, r in merge.ratio.items()}
        rule.shrink(
            affine,
            node,
            Kept(
                [found.kept(name) for name in sources],
                found.kept(output),
                [found.constants[name] for name in sources],
                found.constants[output],
                {} if rule.absorbs(node) else merged,
            ),
        )
    for node in model.graph:
        for value in node.outputs:
            if str(value.name) in found.atoms:
                set_channels(value, len(found.kept(str(value.name))))
    return affine.finish(network, model)


def _tensors(graph: ir.Graph, found: Liveness) -> tuple[TensorRemoval, ...]:
    """One entry per tensor that a weight produces: there a channel begins."""
    removals = []
    for node in graph:
        if not isinstance(found.rules[node], Mixing | Depthwise):
            continue
        tensor = str(node.outputs[0].name)
        kept = found.kept(tensor)
        before = len(found.atoms[tensor])
        gone = np.setdiff1d(np.arange(before), kept)
        removed = tuple(_why(graph, found, tensor, int(channel)) for channel in gone)
        removals.append(TensorRemoval(tensor, label(node), before, len(kept), removed))
    return tuple(removals)


def _why(graph: ir.Graph, found: Liveness, tensor: str, channel: int) -> RemovedChannel:
    """The reason, judged where the channel is read: after relu and pooling, not before.

    Whoever reads a channel that went found it constant there.
    """
    atom = int(found.atoms[tensor][channel])
    zero = False
    for node in graph:
        rule = found.rules[node]
        if not isinstance(rule, Mixing):
            continue
        source = str(activations(node)[0].name)
        read = found.read(node)
        for index in np.flatnonzero(read & (found.atoms[source] == atom)):
            value = float(found.constants[source][index])
            merge = found.merges.get(source)
            if value != 0.0 and merge is not None and int(index) in merge.ratio:
                return RemovedChannel(channel, Reason.COLLAPSED, value, merge.into)
            if value != 0.0 and rule.absorbs(node):
                return RemovedChannel(channel, Reason.FOLDED, value)
            zero = True
    return (
        RemovedChannel(channel, Reason.ZERO, 0.0)
        if zero
        else RemovedChannel(channel, Reason.UNREAD)
    )
