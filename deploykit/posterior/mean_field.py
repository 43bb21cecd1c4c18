"""Mean-field Gaussians: every weight has a mean and a spread of its own.

q(w) = N(mean, deviation(spread)^2), independent; the library's key names and what its spread is
(rho, log sigma, sigma) are a `Layout`. A layer's posterior, draws and silenced tensors follow.
Source: Blundell et al. 2015, "Weight uncertainty in neural networks"; Graves 2011.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior.family import (
    PADDING_MODES,
    Draws,
    EvalForward,
    Family,
    Trap,
    TwinKind,
)
from deploykit.posterior.moments import all_float32, draw, exponential, float64, softplus
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array, Tensors
from deploykit.spec.posterior import LayerPosterior

SILENT = -40.0
"""As rho or log sigma: a sigma of 4e-18, whose square float32 still holds."""

CONSTANT = 1.25
"""Third quartile over first of signal-to-noise ratios that count as one number; Gaussian means
under one sigma for all have 3.6."""
FEWEST = 16
"""Ratios that quartiles are taken of at the least."""


@dataclass(frozen=True)
class Gaussian:
    """Keys of one parameter's mean and spread."""

    mean: str
    spread: str


@dataclass(frozen=True)
class Layout:
    """How a library writes a mean-field Gaussian.

    deviation: spread -> standard deviation; a mean whose spread is not in the file is a number.
    prior_variance: of the weight, from the tensors of a layer, where they hold it.
    copies: keys that repeat another key's tensor, in files whose library keeps both; the other
    one is what the forward reads.
    ignored: buffers without meaning for the posterior (the last noise, an unused prior).
    """

    weight: Gaussian
    bias: Gaussian
    deviation: Callable[[AnyArray], Float64Array]
    prior_variance: Callable[[Tensors], float | None]
    copies: Mapping[str, str]
    ignored: frozenset[str] = frozenset()


class OwnForward(Enum):
    """What the library's forward computes at the mean, which decides whether it is compared."""

    FLOAT = auto()
    ROUNDS = auto()
    """Integers of the library's own, which the float mean only approximates."""


def no_prior(_: Tensors) -> float | None:
    """For libraries whose files do not hold the prior."""
    return None


def mean_field(
    name: str,
    layout: Layout,
    signature: frozenset[str],
    optional: tuple[frozenset[str], ...],
    source: str,
    traps: tuple[Trap, ...] = (),
    fits: Callable[[Tensors], bool] | None = None,
    twin: TwinKind = TwinKind.WEIGHTED,
    plain: frozenset[str] = frozenset(),
    maybe_unused: frozenset[str] = frozenset(),
    own_forward: OwnForward = OwnForward.FLOAT,
    padding_modes: frozenset[str] = PADDING_MODES,
) -> Family:
    """The row of a library whose eval forward samples, whatever the mode."""
    return Family(
        name=name,
        signature=signature,
        optional=optional,
        posterior=partial(layer_posterior, name, layout),
        sample=partial(sample_layer, layout),
        gate_rule=None,
        eval_forward=EvalForward.SAMPLED,
        draws=Draws.EVERY_BATCH,
        source=source,
        traps=(*traps, Trap(CONSTANT_RATIO, partial(has_constant_ratio, layout))),
        twin=twin,
        fits=fits or weight_has_rows(layout.weight.mean),
        plain=plain,
        maybe_unused=maybe_unused,
        silenced=partial(silenced, layout) if own_forward is OwnForward.FLOAT else None,
        padding_modes=padding_modes,
    )


CONSTANT_RATIO = (
    "|mean| / sigma is nearly the same for most weights, as MOPED starts it (sigma = delta "
    "|mean|): the variance was hardly trained, so --prune-rule snr has little to rank by"
)


def layer_posterior(family: str, layout: Layout, name: str, tensors: Tensors) -> LayerPosterior:
    """Moments of the twin's weight and bias.

    weight [O, I] or [O, I/groups, *k] ([I, O/groups, *k] transposed), or [C] of a batch norm. A
    bias of any shape is flattened to [O]: research code has (1, O) and (1, O, 1, 1).
    """
    mean, variance = {}, {}
    mean["weight"], variance["weight"] = _moments(name, layout, layout.weight, tensors)
    if layout.bias.mean in tensors:
        bias_mean, bias_variance = _moments(name, layout, layout.bias, tensors)
        mean["bias"], variance["bias"] = bias_mean.reshape(-1), bias_variance.reshape(-1)
    _require_shapes(name, layout, {key: value.shape for key, value in mean.items()})
    means, variances = all_float32(name, mean), all_float32(name, variance)
    return LayerPosterior(
        name=name,
        family=family,
        mean=means,
        variance=variances,
        weight_mean=means["weight"],
        weight_variance=variances["weight"],
        prior_variance=layout.prior_variance(tensors),
    )


def sample_layer(
    layout: Layout, tensors: Tensors, generator: np.random.Generator
) -> Mapping[str, Float32Array]:
    """One draw of the twin's parameters, all independent."""
    drawn = {"weight": draw(*_moments("", layout, layout.weight, tensors), generator)}
    if layout.bias.mean in tensors:
        drawn["bias"] = draw(*_moments("", layout, layout.bias, tensors), generator).reshape(-1)
    return {key: value.astype(np.float32) for key, value in drawn.items()}


def silenced(layout: Layout, tensors: Tensors) -> Tensors:
    """The same means under spreads of no effect, and every copy as the forward's own tensor."""
    spreads = {layout.weight.spread, layout.bias.spread}
    return quietened(tensors, spreads, layout.copies, layout.ignored)


def quietened(
    tensors: Tensors, spreads: Set[str], copies: Mapping[str, str], ignored: Set[str]
) -> Tensors:
    """The tensors with spreads of no effect, without those that are ignored.

    copies: of tensors, to the names that are read.
    """
    quiet = {
        key: np.full_like(value, SILENT) if key in spreads else value
        for key, value in tensors.items()
        if key not in ignored
    }
    return quiet | {copied: quiet[own] for copied, own in copies.items() if copied in quiet}


def has_constant_ratio(layout: Layout, tensors: Tensors) -> bool:
    """Whether |mean| / sigma of the middle half of the weights is about one number."""
    mean = np.abs(float64(tensors[layout.weight.mean]))
    deviation = layout.deviation(tensors[layout.weight.spread])
    some = (mean > 0) & (deviation > 0)
    if np.count_nonzero(some) < FEWEST:
        return False
    low, high = np.quantile(mean[some] / deviation[some], (0.25, 0.75))
    return bool(high < CONSTANT * low)


def weight_has_rows(key: str) -> Callable[[Tensors], bool]:
    """Whether the weight of that name is a matrix or kernel, not one number per channel."""
    return lambda tensors: tensors[key].ndim >= 2


def rho(values: AnyArray) -> Float64Array:
    """sigma = log(1 + e^rho)."""
    return softplus(values)


def log_sigma(values: AnyArray) -> Float64Array:
    """sigma = e^(log sigma)."""
    return exponential(values)


def sigma(values: AnyArray) -> Float64Array:
    """The standard deviation as it is."""
    return float64(values)


def _moments(
    name: str, layout: Layout, parameter: Gaussian, tensors: Tensors
) -> tuple[Float64Array, Float64Array]:
    mean = float64(tensors[parameter.mean])
    if parameter.spread not in tensors:
        return mean, np.zeros(mean.shape)
    with np.errstate(over="ignore"):
        variance = layout.deviation(tensors[parameter.spread]) ** 2
    if mean.shape != variance.shape:
        raise CheckpointError(
            f"layer '{name}': {parameter.spread} has shape {variance.shape} and {parameter.mean} "
            f"{mean.shape}; {_cause(mean.shape, variance.shape)}"
        )
    return mean, variance


def _cause(mean: tuple[int, ...], spread: tuple[int, ...]) -> str:
    if mean == spread[::-1]:
        return "one of them is transposed: save both as the library does"
    return "the checkpoint mixes two layers"


def _require_shapes(name: str, layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> None:
    weight = shapes["weight"]
    if len(weight) > 4:
        raise CheckpointError(
            f"layer '{name}': {layout.weight.mean} of shape {weight} belongs to a convolution "
            "over three axes or more, and only linear layers and convolutions over one or two "
            "can be folded"
        )
    # A transposed convolution's outputs are those of the second axis times its groups.
    outputs = weight[:1] if len(weight) <= 2 else weight[:2]
    if "bias" in shapes and all(shapes["bias"][0] % count for count in outputs):
        raise CheckpointError(
            f"layer '{name}': {layout.bias.mean} has {shapes['bias'][0]} numbers where "
            f"{layout.weight.mean} of shape {weight} asks for {weight[0]}; "
            "the checkpoint mixes two layers"
        )
