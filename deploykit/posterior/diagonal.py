"""Diagonal Gaussians that a file keeps for a whole network: means and variances by parameter.

    IVON       the optimizer's hess; variance = 1 / (ess (hess + weight_decay))
    Laplace    mean and H of a fit to all weights or the last layer's;
               variance = 1 / (H / (sigma_noise^2 temperature) + prior_precision)
    SWAG       X_mean and X_sq_mean; variance = X_sq_mean - X_mean^2, see `swag`
    Pyro       AutoNormal and AutoDiagonalNormal; scale = softplus(unconstrained)
    TyXe       scale = exp(unconstrained)

`file_formats` finds them; here they stand as X_mean and X_variance under each layer.
Sources: Shen et al. 2024 and ivon-opt 0.1.3; Daxberger et al. 2021 and laplace-torch 0.3; Maddox et
al. 2019; pyro-ppl 1.9.2; Ritter and Karaletsos 2022, tyxe 0.0.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from deploykit.posterior.family import Draws, EvalForward, Family, Trap
from deploykit.posterior.moments import draw, float32, float64
from deploykit.posterior.options import BatchNormMode
from deploykit.spec.arrays import Float32Array, Tensors
from deploykit.spec.posterior import LayerPosterior

MEAN, VARIANCE = "_mean", "_variance"
PRIOR = "prior_variance"
PARAMETERS = ("weight", "bias")


class HasRank(Protocol):
    """An array of numpy or a tensor of torch."""

    @property
    def ndim(self) -> int:
        """How many axes it has."""


Held = TypeVar("Held", bound=HasRank)


def layers_with_a_matrix(tensors: Mapping[str, Held]) -> dict[str, Held]:
    """X_mean and X_variance of layers with one weight of two axes or more; others at their mean.

    Batch norms have one axis, and recurrent layers several matrices of other names.
    """
    own: dict[str, set[str]] = {}
    for key in tensors:
        layer, _, last = key.rpartition(".")
        if last.endswith(MEAN) and _other(key, MEAN, VARIANCE) in tensors:
            own.setdefault(layer, set()).add(last.removesuffix(MEAN))
    kept = {
        layer
        for layer, names in own.items()
        if "weight" in names
        and names <= set(PARAMETERS)
        and tensors[f"{layer}.weight{MEAN}" if layer else f"weight{MEAN}"].ndim >= 2
    }
    made: dict[str, Held] = {}
    for key, value in tensors.items():
        layer, _, last = key.rpartition(".")
        if layer in kept or layer not in own:
            made[key] = value
        elif last.endswith(MEAN) and last.removesuffix(MEAN) in own[layer]:
            made[key.removesuffix(MEAN)] = value
        elif last.removesuffix(VARIANCE) not in own[layer] and last != PRIOR:
            made[key] = value
    return made


def _other(key: str, end: str, other: str) -> str:
    return f"{key.removesuffix(end)}{other}"


def _family(name: str, source: str, *traps: Trap) -> Family:
    return Family(
        name=name,
        signature=frozenset({f"weight{MEAN}", f"weight{VARIANCE}"}),
        optional=(frozenset({f"bias{MEAN}", f"bias{VARIANCE}"}), frozenset({PRIOR})),
        posterior=lambda layer, tensors: _posterior(name, layer, tensors),
        sample=_sample,
        gate_rule=None,
        eval_forward=EvalForward.SAMPLED,
        draws=Draws.EVERY_BATCH,
        source=source,
        traps=traps,
    )


def _posterior(family: str, name: str, tensors: Tensors) -> LayerPosterior:
    mean, variance = (
        {
            key: float32(name, float64(tensors[f"{key}{end}"]))
            for key in PARAMETERS
            if f"{key}{end}" in tensors
        }
        for end in (MEAN, VARIANCE)
    )
    prior = tensors.get(PRIOR)
    return LayerPosterior(
        name, family, mean, variance, weight_mean=mean["weight"],
        weight_variance=variance["weight"], prior_variance=None if prior is None else float(prior),
    )  # fmt: skip


def _sample(tensors: Tensors, generator: np.random.Generator) -> Mapping[str, Float32Array]:
    return {
        key: draw(
            float64(tensors[f"{key}{MEAN}"]), float64(tensors[f"{key}{VARIANCE}"]), generator
        ).astype(np.float32)
        for key in PARAMETERS
        if f"{key}{MEAN}" in tensors
    }


def _constant_variance(tensors: Tensors) -> bool:
    variance = tensors[f"weight{VARIANCE}"]
    return variance.size > 1 and bool(np.ptp(variance) <= 1e-6 * variance.max())


UNTRAINED = Trap("every weight has the same variance: it carries no ranking", _constant_variance)
IN_ORDER = Trap(
    "the vector is laid out in the order of the network's parameters; a guide whose sites run in "
    "another order, or an optimizer built from another list, gives other weights",
    lambda tensors: tensors[f"weight{MEAN}"].size > 0,
)

FORMATS: Mapping[str, Family] = {
    family.name: family
    for family in (
        _family("IVON", "Shen et al. 2024; ivon-opt 0.1.3", UNTRAINED, IN_ORDER),
        _family("Laplace", "Daxberger et al. 2021; laplace-torch 0.3", UNTRAINED),
        replace(
            _family(
                "SWAG",
                "Maddox et al. 2019, section 3; its low-rank part is left out of the variance",
                UNTRAINED,
                Trap(
                    "where the network has batch norm, its statistics are not those of the "
                    "averaged weights: give --batchnorm reestimate",
                    lambda tensors: tensors[f"weight{MEAN}"].ndim == 4,
                ),
            ),
            batchnorm=BatchNormMode.REESTIMATE,
        ),
        _family("Pyro AutoNormal", "pyro-ppl 1.9.2, infer/autoguide", UNTRAINED),
        _family("Pyro AutoDiagonalNormal", "pyro-ppl 1.9.2, infer/autoguide", UNTRAINED, IN_ORDER),
        _family("TyXe", "Ritter and Karaletsos 2022; tyxe 0.0.2", UNTRAINED),
    )
}
"""By name; `recognise` takes the one that `Checkpoint.format` names."""
