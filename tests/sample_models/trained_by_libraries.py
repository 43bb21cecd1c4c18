"""The sample that libraries trained: where it lies, its modules, what its files say."""

from __future__ import annotations

import json
from typing import Any

from tests.exported import ROOT

SAMPLE = ROOT / "sample_models" / "libraries"
NAMES = ("data", "libraries", "model", "pruning", "report", "train")
FAMILIES = {
    "bayesian-torch": {"bayesian-torch convolution", "bayesian-torch linear"},
    "pytorch-ard": {"variational dropout"},
    "torchbnn": {"torchbnn"},
}
"""Of each library, the families that its layers are recognised as."""


def reported() -> dict[str, Any]:
    """training.json's account of each library's run."""
    runs: dict[str, Any] = json.loads((SAMPLE / "training.json").read_text())["runs"]
    return runs
