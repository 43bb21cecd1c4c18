"""What stands between the checkpoint file and the float graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploykit.spec.arrays import AnyArray, BoolArray, Float32Array
from deploykit.spec.confidence import Predictive
from deploykit.spec.given import NOTHING_GIVEN, ActivationGrid, Given, WeightGrid


@dataclass(frozen=True)
class FlatGroup:
    """Parameters that lie together in a vector: how many tensors, of how many numbers in all.

    prior_variance: None where not stored.
    """

    tensors: int
    numbers: int
    prior_variance: float | None


@dataclass(frozen=True)
class FlatPosterior:
    """A diagonal Gaussian of many parameters in one vector, in the order of a network's parameters.

    mean: [D], None where the file holds the weights by name.
    variance: [D], None where the file has none for each parameter; `unknown` then says why.
    groups: by which the parameters are sorted, where there are several; which parameter is in
        which, the file does not say.
    last_layer: whether it is the last layer's alone; layer: what the file calls that, None where
    it does not say. prior_variance: None where not stored. notes: what to mind about the file.
    """

    format: str
    mean: AnyArray | None
    variance: AnyArray | None
    last_layer: bool = False
    prior_variance: float | None = None
    layer: str | None = None
    notes: tuple[str, ...] = ()
    unknown: str | None = None
    groups: tuple[FlatGroup, ...] = ()

    @property
    def size(self) -> int:
        """How many parameters it is for."""
        held = self.mean if self.variance is None else self.variance
        return 0 if held is None else int(held.size)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint file by name, containers and prefixes unwrapped.

    `unwrapped` names what was taken off on the way in ("state_dict", "module."), outermost first.
    `beside`: other entries of the file that hold a network, such as the average of its weights.
    `flat`: a posterior that is not laid out by layer yet, see posterior.flat.
    `format`: which of posterior.diagonal's formats wrote the means and variances that lie in
    `tensors`, None where every layer's names tell its family.
    `unread`: what of the file was left out, entries that need code to be read say, and why.
    `unknown_variance`: why a posterior of the file is read at its mean alone, where one is.
    `layer_map`: the network's names by the file's, of layers that were renamed.
    `plain`: names of tensors that the network holds as they are, though they are called like parts
    of a posterior; None where no network is known.
    """

    path: Path
    tensors: Mapping[str, AnyArray]
    unwrapped: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    flat: FlatPosterior | None = None
    format: str | None = None
    unread: tuple[str, ...] = ()
    layer_map: Mapping[str, str] = field(default_factory=dict)
    unknown_variance: str | None = None
    plain: frozenset[str] | None = None


@dataclass(frozen=True)
class ActivationRange:
    """What training decided about a layer's activations: bits, and the reals that they are held to.

    grid: None where no int8 tensor holds its integers. if_signed: where the file does not tell
    whether values may be negative, what it is if so; the others are what it is if not.
    """

    bits: int
    low: float
    high: float
    grid: ActivationGrid | None
    if_signed: ActivationRange | None = None


@dataclass(frozen=True)
class Precision:
    """The bits that training chose for a layer: of its weights and of what it gives.

    None where there is nothing to quantize, or where training left it in float. grid: of the
    weight, None where int8 does not hold its integers.
    """

    weight_bits: int | None = None
    grid: WeightGrid | None = None
    activation: ActivationRange | None = None


@dataclass(frozen=True)
class LayerPosterior:
    """What one layer of the checkpoint says about its weights.

    mean, variance: per parameter of the deterministic twin ("weight" and "bias"; of an LSTM
        "weight_ih_l0", ...), gates multiplied in.
    gate_score: per gate, the family's pruning statistic (log alpha for variational dropout kinds).
    gate_axis: axis of `weight` that the gates run along: 0 output channels, 1 inputs; None where
        every weight has a gate of its own, gate_score then having the weight's shape.
    gated: parameters that a gate multiplies; a closed gate makes their slice exactly zero.
    output_axis: axis of `weight` that output channels run along; 1 in a transposed convolution,
        None where it has groups, whose output channels no axis holds.
    prior_variance: of the ungated weight, where the family knows it; needed by Savage-Dickey.
    weight_mean, weight_variance: of the ungated weight, in the shape of `weight`.
    precision: the bits that training chose, where it chose any.
    """

    name: str
    family: str
    mean: Mapping[str, Float32Array]
    variance: Mapping[str, Float32Array]
    gate_score: Float32Array | None = None
    gate_axis: int | None = None
    weight_mean: Float32Array | None = None
    weight_variance: Float32Array | None = None
    prior_variance: float | None = None
    gated: tuple[str, ...] = ("weight",)
    output_axis: int | None = 0
    precision: Precision | None = None


@dataclass(frozen=True)
class LayerPruning:
    """Which gates of a layer the pruning rule closed.

    closed: [gates] bool along `axis` of the weight, or of the weight's shape where axis is None.
    """

    layer: str
    rule: str
    threshold: float | None
    axis: int | None
    closed: BoolArray


@dataclass(frozen=True)
class ArithmeticDifference:
    """A layer where published code computes something else than double precision does.

    means: of its gates, those with another mean; decisions: those that only one of them closes.
    """

    layer: str
    gates: int
    means: int
    decisions: int


@dataclass(frozen=True)
class FoldReport:
    """What folding cost, in numbers.

    mean_difference: largest |folded - mean forward| over the checked inputs, relative to the
        largest |output|; float rounding is the only thing that may be in it. None where the
        factory builds the deterministic twin, so that there is no Bayesian forward to compare.
    monte_carlo_difference: largest difference of class probability between the mean network and
        the Monte-Carlo predictive, which shows what collapsing the posterior costs.
    arithmetic: layers where the published arithmetic has errors that matter.
    precision: by layer, the bits that training chose.
    compared_inputs: on how many inputs that difference and `metrics` were measured.
    """

    families: Mapping[str, str]
    pruning: tuple[LayerPruning, ...]
    mean_difference: float | None
    monte_carlo_difference: float | None = None
    monte_carlo_samples: int = 0
    compared_inputs: int = 0
    metrics: Mapping[str, Predictive] = field(default_factory=dict)
    batchnorm: str = "keep"
    arithmetic: tuple[ArithmeticDifference, ...] = ()
    precision: Mapping[str, Precision] = field(default_factory=dict)


@dataclass(frozen=True)
class Folded:
    """A deterministic network and the posterior variance of its parameters.

    module: a torch.nn.Module in eval mode whose parameters are posterior means, pruned gates
        applied as exact zeros. unpruned: the same with every gate open.
    bayesian: the Bayesian network in eval mode holding the checkpoint, where the factory builds
        one whose eval forward is its mean.
    variance: by parameter name of `module`, each in the shape of its parameter.
    given: weights by parameter name, activations by the name of the submodule that holds them to
    their range.
    """

    module: Any
    unpruned: Any
    variance: Mapping[str, Float32Array]
    report: FoldReport
    bayesian: Any = None
    given: Given = NOTHING_GIVEN
