"""Lay a flat posterior out by the parameters of the network that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.diagonal import MEAN, PRIOR, VARIANCE, layers_with_a_matrix
from deploykit.posterior.flat_groups import in_groups
from deploykit.posterior.recognise import join_key, split_key
from deploykit.spec.posterior import Checkpoint

UNSORTED = (
    "IVON's {count} parameter groups do not name their parameters, and the sizes of the network's "
    "parameters do not tell which is in which: train with one group"
)


def laid_out(checkpoint: Checkpoint, network: nn.Module) -> Checkpoint:
    """X_mean and X_variance under every layer with a weight matrix or kernel.

    Raises ArchitectureError where the network has another number of parameters.
    """
    if checkpoint.flat is None:
        return checkpoint
    flat = checkpoint.flat
    covered = _covered(checkpoint, network)
    total = sum(parameter.numel() for parameter in covered.values())
    if flat.groups:
        grouped = in_groups(covered, flat.groups)
        if grouped is None:
            return mean_alone(checkpoint, UNSORTED.format(count=len(flat.groups)))
        covered, priors = grouped.parameters, grouped.prior_variance
    else:
        priors = {} if flat.prior_variance is None else dict.fromkeys(covered, flat.prior_variance)
    if total != flat.size:
        named = "" if flat.layer is None else f" in '{flat.layer}'"
        raise ArchitectureError(
            f"{checkpoint.path}: its {flat.format} posterior has {flat.size} entries and the "
            f"network {total} parameters{named} ({len(covered)} tensors); build the network that "
            "was trained"
        )
    tensors, place = dict(checkpoint.tensors), 0
    for name, parameter in covered.items():
        part = slice(place, place + parameter.numel())
        place = part.stop
        shape = tuple(parameter.shape)
        mean = tensors.pop(name, None)
        if flat.mean is not None:
            mean = flat.mean[part].reshape(shape)
        if mean is None:
            raise ArchitectureError(
                f"{checkpoint.path}: holds no weights '{name}' to go with the variance of its "
                f"{flat.format} posterior; save model.state_dict() beside it"
            )
        if flat.variance is None:
            tensors[name] = mean
            continue
        tensors[f"{name}{MEAN}"] = mean
        tensors[f"{name}{VARIANCE}"] = flat.variance[part].reshape(shape)
        if name in priors and name.rpartition(".")[2] == "weight":
            tensors[join_key(split_key(name)[0], PRIOR)] = np.array(priors[name], np.float32)
    if flat.unknown is not None:
        return mean_alone(replace(checkpoint, tensors=tensors), flat.unknown)
    places = {name: place for place, (name, _) in enumerate(network.named_modules())}
    made = layers_with_a_matrix(tensors)
    last = len(places)
    laid = {k: made[k] for k in sorted(made, key=lambda k: places.get(split_key(k)[0], last))}
    return replace(checkpoint, tensors=laid, flat=None, format=flat.format)


def mean_alone(checkpoint: Checkpoint, why: str) -> Checkpoint:
    """The weights by name, the variance left unread for that reason."""
    assert checkpoint.flat is not None
    told = f"the variance of the {checkpoint.flat.format} posterior: {why}"
    return replace(checkpoint, flat=None, unread=(*checkpoint.unread, told), unknown_variance=why)


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
