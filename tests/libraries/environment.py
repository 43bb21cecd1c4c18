"""Install the libraries of all examples and samples into build/libraries, dependencies left out.

.venv/bin/python -m tests.libraries.environment

A library's own requirements would bring another torch, numpy or lightning than the project's; its
example names, pinned, what importing it really asks for. Used by putting the folder on PYTHONPATH.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

import pytest

from tests.libraries.frame import FOLDER, asked, libraries

STAMP = FOLDER / ".installed"
SAMPLES = ("seglearn==1.2.5", "torch-pruning==1.6.1")
"""Packages that bring a sample's data, or its rival."""


def require_package(name: str) -> None:
    """A package of the folder: skips in `make test`; `make test-libraries` fails without it."""
    if importlib.util.find_spec(name) is not None:
        return
    if asked():
        pytest.fail(f"{FOLDER} is on the path and has no {name}", pytrace=False)
    pytest.skip(f"{name} is not installed: make test-libraries brings it")


def main() -> int:
    """Make the folder anew where what is asked for has changed."""
    wanted = sorted({*SAMPLES, *(pin for library in libraries() for pin in library.requirements)})
    loose = [pin for pin in wanted if "==" not in pin]
    if loose:
        print(f"requirements without a release: {', '.join(loose)}", file=sys.stderr)
        return 1
    text = "\n".join(wanted) + "\n"
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == text:
        return 0
    print(f"installing {len(wanted)} packages into {FOLDER}", flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run([*pip, "--no-deps", "--target", str(FOLDER), *wanted], check=False)
    if done.returncode == 0:
        STAMP.write_text(text, encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
