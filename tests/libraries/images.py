"""Fashion-MNIST for the examples: the first images of its files, pixels in [0, 1]."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploykit.spec.arrays import AnyArray, Float32Array

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SLICES = Path(__file__).parents[2] / "sample_models" / "lenet5"
TRAINING_IMAGES = 12_000


@dataclass(frozen=True)
class Images:
    """Inputs [N, 1, 28, 28] float32 and labels [N] int64."""

    inputs: Float32Array
    labels: AnyArray


def training_images() -> Images:
    """The first 12,000 training images."""
    pixels = _idx("train-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)[:TRAINING_IMAGES]
    labels = _idx("train-labels-idx1-ubyte", 8)[:TRAINING_IMAGES]
    return Images(pixels.astype(np.float32) / np.float32(255), labels.astype(np.int64))


def test_images() -> Images:
    """The first 2,000 test images, which travel with the sample network."""
    with np.load(SLICES / "test-2000.npz") as stored:
        return Images(stored["inputs"], stored["labels"])


test_images.__test__ = False  # type: ignore[attr-defined]


def _idx(name: str, header: int) -> AnyArray:
    raw = gzip.decompress((FOLDER / f"{name}.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=header)
