"""Which measure guides the bits of a network, and what each weight costs by it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from deploykit.errors import QuantizationError
from deploykit.quantize.answers import Distance, classes, divergence, relative_error
from deploykit.quantize.informative import (
    VARIED,
    draw_test,
    failed_draws,
    noise_evidence,
    spread_ratio,
    without_differences,
    without_variance,
)
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.rounded_layers import RoundedLayers
from deploykit.quantize.sensitivity import (
    Sensitivities,
    by_moments,
    by_posterior,
    free_groups,
    lacking_variance,
    layer_choices,
)
from deploykit.spec.allocation import (
    LayerChoices,
    Measure,
    PosteriorEvidence,
    SensitivityChoice,
)
from deploykit.spec.arrays import Tensors
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.plan import Rounding
from deploykit.spec.samples import Samples


@dataclass(frozen=True)
class Measured:
    """Every weight with its sensitivities. evidence: None where the posterior was not asked."""

    measure: Measure
    choices: tuple[LayerChoices, ...]
    evidence: PosteriorEvidence | None


@dataclass(frozen=True)
class Asked:
    """What is to guide the bits. widths: between which the allocation will have to decide.

    formats: of the files whose bytes count.
    """

    sensitivity: SensitivityChoice
    widths: Collection[int]
    formats: Collection[str]


def measured_choices(
    rounded: RoundedLayers,
    asked: Asked,
    labelled: Samples | None,
    as_trained: Network,
    evaluate: FloatEvaluator,
    progress: Callable[[int, int], None],
) -> Measured:
    """labelled: judges draws from the posterior; calibration data do where it is None.

    as_trained: the network before batch norm was folded, whose posterior is looked at for what
    training made of it.

    Raises QuantizationError where the posterior is asked for and some layer has none.
    """
    calibrated, options = rounded.calibrated, rounded.options
    groups = free_groups(calibrated, options.bits)

    def choices(found: Sensitivities) -> tuple[LayerChoices, ...]:
        return layer_choices(calibrated, options.bits, asked.formats, options.carriers, found)

    evidence = None
    if asked.sensitivity is not SensitivityChoice.MOMENTS:
        lacking = lacking_variance(calibrated.network, groups)
        if lacking and asked.sensitivity is SensitivityChoice.POSTERIOR:
            raise QuantizationError(
                f"--sensitivity posterior: {without_variance(lacking).why}; leave it out, or give "
                "these layers' bits with --layer-bits"
            )
        if lacking:
            evidence = without_variance(lacking)
        else:
            free = choices(by_posterior(rounded, groups))
            judges = labelled or calibrated.samples
            evidence = _evidence(
                calibrated.network, as_trained, judges, evaluate, free, asked.widths
            )
            if evidence.informative or asked.sensitivity is SensitivityChoice.POSTERIOR:
                return Measured(Measure.POSTERIOR, free, evidence)
    inputs = calibrated.samples.inputs
    found = by_moments(rounded, groups, inputs, evaluate, _distance(labelled), progress)
    return Measured(Measure.MOMENTS, choices(found), evidence)


def _evidence(
    network: Network,
    as_trained: Network,
    judges: Samples,
    evaluate: FloatEvaluator,
    choices: tuple[LayerChoices, ...],
    widths: Collection[int],
) -> PosteriorEvidence:
    """The three tests of `informative`, until one fails."""
    varied = spread_ratio(as_trained)
    if varied < VARIED:
        return without_differences(varied)
    test = draw_test(network, judges, evaluate)
    if test.scale is None:
        return failed_draws(varied, test)
    return noise_evidence(varied, test, test.scale, choices, widths)


def _distance(labelled: Samples | None) -> Callable[[Tensors], Distance]:
    """Between class probabilities where labels say that the answer is a class."""

    def chosen(real: Tensors) -> Distance:
        labels = labelled is not None and labelled.labels is not None
        return divergence if labels and classes(real) else relative_error

    return chosen


def with_all_moments(options: QuantizationOptions) -> QuantizationOptions:
    """The same, under which calibration measures every layer's second moments."""
    return replace(options, rounding=Rounding.COMPENSATED)
