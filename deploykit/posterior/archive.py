"""What a zip file tells before torch reads it: whether it is a checkpoint, and whole.

torch.load checks no CRC, so that a damaged record would be read as other numbers.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from deploykit.errors import CheckpointError

RESAVE = "re-save it where it was trained: torch.save(model.state_dict(), 'weights.pt')"
COPY_AGAIN = "copy it again, or re-save it where it was trained"


def require_whole_archive(path: Path) -> None:
    """Raises CheckpointError where the zip file is cut off, damaged, or not of torch.save."""
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(f"{path}: is cut off, its end is missing; {COPY_AGAIN}")
        with zipfile.ZipFile(path) as archive:
            _require_checkpoint(path, archive)
            broken = _damaged(archive)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: is damaged, its list of records is; {COPY_AGAIN}"
        ) from error
    if broken is not None:
        raise CheckpointError(
            f"{path}: is damaged: its record {broken} is not what was written (CRC-32); "
            f"{COPY_AGAIN}"
        )


def _require_checkpoint(path: Path, archive: zipfile.ZipFile) -> None:
    members = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in members:
        raise CheckpointError(
            f"{path}: is a TorchScript archive, which holds a program and no posterior; {RESAVE}"
        )
    if "data.pkl" not in members:
        raise CheckpointError(
            f"{path}: is a zip archive but no checkpoint that torch.save wrote; {RESAVE}"
        )


def _damaged(archive: zipfile.ZipFile) -> str | None:
    """The first record that differs from its CRC-32.

    After torch.serialization.set_crc32_options(False) every record has the CRC 0, which says
    nothing.
    """
    records = archive.infolist()
    if not any(record.CRC for record in records):
        return None
    for record in records:
        try:
            with archive.open(record) as content:
                while content.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError):
            return record.filename
    return None
