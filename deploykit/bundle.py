"""The bundle on disk: written atomically, hashed, never changed afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.errors import BundleError, IntegrityError
from deploykit.npz import npz_bytes
from deploykit.spec.arrays import AnyArray, Int8Array, Tensors
from deploykit.spec.inputs import GraphInputs, count_samples

HASHES = "MANIFEST.sha256"
SELF = "# sha256 of the lines above: "
FLOAT_MODEL, ONNX_MODEL, TFLITE_MODEL = "model.float.onnx", "model.onnx", "model.tflite"
PLAN, GOLDEN, MANIFEST = "plan.json", "golden.npz", "manifest.json"
REQUIRED = (FLOAT_MODEL, PLAN, GOLDEN, MANIFEST)
OWN = frozenset({*REQUIRED, ONNX_MODEL, TFLITE_MODEL, HASHES})
"""Every name that an export writes into its folder."""

SCHEMA = 1
"""Of plan.json and manifest.json; a bundle of another schema is refused."""


@dataclass(frozen=True)
class Golden:
    """Inputs and what they must give, so that a bundle proves itself without its maker.

    inputs: [N, ...] of the one input or of each by name, float32 (or whole numbers, where the
    network takes them), the first `real` of them samples, the rest extreme values.
    Floats are at the temperature of the bundle, if it has one.
    labels: [real], or None. full: indices of the inputs that are followed tensor by tensor.
    folded: [N, ...] float outputs of the posterior mean with all gates open; mean_forward: [N, ...]
    the Bayesian network's own, or None; masked: closed gates at zero, for `full` only.
    untempered: [F, ...] folded outputs for `full` without the temperature, None where none is.
    integers: every activation int8 for `full`.
    outputs: the output ports' integers for all N.
    Where weights alone are integers, there are no others: outputs are the reference's floats.
    """

    inputs: GraphInputs
    real: int
    full: AnyArray
    folded: AnyArray
    masked: AnyArray
    integers: Mapping[str, Int8Array]
    outputs: Tensors
    labels: AnyArray | None = None
    mean_forward: AnyArray | None = None
    untempered: AnyArray | None = None

    @property
    def count(self) -> int:
        """N."""
        return count_samples(self.inputs)


@dataclass(frozen=True)
class Bundle:
    """A finished bundle: where it is, and its manifest."""

    path: Path
    manifest: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.path / name

    def models(self) -> tuple[str, ...]:
        """The integer model files it holds."""
        return tuple(name for name in (ONNX_MODEL, TFLITE_MODEL) if self.file(name).is_file())


def write_bundle(path: Path, files: Mapping[str, bytes]) -> Bundle:
    """Write all files and their hashes into a new folder that appears at once, complete.

    A bundle that is already there is replaced, whole, by two renames: whoever is killed between
    them leaves the old one in a dot-folder beside. Anything else there is left alone.

    Raises BundleError where `path` is something else, or where the disk refuses.
    """
    path = path.absolute()
    check_replaceable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial(path) as folder:
            for name, data in sorted({**files, HASHES: _hash_list(files)}.items()):
                _write(folder / name, data)
            _sync(folder)
            _put_in_place(folder, path)
            _sync(path.parent)
    except OSError as error:
        raise BundleError(
            f"{path}: the bundle could not be written ({error.strerror or error}); "
            "nothing was left behind"
        ) from error
    return Bundle(path, json.loads(files[MANIFEST]))


def check_replaceable(path: Path) -> None:
    """Raise BundleError if something that is not a bundle stands where one is to be written.

    Or if nothing can be written there.
    """
    folders = (*path.absolute().parents, Path(path.anchor or "."))
    above = next(folder for folder in folders if folder.exists())
    if not above.is_dir():
        raise BundleError(
            f"{above} is not a folder, so no bundle can be written in it; choose another --out"
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise BundleError(f"{above} may not be written to; choose another --out")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise BundleError(f"{path} exists and is not a folder; choose another --out")
    names = {item.name for item in path.iterdir()} if path.is_dir() else set()
    if names and HASHES not in names:
        raise BundleError(
            f"{path} exists, is not empty and is not a bundle; choose another --out or empty it"
        )
    if names - OWN:
        raise BundleError(
            f"{path} is a bundle that also holds {', '.join(sorted(names - OWN))}, which would be "
            "lost; move that away or choose another --out"
        )


def read_bundle(path: Path) -> Bundle:
    """Open a bundle and check every file against its hash.

    Raises BundleError where it is no bundle, IntegrityError naming every file that differs.
    """
    if not path.is_dir():
        raise BundleError(
            f"{path}: there is no bundle here; `deploykit export ... --out` makes one"
        )
    if not (path / HASHES).is_file():
        raise BundleError(f"{path} is not a bundle: it has no {HASHES}")
    damaged = damaged_files(path)
    if damaged:
        raise IntegrityError(
            f"{path}: {'; '.join(damaged)}. Export the bundle again, or copy it anew"
        )
    bundle = Bundle(path, read_record(path / MANIFEST))
    sizes = bundle.manifest.get("sizes")
    if not isinstance(sizes, dict) or not {ONNX_MODEL, TFLITE_MODEL} & sizes.keys():
        raise IntegrityError(f"{path / MANIFEST} names no integer model; export the bundle again")
    for name in sizes:
        if not bundle.file(name).is_file():
            raise IntegrityError(f"{path}: {name} is missing, which {MANIFEST} lists")
    return bundle


def read_record(path: Path) -> dict[str, Any]:
    """One of the bundle's JSON files.

    Raises IntegrityError where it is no JSON object, or of a schema that is not SCHEMA.
    """
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is not JSON ({error}); export the bundle again") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if not isinstance(record, dict) or schema != SCHEMA:
        raise IntegrityError(
            f"{path} has schema {schema}, and this deploykit reads {SCHEMA}; use the version that "
            "wrote it"
        )
    return record


def damaged_files(path: Path) -> list[str]:
    """One phrase per file that is missing, changed, or not listed; empty where all is well."""
    raw = (path / HASHES).read_bytes()
    listed = _parse_hashes(raw)
    if listed is None:
        return [f"{HASHES} is damaged: its own checksum, on its last line, does not match"]
    found = {item.name: item for item in path.iterdir() if item.name != HASHES}
    phrases = [f"{name} is missing" for name in listed if name not in found]
    phrases += [f"{name} is missing" for name in REQUIRED if name not in listed]
    for name, item in sorted(found.items()):
        if name not in listed or name not in OWN:
            phrases.append(f"{name} does not belong to the bundle")
        elif item.is_symlink() or not item.is_file() or _digest(item.read_bytes()) != listed[name]:
            phrases.append(f"{name} is not the file that was written")
    return phrases


def load_golden(path: Path) -> Golden:
    """Read golden.npz.

    Raises IntegrityError where it is not what `golden_bytes` writes.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        golden = Golden(
            arrays.get("inputs", _unprefixed(arrays, "inputs/")), int(arrays["real"]),
            arrays["full"], arrays["folded"], arrays["masked"],
            _unprefixed(arrays, "integers/"), _unprefixed(arrays, "outputs/"),
            arrays.get("labels"), arrays.get("mean_forward"), arrays.get("untempered"),
        )  # fmt: skip
        _require_whole(golden)
    except Exception as error:  # numpy, zipfile and zlib each raise their own on damaged content
        raise IntegrityError(
            f"{path} is not a golden file of a bundle ({error}); export the bundle again"
        ) from error
    return golden


def _require_whole(golden: Golden) -> None:
    """Every array of a golden file holds whole samples, and as many as the others."""
    count, real, full = golden.count, golden.real, golden.full
    counted = {
        "folded": (golden.folded, count), "masked": (golden.masked, len(full)),
        "mean_forward": (golden.mean_forward, count), "labels": (golden.labels, real),
        "untempered": (golden.untempered, len(full)),
        **{f"integers/{name}": (value, len(full)) for name, value in golden.integers.items()},
        **{f"outputs/{name}": (value, count) for name, value in golden.outputs.items()},
    }  # fmt: skip
    for name, (array, expected) in counted.items():
        # A sample may have several rows.
        if array is not None and (not len(array) or len(array) % expected):
            raise ValueError(f"{name} holds {len(array)} samples where {expected} belong")
    floats = all(values.dtype.kind == "f" for values in golden.outputs.values())
    if not golden.outputs or not (golden.integers or floats):
        raise ValueError("it holds no integers")
    if not 0 < real <= count or not np.isin(full, np.arange(count)).all():
        raise ValueError(f"{real} real samples and the indices {full} do not fit {count} inputs")


def golden_bytes(golden: Golden) -> bytes:
    """golden.npz as bytes; equal content gives equal bytes."""
    arrays: dict[str, Any] = (
        {f"inputs/{name}": values for name, values in golden.inputs.items()}
        if isinstance(golden.inputs, Mapping)
        else {"inputs": golden.inputs}
    )
    arrays.update(
        real=np.int64(golden.real), full=golden.full, folded=golden.folded, masked=golden.masked
    )
    arrays.update({f"integers/{name}": value for name, value in golden.integers.items()})
    arrays.update({f"outputs/{name}": value for name, value in golden.outputs.items()})
    optional = {
        "labels": golden.labels, "mean_forward": golden.mean_forward,
        "untempered": golden.untempered,
    }  # fmt: skip
    arrays.update({name: value for name, value in optional.items() if value is not None})
    return npz_bytes(arrays)


def json_bytes(value: object) -> bytes:
    """Indented JSON with a final newline, keys in the order given."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _unprefixed(arrays: Mapping[str, AnyArray], prefix: str) -> dict[str, AnyArray]:
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hash_list(files: Mapping[str, bytes]) -> bytes:
    """Lines as `sha256sum` writes them, and a comment that covers the lines themselves."""
    lines = "".join(f"{_digest(data)}  {name}\n" for name, data in sorted(files.items()))
    return f"{lines}{SELF}{_digest(lines.encode())}\n".encode()


def _parse_hashes(raw: bytes) -> dict[str, str] | None:
    """Digest by file name, or None where the list is not the one that was written."""
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        return None
    lines, found, own = text.rpartition(SELF)
    if not found or own != f"{_digest(lines.encode())}\n":
        return None
    pairs = [line.partition("  ") for line in lines.splitlines()]
    return {name: digest for digest, _, name in pairs}


@contextlib.contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A folder beside `path` that is gone afterwards unless it was moved into place."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        # mkdtemp makes it private; a bundle is as readable as any folder the user makes.
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, path: Path) -> None:
    if not path.exists():
        folder.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    try:
        path.rename(old / "bundle")
        folder.rename(path)
    except BaseException:
        if not path.exists():
            (old / "bundle").rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
