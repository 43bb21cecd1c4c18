"""Networks of each family with gates: folded = their own eval forward, and both ways in."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import ArchitectureError, ParityError
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import PruneRule, PruneSpec
from tests.posterior import gate_layers, l0_layers, variational_dropout_layers
from tests.posterior.checkpoints import checkpoint_of
from tests.posterior.gnj_layers import images
from tests.posterior.trained import trained

NONE = PruneSpec(PruneRule.NONE)
Factory = Callable[[], nn.Module]

NETWORKS: dict[str, tuple[Factory, Factory, set[str]]] = {
    "L0 of AMLab": (l0_layers.l0_net, l0_layers.l0_plain_net, {"L0 (AMLab)"}),
    "L0 gate layers": (l0_layers.gates_net, l0_layers.gates_plain_net, {"L0 gate layer"}),
    "SBP": (
        gate_layers.sbp_net,
        gate_layers.sbp_plain_net,
        {"structured Bayesian pruning", "structured Bayesian pruning, gate layer"},
    ),
    "VIB": (
        gate_layers.vib_net,
        gate_layers.vib_plain_net,
        {"variational information bottleneck"},
    ),
    "variational dropout": (
        variational_dropout_layers.vd_net,
        variational_dropout_layers.vd_plain_net,
        {"variational dropout"},
    ),
}
EVALUATION_CLOSES = ("L0 of AMLab", "L0 gate layers", "SBP", "VIB")
"""Whose eval forward multiplies closed gates by zero, so that pruning changes nothing."""


@pytest.mark.parametrize("name", NETWORKS)
def test_both_ways_in_give_the_same_network(name: str) -> None:
    bayesian, plain, families = NETWORKS[name]
    network = trained(bayesian())
    checkpoint = checkpoint_of(network)
    one = fold_posterior(checkpoint, bayesian, images(), PruneSpec())
    two = fold_posterior(checkpoint, plain, images(), PruneSpec())
    assert set(one.report.families.values()) - {"deterministic"} == families
    assert one.report.mean_difference is not None
    assert one.report.mean_difference < 1e-5
    assert two.report.mean_difference is None
    expected, actual = run(one.module, images()), run(two.module, images())
    # A matrix product and a linear layer round differently.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    for decision in one.report.pruning:
        assert 0 < decision.closed.sum() < decision.closed.size or decision.layer == "5"


@pytest.mark.parametrize("name", EVALUATION_CLOSES)
def test_pruned_network_is_the_eval_forward(name: str) -> None:
    bayesian, _, _ = NETWORKS[name]
    network = trained(bayesian())
    folded = fold_posterior(checkpoint_of(network), bayesian, images(), PruneSpec())
    expected = run(network, images())
    assert np.abs(expected).max() > 0.1
    difference = np.abs(run(folded.module, images()) - expected).max() / np.abs(expected).max()
    assert difference < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_every_third_gate_is_closed(name: str) -> None:
    bayesian, _, _ = NETWORKS[name]
    checkpoint = checkpoint_of(trained(bayesian()))
    folded = fold_posterior(checkpoint, bayesian, images(), PruneSpec())
    for decision in folded.report.pruning:
        if decision.axis is None:
            assert 0.2 < decision.closed.mean() < 0.5
        elif name == "L0 gate layers" and decision.layer == "5":
            assert not decision.closed.any()
        else:
            np.testing.assert_array_equal(decision.closed, np.arange(decision.closed.size) % 3 == 1)


@pytest.mark.parametrize("name", ["L0 gate layers", "SBP", "VIB"])
def test_missing_gate_layer_is_refused(name: str) -> None:
    bayesian, plain, _ = NETWORKS[name]
    checkpoint = checkpoint_of(trained(bayesian()))
    layers = [layer for layer in plain() if not isinstance(layer, nn.Identity)]  # type: ignore[attr-defined]
    named = re.escape("put an nn.Identity() where the gate layer stood")
    with pytest.raises(ArchitectureError, match=named):
        fold_posterior(checkpoint, nn.Sequential(*layers), images(), NONE)


@pytest.mark.parametrize(
    "network",
    [
        l0_layers.weights_net,
        variational_dropout_layers.ard_net,
        gate_layers.horseshoe_net,
    ],
)
def test_other_networks_fold_to_their_eval_forward(network: Factory) -> None:
    folded = fold_posterior(checkpoint_of(trained(network())), network, images(), NONE)
    assert folded.report.mean_difference is not None
    assert folded.report.mean_difference < 1e-5


def test_masked_evaluation_is_what_pruning_at_three_gives() -> None:
    factory = variational_dropout_layers.ard_net
    network = trained(factory())
    folded = fold_posterior(checkpoint_of(network), factory, images(), PruneSpec())
    expected = run(network, images())
    assert np.abs(run(folded.module, images()) - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(run(folded.unpruned, images()) - expected).max() > 0.01 * np.abs(expected).max()


def test_plain_evaluation_is_what_no_pruning_gives() -> None:
    factory = variational_dropout_layers.vd_net
    network = trained(factory())
    folded = fold_posterior(checkpoint_of(network), factory, images(), PruneSpec())
    expected = run(network, images())
    assert np.abs(run(folded.unpruned, images()) - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(run(folded.module, images()) - expected).max() > 0.01 * np.abs(expected).max()
    # The plain mean forward is a golden output, a masked one is not.
    assert folded.bayesian is not None


def test_layer_of_neither_evaluation_is_refused() -> None:
    class Halved(variational_dropout_layers.LinearVD):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / 2

    network = trained(nn.Sequential(nn.Flatten(), Halved(64, 3)))
    with pytest.raises(ParityError, match="first at layer '1'"):
        fold_posterior(checkpoint_of(network), network, images(), NONE)


def test_square_plain_layer_beside_l0_is_refused_in_a_twin_only() -> None:
    network = trained(nn.Sequential(l0_layers.L0Dense(8, 4), l0_layers.MAPDense(4, 4)))
    inputs = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    checkpoint = checkpoint_of(network)
    fold_posterior(checkpoint, network, inputs, NONE)
    with pytest.raises(ArchitectureError, match=r"'1\.weight' is square.*MAPDense"):
        fold_posterior(checkpoint, nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4)), inputs, NONE)
    mixed = trained(nn.Sequential(l0_layers.L0Dense(8, 4), nn.Linear(4, 4)))
    folded = fold_posterior(checkpoint_of(mixed), mixed, inputs, NONE)
    np.testing.assert_array_equal(folded.module[1].weight, mixed[1].weight.detach())  # type: ignore[index]


def test_transposed_plain_layer_is_turned() -> None:
    network = trained(nn.Sequential(l0_layers.L0Dense(8, 4), l0_layers.MAPDense(4, 3)))
    inputs = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    twin = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3))
    folded = fold_posterior(checkpoint_of(network), twin, inputs, NONE)
    np.testing.assert_allclose(
        run(folded.module, inputs), run(network, inputs), rtol=1e-5, atol=1e-5
    )


def test_published_arithmetic_that_overflows_is_told() -> None:
    network = trained(nn.Sequential(nn.Flatten(), gate_layers.LinearSBP(64, 3)))
    with torch.no_grad():
        network.get_parameter("1.mu").fill_(3.0)
        network.get_parameter("1.log_sigma").fill_(-3.0)
    assert not np.isfinite(run(network, images())).all()
    with pytest.raises(
        ParityError, match=r"NaN or infinity, first at layer '1'.*deterministic twin"
    ):
        fold_posterior(checkpoint_of(network), lambda: network, images(), NONE)
    twin = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    folded = fold_posterior(checkpoint_of(network), lambda: twin, images(), NONE)
    assert np.isfinite(run(folded.module, images())).all()
