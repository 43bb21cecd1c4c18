"""LSTM layers whose matrices have mean-field Gaussian posteriors, as torch's own LSTM.

One layer, batch first, gates in the order i, f, g, o, states that start at zero:
    i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh)    g = tanh(likewise)
    c = f c + i g                                        h = o tanh(c)
with W_ih [4H, I], W_hh [4H, H]. The mean network is the LSTM at the mean of its matrices.
Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; torch.nn.LSTM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior.family import Draws, EvalForward, Family, Trap, TwinKind
from deploykit.posterior.mean_field import Gaussian, quietened
from deploykit.posterior.moments import all_float32, draw, float64, softplus
from deploykit.spec.arrays import Float32Array, Float64Array, Tensors
from deploykit.spec.posterior import LayerPosterior


class Matrices(Enum):
    """How a library keeps W_ih and W_hh."""

    OUTPUTS_FIRST = auto()
    INPUTS_FIRST = auto()


@dataclass(frozen=True)
class LstmLayout:
    """Keys of the mean and rho of each parameter of torch's LSTM; sigma = log(1 + e^rho).

    biases: by the names of torch's two; one that has no entry while the other has is zero.
    copies: keys that repeat the tensor that the forward reads, which they are mapped to.
    ignored: buffers without meaning for the posterior (the last noise, the prior).
    """

    input_matrix: Gaussian
    state_matrix: Gaussian
    biases: Mapping[str, Gaussian]
    matrices: Matrices
    copies: Mapping[str, str]
    ignored: frozenset[str] = frozenset()


def lstm(
    name: str,
    layout: LstmLayout,
    signature: frozenset[str],
    optional: tuple[frozenset[str], ...],
    source: str,
    traps: tuple[Trap, ...] = (),
) -> Family:
    """The row of a library's LSTM, whose eval forward samples."""
    return Family(
        name=name,
        signature=signature,
        optional=optional,
        posterior=partial(_layer_posterior, name, layout),
        sample=partial(_sample_layer, layout),
        gate_rule=None,
        eval_forward=EvalForward.SAMPLED,
        draws=Draws.EVERY_BATCH,
        source=source,
        traps=traps,
        twin=TwinKind.LSTM,
        silenced=partial(_silenced, layout),
    )


def _layer_posterior(
    family: str, layout: LstmLayout, name: str, tensors: Tensors
) -> LayerPosterior:
    moments = _moments(layout, tensors)
    shapes = {key: mean.shape for key, (mean, _) in moments.items()}
    hidden = shapes["weight_hh_l0"][1]
    for key, shape in shapes.items():
        if shape[0] != 4 * hidden or moments[key][1].shape != shape:
            raise CheckpointError(
                f"layer '{name}': {key} of shape {shape} does not fit an LSTM of {hidden} states; "
                "the checkpoint mixes two layers"
            )
    return LayerPosterior(
        name=name,
        family=family,
        mean=all_float32(name, {key: mean for key, (mean, _) in moments.items()}),
        variance=all_float32(name, {key: variance for key, (_, variance) in moments.items()}),
    )


def _sample_layer(
    layout: LstmLayout, tensors: Tensors, generator: np.random.Generator
) -> Mapping[str, Float32Array]:
    drawn = {key: draw(*both, generator) for key, both in _moments(layout, tensors).items()}
    return {key: value.astype(np.float32) for key, value in drawn.items()}


def _silenced(layout: LstmLayout, tensors: Tensors) -> Tensors:
    spreads = {one.spread for one in _gaussians(layout).values()}
    return quietened(tensors, spreads, layout.copies, layout.ignored)


def _moments(layout: LstmLayout, tensors: Tensors) -> dict[str, tuple[Float64Array, Float64Array]]:
    """Mean and variance by torch's names."""
    found = {
        key: (float64(tensors[one.mean]), softplus(tensors[one.spread]) ** 2)
        for key, one in _gaussians(layout).items()
        if one.mean in tensors
    }
    if layout.matrices is Matrices.INPUTS_FIRST:
        for key in ("weight_ih_l0", "weight_hh_l0"):
            mean, variance = found[key]
            found[key] = mean.T, variance.T
    biases = [key for key in BIASES if key in found]
    if len(biases) == 1:
        zero = np.zeros_like(found[biases[0]][0])
        found |= {key: (zero, zero) for key in BIASES if key not in found}
    return found


BIASES = ("bias_ih_l0", "bias_hh_l0")


def _gaussians(layout: LstmLayout) -> dict[str, Gaussian]:
    matrices = {"weight_ih_l0": layout.input_matrix, "weight_hh_l0": layout.state_matrix}
    return matrices | dict(layout.biases)
