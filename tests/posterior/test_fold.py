"""Folding a whole network: parity with the mean forward, zeros, variances and refusals."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploykit.errors import ArchitectureError, ConfigError, DataError, ParityError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import BatchNormMode, PruneRule, PruneSpec
from deploykit.spec.samples import Samples
from tests.posterior.checkpoints import checkpoint_of, with_tensor, without
from tests.posterior.gnj_layers import (
    Conv1dGNJ,
    Conv2dGNJ,
    LinearGNJ,
    bayesian_net,
    images,
    plain_net,
    randomised,
)
from tests.posterior.mean_field_layers import BBBConv2d

NONE = PruneSpec(PruneRule.NONE)


def trained() -> nn.Module:
    return randomised(bayesian_net())


def test_folded_network_is_the_mean_forward() -> None:
    network = trained()
    folded = fold_posterior(checkpoint_of(network), bayesian_net, images(), NONE)
    expected = run(network.eval(), images())
    np.testing.assert_allclose(run(folded.module, images()), expected, rtol=1e-4, atol=1e-5)
    assert folded.report.mean_difference is not None
    assert folded.report.mean_difference < 1e-6
    assert not folded.module.training
    assert not any(parameter.requires_grad for parameter in folded.module.parameters())


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Conv2dGNJ(4, 6, (3, 5), 2, 3, 2, 2), (2, 4, 12, 12)),
        (Conv2dGNJ(3, 3, 3, padding=1, groups=3, padding_mode="circular"), (2, 3, 6, 6)),
        (Conv2dGNJ(2, 4, (3, 4), padding=1, bias=False), (2, 2, 6, 6)),
        (Conv1dGNJ(2, 3, 4, stride=2), (2, 2, 9)),
        (LinearGNJ(5, 3), (2, 5)),
        (LinearGNJ(4, 4, bias=False), (2, 4)),
    ],
)
def test_every_kind_of_layer(network: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    folded = fold_posterior(checkpoint_of(randomised(network)), network, inputs, NONE)
    assert folded.report.mean_difference is not None
    assert folded.report.mean_difference < 1e-6


def test_gates_of_a_convolution_go_on_the_output_axis() -> None:
    # As wide a kernel as there are outputs: a gate along the kernel width would fit too.
    network = randomised(Conv2dGNJ(1, 4, (2, 4)))
    folded = fold_posterior(checkpoint_of(network), network, images(), NONE)
    tensors = checkpoint_of(network).tensors
    for output in range(4):
        expected = tensors["weight_mu"][output] * tensors["z_mu"][output]
        np.testing.assert_allclose(folded.module.weight[output], expected, rtol=1e-6)
        expected = tensors["bias_mu"][output] * tensors["z_mu"][output]
        np.testing.assert_allclose(folded.module.bias[output], expected, rtol=1e-6)


def test_deterministic_twin_gives_the_same_network() -> None:
    checkpoint = checkpoint_of(trained())
    one = fold_posterior(checkpoint, bayesian_net, images(), NONE)
    two = fold_posterior(checkpoint, plain_net, images(), NONE)
    assert two.report.mean_difference is None
    np.testing.assert_array_equal(run(one.module, images()), run(two.module, images()))
    assert one.variance.keys() == two.variance.keys()


def test_inputs_are_left_alone() -> None:
    network = trained()
    before = copy.deepcopy(network.state_dict())
    checkpoint = checkpoint_of(network)
    fold_posterior(checkpoint, network, images(), PruneSpec(threshold=-2.5))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    for key, value in checkpoint.tensors.items():
        np.testing.assert_array_equal(value, before[key].numpy())


def test_double_network_becomes_float32() -> None:
    network = trained().double()
    folded = fold_posterior(checkpoint_of(network), lambda: bayesian_net().double(), images(), NONE)
    assert {parameter.dtype for parameter in folded.module.parameters()} == {torch.float32}


def test_pruned_and_unpruned() -> None:
    checkpoint = checkpoint_of(trained())
    folded = fold_posterior(checkpoint, bayesian_net, images(), PruneSpec(threshold=-2.5))
    everything = fold_posterior(checkpoint, bayesian_net, images(), NONE)
    closed = {decision.layer: decision.closed for decision in folded.report.pruning}
    assert list(closed) == ["0", "3", "7", "9"]
    assert all(0 < gates.sum() < gates.size for gates in closed.values())
    for name, gates in closed.items():
        layer = folded.module.get_submodule(name)
        weight, variance = layer.weight.numpy(), folded.variance[f"{name}.weight"]
        if weight.ndim == 2:
            weight, variance = weight.T, variance.T
        else:
            assert not layer.bias.numpy()[gates].any()
            assert not folded.variance[f"{name}.bias"][gates].any()
        assert not weight[gates].any()
        assert not variance[gates].any()
        assert weight[~gates].all()
        assert (variance[~gates] > 0).all()
    np.testing.assert_array_equal(run(folded.unpruned, images()), run(everything.module, images()))


def test_masked_network_is_the_bayesian_one_with_closed_gates() -> None:
    network = trained()
    folded = fold_posterior(checkpoint_of(network), network, images(), PruneSpec(threshold=-2.5))
    masked = copy.deepcopy(network).eval()
    with torch.no_grad():
        for decision in folded.report.pruning:
            masked.get_submodule(decision.layer).z_mu[torch.tensor(decision.closed)] = 0.0  # type: ignore[operator]
    np.testing.assert_allclose(run(folded.module, images()), run(masked, images()), atol=1e-5)


def test_variance_has_the_shape_of_its_parameter() -> None:
    folded = fold_posterior(checkpoint_of(trained()), bayesian_net, images(), NONE)
    parameters = dict(folded.module.named_parameters())
    assert set(folded.variance) == {
        f"{layer}.{key}" for layer in (0, 3, 7, 9) for key in ("weight", "bias")
    }
    for name, variance in folded.variance.items():
        assert variance.shape == tuple(parameters[name].shape)
        assert variance.dtype == np.float32


def test_snr_never_prunes_the_output_layer() -> None:
    spec = PruneSpec(PruneRule.SNR, {"0": 1.2, "3": 1.2, "7": 1.2})
    folded = fold_posterior(checkpoint_of(trained()), bayesian_net, images(), spec)
    assert [decision.layer for decision in folded.report.pruning] == ["0", "3", "7"]


class Reordered(nn.Module):
    """Defines its head before its body."""

    def __init__(self) -> None:
        super().__init__()
        self.head = LinearGNJ(4, 2)
        self.body = LinearGNJ(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(functional.relu(self.body(x)))
        return output


def test_output_layer_is_the_one_that_runs_last() -> None:
    network = randomised(Reordered())
    inputs = np.ones((2, 3), np.float32)
    spec = PruneSpec(PruneRule.SAVAGE_DICKEY, -1.0)
    folded = fold_posterior(checkpoint_of(network), Reordered, inputs, spec)
    assert [decision.layer for decision in folded.report.pruning] == ["body"]


def test_deterministic_checkpoint() -> None:
    network = randomised(plain_net())
    folded = fold_posterior(checkpoint_of(network), plain_net, images(), NONE)
    assert set(folded.report.families.values()) == {"deterministic"}
    assert folded.report.mean_difference is None
    assert folded.variance["0.weight"].shape == (4, 1, 3, 3)
    assert not any(variance.any() for variance in folded.variance.values())
    np.testing.assert_allclose(run(folded.module, images()), run(network.eval(), images()))


@pytest.mark.parametrize("rule", [PruneRule.FAMILY, PruneRule.SNR, PruneRule.SAVAGE_DICKEY])
def test_deterministic_checkpoint_cannot_be_pruned(rule: PruneRule) -> None:
    with pytest.raises(ConfigError, match=r"holds no posterior.*give --prune-rule none"):
        fold_posterior(checkpoint_of(plain_net()), plain_net, images(), PruneSpec(rule, 0.5))


def test_mixed_checkpoint_has_zero_variance_where_it_is_deterministic() -> None:
    network = randomised(nn.Sequential(nn.Linear(3, 4), LinearGNJ(4, 2)))
    folded = fold_posterior(checkpoint_of(network), network, np.ones((2, 3), np.float32), NONE)
    assert folded.report.families == {"0": "deterministic", "1": "group normal-Jeffreys"}
    assert not folded.variance["0.weight"].any()
    assert folded.variance["1.weight"].all()


class HiddenDilation(Conv2dGNJ):
    """Convolves with a dilation that its attributes do not tell."""

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv2d(x, self.weight_mu, self.bias_mu, padding=2, dilation=2)
        return y * self.z_mu[None, :, None, None]


class OtherScale(LinearGNJ):
    """Scales its output, which the family does not."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.001


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (HiddenDilation(1, 4, 3, padding=2), "first at layer '0', whose outputs differ in shape"),
        (HiddenDilation(1, 4, 3, padding=1), r"first at layer '0' \("),
    ],
)
def test_geometry_that_the_layer_hides(network: nn.Module, sentence: str) -> None:
    root = randomised(nn.Sequential(network, nn.AdaptiveAvgPool2d(1)))
    with pytest.raises(ParityError, match=sentence):
        fold_posterior(checkpoint_of(root), root, images(), NONE)


def test_layer_with_another_formula() -> None:
    root = randomised(nn.Sequential(LinearGNJ(3, 4), nn.ReLU(), OtherScale(4, 2)))
    inputs = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    with pytest.raises(ParityError, match=r"by 1\.0e-03 relative .*first at layer '2'"):
        fold_posterior(checkpoint_of(root), root, inputs, NONE)


class AlwaysNoisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.fc(x), 0.5, training=True)


class WithKl(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x), 0.0)  # type: ignore[return-value]


class Nested(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x), [x])  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (AlwaysNoisy(), "computes something else each time it runs in eval mode"),
        (Nested(3, 2), "the network returns a list as 'output_1'; deploykit"),
        (WithKl(3, 2), r"returns a single number \(0\.0\) as 'output_1', perhaps the KL diverg"),
        (nn.Linear(4, 2), r"does not run on an input of shape \(9, 3\).*check --input-shape"),
    ],
)
def test_networks_that_cannot_be_exported(network: nn.Module, sentence: str) -> None:
    inputs = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    with pytest.raises(ArchitectureError, match=sentence):
        fold_posterior(checkpoint_of(network), network, inputs, NONE)


def test_keys_that_the_network_lacks() -> None:
    checkpoint = checkpoint_of(trained())
    extra = with_tensor(checkpoint, "11.weight", checkpoint.tensors["1.weight"])
    with pytest.raises(ArchitectureError, match=r"holds 11\.weight, which the network has not"):
        fold_posterior(extra, bayesian_net, images(), NONE)
    with pytest.raises(ArchitectureError, match=r"has 1\.running_var, which net\.pt lacks"):
        fold_posterior(without(checkpoint, "1.running_var"), bayesian_net, images(), NONE)


def test_thresholds_for_unknown_layers() -> None:
    spec = PruneSpec(PruneRule.FAMILY, {"conv1": -3.0})
    with pytest.raises(ConfigError, match=r"unknown layer 'conv1'.*prune: 0, 3, 7, 9"):
        fold_posterior(checkpoint_of(trained()), bayesian_net, images(), spec)


@pytest.mark.parametrize("mode", [BatchNormMode.REESTIMATE, BatchNormMode.ANALYTIC])
def test_batchnorm_modes(mode: BatchNormMode) -> None:
    checkpoint = checkpoint_of(trained())
    # Room for the noise of random weights, which no training put into the statistics.
    wider = {"1.running_var": checkpoint.tensors["1.running_var"] + np.float32(20)}
    checkpoint = replace(checkpoint, tensors=dict(checkpoint.tensors) | wider)
    spec = PruneSpec(threshold=-2.5)
    kept = fold_posterior(checkpoint, bayesian_net, images(), spec)
    data = Samples(images(32, seed=3))
    folded = fold_posterior(checkpoint, bayesian_net, images(), spec, mode, data)
    assert (kept.report.batchnorm, folded.report.batchnorm) == ("keep", mode.value)
    for before, after in ((kept.module, folded.module), (kept.unpruned, folded.unpruned)):
        old, new = before.state_dict(), after.state_dict()
        changed = {key for key in old if not torch.equal(old[key], new[key])}
        assert "1.running_var" in changed
        assert changed <= {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    if mode is BatchNormMode.ANALYTIC:
        same = folded.module.state_dict()["1.running_var"]
        assert torch.equal(same, folded.unpruned.state_dict()["1.running_var"])


def test_batchnorm_needs_calibration_data() -> None:
    checkpoint = checkpoint_of(trained())
    with pytest.raises(ConfigError, match="reestimate measures on calibration data; give --data"):
        fold_posterior(checkpoint, bayesian_net, images(), NONE, BatchNormMode.REESTIMATE)
    broken = Samples(np.full((4, 1, 8, 8), np.nan, np.float32))
    with pytest.raises(DataError, match="the calibration inputs hold NaN"):
        fold_posterior(checkpoint, bayesian_net, images(), NONE, BatchNormMode.ANALYTIC, broken)


def test_from_a_file(tmp_path: Path) -> None:
    network = trained()
    torch.save({"state_dict": nn.DataParallel(network).state_dict()}, tmp_path / "net.pt")
    checkpoint = load_checkpoint(tmp_path / "net.pt")
    assert checkpoint.unwrapped == ("state_dict", "module.")
    folded = fold_posterior(checkpoint, bayesian_net, images(), NONE)
    np.testing.assert_allclose(
        run(folded.module, images()), run(network.eval(), images()), rtol=1e-4, atol=1e-5
    )


class HiddenStride(BBBConv2d):
    """Strides by a number that no attribute of the usual names tells."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.get_parameter("W_mu"), self.get_parameter("bias_mu")
        return functional.conv2d(x, weight, bias, 2)


def test_the_layer_whose_stride_was_not_found_is_named() -> None:
    network = nn.Sequential(HiddenStride(1, 2, 2), nn.Flatten(), nn.Linear(32, 3))
    sentence = r"layer '0': its HiddenStride gives \[4, 2, 4, 4\], .* gives \[4, 2, 7, 7\], with "
    with pytest.raises(ArchitectureError, match=sentence):
        fold_posterior(checkpoint_of(network), network, images(4), NONE)
    # Where the network itself does not run, it is the shape of the inputs.
    with pytest.raises(ArchitectureError, match=r"does not run .*\(4, 1, 6, 6\).*check --input-sh"):
        fold_posterior(checkpoint_of(network), network, images(4)[..., :6, :6], NONE)
