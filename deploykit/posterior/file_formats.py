"""Posteriors that a file keeps for a whole network, found in its content and read; see `diagonal`.

What has names becomes X_mean and X_variance at once; one vector of all parameters stays flat until
the network is there, see `flat`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from deploykit.errors import CheckpointError
from deploykit.posterior.containers import CONTAINERS, unwrap_containers
from deploykit.posterior.diagonal import MEAN, VARIANCE, layers_with_a_matrix
from deploykit.posterior.guides import (
    UNCONSTRAINED,
    beside,
    correlated,
    entry_with_guide,
    without_guide_prefix,
)
from deploykit.posterior.swag import averages
from deploykit.spec.arrays import Float32Array
from deploykit.spec.posterior import FlatGroup, FlatPosterior

HOLDS_DATA = (
    "the fit keeps a batch of training data in its entry 'data', which deploykit leaves unread; "
    "take it out before you share the file"
)
Named = dict[str, torch.Tensor]
DIAGONAL_NORMALS: tuple[tuple[str, str, Callable[[torch.Tensor], torch.Tensor]], ...] = (
    ("loc", f"scale{UNCONSTRAINED}", torch.nn.functional.softplus),
    ("AutoDiagonalNormal.loc", "AutoDiagonalNormal.scale", torch.abs),
)
"""Names in the guide's state_dict, and in the parameter store, which holds scales themselves."""


@dataclass(frozen=True)
class InFile:
    """content: what is left to unwrap. flat, format: as in Checkpoint."""

    content: object
    flat: FlatPosterior | None = None


@dataclass(frozen=True)
class ByName:
    """tensors: with X_mean and X_variance where the format has them. format: None for no format."""

    tensors: Named
    format: str | None = None


def take_flat(path: Path, content: object, wanted: str | None = None) -> InFile:
    """The vector of IVON's optimizer state, of a Laplace fit or of a Pyro guide, if any.

    wanted: the entry to take, where the file has several networks.
    Raises CheckpointError where one is there that has no weights to go with it.
    """
    if not isinstance(content, Mapping):
        return InFile(content)
    guide = entry_with_guide(content)
    if guide is not None and wanted in (None, guide):
        return _guide_entry(path, content, guide)
    for key, value in content.items():
        # Lightning keeps a list of optimizers.
        entry = value[0] if isinstance(value, list) and len(value) == 1 else value
        if _is_ivon(entry):
            rest = {name: value for name, value in content.items() if name != key}
            return InFile(rest, _ivon(path, entry))
        if is_laplace(entry):
            rest = {name: value for name, value in content.items() if name != key}
            return InFile(rest, _laplace(path, entry))
    if _is_ivon(content):
        raise CheckpointError(
            f"{path}: is IVON's optimizer state without the weights: save both, "
            "torch.save({'model': model.state_dict(), 'optimizer': optimizer.state_dict()}, path)"
        )
    if is_laplace(content):
        flat = _laplace(path, content)
        if flat.last_layer:
            raise CheckpointError(
                f"{path}: is a Laplace fit of the last layer without the other weights: save both, "
                "torch.save({'model': model.state_dict(), 'laplace': la.state_dict()}, path)"
            )
        return InFile({}, flat)
    return _guide_alone(path, content)


def named(tensors: Named) -> ByName:
    """SWAG's, Pyro's and TyXe's tensors by parameter; any others as they are."""
    tensors = without_guide_prefix(tensors)
    for made in (_swag(tensors), _stored(tensors), _auto_normal(tensors), _tyxe(tensors)):
        if made is not None:
            return ByName(layers_with_a_matrix(made.tensors), made.format)
    return ByName(tensors)


def _guide_entry(path: Path, content: Mapping[object, object], name: str) -> InFile:
    """A guide and the model beside it, whose parameters the guide holds better."""
    rest = {key: value for key, value in content.items() if key != name}
    networks = any(isinstance(rest.get(key), Mapping) and rest[key] for key in CONTAINERS)
    model = unwrap_containers(path, rest).tensors if networks else {}
    found = _guide_alone(path, content[name])
    if found.flat is not None:
        return InFile(model, found.flat)
    return InFile(beside(unwrap_containers(path, found.content).tensors, model))


def _guide_alone(path: Path, content: Any) -> InFile:
    """A guide's own state_dict or parameter store; what is none is left as it is."""
    for loc, spread, scale_of in DIAGONAL_NORMALS:
        if content.keys() == {loc, spread}:
            scale = scale_of(_double(content[spread]))
            flat = _flat(path, "Pyro AutoDiagonalNormal", _double(content[loc]), scale**2)
            return InFile({}, flat)
    guide = correlated(content)
    if guide is not None:
        mean, covariance = guide
        why = (
            f"the covariance of a guide with {covariance} is not diagonal (the mean is laid out in "
            "the order of the network's parameters, which the guide's sites have to have)"
        )
        return InFile({}, _mean_alone(path, "Pyro", _double(mean), why))
    return InFile(content)


def _is_ivon(entry: object) -> bool:
    groups = entry.get("param_groups") if isinstance(entry, Mapping) else None
    return isinstance(groups, list) and bool(groups) and {"hess", "ess"} <= groups[0].keys()


def _ivon(path: Path, entry: Any) -> FlatPosterior:
    groups = [
        (_double(group["hess"]), float(group["ess"]), float(group["weight_decay"]), group["params"])
        for group in entry["param_groups"]
    ]
    variance = torch.cat([1.0 / (ess * (hess + decay)) for hess, ess, decay, _ in groups])
    priors = [1.0 / (ess * decay) if decay > 0 else None for _, ess, decay, _ in groups]
    flat = _flat(path, "IVON", None, variance, prior_variance=priors[0])
    if len(groups) == 1:
        return flat
    parts = (
        FlatGroup(len(parameters), hess.numel(), prior)
        for (hess, _, _, parameters), prior in zip(groups, priors, strict=True)
    )
    return replace(flat, prior_variance=None, groups=tuple(parts))


def is_laplace(entry: object) -> bool:
    """Whether it is the state of a laplace-torch fit."""
    name = entry.get("cls_name") if isinstance(entry, Mapping) else None
    return isinstance(name, str) and name.endswith("Laplace")


def _laplace(path: Path, entry: Any) -> FlatPosterior:
    kind = str(entry["cls_name"])
    if not isinstance(entry.get("mean"), torch.Tensor):
        raise CheckpointError(
            f"{path}: is a {kind} without the mean of the weights; export the mean alone: "
            "torch.save(model.state_dict(), path), with --prune-rule none"
        )
    mean = _double(entry["mean"])
    last_layer = kind.endswith("LLLaplace")
    notes = (HOLDS_DATA,) if entry.get("data") else ()
    if kind not in ("DiagLaplace", "DiagLLLaplace"):
        why = f"the covariance of a {kind} is not diagonal (hessian_structure='diag' makes one)"
        alone = _mean_alone(path, "Laplace", mean, why)
        return replace(
            alone, last_layer=last_layer, layer=entry.get("_last_layer_name"), notes=notes
        )
    precision = _double(entry["prior_precision"])
    if precision.numel() not in (1, mean.numel()):
        raise CheckpointError(
            f"{path}: its prior_precision has {precision.numel()} entries for {mean.numel()} "
            "parameters; deploykit reads one for all or one for each"
        )
    noise = float(entry.get("sigma_noise", 1.0)) ** 2 * float(entry.get("temperature", 1.0))
    variance = 1.0 / (_double(entry["H"]) / noise + precision)
    prior = 1.0 / float(precision.reshape(-1)[0]) if precision.numel() == 1 else None
    found = _flat(path, "Laplace", mean, variance, last_layer=last_layer, prior_variance=prior)
    return replace(found, layer=entry.get("_last_layer_name"), notes=notes)


def _swag(tensors: Named) -> ByName | None:
    found = averages(tensors)
    if found is None:
        return None
    made: Named = {}
    for key, moments in found.moments.items():
        made |= _moments(key, *moments)
    return ByName(made | found.others, "SWAG")


def _stored(tensors: Named) -> ByName | None:
    """AutoNormal.locs.X and .scales.X as Pyro's parameter store gives them: constrained."""
    scales = {
        key: key.replace(".scales.", ".locs.")
        for key in tensors
        if ".scales." in key and not key.endswith(UNCONSTRAINED)
    }
    if not scales or not all(loc in tensors for loc in scales.values()):
        return None
    made: Named = {}
    for key, loc in scales.items():
        scale = _double(tensors[key])
        if not bool((scale > 0).all()):
            raise CheckpointError(
                f"'{key}' is not positive, so the parameter store was saved in unconstrained form: "
                "save {name: value for name, value in pyro.get_param_store().items()}"
            )
        made |= _moments(key.partition(".scales.")[2], _double(tensors[loc]), scale**2)
    rest = {k: v for k, v in tensors.items() if k not in scales and k not in scales.values()}
    return ByName(made | rest, "Pyro AutoNormal")


def _auto_normal(tensors: Named) -> ByName | None:
    """locs.X and scales.X of the guide's state_dict; scale = softplus(unconstrained)."""
    scale_of = torch.nn.functional.softplus
    found = _guide(tensors, ("locs.", ""), ("scales.", ""), scale_of)
    return None if found is None else ByName(found[0] | found[1], "Pyro AutoNormal")


def _tyxe(tensors: Named) -> ByName | None:
    """X.loc and X.scale of the guide's network; scale = exp(unconstrained)."""
    start = "net_guide.net."
    found = _guide(tensors, (start, ".loc"), (start, ".scale"), torch.exp)
    if found is None:
        return None
    made, rest = found
    return ByName(made | {key.removeprefix("net."): value for key, value in rest.items()}, "TyXe")


def _guide(
    tensors: Named,
    loc: tuple[str, str],
    scale: tuple[str, str],
    scale_of: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[Named, Named] | None:
    """Moments of every site, and all other tensors; None where a site has no loc and scale.

    loc, scale: what stands before and behind a site's name, in front of "_unconstrained".
    """
    before, behind = loc[0], f"{loc[1]}{UNCONSTRAINED}"
    sites = [
        key.removeprefix(before).removesuffix(behind)
        for key in tensors
        if key.startswith(before) and key.endswith(behind)
    ]
    names = {f"{scale[0]}{site}{scale[1]}{UNCONSTRAINED}": site for site in sites}
    if not sites or not names.keys() <= tensors.keys():
        return None
    made: Named = {}
    for name, site in names.items():
        mean = _double(tensors[f"{before}{site}{behind}"])
        made |= _moments(site, mean, scale_of(_double(tensors[name])) ** 2)
    read = names.keys() | {f"{before}{site}{behind}" for site in sites}
    return made, {key: value for key, value in tensors.items() if key not in read}


def _moments(name: str, mean: torch.Tensor, variance: torch.Tensor) -> Named:
    return {f"{name}{MEAN}": mean.float(), f"{name}{VARIANCE}": variance.float()}


def _mean_alone(path: Path, name: str, mean: torch.Tensor, why: str) -> FlatPosterior:
    return replace(_flat(path, name, mean, None), unknown=why)


def _flat(
    path: Path,
    name: str,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    last_layer: bool = False,
    prior_variance: float | None = None,
) -> FlatPosterior:
    for what, vector in (("mean", mean), ("variance", variance)):
        if vector is not None and not bool(torch.isfinite(vector).all()):
            raise CheckpointError(
                f"{path}: the {what} of its {name} posterior holds NaN or infinity; the training "
                "diverged, take an earlier checkpoint"
            )
    return FlatPosterior(name, _rounded(mean), _rounded(variance), last_layer, prior_variance)


def _rounded(vector: torch.Tensor | None) -> Float32Array | None:
    return None if vector is None else vector.float().numpy()


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(tensor).detach().to("cpu", torch.float64)
