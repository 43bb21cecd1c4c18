"""Batch norm's running statistics at the posterior mean.

Training collected them with noisy weights: Var_train = Var_mean + E[Var(y | x)], where Var(y | x)
is the weight noise of the layer before. Source: Kingma et al. 2015 (local reparametrisation);
Maddox et al. 2019 (re-estimation after averaging).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from deploykit.errors import ConfigError, DataError
from deploykit.posterior.forward import BATCH, batches, run_batch
from deploykit.posterior.options import BatchNormMode
from deploykit.posterior.weight_noise import measuring_noise
from deploykit.spec.arrays import Float32Array
from deploykit.spec.inputs import GraphInputs, count_samples

__all__ = [
    "BatchNormMode",
    "batchnorm_layers",
    "copy_running_statistics",
    "reestimate_batchnorm",
    "subtract_weight_noise",
]

LARGEST_SHARE = 2.0
"""Of noise in a running variance, beyond which the noise cannot have been in it."""
SMALLEST_SHARE = 0.01
"""What is left of a running variance at the least, so that the gain grows tenfold at most."""


def batchnorm_layers(module: nn.Module) -> Mapping[str, _BatchNorm]:
    """Batch norms with running statistics, by name."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    }


def reestimate_batchnorm(module: nn.Module, inputs: GraphInputs, batch: int = BATCH) -> nn.Module:
    """A copy whose running mean and variance are averages over the inputs [N, ...].

    Everything but batch norm stays in eval mode; batches are of nearly equal size and count alike.
    """
    _require_batchnorm(module, BatchNormMode.REESTIMATE)
    count = count_samples(inputs)
    if count < 2:
        raise DataError(
            f"--batchnorm reestimate needs at least 2 calibration inputs and got {count}"
        )
    result = copy.deepcopy(module)
    layers = batchnorm_layers(result).values()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    for piece in batches(inputs, max(batch, 2)):
        run_batch(result, piece)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
    return result


def subtract_weight_noise(
    module: nn.Module,
    variance: Mapping[str, Float32Array],
    inputs: GraphInputs,
    batch: int = BATCH,
    together: Collection[str] = (),
) -> nn.Module:
    """A copy with running_var - E[sum x^2 s_w^2 + s_b^2] in each batch norm that a layer feeds.

    module: at the posterior mean. variance: of its parameters, by name. together: layers of which
    a batch sees one draw; what that adds to all of the batch alike goes into the batch's own mean,
    so sum Var[x] s_w^2 is subtracted there. E and Var are over the inputs
    [N, ...] and positions, streaming. Which layer feeds which batch norm is observed, not named:
    the layer's output tensor, unchanged, is the batch norm's input. The noise of the weights of
    one layer counts as independent, as in the local reparametrisation; a gate that a whole output
    channel shares is correlated, for which --batchnorm reestimate is exact.

    Raises ConfigError where the noise is far more than all of a running variance.
    """
    _require_batchnorm(module, BatchNormMode.ANALYTIC)
    result = copy.deepcopy(module)
    layers = batchnorm_layers(result)
    with measuring_noise(result, variance, layers, together) as noise:
        for piece in batches(inputs, batch):
            run_batch(result, piece)
    if not noise:
        raise ConfigError(
            "--batchnorm analytic: no batch norm directly follows a layer with a posterior "
            "variance, so there is nothing to subtract; give --batchnorm keep or reestimate"
        )
    for name, added in noise.items():
        running = layers[name].running_var
        if running is not None:
            _require_less(name, added.mean(), running.double())
            reduced = (running.double() - added.mean()).to(running.dtype)
            running.copy_(torch.maximum(reduced, SMALLEST_SHARE * running))
    return result


def copy_running_statistics(source: nn.Module, target: nn.Module) -> nn.Module:
    """A copy of target with the running statistics of source, a network of the same layers."""
    result = copy.deepcopy(target)
    originals = batchnorm_layers(source)
    for name, layer in batchnorm_layers(result).items():
        layer.load_state_dict(originals[name].state_dict() | dict(layer.named_parameters()))
    return result


def _require_less(name: str, noise: torch.Tensor, running: torch.Tensor) -> None:
    """Of a channel that is all noise the two are the same, but for the data they are of."""
    beyond = noise > LARGEST_SHARE * running
    if beyond.any():
        raise ConfigError(
            f"--batchnorm analytic: the weights' noise would add more than the whole running "
            f"variance to {int(beyond.sum())} of {len(running)} channels in front of {name}, so "
            "training did not draw its noise that way, or on other data; give --batchnorm "
            "reestimate"
        )


def _require_batchnorm(module: nn.Module, mode: BatchNormMode) -> None:
    if not batchnorm_layers(module):
        raise ConfigError(
            f"--batchnorm {mode.value}: the network has no batch norm with running statistics; "
            "leave --batchnorm out"
        )
