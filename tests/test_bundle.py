"""A bundle appears whole or not at all, and any change to it is named by file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from deploykit import bundle as bundle_module
from deploykit.bundle import (
    HASHES,
    MANIFEST,
    check_replaceable,
    damaged_files,
    json_bytes,
    load_golden,
    read_bundle,
    write_bundle,
)
from deploykit.errors import BundleError, IntegrityError
from deploykit.spec.arrays import AnyArray
from tests.exported import contents, copy_of, flip, mend, save

MODEL, GOLDEN, PLAN = "model.onnx", "golden.npz", "plan.json"
FILES = {
    "model.float.onnx": b"float", MODEL: b"integers", PLAN: json_bytes({"schema": 1}),
    GOLDEN: b"golden", MANIFEST: json_bytes({"schema": 1, "sizes": {MODEL: 8}}),
}  # fmt: skip
EVERY = ["golden.npz", "manifest.json", "model.float.onnx", MODEL, "model.tflite", PLAN]


@pytest.fixture
def whole(sample_bundle: Path, tmp_path: Path) -> Path:
    """The sample's bundle, to damage."""
    return copy_of(sample_bundle, tmp_path)


def left_in(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "new" / "b", FILES)
    assert read_bundle(written.path) == written
    assert {name: written.file(name).read_bytes() for name in FILES} == FILES
    assert written.models() == (MODEL,)
    assert left_in(tmp_path / "new") == ["b"]


def test_the_hash_list_is_what_sha256sum_checks(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", FILES).path
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", HASHES], cwd=folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"OK") == len(FILES)


def test_a_bundle_is_as_readable_as_any_folder(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    folder = write_bundle(tmp_path / "b", FILES).path
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_old_bundle_is_replaced_whole(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b", {**FILES, "model.tflite": b"old"})
    write_bundle(tmp_path / "b", {**FILES, MODEL: b"new"})
    assert (tmp_path / "b" / MODEL).read_bytes() == b"new"
    assert not (tmp_path / "b" / "model.tflite").exists()
    assert left_in(tmp_path) == ["b"]


def test_a_damaged_bundle_can_be_replaced(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", FILES).path
    flip(folder / HASHES, 0)
    write_bundle(folder, FILES)
    assert damaged_files(folder) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert write_bundle(tmp_path / "b", FILES).models() == (MODEL,)


def folder_with(name: str, path: Path) -> None:
    path.mkdir()
    (path / name).write_bytes(b"mine")


def bundle_with_notes(path: Path) -> None:
    write_bundle(path, FILES)
    (path / "notes.txt").write_bytes(b"mine")


def link_to_bundle(path: Path) -> None:
    write_bundle(path.parent / "real", FILES)
    path.symlink_to("real")


IN_THE_WAY: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda path: path.write_bytes(b"mine"), "exists and is not a folder"),
    "a folder of something else": (lambda path: folder_with("a.txt", path), "is not a bundle"),
    "somebody else's hash list": (lambda path: folder_with("x", path), "is not a bundle"),
    "a bundle with notes in it": (bundle_with_notes, "also holds notes.txt, which would be lost"),
    "a symlink": (link_to_bundle, "exists and is not a folder"),
    "a dangling symlink": (lambda path: path.symlink_to("nowhere"), "exists and is not a folder"),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_anything_that_is_not_a_bundle_is_left_alone(what: str, tmp_path: Path) -> None:
    make, told = IN_THE_WAY[what]
    make(tmp_path / "b")
    before = sorted(map(str, tmp_path.rglob("*")))
    for refuse in (check_replaceable, lambda path: write_bundle(path, FILES)):
        with pytest.raises(BundleError, match=told):
            refuse(tmp_path / "b")
    assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on a file system of 4 KiB, or one whose files refuse to be synced."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(mounting, capture_output=True, check=False).returncode
    )
    if not mounted:
        refuse_to_sync(monkeypatch)
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def refuse_to_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_leaves_nothing_behind(full_disk: Path) -> None:
    big = {**FILES, "model.tflite": bytes(100_000)}
    with pytest.raises(BundleError, match=r"could not be written \(No space left on device\)"):
        write_bundle(full_disk / "b", big)
    assert left_in(full_disk) == []


def test_a_disk_that_fills_up_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "b", FILES)
    before = contents(tmp_path / "b")
    refuse_to_sync(monkeypatch)
    with pytest.raises(BundleError, match="No space left on device"):
        write_bundle(tmp_path / "b", {**FILES, MODEL: b"new"})
    assert contents(tmp_path / "b") == before
    assert left_in(tmp_path) == ["b"]


def test_a_file_above_the_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="file is not a folder, so no bundle"):
        write_bundle(tmp_path / "file" / "deep" / "b", FILES)


def test_a_missing_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BundleError, match="may not be written to; choose another --out"):
        write_bundle(tmp_path / "deep" / "b", FILES)


@pytest.mark.parametrize("at", range(len(FILES) + 1))
def test_ctrl_c_while_writing_leaves_things_as_they_were(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "old", FILES)
    before, real, calls = contents(tmp_path / "old"), bundle_module._write, iter(range(100))

    def interrupted(path: Path, data: bytes) -> None:
        if next(calls) == at:
            path.write_bytes(data[:1])
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(bundle_module, "_write", interrupted)
    for name in ("new", "old"):
        calls = iter(range(100))
        with pytest.raises(KeyboardInterrupt):
            write_bundle(tmp_path / name, {**FILES, MODEL: b"new"})
    assert left_in(tmp_path) == ["old"]
    assert contents(tmp_path / "old") == before


@pytest.mark.parametrize("at", [0, 1])
def test_ctrl_c_between_the_renames_keeps_the_old_bundle(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "b", FILES)
    before, real, calls = contents(tmp_path / "b"), Path.rename, iter(range(10))

    def interrupted(self: Path, target: Path) -> Path:
        if next(calls) == at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "b", {**FILES, MODEL: b"new"})
    assert contents(tmp_path / "b") == before
    assert left_in(tmp_path) == ["b"]


KILLED = """
import os, signal, sys
from pathlib import Path
from deploykit import bundle
from tests.test_bundle import FILES

real, left = bundle._write, int(sys.argv[2])

def killed(path, data):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, data)

bundle._write = killed
bundle.write_bundle(Path(sys.argv[1]), FILES)
"""


def test_a_killed_process_leaves_no_bundle(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "b"), "3"],
        cwd=Path(__file__).parent.parent,
        check=False,
    )
    assert done.returncode == -9
    assert [name[:3] for name in left_in(tmp_path)] == [".b."]
    write_bundle(tmp_path / "b", FILES)
    assert damaged_files(tmp_path / "b") == []


@pytest.mark.parametrize("name", EVERY)
def test_one_changed_byte_anywhere_names_its_file_alone(name: str, whole: Path) -> None:
    size = (whole / name).stat().st_size
    inside = np.random.default_rng(len(name)).integers(1, size - 1, 6).tolist()
    for position in (0, -1, *inside):
        flip(whole / name, position)
        assert damaged_files(whole) == [f"{name} is not the file that was written"]
        with pytest.raises(IntegrityError, match=f"{name} is not the file"):
            read_bundle(whole)
        flip(whole / name, position)
    assert damaged_files(whole) == []


def test_one_changed_byte_in_the_hash_list_names_the_list_alone(whole: Path) -> None:
    lines = (whole / HASHES).read_bytes().splitlines(keepends=True)
    assert len(lines) == len(EVERY) + 1
    start = 0
    for line in lines:
        for position in (start, start + 30, start + 64, start + 66, start + len(line) - 1):
            flip(whole / HASHES, position)
            (told,) = damaged_files(whole)
            assert told.startswith(f"{HASHES} is damaged")
            flip(whole / HASHES, position)
        start += len(line)
    assert damaged_files(whole) == []


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_file_is_named(name: str, whole: Path) -> None:
    (whole / name).unlink()
    with pytest.raises(IntegrityError, match=f": {name} is missing. "):
        read_bundle(whole)


@pytest.mark.parametrize("name", EVERY)
def test_a_file_that_went_with_its_hash_is_named(name: str, whole: Path) -> None:
    (whole / name).unlink()
    mend(whole)
    with pytest.raises(IntegrityError, match=f": {name} is missing"):
        read_bundle(whole)


def test_a_cut_off_file_is_named(whole: Path) -> None:
    (whole / MODEL).write_bytes((whole / MODEL).read_bytes()[:-1])
    assert damaged_files(whole) == [f"{MODEL} is not the file that was written"]


def test_an_added_file_or_folder_is_named(whole: Path) -> None:
    (whole / "notes.txt").write_bytes(b"")
    (whole / "more").mkdir()
    assert damaged_files(whole) == [
        "more does not belong to the bundle", "notes.txt does not belong to the bundle",
    ]  # fmt: skip


def test_a_folder_in_a_file_s_place_is_named(whole: Path) -> None:
    (whole / PLAN).unlink()
    (whole / PLAN).mkdir()
    assert damaged_files(whole) == [f"{PLAN} is not the file that was written"]


def test_every_damaged_file_is_named_at_once(whole: Path) -> None:
    flip(whole / MODEL, 10)
    flip(whole / PLAN, 10)
    with pytest.raises(IntegrityError, match=f"{MODEL} is not .*; {PLAN} is not "):
        read_bundle(whole)


def test_no_bundle_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no bundle here"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=f"it has no {HASHES}"):
        read_bundle(tmp_path)


MANIFESTS = {
    "not JSON": b"{",
    "binary": bytes(range(256)),
    "a list": b"[1]",
    "nested too deep": b"[" * 100_000,
    "of another schema": json.dumps({"schema": 2, "sizes": {MODEL: 1}}).encode(),
    "without a schema": json.dumps({"sizes": {MODEL: 1}}).encode(),
    "without sizes": json.dumps({"schema": 1}).encode(),
    "with sizes that are no table": json.dumps({"schema": 1, "sizes": 7}).encode(),
    "without an integer model": json.dumps({"schema": 1, "sizes": {}}).encode(),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_an_unreadable_manifest_with_mended_hashes_is_named(what: str, whole: Path) -> None:
    (whole / MANIFEST).write_bytes(MANIFESTS[what])
    mend(whole)
    with pytest.raises(IntegrityError, match=MANIFEST):
        read_bundle(whole)


def test_a_hash_list_of_another_form_is_damaged(whole: Path) -> None:
    (whole / HASHES).write_bytes(b"not a list\n")
    assert "damaged" in damaged_files(whole)[0]
    (whole / HASHES).write_bytes("größe\n".encode())
    assert "damaged" in damaged_files(whole)[0]


def golden_arrays(path: Path) -> dict[str, AnyArray]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


GOLDENS: dict[str, dict[str, AnyArray]] = {
    "too few labels": {"labels": np.zeros(3, np.int64)},
    "too few folded outputs": {"folded": np.zeros((3, 10), np.float32)},
    "indices beyond the inputs": {"full": np.arange(8) + 100},
    "a negative index": {"full": np.arange(8) - 1},
    "no real samples": {"real": np.array(0)},
    "more real samples than inputs": {"real": np.array(1000), "labels": np.zeros(1000)},
    "several counts": {"real": np.arange(3)},
    "inputs that are one number": {"inputs": np.array(1.0)},
}


@pytest.mark.parametrize("what", GOLDENS)
def test_a_golden_file_that_does_not_fit_itself_is_named(what: str, whole: Path) -> None:
    save(whole / GOLDEN, **{**golden_arrays(whole / GOLDEN), **GOLDENS[what]})
    with pytest.raises(IntegrityError, match=f"{GOLDEN} is not a golden file"):
        load_golden(whole / GOLDEN)


@pytest.mark.parametrize("dropped", ["inputs", "real", "full", "folded", "masked", "integers/"])
def test_a_golden_file_that_lacks_an_array_is_named(dropped: str, whole: Path) -> None:
    arrays = golden_arrays(whole / GOLDEN)
    save(whole / GOLDEN, **{k: v for k, v in arrays.items() if not k.startswith(dropped)})
    with pytest.raises(IntegrityError, match=f"{GOLDEN} is not a golden file"):
        load_golden(whole / GOLDEN)


def test_a_damaged_golden_file_is_named_wherever_it_is_damaged(whole: Path) -> None:
    data = (whole / GOLDEN).read_bytes()
    broken = [b"", data[:10], data[: len(data) // 2], data[:-30], b"PK\x03\x04 no zip"]
    for position in np.random.default_rng(0).integers(0, len(data), 25):
        broken.append(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
    for content in broken:
        (whole / GOLDEN).write_bytes(content)
        try:
            load_golden(whole / GOLDEN)
        except IntegrityError as error:
            assert str(whole / GOLDEN) in str(error)


def test_an_array_alone_is_no_golden_file(whole: Path) -> None:
    with (whole / GOLDEN).open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(IntegrityError, match=f"{GOLDEN} is not a golden file"):
        load_golden(whole / GOLDEN)


def test_the_root_folder_is_no_place_for_a_bundle() -> None:
    with pytest.raises(BundleError, match="is not a bundle; choose another --out"):
        check_replaceable(Path("/"))
