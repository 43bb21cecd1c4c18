"""What tests need from outside the Python environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

UNDER_CI = os.environ.get("CI") == "true"


def require_tool(name: str) -> str:
    """Path of a program; where it is missing the test skips, and under CI=true it fails."""
    found = shutil.which(name)
    if found is None:
        _missing(f"{name} is not on the PATH")
    assert found is not None
    return found


def require_path(path: Path, source: str) -> Path:
    """A file or folder that `source` brings (a Debian package); treated as a missing tool is."""
    if not path.exists():
        _missing(f"{path} is missing: {source} brings it")
    return path


def _missing(reason: str) -> None:
    if UNDER_CI:
        pytest.fail(f"{reason}, and under CI=true nothing may be missing", pytrace=False)
    pytest.skip(reason)
