"""Bayesian layers swapped for torch twins, and networks that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.errors import ArchitectureError, CheckpointError
from deploykit.posterior.loading import load_tensors
from deploykit.posterior.recognise import recognise
from deploykit.posterior.twins import swap_layers
from tests.posterior.checkpoints import checkpoint_of, with_tensor, without
from tests.posterior.gnj_layers import (
    Conv1dGNJ,
    Conv2dGNJ,
    LinearGNJ,
    bayesian_net,
    plain_net,
)


def layers_of(module: nn.Module):  # type: ignore[no-untyped-def]
    return recognise(checkpoint_of(module)).layers


def test_layers_keep_their_names_and_the_original_stays() -> None:
    original = bayesian_net()
    swapped = swap_layers(original, layers_of(original))
    assert swapped.layers == ("0", "3", "7", "9")
    assert swapped.module.state_dict().keys() == plain_net().state_dict().keys()
    assert isinstance(original[0], Conv2dGNJ)  # type: ignore[index]


def test_geometry_is_kept() -> None:
    original = nn.Sequential(
        Conv2dGNJ(4, 6, (3, 5), stride=2, padding=3, dilation=2, groups=2, padding_mode="circular"),
        Conv2dGNJ(6, 2, 1, bias=False),
    )
    first, second = swap_layers(original, layers_of(original)).module.children()
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert (first.in_channels, first.out_channels, first.kernel_size) == (4, 6, (3, 5))
    assert (first.stride, first.padding, first.dilation) == ((2, 2), (3, 3), (2, 2))
    assert (first.groups, first.padding_mode, second.bias) == (2, "circular", None)


def test_conv1d_and_a_layer_that_is_the_network() -> None:
    conv = swap_layers(Conv1dGNJ(2, 3, 5, stride=2), layers_of(Conv1dGNJ(2, 3, 5))).module
    assert isinstance(conv, nn.Conv1d)
    assert (conv.kernel_size, conv.stride) == ((5,), (2,))
    assert isinstance(swap_layers(LinearGNJ(2, 3), layers_of(LinearGNJ(2, 3))).module, nn.Linear)


def test_deterministic_twin_is_left_alone() -> None:
    swapped = swap_layers(plain_net(), layers_of(bayesian_net()))
    assert swapped.layers == ()


def test_nested_module() -> None:
    original = nn.ModuleDict({"body": nn.Sequential(nn.Sequential(LinearGNJ(2, 2)))})
    module = swap_layers(original, layers_of(original)).module
    assert isinstance(module.get_submodule("body.0.0"), nn.Linear)


class Transposed(Conv2dGNJ):
    transposed = True


class Rootless(LinearGNJ):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.mu_weight = nn.Parameter(torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("network", "trained", "sentence"),
    [
        (nn.Sequential(LinearGNJ(3, 2)), nn.Sequential(LinearGNJ(4, 2)),
         r"layer '0': weight_mu has shape \(2, 3\) in the network and \(2, 4\) in the checkpoint|"
         r"layer '0': z_mu has shape \(3,\) in the network and \(4,\) in the checkpoint|"
         r"layer '0': weight_logvar has shape \(2, 3\) in the network and \(2, 4\) in the ch"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU(), LinearGNJ(4, 2)),
         r"group normal-Jeffreys layer '1' and the network has none of that name; its layers are"),
        (nn.Sequential(Rootless()), nn.Sequential(LinearGNJ(2, 2)),
         r"layer '0': the network builds a Rootless with mu_weight, the checkpoint holds"),
        (nn.Sequential(Transposed(2, 2, 3)), nn.Sequential(Conv2dGNJ(2, 2, 3)),
         r"layer '0': Transposed is a transposed convolution"),
        (nn.Sequential(Conv2dGNJ(2, 2, 3, padding_mode="wrap")), nn.Sequential(Conv2dGNJ(2, 2, 3)),
         r"layer '0': no torch convolution can take its place with .*'wrap'"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit(network: nn.Module, trained: nn.Module, sentence: str) -> None:
    with pytest.raises(ArchitectureError, match=sentence):
        swap_layers(network, layers_of(trained))


def test_every_key_is_accounted_for() -> None:
    checkpoint = checkpoint_of(plain_net())
    with pytest.raises(ArchitectureError, match=r"net\.pt holds extra, which the network has not"):
        load_tensors(
            plain_net(),
            with_tensor(checkpoint, "extra", checkpoint.tensors["0.bias"]).tensors,
            "net.pt",
        )
    with pytest.raises(ArchitectureError, match=r"the network has 7\.weight, which net\.pt lacks"):
        load_tensors(plain_net(), without(checkpoint, "7.weight").tensors, "net.pt")
    renamed = {key.replace("7.", "seven."): value for key, value in checkpoint.tensors.items()}
    with pytest.raises(ArchitectureError, match=r"perhaps seven\.weight for 7\.weight"):
        load_tensors(plain_net(), renamed, "net.pt")


def test_shapes_of_plain_tensors() -> None:
    checkpoint = checkpoint_of(plain_net())
    wrong = with_tensor(checkpoint, "7.weight", checkpoint.tensors["9.weight"])
    sentence = r"layer '7': 7\.weight has shape \(5, 6\) in the network and \(3, 5\) in net\.pt"
    with pytest.raises(ArchitectureError, match=sentence):
        load_tensors(plain_net(), wrong.tensors, "net.pt")


def test_batch_counter_may_be_missing() -> None:
    checkpoint = without(checkpoint_of(plain_net()), "1.num_batches_tracked")
    load_tensors(plain_net(), checkpoint.tensors, "net.pt")


class DnnToBnnConv(nn.Module):
    """A convolution as bayesian-torch's dnn_to_bnn makes it: always zeros around the image."""

    def __init__(self) -> None:
        super().__init__()
        self.mu_kernel = nn.Parameter(torch.zeros(2, 1, 3, 3))
        self.rho_kernel = nn.Parameter(torch.zeros(2, 1, 3, 3))
        self.mu_bias, self.rho_bias = (nn.Parameter(torch.zeros(2)) for _ in range(2))


def test_a_twin_may_not_pad_otherwise_than_the_library() -> None:
    trained = nn.Sequential(DnnToBnnConv())
    twin = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ArchitectureError, match=r"layer '0'.*padding_mode='reflect'.*as --model"):
        swap_layers(twin, layers_of(trained))
    unpadded = nn.Sequential(nn.Conv2d(1, 2, 3, padding_mode="reflect"))
    for fitting in (unpadded, nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))):
        assert swap_layers(fitting, layers_of(trained)).layers == ()
    reflecting = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"))
    assert swap_layers(reflecting, layers_of(nn.Sequential(Conv2dGNJ(2, 2, 3)))).layers == ()


def test_a_negative_running_variance_is_told_by_name() -> None:
    checkpoint = checkpoint_of(plain_net())
    broken = with_tensor(checkpoint, "1.running_var", -checkpoint.tensors["1.running_var"])
    with pytest.raises(CheckpointError, match=r"net\.pt: 1\.running_var .* negative"):
        load_tensors(plain_net(), broken.tensors, "net.pt")


def test_a_file_without_a_posterior_for_a_bayesian_network() -> None:
    with pytest.raises(ArchitectureError, match=r"net\.pt holds no posterior: .*0\.weight"):
        load_tensors(bayesian_net(), checkpoint_of(plain_net()).tensors, "net.pt")
