"""What a network computes in its library's own eval mode, where that is not the plain mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from deploykit.posterior.families import family_named
from deploykit.posterior.family import EvalForward
from deploykit.posterior.options import PruneRule
from deploykit.posterior.pruning import apply_pruning
from deploykit.posterior.recognise import RecognisedLayer
from deploykit.spec.posterior import ArithmeticDifference, LayerPosterior, LayerPruning

Layers = tuple[LayerPosterior, ...]
APART = 1e-3
"""Relative difference of a mean from which the published arithmetic counts as different."""


def evaluations(
    recognised: Sequence[RecognisedLayer], posteriors: Sequence[LayerPosterior]
) -> Iterator[Layers]:
    """The ways in which the layers may be evaluated, each the posterior of every layer.

    More than one where libraries that write the same names evaluate differently, or where the
    published arithmetic has errors of its own.
    """
    published = tuple(_in_published_arithmetic(layer) for layer in recognised)
    arithmetics = [tuple(posteriors)]
    if any(layer.family.evaluated for layer in recognised):
        arithmetics.append(published)
    maskings: list[tuple[EvalForward, ...]] = [(EvalForward.MASKED_MEAN,)]
    if any(layer.family.eval_forward is EvalForward.MEAN_OR_MASKED for layer in recognised):
        maskings.append((EvalForward.MASKED_MEAN, EvalForward.MEAN_OR_MASKED))
    for layers, masking in product(arithmetics, maskings):
        yield tuple(
            _masked(row, layer) if row.family.eval_forward in masking else layer
            for row, layer in zip(recognised, layers, strict=True)
        )


def arithmetic_differences(
    recognised: Sequence[RecognisedLayer],
) -> tuple[ArithmeticDifference, ...]:
    """Layers where the published arithmetic, or what it closes, differs from double precision."""
    found = []
    for row in recognised:
        if row.family.evaluated is None:
            continue
        exact = family_named(row.family.name).posterior(row.name, row.tensors)
        published = row.family.evaluated(row.name, row.tensors)
        difference = _difference(row, exact, published)
        if difference.means or difference.decisions:
            found.append(difference)
    return tuple(found)


def _difference(
    row: RecognisedLayer, exact: LayerPosterior, published: LayerPosterior
) -> ArithmeticDifference:
    """Compared by gate: the first number that an output channel multiplies tells its gate."""
    rule, scores, other = row.family.gate_rule, exact.gate_score, published.gate_score
    assert rule is not None
    assert rule.threshold is not None
    assert scores is not None
    assert other is not None
    closed, closed_published = (
        rule.closed(values.astype(np.float64), rule.threshold) for values in (scores, other)
    )
    apart = np.abs(exact.mean["weight"] - published.mean["weight"])
    far = apart > APART * np.abs(exact.mean["weight"])
    means = far.reshape(len(far), -1).any(axis=1)
    return ArithmeticDifference(
        row.name, scores.size, int(means.sum()), int((closed != closed_published).sum())
    )


def _in_published_arithmetic(layer: RecognisedLayer) -> LayerPosterior:
    made = layer.family.evaluated or layer.family.posterior
    return made(layer.name, layer.tensors)


def _masked(row: RecognisedLayer, layer: LayerPosterior) -> LayerPosterior:
    """The layer with the gates closed that the family's published threshold closes."""
    rule, scores = row.family.gate_rule, layer.gate_score
    if rule is None or rule.threshold is None or scores is None:
        return layer
    gates = rule.closed(scores.astype(np.float64), rule.threshold)
    return apply_pruning(
        layer,
        LayerPruning(layer.name, PruneRule.FAMILY.value, rule.threshold, layer.gate_axis, gates),
    )
