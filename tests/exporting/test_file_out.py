"""Files appear whole or not at all, and never over what is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.errors import ConfigError
from deploykit.exporting.file_out import check_writable, write_file


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    for data in (b"one", b"two"):
        check_writable(out, "--out", (tmp_path / "in.onnx",))
        write_file(out, data)
        assert out.read_bytes() == data
    assert [item.name for item in tmp_path.iterdir()] == ["net.onnx"]


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "net.onnx"
    out.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(out, b"new")
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"net.onnx": b"old"}


def the_input(folder: Path) -> Path:
    return folder / "in.onnx"


def a_link_to_it(folder: Path) -> Path:
    (folder / "link.onnx").symlink_to(folder / "in.onnx")
    return folder / "link.onnx"


def a_hard_link_to_it(folder: Path) -> Path:
    (folder / "hard.onnx").hardlink_to(folder / "in.onnx")
    return folder / "hard.onnx"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (the_input, "is the file .*in.onnx itself"),
        (a_link_to_it, "is the file .*in.onnx itself"),
        (a_hard_link_to_it, "is the file .*in.onnx itself"),
        (lambda folder: folder / "gone" / "out.onnx", "there is no folder .*gone; make it first"),
        (lambda folder: folder, "is a folder; give the path of a file"),
    ],
)
def test_what_cannot_be_written_is_refused(
    make: Callable[[Path], Path], told: str, tmp_path: Path
) -> None:
    (tmp_path / "in.onnx").write_bytes(b"x")
    with pytest.raises(ConfigError, match=told):
        check_writable(make(tmp_path), "--out", (tmp_path / "in.onnx",))


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="is a device, pipe or socket"):
        check_writable(pipe, "--out", ())
    assert pipe.is_fifo()
