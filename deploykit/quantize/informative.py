"""Whether a posterior says anything about the rounding of its weights.

Rounding may follow the posterior N(w, s^2) where three things hold:

    s differs between weights: third quartile over first, of s as trained, at least VARIED
    the network answers at w + k s eps as it does at w, for a scale k out of SCALES
    rounding errors are of the size of k s: rms of (w - Q(w)) / (k s) within NOISE and 1/NOISE

The first fails where s is still what training began with; S is then the plain squared error of the
weights. It is asked before batch norm is folded, whose factors would vary any s. The second fails
where training left s larger than what the answer bears; with a scale under 1 the ranking of weights
may still be right, and S by posterior ranks alike at every scale. The third fails where S
extrapolates far beyond what the posterior covers, or rounding is lost inside it.
Draws are of independent weights, which is what S assumes.
Source: MacKay 1992, "A practical Bayesian framework for backpropagation networks", section 3 (a
posterior is the curvature around its mode); the bounds are our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from deploykit.quantize.answers import classes, relative_error, right
from deploykit.quantize.rounded_layers import with_initializers
from deploykit.spec.allocation import DrawTest, LayerChoices, PosteriorEvidence
from deploykit.spec.arrays import Float64Array, Tensors
from deploykit.spec.listing import listed
from deploykit.spec.network import FloatEvaluator, Network
from deploykit.spec.samples import Samples

VARIED = 1.25
SCALES = (1.0, 0.5, 0.25, 0.125)
DRAWS = 8
SAMPLES = 1000
"""The first of the evaluation data, or of the calibration data without one."""
LOST = 0.01
"""Of the judgement, that draws may be under the mean: one point of accuracy."""
NOISE = 8.0
SEED = 0


def spread_ratio(as_trained: Network) -> float:
    """Third quartile over first of s, of all weights (no biases) that have one; 1 where none has.

    as_trained: before batch norm is folded.
    """
    spreads = [
        np.sqrt(variance[variance > 0].astype(np.float64)).reshape(-1)
        for variance in as_trained.variance.values()
        if variance.ndim >= 2
    ]
    joined = np.concatenate([np.zeros(0), *spreads])
    if not joined.size:
        return 1.0
    low, high = np.quantile(joined, (0.25, 0.75))
    return float(high / low)


def draw_test(network: Network, samples: Samples, evaluate: FloatEvaluator) -> DrawTest:
    """The second condition of the module's head, from the largest scale on until one holds."""
    few = samples.head(SAMPLES)
    names = [str(value.name) for value in network.model.graph.outputs]

    def outputs(changed: Network) -> Tensors:
        found = evaluate(changed, few.inputs)
        return {name: found[name] for name in names}

    real = outputs(network)
    judged_by, judge = _judge(real, few)
    mean = judge(real)
    by_scale: dict[float, float] = {}
    for scale in SCALES:
        rng = np.random.default_rng(SEED)
        drawn = [judge(outputs(drawn_network(network, scale, rng))) for _ in range(DRAWS)]
        by_scale[scale] = float(np.mean(drawn))
        if by_scale[scale] >= mean - LOST:
            return DrawTest(judged_by, len(few), DRAWS, mean, by_scale, scale)
    return DrawTest(judged_by, len(few), DRAWS, mean, by_scale, None)


def _judge(real: Tensors, samples: Samples) -> tuple[str, Callable[[Tensors], float]]:
    labels = samples.labels
    if labels is not None and len(real) == 1:
        return "accuracy", lambda found: right(found, labels)
    if classes(real):
        (values,) = real.values()
        answers = values.argmax(axis=1)
        return "answers", lambda found: right(found, answers)
    return "output", lambda found: 1.0 - relative_error(real, found)


def drawn_network(network: Network, scale: float, rng: np.random.Generator) -> Network:
    """Weights and biases drawn from N(mean, (scale s)^2), all independent."""
    arrays = {}
    for name, variance in sorted(network.variance.items()):
        held = network.model.graph.initializers.get(name)
        if held is None or held.const_value is None:
            continue
        mean: Float64Array = held.const_value.numpy().astype(np.float64)
        noise = np.sqrt(variance.astype(np.float64)) * rng.standard_normal(mean.shape)
        arrays[name] = (mean + scale * noise).astype(np.float32)
    return with_initializers(network, arrays)


def without_variance(lacking: Sequence[str]) -> PosteriorEvidence:
    """The evidence of a network whose layers have no spread, some or all."""
    return PosteriorEvidence(
        f"no variance is known for the weights of {listed(lacking)}", tuple(lacking)
    )


def without_differences(varied: float) -> PosteriorEvidence:
    """The evidence of a posterior whose spread is one number."""
    return PosteriorEvidence(
        f"its spread is nearly one number (third quartile over first {varied:.3f}, under "
        f"{VARIED}), as training begins with",
        varied=varied,
    )


def failed_draws(varied: float, test: DrawTest) -> PosteriorEvidence:
    """The evidence of a network that does not answer alike under draws."""
    scale, found = min(test.by_scale.items())
    return PosteriorEvidence(
        f"with draws of {scale:g} of the posterior's spread {_called(test.judged_by)} is "
        f"{found:.4f}, at the mean {test.mean:.4f}",
        varied=varied,
        test=test,
    )


def noise_evidence(
    varied: float,
    test: DrawTest,
    scale: float,
    choices: Sequence[LayerChoices],
    widths: Collection[int],
) -> PosteriorEvidence:
    """The third condition. choices: sensitivities by posterior. widths: bits to be decided on."""
    noise = noise_by_bits(choices, scale)
    asked = {bits: noise[bits] for bits in widths if bits in noise}
    if any(1.0 / NOISE <= found <= NOISE for found in asked.values()):
        return PosteriorEvidence("", varied=varied, test=test, noise=noise)
    told = ", ".join(f"{found:.3g} at {bits} bits" for bits, found in sorted(asked.items()))
    return PosteriorEvidence(
        f"rounding errors are not of the size of the posterior's spread: {told} of {scale:g} s",
        varied=varied,
        test=test,
        noise=noise,
    )


def noise_by_bits(choices: Sequence[LayerChoices], scale: float) -> Mapping[int, float]:
    """Root mean square of rounding errors over scale * s, the median of layers, by bits.

    S = 1/2 sum of squares over s, so that it is sqrt(2 S / n) / scale.
    """
    by_bits: dict[int, list[float]] = {}
    for choice in choices:
        for bits, nats in choice.sensitivity.items():
            found = math.sqrt(2.0 * nats / choice.weights) / scale
            by_bits.setdefault(bits, []).append(found)
    return {bits: float(np.median(found)) for bits, found in sorted(by_bits.items())}


def _called(judged_by: str) -> str:
    return {
        "accuracy": "accuracy",
        "answers": "the share of answers that stay",
        "output": "1 less the output's relative error",
    }[judged_by]
