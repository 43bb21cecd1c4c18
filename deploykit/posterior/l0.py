"""L0 gates in the four spellings that are in use; a is the location of a hard concrete gate.

layer                weight, gates                                             gates multiply
AMLab L0Dense        weights [I, C] transposed, qz_loga [I] = a                inputs
AMLab L0Conv2d       weights [C, I/g, kh, kw], qz_loga [C] = a                 outputs, bias too
moskomule L0Linear,  _origin.weight, loc of its shape = a                      every weight
  L0Conv2d
cplxmodule LinearL0  weight [C, I], log_alpha [1, I], [C, 1] or [C, I] = -a    inputs, outputs
                                                                               without bias, weights
L0Gate               qz_loga [C] = a                                           channels
Source: Louizos, Welling and Kingma 2018; AMLab-Amsterdam/L0_regularization 39a5fe6;
moskomule/l0.pytorch; cplxmodule 2022.6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deploykit.posterior import hard_concrete
from deploykit.posterior.family import Closes, EvalForward, Family, GateRule, Trap, TwinKind
from deploykit.posterior.gated import (
    GatedLayer,
    Gates,
    Layer,
    gate_layer,
    gated_posterior,
    gated_sample,
)
from deploykit.posterior.moments import float64
from deploykit.spec.arrays import Float64Array, Tensors

PAPER = "Louizos, Welling and Kingma 2018, 'Learning sparse neural networks through L0'"


def _amlab(tensors: Tensors) -> GatedLayer:
    weight, bias = float64(tensors["weights"]), _bias(tensors, "bias")
    if weight.ndim == 2:
        return GatedLayer(weight.T, bias, axis=1)
    return GatedLayer(weight, bias, axis=0, gated=_both(bias))


def _moskomule(tensors: Tensors) -> GatedLayer:
    return GatedLayer(float64(tensors["_origin.weight"]), _bias(tensors, "_origin.bias"), axis=None)


def _cplxmodule(tensors: Tensors) -> GatedLayer:
    """An only row of gates belongs to the inputs, as in the library's own forward."""
    weight, gates = float64(tensors["weight"]), tensors["log_alpha"].shape
    axis = 1 if gates[0] == 1 else 0 if gates[1] == 1 else None
    return GatedLayer(weight, _bias(tensors, "bias"), axis)


def _alone(tensors: Tensors) -> GatedLayer:
    return gate_layer(tensors["qz_loga"].size)


def _cplxmodule_location(tensors: Tensors) -> Float64Array:
    """The sign is that of a dropout rate: large where the gate is closed."""
    values = -float64(tensors["log_alpha"])
    return values.reshape(-1) if 1 in values.shape else values


def _fits_cplxmodule(tensors: Tensors) -> bool:
    outputs_inputs, gates = tensors["weight"].shape, tensors["log_alpha"].shape
    if len(outputs_inputs) != 2 or tensors.get("bias", np.zeros(1)).ndim != 1:
        return False
    outputs, inputs = outputs_inputs
    return gates in {(1, inputs), (outputs, 1), (outputs, inputs)}


def _bias(tensors: Tensors, key: str) -> Float64Array | None:
    return float64(tensors[key]) if key in tensors else None


def _both(bias: Float64Array | None) -> tuple[str, ...]:
    return ("weight",) if bias is None else ("weight", "bias")


def _family(
    name: str, layer: Layer, location: Callable[[Tensors], Float64Array], **row: Any
) -> Family:
    def gates(tensors: Tensors) -> Gates:
        at = location(tensors)
        return Gates(hard_concrete.evaluated_gate(at), hard_concrete.variance(at), at)

    def drawn(tensors: Tensors, generator: np.random.Generator) -> Float64Array:
        return hard_concrete.draw(location(tensors), generator)

    return Family(
        name=name,
        posterior=gated_posterior(name, layer, gates),
        sample=gated_sample(layer, drawn),
        gate_rule=GateRule(
            score="location of the hard concrete gate",
            closes=Closes.AT_OR_BELOW,
            threshold=hard_concrete.CLOSED_AT,
            source=f"{PAPER}: there the gate that evaluation multiplies with is zero",
        ),
        eval_forward=EvalForward.MEAN,
        **row,
    )


def _named(key: str) -> Callable[[Tensors], Float64Array]:
    return lambda tensors: float64(tensors[key])


L0_AMLAB = _family(
    "L0 (AMLab)",
    _amlab,
    _named("qz_loga"),
    signature=frozenset({"weights", "qz_loga"}),
    optional=(frozenset({"bias"}),),
    source=f"{PAPER}; AMLab-Amsterdam/L0_regularization 39a5fe6",
    traps=(
        Trap(
            "training without local_rep leaves the bias of a convolution out, so that it was never "
            "trained, and evaluation adds it; the evaluated network is folded",
            lambda tensors: tensors["weights"].ndim == 4 and "bias" in tensors,
        ),
    ),
)
L0_CPLXMODULE = _family(
    "L0 (cplxmodule)",
    _cplxmodule,
    _cplxmodule_location,
    signature=frozenset({"weight", "log_alpha"}),
    optional=(frozenset({"bias"}),),
    source=f"{PAPER}; cplxmodule 2022.6, extensions.real.LinearL0",
    traps=(
        Trap(
            "weight and log_alpha for every weight are also how some variational dropout code "
            "names its tensors; they are taken for cplxmodule's LinearL0. For the other, rename "
            "weight to W",
            lambda tensors: 1 not in tensors["log_alpha"].shape,
        ),
    ),
    fits=_fits_cplxmodule,
)
L0_GATE = _family(
    "L0 gate layer",
    _alone,
    _named("qz_loga"),
    signature=frozenset({"qz_loga"}),
    optional=(),
    source=f"{PAPER}; L0Gate, a layer of gates alone",
    twin=TwinKind.CHANNEL_SCALE,
    fits=lambda tensors: tensors["qz_loga"].ndim == 1,
)
L0_MOSKOMULE = _family(
    "L0 (moskomule)",
    _moskomule,
    _named("loc"),
    signature=frozenset({"_origin.weight", "loc"}),
    optional=(frozenset({"_origin.bias"}), frozenset({"uniform"}), frozenset({"temp"})),
    source=f"{PAPER}; moskomule/l0.pytorch",
)
L0 = (L0_AMLAB, L0_CPLXMODULE, L0_GATE, L0_MOSKOMULE)
