"""Outputs of a checkpoint's network whose first axis does not hold the samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import deploykit
from deploykit.bundle import Bundle
from deploykit.errors import ArchitectureError
from deploykit.runtime import ort
from deploykit.spec.parity import Verdict
from tests.exported import save
from tests.onnx_files import normal
from tests.small_models import save_random


class TimesFirst(nn.Module):
    """[N, 9, 6] -> [9, N, 4]"""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).relu()).transpose(0, 1)  # type: ignore[no-any-return]


class LastStates(nn.Module):
    """[N, 9, 6] -> [2, N, 8]"""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.GRU(6, 8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[1]  # type: ignore[no-any-return]


NETWORKS = {"TimesFirst": TimesFirst, "LastStates": LastStates}


def exported(name: str, batch: int, folder: Path) -> Bundle:
    save_random(NETWORKS[name](), folder / "net.pt")
    return deploykit.export(
        folder / "net.pt", model=f"tests.test_first_axis_export:{name}", prune_rule="none",
        data=save(folder / "data.npz", inputs=normal(24, 9, 6)), input_shape=(batch, 9, 6),
        out=folder / "bundle",
    )  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_it_verifies_at_a_batch_of_one(name: str, tmp_path: Path) -> None:
    bundle = exported(name, 1, tmp_path)
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]
    network, sample = NETWORKS[name](), normal(1, 9, 6, seed=3)
    network.load_state_dict(torch.load(tmp_path / "net.pt"))
    with torch.no_grad():
        real = network.eval()(torch.tensor(sample)).numpy()
    (found,) = ort.run(bundle.file("model.onnx").read_bytes(), {"input": sample}).values()
    assert found.shape == real.shape
    assert np.square(found - real).mean() < np.square(real).mean() / 100


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fixed_batch_of_several_is_refused(name: str, tmp_path: Path) -> None:
    told = r"output 'output' is \[., 3, .\] for 3 samples .* give --input-shape a batch of one"
    with pytest.raises(ArchitectureError, match=told):
        exported(name, 3, tmp_path)
