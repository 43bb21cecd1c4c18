"""Where a file keeps a Pyro guide: as an entry beside the model, or under a prefix of its names.

Of AutoLowRankMultivariateNormal and AutoMultivariateNormal the mean is read alone.
Source: pyro-ppl 1.9.2, infer/autoguide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

UNCONSTRAINED = "_unconstrained"
COVARIANCES = frozenset({"cov_factor", f"scale_tril{UNCONSTRAINED}", "scale_tril"})
"""Of the guides with loc that are not diagonal."""
SITE = re.compile(r"(?P<prefix>(?:.+\.)?)locs\..+_unconstrained$")
"""AutoNormal's mean of a site; the prefix is what a module that holds the guide calls it."""
STORED = ("AutoLowRankMultivariateNormal.", "AutoMultivariateNormal.")
"""What Pyro's parameter store puts before the names of the guides with a covariance."""
MODEL = "model."


def entry_with_guide(content: Mapping[object, object]) -> str | None:
    """The entry that is a guide's state_dict, where one is."""
    found = [
        key
        for key, entry in content.items()
        if isinstance(key, str) and isinstance(entry, Mapping) and is_guide(entry)
    ]
    return found[0] if len(found) == 1 else None


def is_guide(entry: Mapping[object, object]) -> bool:
    """Whether it holds the parameters of one of Pyro's automatic guides."""
    names = [key for key in entry if isinstance(key, str)]
    return _is_flat(entry) or any(SITE.fullmatch(name) for name in names)


def correlated(content: Mapping[object, object]) -> tuple[torch.Tensor, str] | None:
    """Mean of a guide whose covariance is not diagonal, and what that is called."""
    for start in ("", *STORED):
        covariance = sorted(name for name in COVARIANCES if f"{start}{name}" in content)
        mean = content.get(f"{start}loc")
        if covariance and isinstance(mean, torch.Tensor):
            return mean, covariance[0]
    return None


def without_guide_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """AutoNormal's names without what stands before them all, the model's without `model.`."""
    prefixes = {match["prefix"] for key in tensors if (match := SITE.fullmatch(key))}
    if len(prefixes) != 1 or prefixes == {""}:
        return tensors
    (prefix,) = prefixes
    guide = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    rest = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    if all(key.startswith(MODEL) for key in rest):
        rest = {key.removeprefix(MODEL): value for key, value in rest.items()}
    return beside(guide, rest)


def beside(
    guide: dict[str, torch.Tensor], model: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The guide with what it does not learn of the model: its buffers, its other parameters."""
    sites = {
        key.removeprefix("locs.").removesuffix(UNCONSTRAINED)
        for key in guide
        if SITE.fullmatch(key)
    }
    return {key: value for key, value in model.items() if key not in sites} | guide


def _is_flat(entry: Mapping[object, object]) -> bool:
    return "loc" in entry and bool(entry.keys() & (COVARIANCES | {f"scale{UNCONSTRAINED}"}))
