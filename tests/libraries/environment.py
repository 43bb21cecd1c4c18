"""Install the libraries of all examples into build/libraries, pinned, dependencies left out.

.venv/bin/python -m tests.libraries.environment

A library's own requirements would bring another torch, numpy or lightning than the project's; its
example names what importing it really asks for. Used by putting the folder on PYTHONPATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.libraries.frame import FOLDER, libraries

STAMP = FOLDER / ".installed"


def main() -> int:
    """Make the folder anew where what is asked for has changed."""
    wanted = sorted({pin for library in libraries() for pin in library.requirements})
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
