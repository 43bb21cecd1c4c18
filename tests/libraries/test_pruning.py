"""Output channels ranked by the posterior of networks that libraries trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deploykit
from deploykit.bundle import Bundle
from deploykit.errors import ConfigError
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.options import PruneRule, PruneSpec
from tests.libraries.frame import CHECKPOINTS, Library, libraries
from tests.libraries.images import SLICES
from tests.libraries.record import stored_reference
from tests.libraries.restated import CHANNELS, FEATURES
from tests.posterior.gate_layers import SBPLayer

torch.set_num_threads(1)

BY_NAME = {library.name: library for library in libraries()}
LOG_ALPHA = -2.498
PRIORLESS = [
    "bayesian_torch_layers",
    "bayesian_torch_quantized",
    "blitz_layers",
    "pyro_auto_diagonal_normal",
    "pyro_auto_normal",
    "torchbnn_layers",
    "tyxe_variational",
]


def exported(library: Library, folder: Path, rule: str, threshold: float | None) -> Bundle:
    return deploykit.export(
        CHECKPOINTS / f"{library.name}.pt",
        out=folder / "bundle",
        model=library.model("twin"),
        input_shape=(1, 1, 28, 28),
        data=SLICES / "calibration.npz",
        eval_data=SLICES / "test-2000.npz",
        prune_rule=rule,
        threshold=threshold,
        align="none",
    )


@pytest.mark.parametrize(
    ("name", "rule", "threshold", "kept"),
    [
        # The prior is in the file, so the rule needs no threshold: 4 of 16 channels are noise.
        ("torch_uncertainty_layers", "savage-dickey", None, 12),
        ("torch_uncertainty_layers", "snr", 1.0, 12),
        ("blitz_layers", "snr", 1.0, 14),
        # 4 are noise, and both groups of the convolution keep the wider one's 7.
        ("torchbnn_layers", "snr", 1.0, 14),
        # weight_decay and ess tell IVON's prior, prior_precision that of a Laplace fit.
        ("ivon_optimizer", "savage-dickey", None, 14),
        ("ivon_optimizer", "snr", 2.5, 14),
        ("laplace_all_weights", "savage-dickey", None, 16),
        ("laplace_all_weights", "savage-dickey", -10.0, 15),
        ("laplace_all_weights", "snr", 1.0, 15),
        ("pyro_auto_normal", "snr", 1.0, 15),
        ("tyxe_variational", "snr", 1.0, 15),
    ],
)
def test_channels_of_noise_leave_the_file_and_not_the_accuracy(
    name: str, rule: str, threshold: float | None, kept: int, tmp_path: Path
) -> None:
    library = BY_NAME[name]
    bundle = exported(library, tmp_path, rule, threshold)
    convolutions = [layer for layer in bundle.manifest["layers"] if layer["operator"] == "Conv"]
    assert [layer["channels_after"] for layer in convolutions] == [8, kept]
    mean = stored_reference(library).mean
    assert bundle.manifest["accuracy"]["model.tflite"] == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Two of 8 and 4 of 16 channels are gone, and with the second also their 36 inputs.
        ("pytorch_ard_layers", 1906),
        ("cplxmodule_layers", 1636),
        ("cplxmodule_masked", 1636),
        # One of 16 units; the 22 pixels whose gates are closed stay inputs of the network.
        ("cplxmodule_l0", 6959),
    ],
)
def test_what_the_library_drops_leaves_the_file(name: str, parameters: int, tmp_path: Path) -> None:
    library = BY_NAME[name]
    bundle = exported(library, tmp_path, "family", None)
    assert bundle.manifest["removal"]["parameters_after"] == parameters
    found = bundle.manifest["accuracy"]
    assert found["pruned"] == pytest.approx(found["folded"], abs=0.005)
    assert found["model.tflite"] == pytest.approx(found["pruned"], abs=0.01)


@pytest.mark.parametrize("name", PRIORLESS)
def test_savage_dickey_without_a_prior_says_so(name: str) -> None:
    checkpoint = BY_NAME[name].checkpoint(CHECKPOINTS / f"{name}.pt")
    twin = load_factory(BY_NAME[name].model("twin"))
    inputs = np.zeros((1, 1, 28, 28), np.float32)
    with pytest.raises(ConfigError, match="does not tell its prior, which savage-dickey needs"):
        fold_posterior(checkpoint, twin, inputs, PruneSpec(PruneRule.SAVAGE_DICKEY))


def hard_concrete_open(location: torch.Tensor) -> torch.Tensor:
    """clip(1.2 sigmoid(a) - 0.1, 0, 1) > 0."""
    return 1.2 * torch.sigmoid(location) - 0.1 > 0


def opened(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Open gates of both convolutions and of the linear layer's inputs, by the published rule."""
    content = torch.load(CHECKPOINTS / f"{name}.pt", weights_only=True)
    every = torch.ones(FEATURES, dtype=torch.bool)
    match name:
        case "l0_amlab":
            scale = 1 - content["beta_ema"] ** content["steps_ema"]
            gates = [average / scale for average in content["avg_params"] if average.ndim == 1]
            first, _, second, _, inputs, _ = gates
            return (
                hard_concrete_open(first),
                hard_concrete_open(second),
                hard_concrete_open(inputs),
            )
        case "l0_gates":
            first, second = (hard_concrete_open(content[f"{n}.qz_loga"]) for n in (2, 5))
            return first, second, every
        case "information_bottleneck":
            state = content["state_dict"]
            first, second = (
                state[f"{n}.post_z_logD"] < torch.log(state[f"{n}.post_z_mu"] ** 2 + 1e-8)
                for n in (2, 5)
            )
            return first, second, every
        case "structured_bayesian_pruning":
            network = torch.nn.Sequential(*(SBPLayer(count) for count in CHANNELS)).eval()
            for layer, place in zip(network, (2, 5), strict=True):
                layer.load_state_dict({k: content[f"{place}.{k}"] for k in ("mu", "log_sigma")})
            first, second = (layer.gates() > 0 for layer in network)  # type: ignore[operator]
            return first, second, every
        case "group_normal_jeffreys":
            first, second, inputs = (
                content[f"{n}.z_logvar"] - torch.log(content[f"{n}.z_mu"] ** 2 + 1e-8) < LOG_ALPHA
                for n in (0, 3, 8)
            )
            return first, second, inputs
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("l0_amlab", None),
        ("l0_gates", None),
        ("information_bottleneck", None),
        ("structured_bayesian_pruning", None),
        ("group_normal_jeffreys", LOG_ALPHA),
    ],
)
def test_channels_left_are_those_that_the_published_rule_keeps(
    name: str, threshold: float | None, tmp_path: Path
) -> None:
    first, second, inputs = opened(name)
    # A channel of which the linear layer reads nothing goes with its gate open.
    read = second & inputs.reshape(len(second), -1).any(dim=1)
    bundle = exported(BY_NAME[name], tmp_path, "family", threshold)
    convolutions = [layer for layer in bundle.manifest["layers"] if layer["operator"] == "Conv"]
    assert [layer["channels_after"] for layer in convolutions] == [
        int(first.sum()),
        int(read.sum()),
    ]
    assert int(read.sum()) < CHANNELS[1]
