"""What no trained network looks like still has to agree to the last integer, or be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deploykit
from tests import extreme_models


@pytest.mark.parametrize("factory", ["dead_relu", "dead_sum", "cancelling_sum"])
@pytest.mark.parametrize("batch", [1, 3])
def test_runtimes_agree_on_ranges_that_make_no_sense(
    factory: str, batch: int, tmp_path: Path
) -> None:
    torch.save(getattr(extreme_models, factory)().state_dict(), tmp_path / "net.pt")
    inputs = np.random.default_rng(0).normal(size=(10, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "data.npz", inputs=inputs)
    bundle = deploykit.export(
        tmp_path / "net.pt",
        model=f"tests.extreme_models:{factory}",
        input_shape=(batch, 3, 8, 8),
        data=tmp_path / "data.npz",
        prune_rule="none",
        out=tmp_path / "bundle",
    )
    assert [found["differing"] for found in bundle.manifest["parity"]] == [0, 0]
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, report
