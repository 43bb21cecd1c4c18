"""Fashion-MNIST from its idx files, and the split of its training images.

Pixels become float32 p/255 in [0, 1], images [N, 1, 28, 28]; nothing else is normalised.
File format: http://yann.lecun.com/exdb/mnist (a big-endian header, then unsigned bytes).
"""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
VALIDATION_IMAGES = 5_000

# Fixed, so that calibration images never meet the images that chose the thresholds.
_SPLIT_SEED = 2017
_UNSIGNED_BYTE = 0x08


class DataError(Exception):
    """A data file is missing or is not what its name says."""


@dataclass(frozen=True)
class Images:
    """Images [N, 1, 28, 28] float32 in [0, 1] and their classes [N] int64."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "Images":
        """The images at `indices`, in that order."""
        return Images(self.inputs[indices], self.labels[indices])


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{folder} holds neither {name}.gz nor {name}: run `apt-get install "
        "dataset-fashion-mnist`, or name the folder that has it with --data-dir."
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one idx file of unsigned bytes, gzipped or not, in the shape its header states."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): fetch it again with `apt-get install "
            "--reinstall dataset-fashion-mnist`."
        ) from error
    axes = raw[3] if len(raw) >= 4 and raw[:3] == bytes((0, 0, _UNSIGNED_BYTE)) else 0
    header = 4 + 4 * axes
    if axes == 0 or len(raw) < header:
        raise DataError(f"{path} is not an idx file of unsigned bytes.")
    shape = struct.unpack(f">{axes}I", raw[4:header])
    values = np.frombuffer(raw, dtype=np.uint8, offset=header)
    if values.size != int(np.prod(shape)):
        raise DataError(f"{path} states the shape {shape} but holds {values.size} bytes.")
    return values.reshape(shape)


def _read(folder: Path, part: str) -> Images:
    pixels = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"))
    if pixels.shape != (len(labels), 28, 28):
        raise DataError(f"{folder}: {part} has {len(labels)} labels for {pixels.shape} images.")
    inputs = pixels[:, None].astype(np.float32) / np.float32(255)
    return Images(inputs, labels.astype(np.int64))


def training_images(folder: Path) -> Images:
    """All 60,000 training images, in file order."""
    return _read(folder, "train")


def test_images(folder: Path) -> Images:
    """All 10,000 test images, in file order."""
    return _read(folder, "t10k")


def split_for_validation(images: Images) -> tuple[Images, Images]:
    """Split into (the rest, 5,000 validation images); the same split on every call."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    return images.take(order[VALIDATION_IMAGES:]), images.take(order[:VALIDATION_IMAGES])
