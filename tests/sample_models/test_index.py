"""The index of samples: every folder has a row, and its commands name files that are there."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.exported import ROOT
from tests.sample_models.trained_by_libraries import FAMILIES, reported

FOLDER = ROOT / "sample_models"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Each `deploykit export` of the index, one word each."""
    joined = TEXT.replace("\\\n", " ")
    found = re.findall(r"^\$ deploykit (export .*)$", joined, flags=re.MULTILINE)
    return [shlex.split(line) for line in found]


def test_every_sample_has_a_row_a_section_and_a_command() -> None:
    folders = {path.name for path in FOLDER.iterdir() if (path / "model.py").is_file()}
    assert set(re.findall(r"^\| \[(\w+)\]", TEXT, flags=re.MULTILINE)) == folders
    assert set(re.findall(r"^## (\w+)$", TEXT, flags=re.MULTILINE)) == folders
    assert len(commands()) == len(folders)


def test_commands_and_links_name_files_that_are_there() -> None:
    named = [word for command in commands() for word in command if word.startswith("sample_models")]
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert named
    assert links
    for path in [*(ROOT / word.partition(":")[0] for word in named), *(FOLDER / x for x in links)]:
        assert path.is_file(), path


@pytest.mark.parametrize("library", sorted(FAMILIES))
def test_figures_of_the_libraries_are_those_of_training(library: str) -> None:
    run = reported()[library]
    told = (run["test_accuracy"], run["pruned"]["test_accuracy"])
    pair = ", ".join(f"{100 * share:.2f} %" for share in told)
    (row,) = (line for line in TEXT.splitlines() if pair in line)
    assert f"| {run['settings']['epochs']} epochs, " in row
