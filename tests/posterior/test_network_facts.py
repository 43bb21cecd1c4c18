"""What the network says about tensors of the file: plain ones, shared ones, wrappers' names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploykit.errors import CheckpointError
from deploykit.posterior.describe import inspect_checkpoint
from deploykit.posterior.layer_map import propose
from deploykit.posterior.network_facts import as_told_by
from deploykit.posterior.recognise import recognise
from deploykit.spec.posterior import Checkpoint
from tests.posterior.checkpoints import checkpoint_of, without
from tests.posterior.gnj_layers import LinearGNJ
from tests.posterior.mean_field_layers import BBBLinear


def test_a_learned_noise_is_plain_where_the_network_holds_it() -> None:
    network = nn.Sequential(BBBLinear(3, 2))
    network.register_parameter("log_sigma", nn.Parameter(torch.full((2,), 0.5)))
    checkpoint = checkpoint_of(network)
    with pytest.raises(CheckpointError, match=r"not understood.*log_sigma.*--model FILE"):
        recognise(checkpoint)
    told = recognise(as_told_by(network, checkpoint))
    assert [layer.name for layer in told.layers] == ["0"]
    assert tuple(told.plain) == ("log_sigma",)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_constants_of_a_normalisation_are_plain(prefix: str) -> None:
    norm = nn.Module()
    norm.register_buffer("mu", torch.ones(3, 1, 1))
    norm.register_buffer("sigma", torch.ones(3, 1, 1))
    network = nn.ModuleDict({"norm": norm, "fc": LinearGNJ(3, 2)})
    named = {prefix + key: value for key, value in checkpoint_of(network).tensors.items()}
    told = as_told_by(network, Checkpoint(Path("net.pt"), named))
    assert set(recognise(told).plain) == {f"{prefix}norm.mu", f"{prefix}norm.sigma"}
    # Of another shape than the network's, it is nothing that the network speaks of.
    other = Checkpoint(Path("net.pt"), named | {f"{prefix}norm.mu": np.ones(2)})
    with pytest.raises(CheckpointError, match=r"norm.* is not understood"):
        recognise(as_told_by(network, other))


@pytest.mark.parametrize("lost", ["W_rho", "bias_rho", "W_mu"])
def test_half_a_posterior_is_refused_though_the_network_holds_all_of_it(lost: str) -> None:
    network = nn.Sequential(BBBLinear(3, 2))
    half = without(checkpoint_of(network), f"0.{lost}")
    with pytest.raises(CheckpointError, match="layer '0' is not understood"):
        recognise(as_told_by(network, half))


class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mu, self.log_sigma = (nn.Parameter(torch.zeros(4)) for _ in range(2))


def test_gates_that_share_a_spread_are_refused() -> None:
    layer = nn.Module()
    layer.mu, layer.log_std = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))
    network = nn.Sequential(layer)
    with pytest.raises(CheckpointError, match="layer '0' is not understood"):
        recognise(as_told_by(network, checkpoint_of(network)))


def test_half_of_a_gate_layer_is_refused() -> None:
    network = nn.Sequential(Gates())
    with pytest.raises(CheckpointError, match="layer '0' is not understood"):
        recognise(as_told_by(network, without(checkpoint_of(network), "0.mu")))


def test_without_a_network_a_lone_number_is_told() -> None:
    network = nn.Sequential(LinearGNJ(3, 2))
    network.register_parameter("log_var", nn.Parameter(torch.zeros(1)))
    checkpoint = checkpoint_of(network)
    (note,) = [trap for trap in inspect_checkpoint(checkpoint).traps if "log_var" in trap]
    assert "--model FILE.py:FACTORY" in note
    told = inspect_checkpoint(as_told_by(network, checkpoint)).traps
    assert not [trap for trap in told if "log_var" in trap]


def shared() -> nn.Module:
    layer = BBBLinear(3, 3)
    return nn.ModuleDict({"blocks": nn.ModuleList([layer, nn.ReLU(), layer])})


def test_tensors_that_save_model_removed_come_back() -> None:
    network = shared()
    whole = checkpoint_of(network)
    kept = without(whole, *(key for key in whole.tensors if key.startswith("blocks.2.")))
    told = as_told_by(network, kept)
    assert told.tensors.keys() == whole.tensors.keys()
    for key, value in whole.tensors.items():
        np.testing.assert_array_equal(told.tensors[key], value)
    # A deterministic network shares the layer, whose tensors have other names in the file.
    linear = nn.Linear(3, 3)
    twin = nn.ModuleDict({"blocks": nn.ModuleList([linear, nn.ReLU(), linear])})
    assert as_told_by(twin, kept).tensors.keys() == whole.tensors.keys()


def test_tied_weights_come_back() -> None:
    network = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    network[1].weight = network[0].weight
    told = as_told_by(network, without(checkpoint_of(network), "1.weight"))
    np.testing.assert_array_equal(told.tensors["1.weight"], told.tensors["0.weight"])


def test_two_values_of_one_tensor_are_refused() -> None:
    network = shared()
    whole = checkpoint_of(network)
    other = dict(whole.tensors) | {"blocks.2.W_mu": np.ones((3, 3), np.float32)}
    with pytest.raises(CheckpointError, match=r"'blocks\.0\.W_mu' and 'blocks\.2\.W_mu' differ"):
        as_told_by(network, replace(whole, tensors=other))


class Sampler(nn.Module):
    """A layer whose part starts with the layer's own parameter, as blitz's do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_mu = nn.Parameter(torch.zeros(2))
        self.sampler = nn.Module()
        self.sampler.mu = self.weight_mu


def test_a_part_of_a_layer_may_be_trained_apart() -> None:
    whole = checkpoint_of(nn.Sequential(Sampler()))
    moved = replace(whole, tensors=dict(whole.tensors) | {"0.sampler.mu": np.ones(2, np.float32)})
    told = as_told_by(nn.Sequential(Sampler()), moved)
    assert told.tensors["0.weight_mu"].tolist() == [0, 0]
    assert told.tensors["0.sampler.mu"].tolist() == [1, 1]


def wrapped_network() -> nn.Module:
    return nn.ModuleDict({
        "encoder": nn.ModuleDict({"c": LinearGNJ(3, 2)}), "head": nn.Linear(2, 1)
    })  # fmt: skip


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_checkpoint_wrapped_module"])
@pytest.mark.parametrize("front", ["", "net."])
def test_names_of_wrappers_in_the_middle_go(wrapper: str, front: str) -> None:
    whole = checkpoint_of(wrapped_network())
    named = {
        front + key.replace("encoder.", f"encoder.{wrapper}."): value
        for key, value in whole.tensors.items()
    }
    told = as_told_by(wrapped_network(), replace(whole, tensors=named))
    assert set(told.tensors) == {front + key for key in whole.tensors}
    assert told.unwrapped == (f"{front}encoder.{wrapper}.",)


def test_a_part_of_that_name_that_the_network_has_stays() -> None:
    network = nn.ModuleDict({"encoder": nn.ModuleDict({"module": nn.Linear(3, 2)})})
    told = as_told_by(network, checkpoint_of(network))
    assert set(told.tensors) == {"encoder.module.weight", "encoder.module.bias"}
    assert told.unwrapped == ()


def test_names_stay_where_two_would_be_one() -> None:
    whole = checkpoint_of(wrapped_network())
    twice = dict(whole.tensors) | {"head.module.bias": np.zeros(1, np.float32)}
    assert as_told_by(wrapped_network(), replace(whole, tensors=twice)).tensors.keys() == set(twice)


def test_plain_tensors_do_not_keep_layers_from_being_matched_up() -> None:
    def build(first: str, last: str) -> nn.Module:
        network = nn.ModuleDict({first: BBBLinear(3, 4), last: nn.Linear(4, 2)})
        network.register_parameter("log_sigma", nn.Parameter(torch.full((2,), 0.5)))
        return network

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = BBBLinear(3, 4), nn.Linear(4, 2)
            self.log_sigma = nn.Parameter(torch.full((2,), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            return cast("Tensor", self.b(self.a(x)))

    told = as_told_by(Chain(), checkpoint_of(build("first", "last")))
    matches = propose(told, Chain(), np.zeros((1, 3), np.float32))
    found = {match.layer.name: match.candidates for match in matches}
    assert (found["first"], found["last"]) == (("a",), ("b",))
