"""Posteriors whose mean a file holds and whose variance cannot be laid out by weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import CheckpointError, ConfigError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.describe import inspect_checkpoint
from deploykit.posterior.flat import laid_out
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.recognise import recognise
from deploykit.spec.posterior import Checkpoint
from tests.posterior.test_file_formats import INPUTS, network, vector

Content = dict[str, Any]


def laplace(kind: str, mean: torch.Tensor, hessian: Any) -> Content:
    """A fit as laplace-torch 0.3 saves it."""
    return {
        "mean": mean, "H": hessian, "prior_precision": torch.ones(1), "temperature": 1.0,
        "sigma_noise": torch.tensor(1.0), "cls_name": kind, "likelihood": "classification",
    }  # fmt: skip


def kron(source: nn.Sequential) -> Content:
    return {"model": source.state_dict(), "la": laplace("KronLaplace", vector(source) + 1, [[]])}


def full_of_the_last_layer(source: nn.Sequential) -> Content:
    fit = laplace("FullLLLaplace", vector(source[4]) + 1, torch.eye(51))
    return {"model": source.state_dict(), "la": fit}


def low_rank(source: nn.Sequential) -> Content:
    mean = vector(source) + 1
    return {"loc": mean, "scale_unconstrained": mean, "cov_factor": torch.ones(99, 2)}


def full_rank(source: nn.Sequential) -> Content:
    mean = vector(source) + 1
    return {"loc": mean, "scale_unconstrained": mean, "scale_tril_unconstrained": torch.eye(99)}


def stored(source: nn.Sequential) -> Content:
    return {f"AutoLowRankMultivariateNormal.{k}": v for k, v in zip(
        ("loc", "scale", "cov_factor"), low_rank(source).values(), strict=True
    )}  # fmt: skip


def guide_beside_the_model(source: nn.Sequential) -> Content:
    return {"guide": low_rank(source), "model": source.state_dict(), "epoch": 3}


MADE: dict[str, tuple[Callable[[nn.Sequential], Content], str]] = {
    "Kronecker factors": (kron, "a KronLaplace is not diagonal"),
    "the last layer's full matrix": (full_of_the_last_layer, "a FullLLLaplace is not diagonal"),
    "low rank": (low_rank, "a guide with cov_factor is not diagonal"),
    "full rank": (full_rank, "a guide with scale_tril_unconstrained is not diagonal"),
    "parameter store": (stored, "a guide with cov_factor is not diagonal"),
    "guide and model": (guide_beside_the_model, "a guide with cov_factor is not diagonal"),
}


def loaded(tmp_path: Path, content: Content, source: nn.Module) -> Checkpoint:
    torch.save(content, tmp_path / "c.pt")
    return laid_out(load_checkpoint(tmp_path / "c.pt"), source)


@pytest.mark.parametrize("name", MADE)
def test_the_mean_is_taken_and_what_is_left_is_told(name: str, tmp_path: Path) -> None:
    make, why = MADE[name]
    source = network()
    checkpoint = loaded(tmp_path, make(source), source)
    assert recognise(checkpoint).layers == ()
    np.testing.assert_array_equal(
        checkpoint.tensors["4.bias"], source.get_parameter("4.bias").detach().numpy() + 1
    )
    (told,) = checkpoint.unread
    assert why in told
    (note, *_) = inspect_checkpoint(load_checkpoint(tmp_path / "c.pt")).traps
    assert why in note
    assert "--prune-rule none" in note


@pytest.mark.parametrize("rule", [PruneRule.SNR, PruneRule.SAVAGE_DICKEY, PruneRule.FAMILY])
def test_a_rule_that_needs_the_variance_is_refused(rule: PruneRule, tmp_path: Path) -> None:
    source = network()
    checkpoint = loaded(tmp_path, kron(source), source)
    with pytest.raises(ConfigError, match=r"a KronLaplace is not diagonal .*--prune-rule none"):
        fold_posterior(checkpoint, network, INPUTS, PruneSpec(rule))
    made = fold_posterior(checkpoint, network, INPUTS, PruneSpec(PruneRule.NONE))
    assert set(made.report.families.values()) == {"deterministic"}


def test_a_fit_without_a_mean_is_refused(tmp_path: Path) -> None:
    fit = laplace("FunctionalLaplace", vector(network()), None)
    del fit["mean"]
    torch.save({"la": fit}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"export the mean alone.*--prune-rule none"):
        load_checkpoint(tmp_path / "c.pt")


DECAY = 1e-3


def ivon(source: nn.Sequential, *names: Sequence[str]) -> tuple[Content, dict[str, torch.Tensor]]:
    """A file with these parameters in each group, only the first of which decays; variances."""
    generator = torch.Generator().manual_seed(0)
    groups: list[Content] = []
    variances: dict[str, torch.Tensor] = {}
    number = 0
    for place, own in enumerate(names):
        parameters = [source.get_parameter(name) for name in own]
        decay = 0.0 if place else DECAY
        parts = [torch.rand(one.shape, generator=generator) + 0.5 for one in parameters]
        variances |= {
            name: 1 / (50.0 * (part + decay)) for name, part in zip(own, parts, strict=True)
        }
        groups.append({
            "hess": torch.cat([part.reshape(-1) for part in parts]), "ess": 50.0,
            "weight_decay": decay, "params": list(range(number, number + len(own))),
        })  # fmt: skip
        number += len(own)
    content = {"model": source.state_dict(), "optimizer": {"state": {}, "param_groups": groups}}
    return content, variances


WEIGHTS, OTHERS = ("0.weight", "4.weight"), ("0.bias", "1.weight", "1.bias", "4.bias")


@pytest.mark.parametrize("order", [(WEIGHTS, OTHERS), (OTHERS, WEIGHTS)])
def test_weights_and_biases_of_two_groups_are_told_by_their_sizes(
    order: tuple[Sequence[str], ...], tmp_path: Path
) -> None:
    source = network()
    content, variances = ivon(source, *order)
    checkpoint = loaded(tmp_path, content, source)
    assert (checkpoint.format, checkpoint.unread) == ("IVON", ())
    made = fold_posterior(checkpoint, network, INPUTS, PruneSpec(PruneRule.NONE))
    for name in (*WEIGHTS, "0.bias", "4.bias"):
        np.testing.assert_allclose(made.variance[name], variances[name].numpy(), rtol=1e-5)
    priors = [layer.posterior().prior_variance for layer in recognise(checkpoint).layers]
    expected = 1 / (50.0 * DECAY) if order[0] is WEIGHTS else None
    assert priors == [expected, expected] or priors == pytest.approx([expected, expected])


@pytest.mark.parametrize(
    "groups",
    [
        (("4.weight", "0.bias"), ("0.weight", "1.weight", "1.bias", "4.bias")),
        (("0.weight", "0.bias"), ("1.weight", "1.bias", "4.weight", "4.bias")),
        (("4.weight",), ("0.weight", "0.bias")),
    ],
)
def test_groups_that_sizes_do_not_tell_apart_give_the_mean_alone(
    groups: tuple[Sequence[str], ...], tmp_path: Path
) -> None:
    source = network()
    checkpoint = loaded(tmp_path, ivon(source, *groups)[0], source)
    assert recognise(checkpoint).layers == ()
    assert "IVON's 2 parameter groups do not name their parameters" in checkpoint.unread[0]
    made = fold_posterior(checkpoint, network, INPUTS, PruneSpec(PruneRule.NONE))
    np.testing.assert_array_equal(
        made.module.get_parameter("4.weight").detach(), source.get_parameter("4.weight").detach()
    )
    with pytest.raises(ConfigError, match="do not tell which is in which: train with one group"):
        fold_posterior(checkpoint, network, INPUTS, PruneSpec(PruneRule.SNR, 1.0))


def guide(source: nn.Sequential) -> dict[str, torch.Tensor]:
    """AutoNormal's state_dict."""
    names = dict(source.named_parameters())
    made = {f"locs.{name}_unconstrained": value.detach() + 1 for name, value in names.items()}
    return made | {f"scales.{name}_unconstrained": -torch.ones_like(v) for name, v in names.items()}


def prefixed(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in tensors.items()}


KEPT: dict[str, Callable[[nn.Sequential], Content]] = {
    "entry": lambda source: {
        "guide": guide(source), "model": source.state_dict(), "epoch": 3
    },
    "entry of a script's own name": lambda source: {
        "guide_state": guide(source), "state_dict": dict(source.named_buffers())
    },
    "prefix": lambda source: prefixed(guide(source), "guide.") | dict(source.named_buffers()),
    "prefix beside the model's": lambda source: {
        "state_dict": prefixed(guide(source), "net.guide.")
        | prefixed(source.state_dict(), "model.")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_a_guide_is_found_where_the_file_keeps_it(name: str, tmp_path: Path) -> None:
    source = network()
    checkpoint = loaded(tmp_path, KEPT[name](source), source)
    made = fold_posterior(checkpoint, network, INPUTS, PruneSpec(PruneRule.NONE))
    assert {made.report.families[layer] for layer in ("0", "4")} == {"Pyro AutoNormal"}
    for parameter, value in source.named_parameters():
        got = made.module.get_parameter(parameter).detach()
        torch.testing.assert_close(got, value.detach() + 1)
    torch.testing.assert_close(
        made.module.get_buffer("1.running_mean"), source.get_buffer("1.running_mean")
    )
    expected = np.log1p(np.exp(-1.0)) ** 2
    np.testing.assert_allclose(made.variance["4.weight"], expected, rtol=1e-5)


def test_a_diagonal_normal_under_an_entry_has_the_model_s_buffers(tmp_path: Path) -> None:
    source = network()
    flat = {"loc": vector(source) + 1, "scale_unconstrained": torch.zeros(99)}
    checkpoint = loaded(tmp_path, {"guide": flat, "model": source.state_dict()}, source)
    assert checkpoint.format == "Pyro AutoDiagonalNormal"
    assert "1.running_mean" in checkpoint.tensors
    np.testing.assert_array_equal(
        checkpoint.tensors["4.bias_mean"], source.get_parameter("4.bias").detach().numpy() + 1
    )
