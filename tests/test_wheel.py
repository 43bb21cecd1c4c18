"""The wheel holds deploykit/ and cli/ (as deploykit_cli), whole, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INSTALLED_AS = {"deploykit": "deploykit", "cli": "deploykit_cli"}
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """Names inside a wheel built from a copy, because setuptools writes into its source tree."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    for folder in INSTALLED_AS:
        shutil.copytree(ROOT / folder, source / folder, ignore=JUNK)
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


def tree_files() -> frozenset[str]:
    """What the wheel has to hold, by its installed name."""
    return frozenset(
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, package in INSTALLED_AS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def test_packages_equal_the_tree(wheel_files: frozenset[str]) -> None:
    packages = {name for name in wheel_files if ".dist-info/" not in name}
    assert sorted(packages) == sorted(tree_files())


def test_top_level_names(wheel_files: frozenset[str]) -> None:
    top = {name.partition("/")[0] for name in wheel_files}
    assert {name for name in top if not name.endswith(".dist-info")} == set(INSTALLED_AS.values())


@pytest.mark.parametrize("package", sorted(INSTALLED_AS.values()))
def test_typed(wheel_files: frozenset[str], package: str) -> None:
    assert f"{package}/py.typed" in wheel_files


def test_licence_travels(wheel_files: frozenset[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_files)
