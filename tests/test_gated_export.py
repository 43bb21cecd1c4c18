"""Whole exports of a network of each family with gates, verified, with what batch norm leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import deploykit
from deploykit.bundle import Bundle
from deploykit.spec.parity import Verdict
from tests.exported import save
from tests.posterior import gate_layers, l0_layers, variational_dropout_layers
from tests.posterior.gnj_layers import images
from tests.posterior.trained import trained

Factory = Callable[[], nn.Module]
SHAPE = (1, 1, 8, 8)
NETWORKS: dict[str, Factory] = {
    "l0_layers:l0_net": l0_layers.l0_net,
    "l0_layers:gates_net": l0_layers.gates_net,
    "l0_layers:weights_net": l0_layers.weights_net,
    "gate_layers:sbp_net": gate_layers.sbp_net,
    "gate_layers:vib_net": gate_layers.vib_net,
    "gate_layers:horseshoe_net": gate_layers.horseshoe_net,
    "variational_dropout_layers:ard_net": variational_dropout_layers.ard_net,
    "variational_dropout_layers:vd_net": variational_dropout_layers.vd_net,
}
EVAL_FORWARD_IS_NO_GOLDEN = ("sbp_net", "vib_net", "ard_net")
"""It closes gates, so that it is not the unpruned mean forward that a bundle is compared with."""


def exported(folder: Path, network: nn.Module, model: str, **options: Any) -> tuple[Bundle, Any]:
    """The bundle, verified, and its manifest."""
    torch.save(network.state_dict(), folder / "net.pt")
    data = save(folder / "data.npz", inputs=images(24))
    bundle = deploykit.export(
        folder / "net.pt", model=model, input_shape=SHAPE, data=data, out=folder / "b", **options
    )
    report = deploykit.verify_bundle(bundle.path)
    assert [step for step in report.steps if step.verdict is Verdict.FAILED] == []
    assert report.complete
    first = report.steps[0]
    expected = Verdict.INAPPLICABLE if model.endswith(EVAL_FORWARD_IS_NO_GOLDEN) else Verdict.PASSED
    assert first.verdict is expected
    if expected is Verdict.INAPPLICABLE:
        assert first.detail.endswith("at export, which recorded no outputs: it closes gates")
    return bundle, json.loads(bundle.file("manifest.json").read_text(encoding="utf-8"))


def float_outputs(bundle: Bundle, inputs: Any) -> Any:
    """What the pruned float network answers, one input at a time."""
    session = onnxruntime.InferenceSession(bundle.file("model.float.onnx"))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: one[None]})[0] for one in inputs])


@pytest.mark.parametrize("name", NETWORKS)
def test_export(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {}
    network = trained(NETWORKS[name]())
    if "horseshoe" in name:
        with torch.no_grad():
            network[3].alpha_mu[::4] = -6.0  # type: ignore[index]
            network[5].alpha_mu[::4] = -6.0  # type: ignore[index]
        options = {"threshold": {"3": -2.0, "5": -2.0}}
    with torch.no_grad():
        # A whole row of gates of weights, of the first linear layer: its output is a constant.
        for key, parameter in network.named_parameters():
            if key in {"3.loc", "7.log_sigma2"}:
                parameter[1] = -8.0 if key == "3.loc" else 8.0
            # Of what the gates of the residual block close, one channel is zero behind batch norm.
            if key == "3.bn2.bias":
                parameter[1] = -10.0
    bundle, manifest = exported(
        tmp_path, network, f"tests.posterior.{name}", align="none", **options
    )
    fold = manifest["fold"]
    assert fold["mean_difference"] < 1e-5
    assert fold["gates"]
    open_by_choice = {"5"} if name.endswith("gates_net") else set()
    for gates in fold["gates"]:
        assert (gates["closed"] > 0) == (gates["layer"] not in open_by_choice)
    assert manifest["removal"]["parameters_after"] < manifest["removal"]["parameters_before"]
    operators = {node.op_type for node in onnx.load(bundle.file("model.float.onnx")).graph.node}
    assert "BatchNormalization" not in operators
    assert ("Mul" in operators) == (name == "gate_layers:vib_net")


CLOSED = 1


class Padded(nn.Module):
    """A gated layer, batch norm, ReLU and a convolution that pads: what is closed is a constant."""

    def __init__(self, gated: nn.Module) -> None:
        super().__init__()
        self.gated = gated
        self.norm = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.relu(self.norm(self.gated(x))))
        return y


def padded_l0() -> nn.Module:
    return Padded(l0_layers.L0Conv2d(1, 6, 3, padding=1))


def padded_gate() -> nn.Module:
    return Padded(nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), l0_layers.L0Gate(6)))


def padded_sbp() -> nn.Module:
    return Padded(gate_layers.Conv2dSBP(1, 6, 3, padding=1))


def padded_sbp_gate() -> nn.Module:
    return Padded(nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), gate_layers.SBPLayer(6)))


def padded_vib() -> nn.Module:
    return Padded(
        nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), gate_layers.InformationBottleneck(6))
    )


def padded_ard() -> nn.Module:
    return Padded(variational_dropout_layers.Conv2dARD(1, 6, 3, 1))


def padded_weights() -> nn.Module:
    return Padded(l0_layers.L0Conv2dOfWeights(1, 6, 3, padding=1))


PADDED: tuple[Factory, ...] = (
    padded_l0, padded_gate, padded_sbp, padded_sbp_gate, padded_vib, padded_ard, padded_weights,
)  # fmt: skip


@pytest.mark.parametrize("factory", PADDED)
def test_what_batch_norm_makes_of_a_closed_channel_is_exact(
    tmp_path: Path, factory: Factory
) -> None:
    network = trained(factory())
    assert isinstance(network, Padded)
    with torch.no_grad():
        # Two channels are closed: one becomes a positive constant, one zero.
        network.norm.weight.fill_(1.0)
        network.norm.running_mean.zero_()  # type: ignore[union-attr]
        network.norm.bias[CLOSED], network.norm.bias[4] = 0.8, -0.8
        for spread in ("log_sigma2", "loc"):
            for name, parameter in network.gated.named_parameters():
                if name == spread:
                    parameter[[CLOSED, 4]] = 8.0 if spread == "log_sigma2" else -8.0
    extremes = np.concatenate([images(4), np.zeros((1, *SHAPE[1:]), np.float32), 10 * images(2, 5)])
    with torch.no_grad():
        middle = torch.relu(network.norm(network.gated(torch.tensor(extremes))))
        expected = network(torch.tensor(extremes)).numpy()
    assert float(middle[:, CLOSED].std()) < 1e-6
    assert float(middle[:, CLOSED].mean()) > 0.1
    assert float(middle[:, 4].abs().max()) == 0.0
    torch.save(network.state_dict(), tmp_path / "net.pt")
    data = save(tmp_path / "data.npz", inputs=images(24))
    bundle = deploykit.export(
        tmp_path / "net.pt", model=f"tests.test_gated_export:{factory.__name__}",
        input_shape=SHAPE, data=data, out=tmp_path / "b",
    )  # fmt: skip
    assert deploykit.verify_bundle(bundle.path).complete
    actual = float_outputs(bundle, extremes)
    # At the border too, where the padding of the convolution meets the constant.
    assert np.abs(actual - expected).max() / np.abs(expected).max() < 1e-5
    weights = onnx.load(bundle.file("model.float.onnx")).graph.initializer
    channels = max(tensor.dims[0] for tensor in weights if len(tensor.dims) == 4)
    assert channels <= 5
