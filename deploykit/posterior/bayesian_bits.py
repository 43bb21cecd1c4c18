"""Bayesian Bits: layers whose gates decide the bits of their weights and activations.

A layer has weight, bias or a folded batch norm (gamma, beta, running_mean, running_var), and
quantizers (`trained_quantizer`): of the weight, and of what it gives where that is quantized; a
residual block has the latter alone. gamma_2 [O] are gates of output channels. A closed one zeroes
the weights; the bias stays. The batch norm is folded before the weight is quantized:

    W = Q(weight * gamma / sigma)     b = beta - gamma * running_mean / sigma
    sigma = sqrt(running_var + 1e-5)

Files of --prune-only and --fixed-8bit runs hold gates that nothing used: they read as 32 bits.
Source: van Baalen et al. 2020, "Bayesian Bits: unifying quantization and pruning"; layers of
Qualcomm-AI-research/BayesianBits fb04b6f.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np

from deploykit.errors import CheckpointError
from deploykit.posterior import hard_concrete
from deploykit.posterior.family import Closes, EvalForward, Family, GateRule, Trap, TwinKind
from deploykit.posterior.moments import float64
from deploykit.posterior.trained_quantizer import (
    CLOSED_AT,
    GATES,
    IN_INT8,
    RANGE,
    SCALE,
    TrainedQuantizer,
    is_open,
)
from deploykit.spec.arrays import BoolArray, Float32Array, Tensors
from deploykit.spec.posterior import ActivationRange, LayerPosterior, Precision

NAME = "Bayesian Bits"
EPSILON = np.float32(1e-5)
WEIGHT, ACTIVATION = "weight_quantizer.quantizer", "activation_quantizer.quantizer"
PRUNING = f"{WEIGHT}.gamma_2"
NORM = frozenset({"gamma", "beta", "running_mean", "running_var"})


def folded_weight(tensors: Tensors) -> Float32Array:
    """weight * gamma / sigma in float32, in this order; the weight where there is no norm.

    Every operation rounds correctly, as on a GPU; a square root of torch on a CPU may be a unit in
    the last place off, which moves an integer only where a weight is halfway between two.
    """
    weight = tensors["weight"].astype(np.float32)
    if "gamma" not in tensors:
        return weight
    gamma = tensors["gamma"].astype(np.float32)
    return np.asarray(weight * _along(gamma, weight) / _along(_sigma(tensors), weight))


def folded_bias(tensors: Tensors) -> Float32Array | None:
    """beta - gamma * mean / sigma in float32; the bias where there is no norm."""
    if "gamma" not in tensors:
        return tensors["bias"].astype(np.float32) if "bias" in tensors else None
    gamma, beta, mean = (
        tensors[key].astype(np.float32) for key in ("gamma", "beta", "running_mean")
    )
    return np.asarray(beta - gamma * mean / _sigma(tensors))


def open_channels(tensors: Tensors) -> BoolArray:
    """[O], which output channels the gates gamma_2 keep at evaluation; all where there are none."""
    if PRUNING not in tensors:
        return np.ones(len(tensors["weight"]), dtype=np.bool_)
    return is_open(tensors[PRUNING])


def refusal(keys: Iterable[str]) -> str | None:
    """Why files are not read whose quantizers have the names of these layers, and other tensors."""
    left = [key for key in keys if f".{key}".rpartition(".")[0].endswith(_QUANTIZERS)]
    if not left:
        return None
    start = left[0].rpartition(".")[0]
    own = {key.rpartition(".")[2] for key in left if key.rpartition(".")[0] == start}
    if own == {"x_max"}:
        return (
            f"'{start}' is a quantizer of Bayesian Bits with fixed gates, which keeps x_max and "
            "neither its bits nor which channels are pruned; take the checkpoint from before the "
            "fine-tuning with fixed gates (epoch_N.pth), which holds the gates"
        )
    if not own & (RANGE | SCALE):
        return (
            f"'{start}' keeps no range: the network was trained without --learned-scale, and then "
            "the file does not say what its integers are; train with --learned-scale=range"
        )
    return f"'{start}' holds {', '.join(sorted(own))}, which is no quantizer of Bayesian Bits"


_QUANTIZERS = tuple(f".{one}" for one in (WEIGHT, ACTIVATION))


def _along(vector: Float32Array, weight: Float32Array) -> Float32Array:
    return vector.reshape(-1, *(1,) * (weight.ndim - 1))


def _sigma(tensors: Tensors) -> Float32Array:
    return np.asarray(np.sqrt(tensors["running_var"].astype(np.float32) + EPSILON))


def _quantizer(name: str, part: str, tensors: Tensors) -> TrainedQuantizer:
    start = f"{part}."
    own = {key.removeprefix(start): one for key, one in tensors.items() if key.startswith(start)}
    return TrainedQuantizer.of(f"{name}.{part}" if name else part, own)


def _require_channels(name: str, tensors: Tensors) -> None:
    outputs = tensors["weight"].shape[:1]
    for key in (PRUNING, "bias", *sorted(NORM)):
        if key in tensors and tensors[key].shape != outputs:
            raise CheckpointError(
                f"layer '{name}': {key} has shape {tensors[key].shape} where a weight of shape "
                f"{tensors['weight'].shape} asks for {outputs}; the checkpoint mixes two layers"
            )


def _weighted(family: str, name: str, tensors: Tensors) -> LayerPosterior:
    """weight [O, I] or [O, I/groups, *k] on its grid, closed channels zero; bias [O]."""
    _require_channels(name, tensors)
    full = folded_weight(tensors)
    quantizer = _quantizer(name, WEIGHT, tensors).for_values(full)
    codes, held = quantizer.codes(full), quantizer.quantized(full)
    grid = quantizer.weight_grid(codes)
    if grid is not None:
        held = np.asarray(codes.astype(np.float32) * grid.scale)
    kept = open_channels(tensors)
    mean = {"weight": np.where(_along(kept.astype(np.float32), held) > 0, held, np.float32(0))}
    noise = np.zeros(len(held))
    if PRUNING in tensors:
        noise = hard_concrete.variance(float64(tensors[PRUNING]))
    variance = {"weight": np.asarray(held**2 * _along(noise.astype(np.float32), held))}
    bias = folded_bias(tensors)
    if bias is not None:
        mean["bias"], variance["bias"] = bias, np.zeros_like(bias)
    return LayerPosterior(
        name=name,
        family=family,
        mean=mean,
        variance=variance,
        gate_score=tensors[PRUNING].astype(np.float32) if PRUNING in tensors else None,
        gate_axis=0 if PRUNING in tensors else None,
        precision=Precision(quantizer.bits, grid, _activation(name, tensors)),
    )


def _activation(name: str, tensors: Tensors) -> ActivationRange | None:
    if f"{ACTIVATION}.gamma_4" not in tensors:
        return None
    return _quantizer(name, ACTIVATION, tensors).activation_range()


def _block(family: str, name: str, tensors: Tensors) -> LayerPosterior:
    """No parameter: what a block gives is quantized."""
    return LayerPosterior(
        name, family, {}, {}, precision=Precision(activation=_activation(name, tensors))
    )


def _drawn(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
    """Gates drawn as in training: of bits one for the weight, of channels one each."""
    full = folded_weight(tensors)
    weight = _quantizer("", WEIGHT, tensors).for_values(full).drawn(full, generator)
    if PRUNING in tensors:
        gates = hard_concrete.draw(float64(tensors[PRUNING]), generator)
        weight = np.asarray(weight * _along(gates.astype(np.float32), weight))
    bias = folded_bias(tensors)
    return {"weight": weight} | ({} if bias is None else {"bias": bias})


def _none_drawn(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
    del tensors, generator
    return {}


def _bits(part: str, tensors: Tensors) -> int:
    return _quantizer("", part, tensors).bits if f"{part}.gamma_4" in tensors else 8


def _beyond_int8(part: str, tensors: Tensors) -> bool:
    return _bits(part, tensors) not in IN_INT8


def _keys(part: str, limits: frozenset[str]) -> frozenset[str]:
    return frozenset(f"{part}.{key}" for key in GATES | limits)


TRAPS = (
    Trap(
        "training left its weights at 16 or 32 bits, which int8 does not hold: deploykit chooses "
        "8 bits for them, as for a float layer's",
        partial(_beyond_int8, WEIGHT),
    ),
    Trap(
        "training left its activations at 16 or 32 bits, which int8 does not hold: deploykit "
        "chooses 8 bits for them, as for a float layer's",
        partial(_beyond_int8, ACTIVATION),
    ),
)


def _rows(called: str, limits: frozenset[str]) -> tuple[Family, Family]:
    """Layers and blocks whose quantizers keep these limits."""
    layer = Family(
        name=called,
        signature=frozenset({"weight"}) | _keys(WEIGHT, limits),
        optional=(frozenset({PRUNING}), frozenset({"bias"}), NORM, _keys(ACTIVATION, limits)),
        posterior=partial(_weighted, called),
        sample=_drawn,
        gate_rule=GateRule(
            score="gamma_2",
            closes=Closes.AT_OR_BELOW,
            threshold=CLOSED_AT,
            source="hc_thres = 0.34 of the published code",
        ),
        eval_forward=EvalForward.ROUNDED,
        source="van Baalen et al. 2020; Qualcomm-AI-research/BayesianBits fb04b6f",
        traps=TRAPS,
        twin=TwinKind.QUANTIZED,
        fits=lambda tensors: tensors["weight"].ndim >= 2,
    )
    block = Family(
        name=f"{called} activations",
        signature=_keys(ACTIVATION, limits),
        optional=(),
        posterior=partial(_block, f"{called} activations"),
        sample=_none_drawn,
        gate_rule=None,
        eval_forward=EvalForward.ROUNDED,
        source=layer.source,
        traps=TRAPS[1:],
        twin=TwinKind.ACTIVATION_RANGE,
    )
    return layer, block


BAYESIAN_BITS = (*_rows(NAME, RANGE), *_rows(f"{NAME}, learned scale", SCALE))
