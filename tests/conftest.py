"""What holds for every test, and the sample's bundle, which many of them read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.verify.saturation import kernels_add_in_16_bits
from tests.exact_sums import take_exact_sums
from tests.exported import export_sample, write_config

# onnxruntime reports home by default, and reads this when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# The workers of pytest-xdist fill the cores: a second thread in one of them waits for another's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if kernels_add_in_16_bits():
    take_exact_sums()


@pytest.fixture(scope="session")
def sample_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export.toml for the sample network on a slice of its data, which lies beside it."""
    return write_config(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def sample_bundle(sample_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample network's bundle, exported once per worker; who changes it copies it."""
    return export_sample(sample_config, tmp_path_factory.mktemp("bundles") / "sample")
