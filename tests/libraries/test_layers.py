"""Every layer class of the libraries, alone: its own forward at the mean against its twin's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.options import PruneRule, PruneSpec
from tests.libraries.examples.torch_uncertainty_layers import layers as torch_uncertainty
from tests.libraries.frame import imported, libraries
from tests.posterior.checkpoints import checkpoint_of

PACKAGES = {library.package: library for library in libraries()}
CONV: dict[str, Any] = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
UP: dict[str, Any] = {"stride": 3, "padding": 1, "output_padding": 1, "groups": 2}
PRIOR: dict[str, Any] = {"prior_mu": 0, "prior_sigma": 0.1}
SIGNAL, IMAGE, ROW, SEQUENCE = (2, 4, 13), (2, 4, 13, 11), (2, 4), (2, 7, 4)


@dataclass(frozen=True)
class Case:
    """A layer by name, its arguments, and the shape of an input for it."""

    package: str
    layer: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]

    def build(self) -> nn.Module:
        """The layer with random means; returns its output alone."""
        modules: dict[str, Callable[[], Any]] = {
            "bayesian_torch": lambda: imported("bayesian_torch.layers"),
            "blitz": lambda: imported("blitz.modules"),
            "cplxmodule": self.cplxmodule,
            "torch_ard": lambda: imported("torch_ard"),
            "torch_uncertainty": torch_uncertainty,
            "torchbnn": lambda: imported("torchbnn"),
        }
        layer: nn.Module = getattr(modules[self.package](), self.layer)(**self.arguments)
        if "LSTM" in self.layer:
            return FirstOutput(layer)
        if "Masked" in self.layer:
            deploy_half(layer)
        if hasattr(layer, "dnn_to_bnn_flag"):
            setattr(layer, "dnn_to_bnn_flag", True)  # noqa: B010  mypy takes it for a tensor
        return layer

    def cplxmodule(self) -> Any:
        """The module of real layers that has it."""
        return imported(f"cplxmodule.nn.{'masked' if 'Masked' in self.layer else 'relevance'}")


def deploy_half(layer: Any) -> None:
    """A mask that drops about half of the weights."""
    layer.mask = (torch.rand_like(layer.weight) > 0.5).float()


class FirstOutput(nn.Module):
    """What a recurrent layer returns first."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(x)[0]
        return output


def sized(kernel: Any, **more: Any) -> dict[str, Any]:
    return {"in_channels": 4, "out_channels": 6, "kernel_size": kernel, **more}


LINEAR: dict[str, Any] = {"in_features": 4, "out_features": 3}
CASES = [
    *(
        Case("bayesian_torch", f"{name}{kind}", arguments, shape)
        for kind in ("Reparameterization", "Flipout")
        for name, arguments, shape in (
            ("Linear", LINEAR, ROW),
            ("Linear", LINEAR | {"bias": False}, ROW),
            ("LSTM", LINEAR, SEQUENCE),
            ("LSTM", LINEAR | {"bias": False}, SEQUENCE),
            ("Conv1d", sized(3, **CONV), SIGNAL),
            ("Conv2d", sized(3, **CONV), IMAGE),
            ("Conv2d", sized(3, bias=False), IMAGE),
            ("ConvTranspose1d", sized(3, **UP), SIGNAL),
            ("ConvTranspose2d", sized(3, **UP), IMAGE),
        )
    ),
    Case("blitz", "BayesianLinear", LINEAR, ROW),
    Case("blitz", "BayesianLinear", LINEAR | {"bias": False}, ROW),
    Case("blitz", "BayesianConv1d", sized(3, **CONV), SIGNAL),
    Case("blitz", "BayesianConv2d", sized((3, 5), **CONV), IMAGE),
    Case("blitz", "BayesianConv2d", sized((3, 3), bias=False), IMAGE),
    Case("blitz", "BayesianLSTM", LINEAR, SEQUENCE),
    *(Case("cplxmodule", f"Linear{kind}", LINEAR, ROW) for kind in ("VD", "ARD", "Masked")),
    *(
        Case("cplxmodule", f"Conv{axes}d{kind}", sized(3, **CONV), shape)
        for kind in ("VD", "ARD", "Masked")
        for axes, shape in ((1, SIGNAL), (2, IMAGE))
    ),
    Case("cplxmodule", "LinearVD", LINEAR | {"bias": False}, ROW),
    *(
        Case("cplxmodule", "LinearL0", LINEAR | {"group": group}, ROW)
        for group in ("input", "output", None)
    ),
    Case("torch_ard", "LinearARD", LINEAR, ROW),
    Case("torch_ard", "Conv2dARD", sized(3, **CONV), IMAGE),
    Case("torch_uncertainty", "BayesLinear", LINEAR, ROW),
    Case("torch_uncertainty", "BayesLinear", LINEAR | {"bias": False}, ROW),
    Case("torch_uncertainty", "BayesConv1d", sized(3, **CONV), SIGNAL),
    Case("torch_uncertainty", "BayesConv2d", sized((3, 5), **CONV), IMAGE),
    Case("torch_uncertainty", "BayesConv2d", sized(3, padding=1, padding_mode="reflect"), IMAGE),
    Case("torchbnn", "BayesLinear", LINEAR | PRIOR, ROW),
    Case("torchbnn", "BayesLinear", LINEAR | PRIOR | {"bias": False}, ROW),
    Case("torchbnn", "BayesConv2d", sized((3, 5), **CONV, **PRIOR), IMAGE),
    Case("torchbnn", "BayesBatchNorm2d", {"num_features": 4, "eps": 0.1} | PRIOR, IMAGE),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.package}-{case.layer}")
def test_the_twin_computes_the_layer_s_mean(case: Case) -> None:
    if not PACKAGES[case.package].installed():
        pytest.skip(f"{case.package} is not installed: make test-libraries brings it")
    torch.manual_seed(0)
    network = nn.Sequential(case.build())
    inputs = np.random.default_rng(0).standard_normal(case.shape).astype(np.float32)
    for module in (network, network.double().float()):
        folded = fold_posterior(checkpoint_of(module), module, inputs, PruneSpec(PruneRule.NONE))
        assert folded.report.mean_difference is not None
        assert folded.report.mean_difference < 1e-5
