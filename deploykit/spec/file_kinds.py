"""What a file is by its first bytes, where it is not what it was given as, and what to do then."""

from __future__ import annotations

from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
UNPACK = "unpack it first"
KINDS: tuple[tuple[bytes, str], ...] = (
    (LFS_POINTER, "is a git-lfs pointer, not the file that it stands for; run `git lfs pull`"),
    (b"\x1f\x8b", f"is compressed with gzip; {UNPACK} (gunzip, or tar -xzf where it is a .tar.gz)"),
    (b"BZh", f"is compressed with bzip2; {UNPACK} (bunzip2)"),
    (b"\xfd7zXZ\x00", f"is compressed with xz; {UNPACK} (unxz)"),
    (b"\x28\xb5\x2f\xfd", f"is compressed with zstd; {UNPACK} (unzstd)"),
    (b"7z\xbc\xaf\x27\x1c", f"is a 7z archive; {UNPACK}"),
    (b"Rar!\x1a\x07", f"is a RAR archive; {UNPACK}"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes; deploykit reads none"),
    (b"<!DOCTYPE", "is a web page, not the file that its link names; download that"),
    (b"<!doctype", "is a web page, not the file that its link names; download that"),
    (b"<html", "is a web page, not the file that its link names; download that"),
)
"""First bytes, and what a file that begins so is."""
TEXT_BYTES = 4096


def foreign_kind(path: Path) -> str | None:
    """What the file is and what to do, where its first bytes tell a kind that is never read."""
    with path.open("rb") as file:
        start = file.read(max(len(magic) for magic, _ in KINDS))
    return next((told for magic, told in KINDS if start.startswith(magic)), None)


def is_text(path: Path) -> bool:
    """Whether it begins like a text: UTF-8 without control characters."""
    with path.open("rb") as file:
        start = file.read(TEXT_BYTES)
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut at the end of what was read.
        if len(start) < TEXT_BYTES or error.start < len(start) - 3:
            return False
        text = start[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)
