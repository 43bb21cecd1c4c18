"""A layer that a network uses twice: its weight is counted and stored once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import deploykit
from deploykit.emit.tflite_file import parse_tflite
from deploykit.spec.parity import Verdict
from tests.exported import save


class Twice(nn.Module):
    """One convolution that runs twice, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.tanh(self.both(torch.tanh(self.both(x))))
        scores: Tensor = self.last(inner.mean(dim=(2, 3)))
        return scores


def twice() -> nn.Module:
    torch.manual_seed(3)
    return Twice()


@pytest.mark.parametrize("rounding", ["nearest", "compensated", "sequential"])
@pytest.mark.parametrize("target", [None, "any"])
def test_a_tied_weight_is_stored_once(rounding: str, target: str | None, tmp_path: Path) -> None:
    torch.save(twice().state_dict(), tmp_path / "net.pt")
    inputs = np.random.default_rng(0).normal(size=(16, 8, 6, 6)).astype(np.float32)
    bundle = deploykit.export(
        tmp_path / "net.pt", model=f"{__name__}:twice", input_shape=(1, 8, 6, 6),
        data=save(tmp_path / "data.npz", inputs=inputs), out=tmp_path / "bundle",
        prune_rule="none", rounding=rounding, target=target,
    )  # fmt: skip
    parameters = sum(parameter.numel() for parameter in twice().parameters())
    assert bundle.manifest["removal"]["parameters_before"] == parameters
    model = onnx.load(bundle.file("model.onnx"))
    kernels = [held.name for held in model.graph.initializer if list(held.dims) == [8, 8, 3, 3]]
    assert kernels == ["both.weight"]
    tensors = parse_tflite(bundle.file("model.tflite").read_bytes()).tensors
    assert [t.name for t in tensors if t.shape == (8, 3, 3, 8)] == ["both.weight"]
    convolutions = [layer for layer in bundle.manifest["layers"] if layer["operator"] == "Conv"]
    kernels_run = {layer["kernels"]["onnxruntime"] for layer in convolutions}
    assert (len(convolutions), kernels_run) == (2, {"QLinearConv"})
    assert {found["differing"] for found in bundle.manifest["parity"]} == {0}
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]
