"""Remove dead and constant channels, and prove that the function stayed the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploykit.errors import RemovalError
from deploykit.graph.certificate import certify
from deploykit.graph.channels.collapse import Limits
from deploykit.graph.channels.cutting import NotArrangedError, Step, cut
from deploykit.graph.channels.liveness import Liveness, analyse, is_layer
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.operands import take
from deploykit.graph.cost import totals, weight_bytes
from deploykit.graph.edit import label, set_initializer
from deploykit.graph.options import RemovalOptions
from deploykit.graph.passes.narrow import narrow_layers
from deploykit.graph.passes.reorder import order_channels
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.graph.widths.table import WidthTable
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.removal import (
    Certificate,
    NarrowedLayer,
    Reason,
    RemovalReport,
    RemovedChannel,
    TensorRemoval,
)

MAX_RELATIVE = 1e-9
"""Largest accepted relative difference between masked and pruned, in float64 evaluation."""

MAX_ROUNDED = 1e-5
"""The same where the pruned numbers are rounded to the network's own element type."""


@dataclass(frozen=True)
class Cut:
    """A network with fewer channels.

    exact: with the numbers that changed in float64. pruned: all in the network's own element type.
    steps: rounds of analysis and cut. unarranged: nodes whose tensors had to stay whole. moved:
    whether tensors inside hold their channels in another order. narrowed: layers that compute the
    live channels of their tensor alone.
    """

    exact: Network
    pruned: Network
    steps: tuple[Step, ...]
    unarranged: tuple[str, ...]
    moved: bool
    narrowed: tuple[NarrowedLayer, ...] = ()

    def rest_of(self, name: str, values: AnyArray) -> Float64Array:
        """Of a whole tensor what the cut one holds."""
        for step in self.steps:
            labels, arranged = step.found.structure.labels[name], step.arranged[name]
            if arranged.size < labels.size:
                values = take(values, labels, arranged)
        return values


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

    What is left of a channel shuffle is a Gather; channels are ordered so that it vanishes.
    """
    whole: set[str] = set()
    unarranged: list[str] = []
    steps: list[Step] = []
    exact = network
    limits = Limits(options.max_growth, ranges or {})
    while True:
        found = analyse(exact.model.graph, options.dead_outputs, whole, options.align, limits)
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
    ordered = apply_pass("order_channels", order_channels, exact)
    moved = ordered is not exact
    narrowed: tuple[NarrowedLayer, ...] = ()
    if options.narrow is not None:
        ordered, narrowed = _narrowed(ordered, options.narrow)
    pruned = _rounded(network, ordered)
    return Cut(ordered, pruned, tuple(steps), tuple(unarranged), moved, narrowed)


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


def _rounded(network: Network, exact: Network) -> Network:
    """Every initializer in the element type that it had; new ones in that of the graph."""
    types = {
        name: value.const_value.numpy().dtype
        for name, value in network.model.graph.initializers.items()
        if value.const_value is not None
    }
    common = _element_type(network)
    model = exact.model.clone()
    for name, value in list(model.graph.initializers.items()):
        if value.const_value is None:
            continue
        array = value.const_value.numpy()
        if array.dtype == np.float64 and types.get(name, common) != np.float64:
            set_initializer(model.graph, name, array.astype(types.get(name, common)))
    return Network(model, exact.variance)


def _element_type(network: Network) -> np.dtype[Any]:
    for value in network.model.graph.inputs:
        if value.dtype is not None and value.dtype.is_floating_point():
            return value.dtype.numpy()
    return np.dtype(np.float32)


def describe(network: Network, made: Cut, certificate: Certificate) -> RemovalReport:
    """What went and what stopped it, with the proof."""
    parameters_before, macs_before = totals(network.model)
    parameters_after, macs_after = totals(made.pruned.model)
    found = made.steps[0].found
    stopped = (*found.structure.borders, *(f"{name} (uneven)" for name in made.unarranged))
    growth = {name: g for step in made.steps for name, g in step.found.range_growth.items()}
    return RemovalReport(
        _tensors(made),
        parameters_before,
        parameters_after,
        macs_before,
        macs_after,
        weight_bytes(network.model),
        weight_bytes(made.pruned.model),
        growth,
        stopped,
        certificate,
        made.steps[-1].found.widened,
        made.narrowed,
    )


def _tensors(made: Cut) -> tuple[TensorRemoval, ...]:
    """One entry per tensor that a weight produces: there a channel begins."""
    why = [_Reasons(step.found) for step in made.steps]
    removals = []
    for site in made.steps[0].found.structure.sites:
        if not is_layer(site.operator):
            continue
        tensor = site.outputs[0]
        left = np.arange(made.steps[0].found.structure.labels[tensor].size)
        before = len(left)
        removed: list[RemovedChannel] = []
        for step, reasons in zip(made.steps, why, strict=True):
            labels = step.found.structure.labels.get(tensor)
            if labels is None or (len(left) > 1 and labels.size == 1):
                removed += [RemovedChannel(int(k), Reason.UNREAD) for k in left if labels is None]
                left = left[:0] if labels is None else left
                continue
            stays = step.arranged[tensor].reshape(-1)
            for index in np.setdiff1d(np.arange(len(left)), stays):
                atom = int(labels.reshape(-1)[index])
                removed.append(reasons.of(int(left[index]), atom))
            left = left[np.sort(stays)]
        if tensor not in {str(v.name) for node in made.exact.model.graph for v in node.outputs}:
            removed += [RemovedChannel(int(k), Reason.UNREAD) for k in left]
            left = left[:0]
        removals.append(
            TensorRemoval(
                tensor,
                label(site.node),
                before,
                len(left),
                tuple(sorted(removed, key=lambda gone: gone.channel)),
            )
        )
    return tuple(removals)


class _Reasons:
    """Why an atom went, judged where it is read: after relu and pooling, not before.

    Whoever reads a channel that went found it constant there.
    """

    def __init__(self, found: Liveness) -> None:
        self._known: dict[int, tuple[Reason, float | None, int | None]] = {}
        for site in found.structure.sites:
            if isinstance(site.operator, Mixing):
                self._read(found, site.operator, site.inputs[0], site.outputs[0])

    def of(self, channel: int, atom: int) -> RemovedChannel:
        """Of one channel of a layer's output."""
        reason, constant, into = self._known.get(atom, (Reason.UNREAD, None, None))
        return RemovedChannel(channel, reason, constant, into)

    def _read(self, found: Liveness, mixing: Mixing, source: str, output: str) -> None:
        labels = found.structure.labels[source]
        read = mixing.reads([found.live(output)])
        if read is None or read.size != labels.size:
            return
        merge = found.merges.get(source)
        values = found.constants_before[source].reshape(-1)
        for index in np.flatnonzero(read.reshape(-1) & ~np.isnan(values)):
            atom, value = int(labels.reshape(-1)[index]), float(values[index])
            if value == 0.0:
                self._known.setdefault(atom, (Reason.ZERO, 0.0, None))
            elif mixing.absorbs():
                self._note(atom, (Reason.FOLDED, value, None))
            elif merge is not None and int(index) not in merge.survivors:
                self._known[atom] = (Reason.COLLAPSED, value, merge.survivors[0])

    def _note(self, atom: int, found: tuple[Reason, float | None, int | None]) -> None:
        if self._known.get(atom, (Reason.ZERO,))[0] is Reason.ZERO:
            self._known[atom] = found
