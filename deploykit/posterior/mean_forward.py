"""Compare the folded network with the Bayesian network's own mean forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from deploykit.errors import ArchitectureError, ParityError
from deploykit.posterior.forward import run
from deploykit.spec.arrays import Float32Array
from deploykit.spec.difference import relative_difference
from deploykit.spec.inputs import GraphInputs, count_samples

TOLERANCE = 1e-4


def require_repeatable(module: nn.Module, inputs: GraphInputs) -> None:
    """Refuse a network whose eval forward draws random numbers."""
    if relative_difference(run(module, inputs), run(module, inputs)) > TOLERANCE:
        raise ArchitectureError(
            "the network computes something else each time it runs in eval mode; build one whose "
            "eval forward draws no random numbers"
        )


def closest(bayesian: nn.Module, candidates: Sequence[nn.Module], inputs: GraphInputs) -> nn.Module:
    """Which of the candidates computes what the Bayesian network does; the first of equals."""
    if len(candidates) == 1:
        return candidates[0]
    expected = run(bayesian, inputs)

    def difference(candidate: nn.Module) -> float:
        found = relative_difference(expected, run(candidate, inputs))
        return found if np.isfinite(found) else np.inf

    return min(candidates, key=difference)


def mean_difference(
    bayesian: nn.Module, folded: nn.Module, inputs: GraphInputs, layers: Iterable[str]
) -> float:
    """Largest difference of the outputs, relative to the largest output of the Bayesian network.

    Both in eval mode. Above 1e-4 a ParityError names the first of `layers` that differs.
    """
    reference, values = run(bayesian, inputs), run(folded, inputs)
    if reference.shape != values.shape:
        first = _first_differing(bayesian, folded, inputs, layers)
        raise ParityError(
            f"the Bayesian network returns the shape {reference.shape} and the folded one "
            f"{values.shape}, {first}; compare how that layer pads and strides with its stride, "
            "padding, dilation, groups and padding_mode attributes"
        )
    if np.isfinite(values).all() and not np.isfinite(reference).all():
        raise ParityError(
            "the Bayesian network's own forward gives NaN or infinity, "
            f"{_first_not_finite(bayesian, inputs, layers)}, where its formula in double precision "
            "does not, so that nothing can be compared with it; let --model name the deterministic "
            "twin, which is folded without it"
        )
    difference = relative_difference(reference, values)
    if not difference <= TOLERANCE:  # NaN too
        first = _first_differing(bayesian, folded, inputs, layers)
        raise ParityError(
            f"the folded network differs from the Bayesian mean forward by {difference:.1e} "
            f"relative (allowed {TOLERANCE:.0e}), {first}; compare that layer's forward in eval "
            "mode with its family's formula, and its stride, padding, dilation and groups "
            "attributes with what it uses"
        )
    return difference


def _first_differing(
    bayesian: nn.Module, folded: nn.Module, inputs: GraphInputs, layers: Iterable[str]
) -> str:
    wanted = tuple(layers)
    expected = _layer_outputs(bayesian, wanted, inputs)
    actual = _layer_outputs(folded, wanted, inputs)
    for layer, output in expected.items():
        if layer not in actual or actual[layer].shape != output.shape:
            return f"first at layer '{layer}', whose outputs differ in shape"
        difference = relative_difference(output, actual[layer])
        if difference > TOLERANCE:
            return f"first at layer '{layer}' ({difference:.1e})"
    return "though every swapped layer agrees"


def _first_not_finite(bayesian: nn.Module, inputs: GraphInputs, layers: Iterable[str]) -> str:
    for layer, output in _layer_outputs(bayesian, tuple(layers), inputs).items():
        if not np.isfinite(output).all():
            return f"first at layer '{layer}'"
    return "behind its posterior's layers"


def _layer_outputs(
    module: nn.Module, layers: tuple[str, ...], inputs: GraphInputs
) -> dict[str, Float32Array]:
    """Outputs by layer name, in the order in which the layers ran."""
    outputs: dict[str, Float32Array] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                outputs[name] = output.numpy(force=True).copy()

        return module.get_submodule(name).register_forward_hook(hook)

    handles = [keep(name) for name in layers]
    try:
        run(module, inputs, batch=max(1, count_samples(inputs)))
    finally:
        for handle in handles:
            handle.remove()
    return outputs
