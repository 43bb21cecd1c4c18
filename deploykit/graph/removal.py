"""Remove dead and constant channels, and prove that the function stayed the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from deploykit.errors import RemovalError
from deploykit.graph.certificate import certify
from deploykit.graph.channels.collapse import Limits
from deploykit.graph.channels.cutting import NotArrangedError, Step, cut
from deploykit.graph.channels.liveness import Liveness, analyse
from deploykit.graph.cost import totals
from deploykit.graph.cut import Cut, split_gains
from deploykit.graph.options import Groups, Measured, MultipleOf, RemovalOptions
from deploykit.graph.own_types import in_own_types
from deploykit.graph.passes.groups import (
    NO_PARTS,
    Parts,
    is_grouped,
    join_groups,
    split_groups,
)
from deploykit.graph.passes.narrow import narrow_layers
from deploykit.graph.passes.reorder import order_channels
from deploykit.graph.passes.widen import widen_blocks
from deploykit.graph.removal_report import describe
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.graph.widths.table import WidthTable
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.removal import (
    NarrowedLayer,
    RemovalReport,
    WidenedBlock,
)

MAX_RELATIVE = 1e-9
"""Largest accepted relative difference between masked and pruned, in float64 evaluation."""

MOST_LEFT = 0.75
"""Of a grouped convolution's MACs: where splitting it leaves more, its copies cost what it saves.

Three ResNeXt blocks of 128 channels, 14 and 28 pixels, 4 to 32 groups, on x86: at 0.47 to 0.72 of
the MACs, ONNX Runtime 1.32 takes 0.58 to 0.73 of the time and LiteRT 2.3 0.68 to 0.86; at 0.74,
0.87 to 1.04; at 0.80 to 0.96, 0.90 to 1.21.
"""

LEAST_SAVED = 10_000
"""MACs that every convolution has to save which a grouped one becomes: about what a call costs.

On x86 at half of the MACs: 64 groups that save 4,000 to 7,000 each take 1.2 to 1.3 times as long,
32 groups that save 14,000 each less than before.
"""

MAX_ROUNDED = 1e-5
"""The same where the pruned numbers are rounded to the network's own element type."""


def remove_dead_channels(
    network: Network,
    evaluate: FloatEvaluator,
    options: RemovalOptions | None = None,
    ranges: Mapping[str, float] | None = None,
) -> tuple[Network, RemovalReport]:
    """The same function with fewer channels, and a report with the measured difference.

    `evaluate` computes the graphs for the certificate (float64 reference). ranges: the largest
    magnitude of each tensor where it is going to be quantized; constants that merge stay below it.

    Raises RemovalError where masked and pruned differ by more than MAX_RELATIVE.
    """
    made = cut_channels(network, options or RemovalOptions(), ranges)
    certificate = certify(network, made.exact, made.pruned, evaluate, made.rest_of)
    report = describe(network, made, certificate)
    if not certificate.max_relative <= MAX_RELATIVE or not certificate.rounded <= MAX_ROUNDED:
        worst = max(certificate.max_relative, certificate.rounded)
        raise RemovalError(
            f"removing channels changed the network by {worst:.2e} of its largest output, more "
            f"than {MAX_RELATIVE:g} (rounded: {MAX_ROUNDED:g}); this is a defect of deploykit: "
            "please report it, and export with --prune-rule none meanwhile"
        )
    return made.pruned, report


def cut_channels(
    network: Network, options: RemovalOptions, ranges: Mapping[str, float] | None = None
) -> Cut:
    """Analyse and cut, until nothing is left to go; nothing is evaluated.

    Of the ways that the options leave open for grouped convolutions, the smallest result.

    What is left of a channel shuffle is a Gather; channels are ordered so that it vanishes.
    """
    made = _cut(network, network, options, ranges or {}, NO_PARTS)
    if options.groups is Groups.SPLIT and any(is_grouped(node) for node in network.model.graph):
        made = _split(network, options, ranges or {}, made)
    if options.align is not None:
        exact, added = _widened(made.exact, options.align)
        made = replace(made, exact=exact, pruned=in_own_types(network, exact), added=added)
    if options.narrow is not None:
        exact, narrowed = _narrowed(made.exact, options.narrow)
        made = replace(made, exact=exact, pruned=in_own_types(network, exact), narrowed=narrowed)
    return made


def _split(
    network: Network, options: RemovalOptions, ranges: Mapping[str, float], equal: Cut
) -> Cut:
    """The cut with those convolutions split that become much smaller by it.

    Never one with more MACs, or with more copies along channels, than with equal groups.
    """
    everywhere = _cut_apart(network, options, ranges, None)
    gains = split_gains(everywhere)
    smaller = frozenset(
        layer
        for layer, gain in gains.items()
        if gain.share <= MOST_LEFT and gain.saved >= LEAST_SAVED * gain.nodes
    )
    if not smaller:
        return equal
    made = everywhere
    if len(smaller) < len(gains):
        made = _cut_apart(network, options, ranges, smaller)
    worse = _gathers(made) > _gathers(equal) or _macs(made) >= _macs(equal)
    return equal if worse else made


def _macs(made: Cut) -> int:
    return totals(made.exact.model)[1]


def _gathers(made: Cut) -> int:
    """Copies along channels that groups need where their input is read by others too."""
    return sum(node.op_type == "Gather" for node in made.exact.model.graph)


def _cut_apart(
    network: Network,
    options: RemovalOptions,
    ranges: Mapping[str, float],
    layers: frozenset[str] | None,
) -> Cut:
    """layers: grouped convolutions that are split, None for all."""
    parts = NO_PARTS

    def rewrite(before: Network) -> Rewritten:
        nonlocal parts
        rewritten, parts = split_groups(before, layers)
        return rewritten

    apart = apply_pass("split_groups", rewrite, network)
    return _cut(network, apart, options, ranges, parts)


def _cut(
    network: Network,
    apart: Network,
    options: RemovalOptions,
    ranges: Mapping[str, float],
    parts: Parts,
) -> Cut:
    """apart: `network`, with its groups taken to these parts."""
    whole: set[str] = set()
    unarranged: list[str] = []
    steps: list[Step] = []
    exact = apart
    limits = Limits(options.max_growth, ranges, frozenset(network.given.weights))
    # Groups that are apart come together again: only then do widths say anything.
    align = None if parts.made else options.align
    while True:
        found = analyse(exact.model.graph, options.dead_outputs, whole, align, limits)
        if steps and found.kept.all() and not steps[-1].simplified:
            break
        try:
            less, step = _apply(exact, found)
        except NotArrangedError as refused:
            if whole.issuperset(refused.tensors):
                raise RemovalError(
                    f"{refused.node}: its tensors can neither be cut nor kept; this is a defect of "
                    "deploykit: please report it"
                ) from refused
            whole.update(refused.tensors)
            unarranged.append(refused.node)
            continue
        if not steps or step.changed:
            exact = less
            steps.append(step)
        if not step.changed:
            break
    joined = exact
    if parts.made:
        joined = apply_pass("join_groups", partial(join_groups, parts=parts), exact)
    ordered = apply_pass("order_channels", order_channels, joined)
    moved = ordered is not exact
    held = frozenset(str(value.name) for node in exact.model.graph for value in node.outputs)
    return Cut(
        ordered,
        in_own_types(network, ordered),
        tuple(steps),
        tuple(unarranged),
        moved,
        parts=parts,
        held=held,
    )


def _widened(
    network: Network, alignment: MultipleOf | Measured
) -> tuple[Network, tuple[WidenedBlock, ...]]:
    blocks: list[WidenedBlock] = []

    def rewrite(before: Network) -> Rewritten:
        rewritten, found = widen_blocks(before, alignment)
        blocks.extend(found)
        return rewritten

    return apply_pass("widen_blocks", rewrite, network), tuple(blocks)


def _narrowed(network: Network, table: WidthTable) -> tuple[Network, tuple[NarrowedLayer, ...]]:
    layers: list[NarrowedLayer] = []

    def rewrite(before: Network) -> Rewritten:
        rewritten, found = narrow_layers(before, table)
        layers.extend(found)
        return rewritten

    return apply_pass("narrow_layers", rewrite, network), tuple(layers)


def _apply(network: Network, found: Liveness) -> tuple[Network, Step]:
    steps: list[Step] = []

    def rewrite(before: Network) -> Rewritten:
        rewritten, step = cut(before, found)
        steps.append(step)
        return rewritten

    return apply_pass("remove_dead_channels", rewrite, network), steps[0]
