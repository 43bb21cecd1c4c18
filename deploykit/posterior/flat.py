"""Lay a flat posterior out by the parameters of the network that it belongs to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.diagonal import MEAN, PRIOR, VARIANCE, layers_with_a_matrix
from deploykit.posterior.recognise import join_key, split_key
from deploykit.spec.posterior import Checkpoint, FlatPosterior


def laid_out(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """X_mean and X_variance under every layer with a weight matrix or kernel.

    Raises ArchitectureError where the network has another number of parameters.
    """
    if checkpoint.flat is None:
        return checkpoint
    covered = _covered(checkpoint.flat, network)
    total = sum(parameter.numel() for parameter in covered.values())
    if total != checkpoint.flat.variance.size:
        raise ArchitectureError(
            f"{checkpoint.path}: its {checkpoint.flat.format} posterior has "
            f"{checkpoint.flat.variance.size} entries and the network {total} parameters "
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


def _covered(flat: FlatPosterior, network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name, in order; of the last layer those that fill the vector from the end."""
    every = dict(network.named_parameters())
    if flat.format == "Laplace":
        every = {name: value for name, value in every.items() if value.requires_grad}
    if not flat.last_layer:
        return every
    last = next(reversed(every), "").rpartition(".")[0]
    return {name: value for name, value in every.items() if name.rpartition(".")[0] == last}
