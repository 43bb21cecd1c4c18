"""Layers of the families with gates one by one: twin, gates, draws, and keys that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import CheckpointError, ParityError
from deploykit.posterior.describe import inspect_checkpoint
from deploykit.posterior.families import FAMILIES
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.recognise import recognise
from deploykit.posterior.variational_dropout import SPREADS, WEIGHTS, log_alpha
from tests.posterior import gate_layers, l0_layers
from tests.posterior.checkpoints import checkpoint_of, with_tensor
from tests.posterior.trained import trained
from tests.posterior.variational_dropout_layers import (
    Conv2dVD,
    LinearARD,
    LinearMasked,
    LinearSVDO,
    LinearVD,
    SharedAlphaConv2d,
)

NONE = PruneSpec(PruneRule.NONE)
NAMES = [(w, s) for w in WEIGHTS for s in SPREADS if (w, s) != ("weight", "log_sigma2")]

LAYERS: dict[str, list[tuple[nn.Module, tuple[int, ...]]]] = {
    "L0 (AMLab)": [
        (l0_layers.L0Dense(6, 4), (3, 6)),
        (l0_layers.L0Dense(5, 5, bias=False), (3, 5)),
        (l0_layers.L0Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7)),
        (l0_layers.L0Conv2d(2, 4, 3, bias=False), (2, 2, 6, 6)),
    ],
    "L0 (cplxmodule)": [
        (l0_layers.LinearL0(6, 4, "input"), (3, 6)),
        (l0_layers.LinearL0(6, 4, "output"), (3, 6)),
        (l0_layers.LinearL0(6, 3, "input", bias=False), (3, 6)),
        (l0_layers.LinearL0(6, 4, "weight"), (3, 6)),
    ],
    "L0 (moskomule)": [
        (l0_layers.L0LinearOfWeights(6, 4, bias=False), (3, 6)),
        (l0_layers.L0Conv2dOfWeights(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7)),
    ],
    "L0 gate layer": [(l0_layers.L0Gate(5), (2, 5)), (l0_layers.L0Gate(5), (2, 5, 4, 4))],
    "structured Bayesian pruning": [
        (gate_layers.Conv2dSBP(2, 4, 3, padding=1), (2, 2, 5, 5)),
        (gate_layers.LinearSBP(6, 4), (3, 6)),
    ],
    "structured Bayesian pruning, gate layer": [(gate_layers.SBPLayer(5), (2, 5, 3, 3))],
    "variational information bottleneck": [
        (gate_layers.InformationBottleneck(5), (2, 5)),
        (gate_layers.InformationBottleneck(5), (2, 5, 3, 3)),
    ],
    "group horseshoe": [
        (gate_layers.LinearGroupHS(6, 4), (3, 6)),
        (gate_layers.LinearGroupHSWithColumn(6, 4), (3, 6)),
    ],
    "variational dropout": [
        (LinearARD(6, 4), (3, 6)),
        (LinearVD(6, 4), (3, 6)),
        (Conv2dVD(2, 4, 3, 1), (2, 2, 5, 5)),
    ],
    "variational dropout, one alpha": [(SharedAlphaConv2d(2, 4, 3, 1), (2, 2, 5, 5))],
    "masked weights (cplxmodule)": [(LinearMasked(6, 4), (3, 6))],
    **{
        f"variational dropout ({weight}, {spread})": [
            (LinearSVDO(6, 4, weight, spread, (1, 4)), (3, 6))
        ]
        for weight, spread in NAMES
    },
}
CASES = [(family, layer, shape) for family, layers in LAYERS.items() for layer, shape in layers]


def inputs_of(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("family", "layer", "shape"), CASES)
def test_layer_is_recognised_and_folds_to_its_eval_forward(
    family: str, layer: nn.Module, shape: tuple[int, ...]
) -> None:
    network = trained(nn.Sequential(layer))
    (found,) = recognise(checkpoint_of(network)).layers
    assert found.family.name == family
    folded = fold_posterior(checkpoint_of(network), network, inputs_of(shape), NONE)
    assert folded.report.mean_difference is not None
    assert folded.report.mean_difference < 1e-5
    assert np.abs(run(network, inputs_of(shape))).max() > 0.1


def test_every_family_with_gates_is_among_the_cases() -> None:
    gated = {family.name for family in FAMILIES if family.gate_rule is not None}
    elsewhere = {"group normal-Jeffreys", "Bayesian Bits", "Bayesian Bits, learned scale"}
    assert gated - LAYERS.keys() <= elsewhere


@pytest.mark.parametrize(
    ("family", "layer", "shape"),
    [case for case in CASES if not case[0].startswith(("masked", "group"))],
)
def test_draws_have_the_moments_of_the_posterior(
    family: str, layer: nn.Module, shape: tuple[int, ...]
) -> None:
    del family, shape
    network = trained(nn.Sequential(layer))
    if "log_sigma" in dict(layer.named_parameters()):
        with torch.no_grad():
            layer.get_parameter("log_sigma").clamp_(max=0.0)
    (found,) = recognise(checkpoint_of(network)).layers
    posterior = found.posterior()
    generator = np.random.default_rng(1)
    draws = [found.family.sample(found.tensors, generator) for _ in range(3_000)]
    for key, variance in posterior.variance.items():
        drawn = np.stack([one[key] for one in draws]).astype(np.float64)
        assert drawn.shape[1:] == posterior.mean[key].shape
        largest = float(variance.max()) + 1e-12
        np.testing.assert_allclose(drawn.var(0), variance, rtol=0.25, atol=0.02 * largest)


@pytest.mark.parametrize(
    "layer", [LAYERS["group horseshoe"][0][0], LAYERS["group horseshoe"][1][0]]
)
def test_horseshoe_draws(layer: nn.Module) -> None:
    (found,) = recognise(checkpoint_of(trained(nn.Sequential(layer)))).layers
    posterior, generator = found.posterior(), np.random.default_rng(1)
    draws = [found.family.sample(found.tensors, generator) for _ in range(20_000)]
    for key in ("weight", "bias"):
        drawn = np.stack([one[key] for one in draws]).astype(np.float64)
        np.testing.assert_allclose(drawn.var(0), posterior.variance[key], rtol=0.2)
    assert posterior.mean["weight"].shape == (4, 6)
    assert posterior.gate_score is not None
    assert posterior.gate_score.shape == (6,)


def test_horseshoe_scales_by_hand() -> None:
    layer = gate_layers.LinearGroupHS(1, 1)
    with torch.no_grad():
        for name, mean, variance in (("sa", 0.2, 0.1), ("sb", -0.4, 0.2), ("alpha", 1.0, 0.3),
                                     ("beta", 0.4, 0.4)):  # fmt: skip
            layer.get_parameter(f"{name}_mu").fill_(mean)
            layer.get_parameter(f"{name}_logvar").fill_(math.log(variance))
        layer.get_parameter("weight_mu").fill_(2.0)
    (found,) = recognise(checkpoint_of(nn.Sequential(layer))).layers
    posterior = found.posterior()
    # m = 1.2 / 2, v = 1.0 / 4
    assert posterior.mean["weight"][0, 0] == pytest.approx(2 * math.exp(0.6 + 0.125))
    assert posterior.gate_score is not None
    assert posterior.gate_score[0] == pytest.approx(0.6 - 0.25)


def test_bias_of_a_convolution_is_gated_and_that_of_a_linear_layer_is_not() -> None:
    network = trained(nn.Sequential(l0_layers.L0Conv2d(1, 4, 3), nn.Flatten(),
                                    l0_layers.LinearL0(64, 4, "output")))  # fmt: skip
    images = np.ones((2, 1, 6, 6), np.float32)
    folded = fold_posterior(checkpoint_of(network), network, images, PruneSpec())
    first, last = folded.report.pruning
    assert not folded.module[0].bias[torch.tensor(first.closed)].any()
    assert last.axis == 0
    assert folded.module[2].bias[torch.tensor(last.closed)].all()
    assert not folded.module[2].weight[torch.tensor(last.closed)].any()


@pytest.mark.parametrize(
    ("weight", "log_variance", "expected"),
    [(1.0, 3.0, 3.0), (math.exp(-1.0), 1.0, 3.0), (-0.1, -8.0, -8 + 2 * math.log(10)),
     (0.0, -10.0, 10.0), (1e4, 0.0, -10.0)],
)  # fmt: skip
def test_log_alpha_literals(weight: float, log_variance: float, expected: float) -> None:
    found = log_alpha(np.array([weight]), np.array([log_variance]))
    assert found[0] == pytest.approx(expected, abs=1e-9)


def test_wholly_masked_rows_and_columns() -> None:
    network = trained(nn.Sequential(LinearARD(6, 5), nn.ReLU(), LinearARD(5, 3)))
    with torch.no_grad():
        network[0].log_sigma2[2] = 6.0  # type: ignore[index]
        network[2].log_sigma2[:, 4] = 6.0  # type: ignore[index]
    folded = fold_posterior(checkpoint_of(network), network, inputs_of((4, 6)), PruneSpec())
    assert not folded.module[0].weight[2].any()
    assert folded.module[0].bias[2] != 0
    assert not folded.module[2].weight[:, 4].any()
    first, _ = folded.report.pruning
    assert (first.axis, first.closed.shape) == (None, (5, 6))


def test_gates_that_do_not_fit_their_weight() -> None:
    checkpoint = checkpoint_of(nn.Sequential(l0_layers.L0Dense(6, 4)))
    broken = with_tensor(checkpoint, "0.qz_loga", np.zeros(5, np.float32))
    (found,) = recognise(broken).layers
    with pytest.raises(CheckpointError, match=r"layer '0': gates of shape \(5,\) do not fit .*6,"):
        found.posterior()
    horseshoe = checkpoint_of(nn.Sequential(gate_layers.LinearGroupHS(6, 4)))
    broken = with_tensor(horseshoe, "0.alpha_mu", np.zeros(5, np.float32))
    (found,) = recognise(broken).layers
    with pytest.raises(CheckpointError, match=r"alpha_mu has shape \(5,\)"):
        found.posterior()


def test_weight_and_log_alpha_of_every_weight_can_be_either_of_two_families() -> None:
    (found,) = traps(l0_layers.LinearL0(6, 4, "weight"))
    assert "rename weight to W" in found
    layer = LinearSVDO(6, 4, "weight", "log_alpha", (4,))
    (found,) = traps(layer)
    with pytest.raises(ParityError):
        fold_posterior(
            checkpoint_of(trained(nn.Sequential(layer))), nn.Sequential(layer), inputs_of((3, 6)),
            NONE,
        )  # fmt: skip


def test_masks_are_closed_gates() -> None:
    network = trained(nn.Sequential(LinearMasked(6, 4)))
    folded = fold_posterior(checkpoint_of(network), network, inputs_of((3, 6)), PruneSpec())
    (decision,) = folded.report.pruning
    np.testing.assert_array_equal(decision.closed, network[0].mask.numpy() == 0)  # type: ignore[index]
    assert (folded.module[0].weight.numpy() == 0).tolist() == decision.closed.tolist()


class Undeployed(nn.Linear):
    """A masked layer as cplxmodule builds it: a torch layer whose forward wants a mask."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight * self.get_buffer("mask"), self.bias)


def test_a_masked_layer_takes_the_mask_of_the_file() -> None:
    checkpoint = checkpoint_of(trained(nn.Sequential(LinearMasked(6, 4))))
    network = nn.Sequential(Undeployed(6, 4))
    folded = fold_posterior(checkpoint, network, inputs_of((3, 6)), NONE)
    assert type(folded.module[0]) is nn.Linear
    assert folded.report.mean_difference == pytest.approx(0, abs=1e-6)
    assert (folded.module[0].weight == 0).any()


def traps(layer: nn.Module) -> list[str]:
    return list(inspect_checkpoint(checkpoint_of(nn.Sequential(layer))).traps)


def test_traps() -> None:
    (either,) = traps(LinearVD(6, 4))
    assert "pytorch_ard and cplxmodule write the same names" in either
    assert traps(gate_layers.InformationBottleneck(4)) == []
    sign, masking = traps(trained(gate_layers.InformationBottleneck(40)))
    assert "some gates are negative" in sign
    assert "masking=True" in masking
    assert traps(gate_layers.SBPLayer(4)) == []
    assert traps(l0_layers.L0Conv2d(1, 2, 3, bias=False)) == []
    (untrained,) = traps(l0_layers.L0Conv2d(1, 2, 3))
    assert "without local_rep" in untrained
    assert traps(gate_layers.LinearGroupHS(3, 2)) == []
    (column,) = traps(gate_layers.LinearGroupHSWithColumn(3, 2))
    assert "the last column is taken for the bias" in column
