"""What a pruning rule would do along its threshold: `deploykit export --dry-run`.

Gates are ranked by their score over all layers; each threshold closes another tenth of them, and
the rule's own default is among them. At each one the network is pruned, its dead channels are
removed, and the labelled data are classified in float. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploykit.errors import ConfigError, DataError
from deploykit.exporting.entry import CheckpointEntry
from deploykit.graph.capture import capture
from deploykit.graph.cost import totals
from deploykit.graph.normalize import normalize
from deploykit.graph.options import RemovalOptions
from deploykit.graph.removal import cut_channels
from deploykit.posterior import forward
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.scores import ScoredLayer
from deploykit.spec.arrays import Float64Array
from deploykit.spec.posterior import Folded
from deploykit.spec.progress import Progress
from deploykit.spec.samples import Samples
from deploykit.verify.metrics import accuracy

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
"""Of all gates, that the thresholds close."""


@dataclass(frozen=True)
class CurvePoint:
    """One threshold; None: nothing is pruned. closed: gates, of all that the rule looks at.

    parameters, macs: of the float network without its dead channels. accuracy: as a share.
    """

    threshold: float | None
    closed: int
    parameters: int
    macs: int
    accuracy: float


@dataclass(frozen=True)
class ThresholdCurve:
    """points: from nothing pruned on. statistic: what the threshold is compared with.

    ended: why no higher share was tried; empty where all were. default: the rule's own threshold,
    None where it has none, or one for each family.
    """

    path: Path
    rule: str
    statistic: str
    gates: int
    samples: int
    points: tuple[CurvePoint, ...]
    ended: str = ""
    default: float | None = None


def threshold_curve(
    entry: CheckpointEntry, removal: RemovalOptions, labelled: Samples, progress: Progress
) -> ThresholdCurve:
    """Accuracy and size along the threshold of the entry's own pruning rule.

    Raises ConfigError where the rule has nothing to rank, DataError where there are no labels.
    """
    options = entry.options
    rule = options.pruning.rule
    if isinstance(options.pruning.threshold, Mapping):
        raise ConfigError(
            "--dry-run tries one threshold for every layer; leave [threshold] out of the --config"
        )
    if rule is PruneRule.NONE:
        raise ConfigError("--dry-run runs along a threshold, which --prune-rule none has not")
    if labelled.labels is None:
        raise DataError("--dry-run shows accuracy: give --eval-data with `inputs` and `labels`")
    with progress.stage("load checkpoint"):
        loaded = entry.load()
    with progress.stage("rank gates"):
        fold = loaded.fold(labelled)
        unpruned = fold.pruned(PruneSpec(PruneRule.NONE))
        scored = loaded.scored(rule, unpruned)
    defaults = {layer.default for layer in scored}
    default = defaults.pop() if len(defaults) == 1 else None
    thresholds = _thresholds(scored, () if default is None else (default,))
    points: list[CurvePoint] = []
    ended = ""
    with progress.stage("fold and classify") as advance:
        points.append(_point(entry, unpruned, removal, labelled, None))
        for done, threshold in enumerate(thresholds):
            advance(done, len(thresholds))
            try:
                folded = fold.pruned(PruneSpec(rule, threshold))
            except ConfigError as error:
                ended = str(error)
                break
            points.append(_point(entry, folded, removal, labelled, threshold))
    gates = sum(layer.scores.size for layer in scored)
    return ThresholdCurve(
        entry.path, rule.value, scored[0].statistic, gates, len(labelled), tuple(points), ended,
        default,
    )  # fmt: skip


def _thresholds(scored: tuple[ScoredLayer, ...], more: tuple[float, ...]) -> tuple[float, ...]:
    """By share of all gates; between two scores, so that a rounded figure closes the same gates.

    more: thresholds to try beside. Those that close fewer gates come first.
    """
    every = np.sort(np.concatenate([layer.scores.reshape(-1) for layer in scored]))
    above = bool(scored[0].closes(every[-1:], float(every[0]))[0])
    ranked = every[::-1] if above else every
    every_one = {*(_between(ranked, share) for share in SHARES), *more}
    return tuple(sorted(every_one, reverse=above))


def _between(ranked: Float64Array, share: float) -> float:
    place = min(max(round(share * len(ranked)), 1), len(ranked) - 1)
    return float(f"{(ranked[place - 1] + ranked[place]) / 2:.4g}")


def _point(
    entry: CheckpointEntry,
    folded: Folded,
    removal: RemovalOptions,
    labelled: Samples,
    threshold: float | None,
) -> CurvePoint:
    assert labelled.labels is not None
    outputs = forward.run(folded.module, entry.by_argument(labelled.inputs))
    network = normalize(capture(folded.module, folded.variance, entry.example()))
    parameters, macs = totals(cut_channels(network, removal).pruned.model)
    closed = sum(int(decision.closed.sum()) for decision in folded.report.pruning)
    return CurvePoint(threshold, closed, parameters, macs, accuracy(outputs, labelled.labels))
