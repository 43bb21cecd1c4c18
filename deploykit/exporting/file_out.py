"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from deploykit.errors import ConfigError


def check_writable(out: Path, option: str, inputs: tuple[Path, ...]) -> None:
    """Raise ConfigError where `out` cannot be a new file, or is one of the files that are read."""
    folder = out.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{option} {out}: there is no folder {folder}; make it first")
    if out.is_dir():
        raise ConfigError(f"{option} {out} is a folder; give the path of a file")
    if out.exists() and not out.is_file():
        raise ConfigError(f"{option} {out} is a device, pipe or socket; give the path of a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{option} {out}: {folder} may not be written to; choose another")
    for read in inputs:
        same = out.resolve() == read.resolve()
        if same or (out.exists() and read.exists() and out.samefile(read)):
            raise ConfigError(f"{option} {out} is the file {read} itself; choose another name")


def write_file(out: Path, data: bytes) -> None:
    """Write beside `out`, then rename: whoever is killed leaves `out` as it was.

    Raises OSError where the disk refuses.
    """
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes it private; a model is as readable as any file the user makes.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(out)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
