"""What one posterior family is: a row of the table in `families`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

import numpy as np

from deploykit.posterior.options import BatchNormMode
from deploykit.spec.arrays import BoolArray, Float32Array, FloatArray, Tensors
from deploykit.spec.posterior import LayerPosterior


class Closes(Enum):
    """On which side of the threshold a gate is closed."""

    AT_OR_ABOVE = auto()
    AT_OR_BELOW = auto()


@dataclass(frozen=True)
class GateRule:
    """How a family's own score closes gates.

    score: what the score is called. threshold: the published default, None where there is none.
    source: where the rule and its default come from.
    """

    score: str
    closes: Closes
    threshold: float | None
    source: str

    def closed(self, scores: FloatArray, threshold: float) -> BoolArray:
        """Which gates the threshold closes."""
        match self.closes:
            case Closes.AT_OR_ABOVE:
                return np.asarray(scores >= threshold, dtype=np.bool_)
            case Closes.AT_OR_BELOW:
                return np.asarray(scores <= threshold, dtype=np.bool_)
            case _:
                assert_never(self.closes)


class EvalForward(Enum):
    """What the family's own module computes in eval mode.

    MASKED_MEAN: the mean, with the gates closed that the published threshold closes.
    MEAN_OR_MASKED: one of these two, by the library, where two libraries write the same names.
    ROUNDED: the masked mean, with activations rounded to integers, which the float mean is not.
    """

    MEAN = auto()
    MASKED_MEAN = auto()
    MEAN_OR_MASKED = auto()
    SAMPLED = auto()
    ROUNDED = auto()


class Draws(Enum):
    """How often training draws a layer's noise anew, which batch norm behind it sees.

    EVERY_NUMBER: for every sample and position, as in the local reparametrisation. EVERY_BATCH: one
    set of weights for all samples of a batch, whose common part a batch's own mean takes off.
    """

    EVERY_NUMBER = auto()
    EVERY_BATCH = auto()


class TwinKind(Enum):
    """Which torch layer computes a family's mean."""

    WEIGHTED = auto()
    """Linear, Conv1d or Conv2d by the shape of the weight; transposed where the layer is."""
    CHANNEL_SCALE = auto()
    """A layer that multiplies every channel by a number, see `channel_scale`."""
    BATCH_NORM = auto()
    """BatchNorm1d or 2d; its running statistics are plain tensors beside the posterior."""
    QUANTIZED = auto()
    """As WEIGHTED, with an activation and a range behind it, see `activation_range`."""
    ACTIVATION_RANGE = auto()
    """No layer: the range of what a module gives."""
    LSTM = auto()
    """LSTM of one layer, batch first, with the parameters weight_ih_l0, ... instead of weight."""


@dataclass(frozen=True)
class Trap:
    """A known mistake that this family invites, and how to see in a layer that it applies."""

    sentence: str
    met: Callable[[Tensors], bool]


PADDING_MODES = frozenset({"zeros", "reflect", "replicate", "circular"})
"""Of torch's convolutions."""
ZEROS = frozenset({"zeros"})


def _always(_: Tensors) -> bool:
    return True


@dataclass(frozen=True)
class Family:
    """One way of writing a posterior into a checkpoint.

    signature: parameter names, relative to the layer, that every layer of the family has; a name
        may lead into a part of the layer ("weight_sampler.mu").
    optional: groups of further names; a layer has all of a group or none of it.
    posterior: (layer name, tensors by relative name) -> mean, variance, gates of its torch twin.
    evaluated: the same as posterior in the arithmetic of the published code, where that has errors
        of its own; the mean forward is then compared with either.
    fits: whether the shapes are those of this family, where another has the same names.
    plain: names beside the posterior that the twin holds as they are (running statistics).
    maybe_unused: names that the library saves even for a layer that does not use them; they count
        only where the network's layer has a bias.
    batchnorm: what the family asks of --batchnorm where the network has a batch norm.
    draws: how training's noise is drawn; of two ways under the same names, the rarer.
    silenced: tensors with which a sampled forward gives its mean, the spreads being so small that
        float32 does not see them; without buffers that only some releases of the library have.
    sample: (tensors, generator) -> one draw of the twin's parameters from the real posterior,
        whose correlations the factorised variance does not carry.
    padding_modes: of torch's, those in which a layer of the library computes what torch's does.
    """

    name: str
    signature: frozenset[str]
    optional: tuple[frozenset[str], ...]
    posterior: Callable[[str, Tensors], LayerPosterior]
    sample: Callable[[Tensors, np.random.Generator], Mapping[str, Float32Array]]
    gate_rule: GateRule | None
    eval_forward: EvalForward
    source: str
    traps: tuple[Trap, ...] = ()
    twin: TwinKind = TwinKind.WEIGHTED
    fits: Callable[[Tensors], bool] = _always
    evaluated: Callable[[str, Tensors], LayerPosterior] | None = None
    plain: frozenset[str] = frozenset()
    maybe_unused: frozenset[str] = frozenset()
    silenced: Callable[[Tensors], Tensors] | None = None
    batchnorm: BatchNormMode = BatchNormMode.KEEP
    draws: Draws = Draws.EVERY_NUMBER
    padding_modes: frozenset[str] = PADDING_MODES

    @property
    def keys(self) -> frozenset[str]:
        """Every relative name that a layer of this family may have."""
        return self.signature.union(*self.optional)
