"""Which family explains a layer, and what is refused with its keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from deploykit.errors import CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.families import FAMILIES, family_named
from deploykit.posterior.group_normal_jeffreys import GROUP_NORMAL_JEFFREYS
from deploykit.posterior.recognise import join_key, recognise, split_key
from deploykit.spec.posterior import Checkpoint
from tests.libraries.frame import CHECKPOINTS
from tests.posterior.checkpoints import checkpoint_of, with_tensor, without
from tests.posterior.gnj_layers import LinearGNJ, bayesian_net, plain_net

ONE = np.ones(3, np.float32)


def test_families_by_layer() -> None:
    recognised = recognise(checkpoint_of(bayesian_net()))
    assert recognised.families() == {
        "0": "group normal-Jeffreys",
        "1": "deterministic",
        "3": "group normal-Jeffreys",
        "7": "group normal-Jeffreys",
        "9": "group normal-Jeffreys",
    }
    assert [layer.name for layer in recognised.layers] == ["0", "3", "7", "9"]
    assert set(recognised.plain) == {
        f"1.{key}"
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_deterministic_checkpoint_has_no_layers() -> None:
    checkpoint = checkpoint_of(plain_net())
    recognised = recognise(checkpoint)
    assert recognised.layers == ()
    assert recognised.plain == dict(checkpoint.tensors)


def test_layer_that_is_the_whole_network() -> None:
    (layer,) = recognise(checkpoint_of(LinearGNJ(3, 2))).layers
    assert (layer.name, len(layer.tensors)) == ("", 6)


def test_layer_without_bias() -> None:
    (layer,) = recognise(checkpoint_of(LinearGNJ(3, 2, bias=False))).layers
    assert set(layer.tensors) == {"z_mu", "z_logvar", "weight_mu", "weight_logvar"}


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("7.z_logvar", r"layer '7' is not understood: it holds 7\.bias_logvar, .*"
         r"nearest known family is group normal-Jeffreys; as such a layer it lacks z_logvar"),
        ("7.bias_logvar", r"layer '7' .*as such a layer it lacks bias_logvar"),
        ("7.weight_mu", r"layer '7' .*as such a layer it lacks weight_mu"),
    ],
)  # fmt: skip
def test_partly_recognised_layer_is_refused(missing: str, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        recognise(without(checkpoint_of(bayesian_net()), missing))


def test_layer_with_an_unknown_key_is_refused() -> None:
    checkpoint = with_tensor(checkpoint_of(bayesian_net()), "7.temperature", ONE)
    with pytest.raises(
        CheckpointError, match=r"7\.temperature.*as such a layer it may not have temperature"
    ):
        recognise(checkpoint)


@pytest.mark.parametrize(
    "key",
    [
        "fc.weight_rho",
        "fc.mu_kernel",
        "fc.W_mu",
        "fc.log_sigma2",
        "fc.weight_log_sigma",
        "fc.post_z_logD",
        "fc.log_alpha",
    ],
)
def test_half_a_posterior_is_refused_with_the_nearest_family(key: str) -> None:
    checkpoint = with_tensor(checkpoint_of(plain_net()), key, ONE)
    with pytest.raises(CheckpointError, match=f"it holds {key}; the nearest known family is"):
        recognise(checkpoint)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("fc.weight_std", "no known family has such names"),
        ("fc.eps_posterior", "no known family has such names"),
        ("fc.weight_sq_mean", "SWAG keeps an X_mean beside each X_sq_mean"),
        ("locs.fc_unconstrained", "Pyro and TyXe keep a loc beside each scale"),
    ],
)
def test_an_unknown_posterior_is_refused_by_name(key: str, told: str) -> None:
    checkpoint = with_tensor(checkpoint_of(plain_net()), key, ONE)
    with pytest.raises(CheckpointError, match=f"it holds {key}; {told}"):
        recognise(checkpoint)


def without_parts(name: str, *ends: str) -> Checkpoint:
    stored = load_checkpoint(CHECKPOINTS / f"{name}.pt")
    return without(stored, *(key for key in stored.tensors if key.endswith(ends)))


@pytest.mark.parametrize(
    ("checkpoint", "told"),
    [
        (without_parts("torchbnn_layers", "log_sigma"), "torchbnn; .* it lacks weight_log_sigma"),
        (without_parts("blitz_layers", "eps_w"), "blitz; .* it lacks weight_sampler.eps_w"),
        (without_parts("torch_uncertainty_layers", "bias_mu"), "bias_.* and 5 more; the nearest "
         "known family is torch-uncertainty; .* it lacks bias_mu"),
        (without_parts("bayesian_torch_layers", "mu_kernel"), "convolution; .* lacks mu_kernel"),
        (without(checkpoint_of(bayesian_net()), "0.z_mu", "0.z_logvar"), "it lacks z_logvar, z_mu"),
    ],
)  # fmt: skip
def test_half_a_layer_of_a_library(checkpoint: Checkpoint, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        recognise(checkpoint)


def test_a_misspelt_name_is_told_with_the_right_one() -> None:
    stored = load_checkpoint(CHECKPOINTS / "bayesian_torch_layers.pt")
    renamed = {key.replace("rho_kernel", "rho_kernels"): v for key, v in stored.tensors.items()}
    with pytest.raises(CheckpointError, match=r"\(perhaps rho_kernel for rho_kernels\)"):
        recognise(replace(stored, tensors=renamed))


def test_a_transposed_spread_is_told() -> None:
    stored = load_checkpoint(CHECKPOINTS / "bayesian_torch_layers.pt")
    turned = with_tensor(stored, "fc.rho_weight", stored.tensors["fc.rho_weight"].T)
    with pytest.raises(CheckpointError, match=r"rho_weight .* one of them is transposed"):
        recognise(turned).layers[-1].posterior()


@pytest.mark.parametrize(
    "key", ["cls_token", "norm.gamma", "attention.in_proj_weight", "fc_mu.weight", "snake.alpha"]
)
def test_custom_parameters_are_plain(key: str) -> None:
    assert key in recognise(with_tensor(checkpoint_of(plain_net()), key, ONE)).plain


def test_more_specific_family_wins_and_a_tie_is_refused() -> None:
    checkpoint = checkpoint_of(LinearGNJ(3, 2))
    special = replace(
        GROUP_NORMAL_JEFFREYS,
        name="special",
        signature=GROUP_NORMAL_JEFFREYS.keys,
        optional=(),
    )
    twin = replace(GROUP_NORMAL_JEFFREYS, name="twin")
    (layer,) = recognise(checkpoint, (GROUP_NORMAL_JEFFREYS, special)).layers
    assert layer.family.name == "special"
    with pytest.raises(CheckpointError, match="fits group normal-Jeffreys and twin equally well"):
        recognise(checkpoint, (GROUP_NORMAL_JEFFREYS, twin))


def test_table_names_are_unique_and_found() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert all(family_named(family.name) is family for family in FAMILIES)
    with pytest.raises(CheckpointError, match="no posterior family is called 'none'; known"):
        family_named("none")


def test_keys_split_and_join() -> None:
    assert split_key("features.0.weight") == ("features.0", "weight")
    assert split_key("weight") == ("", "weight")
    assert join_key("", "weight") == "weight"
    assert join_key("a.b", "weight") == "a.b.weight"


@pytest.mark.parametrize(
    ("net", "key"), [(bayesian_net, "0.weight_mu"), (bayesian_net, "0.z_logvar"),
                     (plain_net, "0.weight")],
)  # fmt: skip
def test_integers_are_no_weights(net: Callable[[], nn.Module], key: str) -> None:
    checkpoint = checkpoint_of(net())
    whole = with_tensor(checkpoint, key, checkpoint.tensors[key].astype(np.int32))
    with pytest.raises(CheckpointError, match=f"'{key}' holds int32 where weights are real"):
        recognise(whole)


def test_counters_and_indices_may_be_integers() -> None:
    checkpoint = with_tensor(checkpoint_of(plain_net()), "1.position_index", np.arange(4))
    assert "1.position_index" in recognise(checkpoint).plain
