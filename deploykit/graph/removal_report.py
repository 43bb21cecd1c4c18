"""What went from every layer and why, what stopped removal, and the costs before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deploykit.graph.channels.embedding import Embedding
from deploykit.graph.channels.liveness import Liveness, is_layer
from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.cost import totals, weight_bytes
from deploykit.graph.cut import Cut
from deploykit.graph.edit import label
from deploykit.graph.passes.groups import JOINED, Parts
from deploykit.spec.network import Network
from deploykit.spec.removal import (
    Certificate,
    Reason,
    RemovalReport,
    RemovedChannel,
    TensorRemoval,
)


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
        (*made.steps[-1].found.widened, *made.added),
        made.narrowed,
        _split(made),
    )


def _split(made: Cut) -> tuple[str, ...]:
    """Convolutions whose groups are several nodes now."""
    computed = {str(value.name) for node in made.exact.model.graph for value in node.outputs}
    counts = Counter(
        part.layer
        for tensor, part in made.parts.made.items()
        if computed.intersection((tensor, f"{tensor}{JOINED}"))
    )
    return tuple(layer for layer, count in counts.items() if count > 1)


def _tensors(made: Cut) -> tuple[TensorRemoval, ...]:
    """One entry per tensor that a weight produces: there a channel begins."""
    why = [_Reasons(step.found, made.parts) for step in made.steps]
    removals: list[TensorRemoval] = []
    for site in made.steps[0].found.structure.sites:
        if not (is_layer(site.operator) or isinstance(site.operator, Embedding)):
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
        if tensor not in made.held:
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
    more = {tensor: block.width - block.needed for block in made.added for tensor in block.tensors}
    return tuple(
        replace(entry, channels_after=entry.channels_after + more.get(entry.tensor, 0))
        for entry in _of_whole_layers(removals, made.parts)
    )


def _of_whole_layers(removals: Sequence[TensorRemoval], parts: Parts) -> tuple[TensorRemoval, ...]:
    """The groups of a convolution as the one layer that they were."""
    whole: dict[str, TensorRemoval] = {}
    for entry in removals:
        part = parts.made.get(entry.tensor)
        if part is None:
            whole[entry.tensor] = entry
            continue
        removed = tuple(replace(gone, channel=gone.channel + part.first) for gone in entry.removed)
        before = whole.get(part.tensor, TensorRemoval(part.tensor, part.layer, 0, 0, ()))
        whole[part.tensor] = TensorRemoval(
            part.tensor,
            part.layer,
            before.channels_before + entry.channels_before,
            before.channels_after + entry.channels_after,
            (*before.removed, *removed),
        )
    return tuple(whole.values())


class _Reasons:
    """Why an atom went, judged where it is read: after relu and pooling, not before.

    Whoever reads a channel that went found it constant there.
    """

    def __init__(self, found: Liveness, parts: Parts) -> None:
        self._parts = parts
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
        part = self._parts.read.get(source)
        first = 0 if part is None else part.first
        values = found.constants_before[source].reshape(-1)
        for index in np.flatnonzero(read.reshape(-1) & ~np.isnan(values)):
            atom, value = int(labels.reshape(-1)[index]), float(values[index])
            if value == 0.0:
                self._known.setdefault(atom, (Reason.ZERO, 0.0, None))
            elif mixing.absorbs():
                self._note(atom, (Reason.FOLDED, value, None))
            elif merge is not None and int(index) not in merge.survivors:
                self._known[atom] = (Reason.COLLAPSED, value, first + merge.survivors[0])

    def _note(self, atom: int, found: tuple[Reason, float | None, int | None]) -> None:
        if self._known.get(atom, (Reason.ZERO,))[0] is Reason.ZERO:
            self._known[atom] = found
