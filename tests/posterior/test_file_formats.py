"""Posteriors that a file keeps for a whole network: IVON, Laplace, SWAG, Pyro, TyXe.

The dictionaries are those that ivon-opt 0.1.3, laplace-torch 0.3, pyro-ppl 1.9.2 and tyxe 0.0.2
write, and SWAG's reference code; tests/libraries holds files that the libraries wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import ArchitectureError, CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.describe import inspect_checkpoint
from deploykit.posterior.flat import laid_out
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.predictive import monte_carlo
from deploykit.posterior.recognise import recognise
from deploykit.spec.posterior import Folded

SIZE = 8
LAYERS = ("0", "4")
INPUTS = np.random.default_rng(0).standard_normal((5, 1, 4, 4)).astype(np.float32)


def network() -> nn.Sequential:
    """Convolution, batch norm, linear: 36 + 4 + 4 + 4 + 48 + 3 parameters."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )
    nn.init.normal_(made.get_buffer("1.running_mean"))
    return made.eval()


def vector(source: nn.Module) -> torch.Tensor:
    """Every parameter, one behind another."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in source.parameters()])


def spread(source: nn.Module, seed: int = 1) -> torch.Tensor:
    """Positive numbers, one for each parameter."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(vector(source).numel(), generator=generator) + 0.5


def by_name(source: nn.Module, flat: torch.Tensor) -> dict[str, torch.Tensor]:
    """A vector cut into the shapes of the parameters."""
    parts = torch.split(flat, [parameter.numel() for parameter in source.parameters()])
    named = zip(source.named_parameters(), parts, strict=True)
    return {name: part.reshape(parameter.shape) for (name, parameter), part in named}


def buffers(source: nn.Module) -> dict[str, torch.Tensor]:
    """Batch norm's running statistics."""
    return dict(source.named_buffers())


def ivon(source: nn.Module) -> tuple[Any, torch.Tensor]:
    """The file, and the variances that its library samples with."""
    hess, decay, ess = spread(source), 1e-3, 50.0
    state = {
        "state": {"count": 3},
        "param_groups": [
            {"hess": hess, "momentum": hess, "ess": ess, "weight_decay": decay, "params": [0]}
        ],
    }
    content = {"model": source.state_dict(), "optimizer": state, "epoch": 3}
    return content, 1 / (ess * (hess + decay))


def laplace(source: nn.Module) -> tuple[Any, torch.Tensor]:
    """A fit to all weights, beside the network whose running statistics it lacks."""
    curvature, prior, noise, temperature = spread(source), 2.0, 0.5, 3.0
    fit = {
        "mean": vector(source), "H": curvature, "prior_precision": torch.tensor([prior]),
        "prior_mean": torch.tensor(0.0), "sigma_noise": torch.tensor(noise),
        "temperature": temperature, "cls_name": "DiagLaplace", "likelihood": "classification",
    }  # fmt: skip
    content = {"model": source.state_dict(), "la": fit}
    return content, 1 / (curvature / (noise**2 * temperature) + prior)


def swag(source: nn.Module) -> tuple[Any, torch.Tensor]:
    """Means and squared means under `base`."""
    variance = spread(source)
    means, variances = dict(source.named_parameters()), by_name(source, variance)
    content = {f"base.{key}": value for key, value in buffers(source).items()}
    for key, mean in means.items():
        content[f"base.{key}_mean"] = mean.detach()
        content[f"base.{key}_sq_mean"] = mean.detach() ** 2 + variances[key]
        content[f"base.{key}_cov_mat_sqrt"] = torch.zeros(2, mean.numel())
    return {"state_dict": content | {"n_models": torch.ones(1)}, "epoch": 2}, variance


def swag_of_torch_uncertainty(source: nn.Module) -> tuple[Any, torch.Tensor]:
    """In a Lightning module; core_model holds weights that differ from the averages."""
    variance = spread(source)
    content = {
        f"model.core_model.{key}": value + 1 if key in dict(source.named_parameters()) else value
        for key, value in source.state_dict().items()
    }
    for key, mean in source.named_parameters():
        start = f"model.swag_stats.{key}"
        content[f"{start}_mean"] = mean.detach()
        content[f"{start}_sq_mean"] = mean.detach() ** 2 + by_name(source, variance)[key]
        content[f"{start}_covariance_sqrt"] = torch.zeros(2, mean.numel())
    return {"state_dict": content | {"model.num_avgd_models": torch.tensor(3)}}, variance


def auto_normal(source: nn.Module) -> tuple[Any, torch.Tensor]:
    """locs and scales of every site, unconstrained."""
    free = spread(source)
    content = {f"locs.{k}_unconstrained": v.detach() for k, v in source.named_parameters()}
    content |= {f"scales.{k}_unconstrained": v for k, v in by_name(source, free).items()}
    return content | buffers(source), nn.functional.softplus(free) ** 2


def tyxe(source: nn.Module) -> tuple[Any, torch.Tensor]:
    """loc and scale of every parameter of the guide's network, unconstrained."""
    free = spread(source)
    start, loc, scale = "net_guide.net.", ".loc_unconstrained", ".scale_unconstrained"
    content = {f"{start}{k}{loc}": v.detach() for k, v in source.named_parameters()}
    content |= {f"{start}{k}{scale}": v for k, v in by_name(source, free).items()}
    return content | {
        f"net.{key}": value for key, value in buffers(source).items()
    }, free.exp() ** 2


Writer = Callable[[nn.Module], tuple[Any, torch.Tensor]]
WRITERS: dict[str, Writer] = {
    "IVON": ivon, "Laplace": laplace, "SWAG": swag, "SWAG, torch-uncertainty":
    swag_of_torch_uncertainty, "Pyro AutoNormal": auto_normal, "TyXe": tyxe,
}  # fmt: skip


def folded(path: Path, source: Callable[[], nn.Module]) -> Folded:
    """The file at `path` in a network that `source` builds, unpruned."""
    loaded = laid_out(load_checkpoint(path), source())
    return fold_posterior(loaded, source, INPUTS, PruneSpec(PruneRule.NONE))


@pytest.mark.parametrize("name", WRITERS)
def test_the_mean_is_the_network_and_the_variance_the_libraries_own(
    name: str, tmp_path: Path
) -> None:
    source = network()
    content, variance = WRITERS[name](source)
    torch.save(content, tmp_path / "c.pt")
    made = folded(tmp_path / "c.pt", lambda: network().apply(_forget))
    assert {made.report.families[layer] for layer in LAYERS} == {name.partition(",")[0]}
    assert made.report.families["1"] == "deterministic"
    expected = source(torch.tensor(INPUTS)).detach().numpy()
    np.testing.assert_allclose(made.module(torch.tensor(INPUTS)).detach(), expected, rtol=1e-5)
    parts = by_name(source, variance)
    for layer in LAYERS:
        for key in ("weight", "bias"):
            full = f"{layer}.{key}"
            np.testing.assert_allclose(made.variance[full], parts[full].numpy(), rtol=2e-5)


def _forget(module: nn.Module) -> None:
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        tensor.data.zero_()


@pytest.mark.parametrize("name", WRITERS)
def test_draws_have_the_variance(name: str, tmp_path: Path) -> None:
    content, variance = WRITERS[name](network())
    torch.save(content, tmp_path / "c.pt")
    loaded = laid_out(load_checkpoint(tmp_path / "c.pt"), network())
    layer = recognise(loaded).layers[-1]
    generator = np.random.default_rng(0)
    drawn = [layer.family.sample(layer.tensors, generator)["weight"] for _ in range(2000)]
    expected = by_name(network(), variance)["4.weight"].numpy()
    assert np.var(drawn, axis=0).mean() == pytest.approx(expected.mean(), rel=0.05)
    mean = fold_posterior(loaded, network, INPUTS, PruneSpec(PruneRule.NONE)).unpruned
    assert monte_carlo(mean, recognise(loaded), INPUTS, draws=2).shape == (5, 3)


@pytest.mark.parametrize("stored", ["state_dict", "parameter store"])
def test_a_diagonal_normal_follows_the_parameters(stored: str, tmp_path: Path) -> None:
    source = nn.Linear(3, 2)
    free = spread(source)
    content = {"loc": vector(source), "scale_unconstrained": free}
    if stored == "parameter store":
        scale = nn.functional.softplus(free)
        content = {"AutoDiagonalNormal.loc": vector(source), "AutoDiagonalNormal.scale": scale}
    torch.save(content, tmp_path / "c.pt")
    loaded = laid_out(load_checkpoint(tmp_path / "c.pt"), source)
    (layer,) = recognise(loaded).layers
    posterior = layer.posterior()
    np.testing.assert_array_equal(posterior.mean["bias"], source.bias.detach().numpy())
    scale = nn.functional.softplus(free[:6]).reshape(2, 3)
    np.testing.assert_allclose(posterior.variance["weight"], scale**2, rtol=1e-6)


def test_a_fit_of_the_last_layer_leaves_the_others_without_variance(tmp_path: Path) -> None:
    source = network()
    curvature = torch.arange(1.0, 52.0)
    fit = {
        "mean": vector(source[4]) + 1, "H": curvature, "prior_precision": torch.tensor([1.0]),
        "sigma_noise": torch.tensor(1.0), "temperature": 1.0, "cls_name": "DiagLLLaplace",
    }  # fmt: skip
    torch.save({"model": source.state_dict(), "laplace": fit}, tmp_path / "c.pt")
    made = folded(tmp_path / "c.pt", network)
    assert made.report.families["0"] == "deterministic"
    np.testing.assert_allclose(made.variance["4.bias"], 1 / (curvature[-3:].numpy() + 1), rtol=1e-6)
    mean = made.module.get_parameter("4.bias").detach().numpy()
    expected = source.get_parameter("4.bias").detach().numpy() + 1
    np.testing.assert_allclose(mean, expected, rtol=1e-6)


class HeadFirst(nn.Module):
    """Registers the layer that runs last before the one that runs first, of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.body(x.flatten(2)).relu())
        return output


@pytest.mark.parametrize(
    ("name", "moved", "layer"), [("head", 1, "head"), (None, 0, "head"), (None, 1, "body")]
)
def test_a_last_layer_is_the_one_that_the_file_names_or_whose_weights_are_the_mean(
    name: str | None, moved: float, layer: str, tmp_path: Path
) -> None:
    source = HeadFirst()
    fit = {
        "mean": vector(source.head) + moved, "H": torch.ones(20), "prior_precision": torch.ones(1),
        "sigma_noise": torch.tensor(1.0), "cls_name": "DiagLLLaplace", "_last_layer_name": name,
    }  # fmt: skip
    torch.save({"model": source.state_dict(), "laplace": fit}, tmp_path / "c.pt")
    laid = laid_out(load_checkpoint(tmp_path / "c.pt"), HeadFirst())
    assert [found.name for found in recognise(laid).layers] == [layer]


def test_a_layer_that_the_network_has_not_is_refused(tmp_path: Path) -> None:
    source = HeadFirst()
    fit = {
        "mean": vector(source.head), "H": torch.ones(20), "prior_precision": torch.ones(1),
        "sigma_noise": torch.tensor(1.0), "cls_name": "DiagLLLaplace", "_last_layer_name": "top",
    }  # fmt: skip
    torch.save({"model": source.state_dict(), "laplace": fit}, tmp_path / "c.pt")
    with pytest.raises(ArchitectureError, match="20 entries and the network 0 parameters in 'top'"):
        laid_out(load_checkpoint(tmp_path / "c.pt"), HeadFirst())


def test_savage_dickey_knows_the_prior_of_ivon(tmp_path: Path) -> None:
    content, _ = ivon(network())
    torch.save(content, tmp_path / "c.pt")
    loaded = laid_out(load_checkpoint(tmp_path / "c.pt"), network())
    assert recognise(loaded).layers[0].posterior().prior_variance == pytest.approx(20.0)
    made = fold_posterior(loaded, network, INPUTS, PruneSpec(PruneRule.SAVAGE_DICKEY, 1e6))
    assert [decision.layer for decision in made.report.pruning] == ["0"]


def _without_model(content: Any) -> Any:
    return content["optimizer"]


def _diverged(content: Any) -> Any:
    content["optimizer"]["param_groups"][0]["hess"][3] = float("nan")
    return content


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without_model, "optimizer state without the weights: save both"),
        (_diverged, "variance of its IVON posterior holds NaN"),
    ],
)
def test_what_ivon_leaves_open_is_refused(
    change: Callable[[Any], Any], told: str, tmp_path: Path
) -> None:
    torch.save(change(ivon(network())[0]), tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(tmp_path / "c.pt")


def test_prior_precisions_that_fit_no_parameters_are_refused(tmp_path: Path) -> None:
    content, _ = laplace(network())
    content["la"]["prior_precision"] = torch.ones(3)
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="3 entries for 99 parameters"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_vector_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(ivon(network())[0], tmp_path / "c.pt")
    with pytest.raises(ArchitectureError, match="has 99 entries and the network 8 parameters"):
        laid_out(load_checkpoint(tmp_path / "c.pt"), nn.Linear(3, 2))


@pytest.mark.parametrize("name", WRITERS)
def test_inspect_names_the_format(name: str, tmp_path: Path) -> None:
    torch.save(WRITERS[name](network())[0], tmp_path / "c.pt")
    summary = inspect_checkpoint(load_checkpoint(tmp_path / "c.pt"))
    told = [layer.family for layer in summary.layers] + list(summary.traps)
    assert any(name.partition(",")[0] in text for text in told)
