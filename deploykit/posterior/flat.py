"""Lay a flat posterior out by the parameters of the network that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.diagonal import MEAN, PRIOR, VARIANCE, layers_with_a_matrix
from deploykit.posterior.recognise import join_key, split_key
from deploykit.spec.posterior import Checkpoint


def laid_out(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """X_mean and X_variance under every layer with a weight matrix or kernel.

    Raises ArchitectureError where the network has another number of parameters.
    """
    if checkpoint.flat is None:
        return checkpoint
    covered = _covered(checkpoint, network)
    total = sum(parameter.numel() for parameter in covered.values())
    if total != checkpoint.flat.variance.size:
        named = "" if checkpoint.flat.layer is None else f" in '{checkpoint.flat.layer}'"
        raise ArchitectureError(
            f"{checkpoint.path}: its {checkpoint.flat.format} posterior has "
            f"{checkpoint.flat.variance.size} entries and the network {total} parameters{named} "
            f"({len(covered)} tensors); build the network that was trained"
        )
    tensors, place = dict(checkpoint.tensors), 0
    for name, parameter in covered.items():
        part = slice(place, place + parameter.numel())
        place = part.stop
        shape = tuple(parameter.shape)
        mean = tensors.pop(name, None)
        if checkpoint.flat.mean is not None:
            mean = checkpoint.flat.mean[part].reshape(shape)
        if mean is None:
            raise ArchitectureError(
                f"{checkpoint.path}: holds no weights '{name}' to go with the variance of its "
                f"{checkpoint.flat.format} posterior; save model.state_dict() beside it"
            )
        tensors[f"{name}{MEAN}"] = mean
        tensors[f"{name}{VARIANCE}"] = checkpoint.flat.variance[part].reshape(shape)
        prior = checkpoint.flat.prior_variance
        if prior is not None and name.rpartition(".")[2] == "weight":
            tensors[join_key(name.rpartition(".")[0], PRIOR)] = np.array(prior, np.float32)
    places = {name: place for place, (name, _) in enumerate(network.named_modules())}
    made = layers_with_a_matrix(tensors)
    last = len(places)
    laid = {k: made[k] for k in sorted(made, key=lambda k: places.get(split_key(k)[0], last))}
    return replace(checkpoint, tensors=laid, flat=None, format=checkpoint.flat.format)


def _covered(checkpoint: Checkpoint, network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name, in order; of one layer alone where the vector is the last layer's."""
    flat = checkpoint.flat
    assert flat is not None
    every = dict(network.named_parameters())
    if flat.format == "Laplace":
        every = {name: value for name, value in every.items() if value.requires_grad}
    if not flat.last_layer:
        return every
    by_layer: dict[str, dict[str, nn.Parameter]] = {}
    for name, value in every.items():
        by_layer.setdefault(split_key(name)[0], {})[name] = value
    if flat.layer is not None:
        return by_layer.get(flat.layer, {})
    last = next(reversed(by_layer.values()), {})
    return next((own for own in by_layer.values() if _is_mean(checkpoint, own)), last)


def _is_mean(checkpoint: Checkpoint, own: Iterable[str]) -> bool:
    """Whether the file's weights of these names are the vector's mean, as a fit leaves them.

    The library takes for the last layer what runs last, which need not be registered last.
    """
    assert checkpoint.flat is not None
    mean = checkpoint.flat.mean
    parts = [checkpoint.tensors[name].reshape(-1) for name in own if name in checkpoint.tensors]
    return mean is not None and bool(parts) and np.array_equal(np.concatenate(parts), mean)
