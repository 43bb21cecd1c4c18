"""The sample network exported on a slice of its data, and ways to tamper with a bundle."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np

import deploykit
from deploykit.spec.arrays import AnyArray

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "sample_models" / "lenet5"
CHECKPOINT, TWIN = SAMPLE / "bayesian.pt", SAMPLE / "dense.pt"
SLICES = {"calibration.npz": 32, "test-2000.npz": 16}
HASHES = "MANIFEST.sha256"


def write_config(folder: Path) -> Path:
    """The sample's export.toml in `folder`, for the sample's network and a slice of its data."""
    for name, count in SLICES.items():
        with np.load(SAMPLE / name) as stored:
            save(folder / name, **{key: stored[key][:count] for key in ("inputs", "labels")})
    (folder / "labels.txt").write_bytes((SAMPLE / "labels.txt").read_bytes())
    text = (SAMPLE / "export.toml").read_text(encoding="utf-8")
    config = folder / "export.toml"
    config.write_text(text.replace('"model.py:', f'"{SAMPLE}/model.py:'), encoding="utf-8")
    return config


def save(path: Path, **arrays: AnyArray) -> Path:
    """Arrays as .npz."""
    np.savez(path, allow_pickle=False, **arrays)
    return path


def export_sample(config: Path, out: Path) -> Path:
    """A bundle of the sample, as `write_config` sets it up."""
    return deploykit.export(CHECKPOINT, config=config, out=out).path


def copy_of(bundle: Path, folder: Path) -> Path:
    """A bundle of one's own to damage."""
    return Path(shutil.copytree(bundle, folder / "bundle"))


def mend(bundle: Path) -> None:
    """Make every hash right again, that of the list itself included."""
    lines = "".join(
        f"{hashlib.sha256(item.read_bytes()).hexdigest()}  {item.name}\n"
        for item in sorted(bundle.iterdir())
        if item.name != HASHES
    )
    own = hashlib.sha256(lines.encode()).hexdigest()
    (bundle / HASHES).write_text(f"{lines}# sha256 of the lines above: {own}\n", encoding="ascii")


def flip(path: Path, position: int) -> None:
    """Change one bit of the byte at `position`, which counts from the end if negative."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x04
    path.write_bytes(data)


def contents(bundle: Path) -> dict[str, bytes]:
    """Every file of a folder by name."""
    return {item.name: item.read_bytes() for item in sorted(bundle.iterdir())}
