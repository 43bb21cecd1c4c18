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
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.options import PruneRule, PruneSpec
from tests.libraries.frame import CHECKPOINTS, Library, libraries
from tests.libraries.images import SLICES
from tests.libraries.record import stored_reference

torch.set_num_threads(1)

BY_NAME = {library.name: library for library in libraries()}
PRIORLESS = ["bayesian_torch_layers", "bayesian_torch_quantized", "blitz_layers", "torchbnn_layers"]


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


@pytest.mark.parametrize("name", PRIORLESS)
def test_savage_dickey_without_a_prior_says_so(name: str) -> None:
    checkpoint = load_checkpoint(CHECKPOINTS / f"{name}.pt")
    twin = load_factory(BY_NAME[name].model("twin"))
    inputs = np.zeros((1, 1, 28, 28), np.float32)
    with pytest.raises(ConfigError, match="does not tell its prior, which savage-dickey needs"):
        fold_posterior(checkpoint, twin, inputs, PruneSpec(PruneRule.SAVAGE_DICKEY))
