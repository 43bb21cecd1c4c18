"""Prefixes of all names of a checkpoint that the network lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.loading import load_tensors
from deploykit.posterior.prefixes import without_prefix
from deploykit.spec.posterior import Checkpoint

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
    found = without_prefix(checkpoint(*(prefix + name for name in NAMES)), network())
    assert tuple(found.tensors) == NAMES
    assert found.unwrapped == (prefix,)
    load_tensors(network(), found.tensors, "weights.pt")


def test_names_that_fit_stay() -> None:
    whole = checkpoint(*NAMES)
    assert without_prefix(whole, network()) is whole


def test_tensors_of_a_posterior_go_by_their_layer() -> None:
    found = without_prefix(checkpoint("net.conv.weight_mu", "net.conv.weight_rho"), network())
    assert tuple(found.tensors) == ("conv.weight_mu", "conv.weight_rho")


def test_a_prefix_that_does_not_make_all_fit_stays_and_is_offered() -> None:
    names = (*("net." + name for name in NAMES), "net.teacher.weight")
    whole = checkpoint(*names)
    assert without_prefix(whole, network()) is whole
    told = r"without 'net\.' in front, 4 of 5 names are the network's"
    with pytest.raises(ArchitectureError, match=told):
        load_tensors(network(), whole.tensors, "weights.pt")
