"""Prefixes of all names of a checkpoint that the network lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import ArchitectureError, CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.loading import load_tensors
from deploykit.posterior.prefixes import fit_prefix
from deploykit.spec.posterior import Checkpoint, FlatPosterior
from tests.libraries.frame import CHECKPOINTS, small_twin
from tests.posterior.checkpoints import checkpoint_of
from tests.posterior.gnj_layers import bayesian_net, plain_net

NAMES = ("conv.weight", "conv.bias", "head.fc.weight", "head.fc.bias")


def network() -> nn.Module:
    head = nn.Module()
    head.fc = nn.Linear(2, 3)
    whole = nn.Module()
    whole.conv, whole.head = nn.Conv2d(1, 2, 1), head
    return whole


def checkpoint(*names: str) -> Checkpoint:
    held = {name: tensor.detach().numpy() for name, tensor in network().state_dict().items()}
    plain = np.zeros((1,), np.float32)
    own = {name: held.get(name.rpartition("net.")[2], plain) for name in names}
    return Checkpoint(Path("weights.pt"), own)


@pytest.mark.parametrize("prefix", ["net.", "model.net."])
def test_a_prefix_goes_where_all_names_then_fit(prefix: str) -> None:
    found = fit_prefix(checkpoint(*(prefix + name for name in NAMES)), network())
    assert tuple(found.tensors) == NAMES
    assert found.unwrapped == (prefix,)
    load_tensors(network(), found.tensors, "weights.pt")


def test_names_that_fit_stay() -> None:
    whole = checkpoint(*NAMES)
    assert fit_prefix(whole, network()) is whole


def test_tensors_of_a_posterior_go_by_their_layer() -> None:
    whole = checkpoint_of(nn.ModuleDict({"net": bayesian_net()}))
    found = fit_prefix(whole, plain_net())
    assert tuple(found.tensors) == tuple(bayesian_net().state_dict())


def test_parts_of_a_layer_go_with_it() -> None:
    """blitz keeps the tensors of a layer in its samplers, which its twin has not."""
    stored = load_checkpoint(CHECKPOINTS / "blitz_layers.pt")
    tensors = {f"model.{key}": array for key, array in stored.tensors.items()}
    found = fit_prefix(replace(stored, tensors=tensors), small_twin())
    assert tuple(found.tensors) == tuple(stored.tensors)


@pytest.mark.parametrize("prefix", ["net.", "a.net."])
def test_a_wrapped_network_takes_a_prefix(prefix: str) -> None:
    wrapped = network()
    for part in reversed(prefix.removesuffix(".").split(".")):
        wrapped = nn.ModuleDict({part: wrapped})
    found = fit_prefix(checkpoint(*NAMES), wrapped)
    assert tuple(found.tensors) == tuple(prefix + name for name in NAMES)
    assert found.unwrapped == (f"'{prefix}' put in front of all names",)
    load_tensors(wrapped, found.tensors, "weights.pt")


def test_the_layer_that_a_vector_names_takes_it_too() -> None:
    flat = FlatPosterior("Laplace", None, np.ones(9, np.float32), True, layer="head.fc")
    stored = replace(checkpoint(*NAMES), flat=flat)
    found = fit_prefix(stored, nn.ModuleDict({"net": network()}))
    assert found.flat is not None
    assert found.flat.layer == "net.head.fc"


@pytest.mark.parametrize(
    "parts",
    [{"net": network(), "teacher": network()}, {"net": network(), "more": nn.Linear(3, 2)}],
)
def test_no_prefix_is_taken_where_the_file_lacks_a_layer(parts: dict[str, nn.Module]) -> None:
    whole = checkpoint(*NAMES)
    assert fit_prefix(whole, nn.ModuleDict(parts)) is whole


def several(*parts: str) -> Checkpoint:
    """The network under each of the parts, and a loss."""
    names = [f"{part}.{name}" for part in parts for name in NAMES]
    return checkpoint(*names, "loss.weight")


def test_the_network_beside_other_parts_is_taken_and_they_are_told() -> None:
    found = fit_prefix(several("model"), network())
    assert (tuple(found.tensors), found.unwrapped) == (NAMES, ("model.",))
    assert found.beside == ("loss",)


def test_of_the_network_and_its_average_the_first_is_taken() -> None:
    found = fit_prefix(several("ema_model", "model"), network())
    assert (found.unwrapped, found.beside) == (("model.",), ("ema_model", "loss"))


def test_the_network_twice_asks_which_one() -> None:
    told = r"several times, under model\., teacher\.; say which one with --weights model"
    with pytest.raises(CheckpointError, match=told):
        fit_prefix(several("model", "teacher"), network())


def test_weights_names_a_part(tmp_path: Path) -> None:
    content = {
        key: torch.tensor(value) for key, value in several("model", "teacher").tensors.items()
    }
    torch.save({"state_dict": content}, tmp_path / "a.ckpt")
    found = load_checkpoint(tmp_path / "a.ckpt", "teacher")
    assert (tuple(found.tensors), found.unwrapped) == (NAMES, ("state_dict", "teacher."))
    with pytest.raises(CheckpointError, match=r"it holds state_dict, whose names begin with model"):
        load_checkpoint(tmp_path / "a.ckpt", "student")


def test_a_prefix_that_does_not_make_all_fit_stays_and_is_offered() -> None:
    names = (*("net." + name for name in NAMES), "net.teacher.weight")
    whole = checkpoint(*names)
    assert fit_prefix(whole, network()) is whole
    told = r"without 'net\.' in front, 4 of 5 names are the network's"
    with pytest.raises(ArchitectureError, match=told):
        load_tensors(network(), whole.tensors, "weights.pt")
