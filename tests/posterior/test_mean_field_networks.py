"""Networks of mean-field layers folded: as trained, as twins, with what only the network knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import ArchitectureError, CheckpointError, ConfigError, ParityError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.describe import inspect_checkpoint
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import BatchNormMode, PruneRule, PruneSpec
from deploykit.posterior.predictive import compare_monte_carlo
from deploykit.posterior.recognise import recognise
from deploykit.spec.arrays import Float32Array
from deploykit.spec.posterior import Checkpoint, Folded
from deploykit.spec.samples import Samples
from tests.posterior.checkpoints import checkpoint_of, with_tensor
from tests.posterior.gnj_layers import images
from tests.posterior.mean_field_layers import (
    BBBConv2d,
    BBBLinear,
    BlitzLinear,
    Conv2dWithKl,
    ConvTranspose1dWithKl,
    LstmWithKl,
    NetWithKl,
    TorchbnnConv2d,
    TwinOfNetWithKl,
    WithKl,
    randomised,
)

NONE = PruneSpec(PruneRule.NONE)
FILE = Path(__file__).parents[1] / "libraries" / "checkpoints"


def bbb() -> nn.Module:
    return nn.Sequential(
        BBBConv2d(1, 4, 3, padding=1),
        nn.Softplus(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        BBBLinear(64, 3),
    )


def plain_bbb() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.Softplus(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def folded(checkpoint: Checkpoint, network: nn.Module, spec: PruneSpec = NONE) -> Folded:
    return fold_posterior(checkpoint, network, images(), spec)


PAIRS = [(bbb, plain_bbb), (NetWithKl, TwinOfNetWithKl)]


@pytest.mark.parametrize(("bayesian", "twin"), PAIRS)
def test_both_factories_give_one_network(bayesian: type[nn.Module], twin: type[nn.Module]) -> None:
    checkpoint = checkpoint_of(randomised(bayesian()))
    trained, plain = folded(checkpoint, bayesian()), folded(checkpoint, twin())
    np.testing.assert_array_equal(run(trained.module, images()), run(plain.module, images()))
    assert trained.report.mean_difference is not None
    assert trained.report.mean_difference < 1e-5
    assert trained.bayesian is not None
    assert plain.report.mean_difference is None
    assert trained.variance.keys() == plain.variance.keys()


def test_the_mean_is_that_of_many_draws() -> None:
    network = randomised(BBBLinear(6, 3)).eval()
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    mean = fold_posterior(checkpoint_of(network), BBBLinear(6, 3), x, NONE)
    with torch.no_grad():
        draws = torch.stack([network(torch.tensor(x)) for _ in range(4_000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - torch.tensor(run(mean.module, x))).abs() < 5 * error).all()


def test_a_layer_that_pads_otherwise_than_torch_is_refused() -> None:
    for padding in (1, 2):
        network = nn.Sequential(TorchbnnConv2d(1, 4, 3, padding, "circular"))
        with pytest.raises(ParityError, match="first at layer '0'"):
            folded(checkpoint_of(randomised(network)), network)
    reflected = nn.Sequential(TorchbnnConv2d(1, 4, 3, 1, "reflect"))
    with pytest.raises(ParityError, match="first at layer '0'"):
        folded(checkpoint_of(randomised(reflected)), reflected)
    zeros = nn.Sequential(TorchbnnConv2d(1, 4, 3, 1, "zeros"))
    assert folded(checkpoint_of(randomised(zeros)), zeros).report.mean_difference is not None


def test_a_transposed_layer_keeps_its_geometry() -> None:
    module = folded(checkpoint_of(randomised(NetWithKl())), NetWithKl()).module
    assert isinstance(module.up, nn.ConvTranspose2d)
    assert (module.up.in_channels, module.up.out_channels, module.up.groups) == (6, 4, 2)
    assert (module.up.stride, module.up.output_padding) == ((2, 2), (1, 1))


def test_a_transposed_layer_is_ranked_along_its_second_axis() -> None:
    layer = ConvTranspose1dWithKl((3, 5, 4), "kernel", 5, stride=2)
    layer.dnn_to_bnn_flag = True
    network = randomised(nn.Sequential(layer, nn.Flatten(), nn.Linear(50, 2)))
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)

    def plain() -> nn.Module:
        return nn.Sequential(nn.ConvTranspose1d(3, 5, 4, 2), nn.Flatten(), nn.Linear(50, 2))

    checkpoint = checkpoint_of(network)
    checkpoint = with_tensor(checkpoint, "0.rho_kernel", np.full((3, 5, 4), -3.0, np.float32))
    mean = checkpoint.tensors["0.mu_kernel"].copy()
    mean[:, 1] *= 1e-3
    checkpoint = with_tensor(checkpoint, "0.mu_kernel", mean)
    found = fold_posterior(checkpoint, plain(), x, PruneSpec(PruneRule.SNR, 0.5))
    (decision,) = found.report.pruning
    assert (decision.axis, decision.closed.tolist()) == (1, [False, True, False, False, False])
    weight = found.module[0].weight
    assert not weight[:, 1].any()
    assert weight[:, [0, 2, 3, 4]].all()


def test_groups_of_a_transposed_layer_are_not_ranked() -> None:
    checkpoint = checkpoint_of(randomised(NetWithKl()))
    with pytest.raises(ConfigError, match="layer 'up': the output channels of a transposed"):
        folded(checkpoint, TwinOfNetWithKl(), PruneSpec(PruneRule.SNR, 0.5))


def test_batch_norm_behind_a_layer_that_returns_two_values() -> None:
    checkpoint = checkpoint_of(randomised(NetWithKl()))
    samples = Samples(images(64))
    for mode in (BatchNormMode.ANALYTIC, BatchNormMode.REESTIMATE):
        results = [
            fold_posterior(checkpoint, network, images(), NONE, mode, samples)
            for network in (NetWithKl(), TwinOfNetWithKl())
        ]
        first, second = (one.module.norm.running_var for one in results)
        torch.testing.assert_close(first, second)
        assert (first != torch.tensor(checkpoint.tensors["norm.running_var"])).any()


def test_a_saved_bias_that_the_layer_does_not_use() -> None:
    network = randomised(nn.Sequential(nn.Flatten(), BlitzLinear(64, 5), BlitzLinear(5, 3, False)))
    checkpoint = checkpoint_of(network)

    def plain() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 3, bias=False))

    for built in (network, plain()):
        found = folded(checkpoint, built)
        assert found.module[2].bias is None
        assert "2.bias" not in found.variance
        x = run(found.module, images())
        weights = [checkpoint.tensors[f"{index}.weight_mu"] for index in (1, 2)]
        expected = (images().reshape(8, -1) @ weights[0].T + checkpoint.tensors["1.bias_mu"]) @ (
            weights[1].T
        )
        np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)
        compared = compare_monte_carlo(found, checkpoint, Samples(images()), draws=2)
        assert compared.report.monte_carlo_samples == 2


def test_noise_in_memory_that_was_never_written_does_not_matter(tmp_path: Path) -> None:
    network = randomised(nn.Sequential(nn.Flatten(), BlitzLinear(64, 5)))
    path = tmp_path / "net.pt"
    torch.save(network.state_dict(), path)
    checkpoint = load_checkpoint(path)
    assert np.isnan(checkpoint.tensors["1.weight_sampler.eps_w"]).all()
    assert folded(checkpoint, network).report.mean_difference is not None
    with torch.no_grad():
        network.get_parameter("1.weight_sampler.rho")[0, 0] = float("nan")
    torch.save(network.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"NaN or infinity in 1\.weight"):
        load_checkpoint(path)


def test_blitz_exports_what_was_trained_and_not_its_stale_copy() -> None:
    """The committed network was trained after .double().float(), which parts the two copies."""
    tensors = load_checkpoint(FILE / "blitz_layers.pt").tensors
    trained, stale = tensors["2.weight_sampler.mu"], tensors["2.weight_mu"]
    assert not np.allclose(trained, stale, atol=1e-2)
    layers = {layer.name: layer for layer in recognise(Checkpoint(FILE, tensors)).layers}
    np.testing.assert_array_equal(layers["2"].posterior().mean["weight"], trained)
    swapped = dict(tensors) | {"2.weight_sampler.mu": stale, "2.weight_mu": trained}
    found = {layer.name: layer for layer in recognise(Checkpoint(FILE, swapped)).layers}
    np.testing.assert_array_equal(found["2"].posterior().mean["weight"], stale)


OLD_BUFFERS = {"eps_kernel": np.nan, "prior_weight_mu": 0.0, "prior_weight_sigma": 1.0}
"""What the library saved of a convolution before July 2021, under the names that it wrote."""


def test_old_buffers_are_no_part_of_the_network() -> None:
    network = randomised(NetWithKl())
    checkpoint = checkpoint_of(network)
    kernel = checkpoint.tensors["conv.mu_kernel"]
    for key, value in OLD_BUFFERS.items():
        checkpoint = with_tensor(checkpoint, f"conv.{key}", np.full_like(kernel, value))
    expected = folded(checkpoint_of(network), NetWithKl())
    for built in (NetWithKl(), TwinOfNetWithKl()):
        found = folded(checkpoint, built)
        np.testing.assert_array_equal(run(found.module, images()), run(expected.module, images()))


@pytest.mark.parametrize("held", [False, True])
def test_frozen_noise_is_left_out_whether_the_network_holds_it_or_not(held: bool) -> None:
    network = randomised(nn.Sequential(TorchbnnConv2d(1, 4, 3, 1, "zeros")))
    expected = folded(checkpoint_of(network), network)
    checkpoint = checkpoint_of(network)
    for part, shape in (("weight", (4, 1, 3, 3)), ("bias", (4,))):
        checkpoint = with_tensor(checkpoint, f"0.{part}_eps", np.ones(shape, np.float32))
        if held:
            network.get_submodule("0").register_buffer(f"{part}_eps", torch.zeros(shape))
    found = folded(checkpoint, network)
    assert found.report.mean_difference is not None
    np.testing.assert_array_equal(run(found.module, images()), run(expected.module, images()))


def test_a_network_of_which_one_layer_is_a_twin_already() -> None:
    checkpoint = checkpoint_of(randomised(bbb()))
    children = dict(bbb().named_children())
    mixed = nn.Sequential(*{**children, "0": nn.Conv2d(1, 4, 3, padding=1)}.values())
    found = folded(checkpoint, mixed)
    assert found.report.mean_difference is not None
    expected = folded(checkpoint, plain_bbb())
    np.testing.assert_array_equal(run(found.module, images()), run(expected.module, images()))


def test_an_embedding() -> None:
    class Embedding(BlitzLinear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.embedding(x, self.weight_sampler())

    table = Embedding(6, 9, bias=False)  # nine rows of six features
    del table.bias_sampler, table.bias_mu, table.bias_rho
    network = randomised(nn.Sequential(table, nn.Flatten(), BBBLinear(24, 3)))
    checkpoint = checkpoint_of(network)
    column = checkpoint.tensors["0.weight_sampler.mu"].copy()
    column[:, 2] *= 1e-4
    for key in ("0.weight_sampler.mu", "0.weight_mu"):
        checkpoint = with_tensor(checkpoint, key, column)
    ids = np.array([[0, 3, 8, 8], [1, 2, 5, 7]])
    found = fold_posterior(checkpoint, network, ids, PruneSpec(PruneRule.SNR, 0.5))
    assert isinstance(found.unpruned[0], nn.Embedding)
    assert found.report.mean_difference is not None
    (decision,) = found.report.pruning
    assert decision.axis == 1
    assert np.flatnonzero(decision.closed).tolist() == [2]


class Recurrent(nn.Module):
    """An LSTM, and a linear layer on its last output."""

    def __init__(self, lstm: nn.Module, fc: nn.Module) -> None:
        super().__init__()
        self.lstm, self.fc = lstm, fc

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.fc(self.lstm(x)[0][:, -1])
        return output


def sequences(count: int = 4) -> Float32Array:
    generator = np.random.default_rng(0)
    return generator.standard_normal((count, 5, 3)).astype(np.float32)


def test_an_lstm_is_torch_s_own_at_the_means() -> None:
    """The layer restated step by step, silenced, against torch's LSTM."""
    checkpoint = checkpoint_of(randomised(Recurrent(LstmWithKl(3, 4), BBBLinear(4, 2))))
    assert recognise(checkpoint).families() == {
        "lstm": "bayesian-torch LSTM", "fc": "PyTorch-BayesianCNN",
    }  # fmt: skip
    trained = Recurrent(LstmWithKl(3, 4), BBBLinear(4, 2))
    plain = Recurrent(nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2))
    found = [fold_posterior(checkpoint, one, sequences(), NONE) for one in (trained, plain)]
    assert found[0].report.mean_difference is not None
    assert found[0].report.mean_difference < 1e-5
    outputs = [run(one.module, sequences()) for one in found]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert found[0].variance["lstm.weight_hh_l0"].all()
    compared = compare_monte_carlo(found[0], checkpoint, Samples(sequences()), draws=2)
    assert compared.report.monte_carlo_difference


def test_old_buffers_of_an_lstm_are_no_part_of_it() -> None:
    expected = checkpoint_of(randomised(Recurrent(LstmWithKl(3, 4), BBBLinear(4, 2))))
    checkpoint = expected
    for matrix in ("ih", "hh"):
        for part in ("weight", "bias"):
            like = np.ones_like(expected.tensors[f"lstm.{matrix}.mu_{part}"])
            names = {f"eps_{part}": np.nan, f"prior_{part}_mu": 0.0, f"prior_{part}_sigma": 1.0}
            for name, value in names.items():
                checkpoint = with_tensor(checkpoint, f"lstm.{matrix}.{name}", value * like)
    plain = Recurrent(nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2))
    for built in (Recurrent(LstmWithKl(3, 4), BBBLinear(4, 2)), plain):
        one, other = (fold_posterior(c, built, sequences(), NONE) for c in (checkpoint, expected))
        assert one.report.families["lstm"] == "bayesian-torch LSTM"
        np.testing.assert_array_equal(run(one.module, sequences()), run(other.module, sequences()))


def test_the_states_of_an_lstm_are_not_ranked() -> None:
    checkpoint = checkpoint_of(randomised(Recurrent(LstmWithKl(3, 4), BBBLinear(4, 2))))
    plain = Recurrent(nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2))
    with pytest.raises(ConfigError, match="no layer but recurrent ones and the output layer"):
        fold_posterior(checkpoint, plain, sequences(), PruneSpec(PruneRule.SNR, 1.0))
    summary = inspect_checkpoint(checkpoint)
    assert summary.layers[0].snr_quantiles is not None


def test_a_gru_under_the_keys_of_an_lstm_is_refused() -> None:
    class GRU(LstmWithKl):
        pass

    network = Recurrent(GRU(3, 4), nn.Linear(4, 2))
    with pytest.raises(ArchitectureError, match="layer 'lstm': GRU is no plain LSTM"):
        fold_posterior(checkpoint_of(network), network, sequences(), NONE)


def test_matrices_of_two_lstms() -> None:
    checkpoint = checkpoint_of(Recurrent(LstmWithKl(3, 4), nn.Linear(4, 2)))
    bias = np.zeros(12, np.float32)
    for key in ("lstm.hh.mu_bias", "lstm.hh.rho_bias"):
        checkpoint = with_tensor(checkpoint, key, bias)
    with pytest.raises(
        CheckpointError, match=r"layer 'lstm': bias_hh_l0 of shape \(12,\) does not"
    ):
        fold_posterior(checkpoint, Recurrent(nn.LSTM(3, 4), nn.Linear(4, 2)), sequences(), NONE)


def test_savage_dickey_with_the_prior_of_an_old_file() -> None:
    conv, fc = Conv2dWithKl((4, 1, 3, 3), "kernel", 4), WithKl((3, 144), "weight", 3)
    checkpoint = checkpoint_of(randomised(nn.Sequential(conv, nn.Flatten(), fc)))
    kernel = checkpoint.tensors["0.mu_kernel"].copy()
    kernel[2] = 0.0
    checkpoint = with_tensor(checkpoint, "0.mu_kernel", kernel)
    for key, value in OLD_BUFFERS.items():
        checkpoint = with_tensor(checkpoint, f"0.{key}", np.full_like(kernel, value))
    twin = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    found = folded(checkpoint, twin, PruneSpec(PruneRule.SAVAGE_DICKEY))
    (decision,) = found.report.pruning
    assert decision.closed.tolist() == [False, False, True, False]


def test_a_foreign_layer_under_the_name_is_refused() -> None:
    checkpoint = checkpoint_of(randomised(bbb()))
    network = nn.Sequential(nn.BatchNorm2d(1), *list(plain_bbb().children())[1:])
    with pytest.raises(ArchitectureError):
        folded(checkpoint, network)


def test_a_forward_that_returns_no_numbers_is_refused() -> None:
    class Broken(BBBLinear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = super().forward(x)
            return output * float("nan")

    network = nn.Sequential(nn.Flatten(), Broken(64, 3))
    with pytest.raises(ParityError, match="gives NaN or infinity, first at layer '1'"):
        folded(checkpoint_of(randomised(network)), network)
