"""Recordings of a wristwatch's sensors, cut into windows and split by who wore it.

140 recordings by ten people of seven shoulder exercises, at 50 Hz: three axes of acceleration
(gravity is about 1) and three of angular rate. The network reads them as they are, the angular rate
divided by 4, float32 [N, 6, 128]: windows of 2.56 s, one every 1.28 s.
Source: Burns et al. 2018, "Shoulder physiotherapy exercise recognition", arXiv 1802.01489; the file
is that of the package seglearn 1.2.5.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from balanced import balanced

SUBJECTS = tuple(range(1, 11))
CLASSES = 7
CHANNELS = 6
LENGTH, STRIDE = 128, 64
MEAN = (0.0,) * CHANNELS
STD = (1.0, 1.0, 1.0, 4.0, 4.0, 4.0)
"""x = (measured - MEAN) / STD by channel: round numbers, so that no subject's data choose them."""

CALIBRATION_WINDOWS = 128
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
INSTALL = "`pip install --no-deps seglearn==1.2.5`, or name its watch_dataset.npy with --data"


class DataError(Exception):
    """The file of recordings is missing or is not what its name says."""


@dataclass(frozen=True)
class Recording:
    """One set of one exercise: signal [n, 6] as measured, its class, and who wore the watch."""

    signal: NDArray[np.float64]
    label: int
    subject: int


@dataclass(frozen=True)
class Windows:
    """Windows [N, 6, 128] float32; by window [N] int64 its class, subject and recording."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    subjects: NDArray[np.int64]
    recordings: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Windows:
        """The windows at `indices`, in that order."""
        return Windows(
            self.inputs[indices],
            self.labels[indices],
            self.subjects[indices],
            self.recordings[indices],
        )

    def of(self, subjects: Sequence[int]) -> Windows:
        """All windows of these subjects."""
        return self.take(np.flatnonzero(np.isin(self.subjects, subjects)))


@dataclass(frozen=True)
class Fold:
    """Training windows of eight subjects, validation windows of a ninth, test windows of a tenth.

    Every choice is made on validation; test is measured once, at the end.
    """

    training: Windows
    validation: Windows
    test: Windows


def installed_file() -> Path:
    """watch_dataset.npy of the installed package; the package is not imported."""
    found = importlib.util.find_spec("seglearn")
    if found is None or found.origin is None:
        raise DataError(f"seglearn is not installed: {INSTALL}.")
    return Path(found.origin).parent / "data" / "watch_dataset.npy"


def read_recordings(path: Path | None = None) -> tuple[Recording, ...]:
    """All recordings in file order, of the installed package where no file is named.

    The file is a pickle, and a pickle runs what it says: so numpy opens it only where its digest is
    that of the published file.
    """
    path = path or installed_file()
    if not path.is_file():
        raise DataError(f"{path} does not exist: {INSTALL}.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DataError(
            f"{path} is not the file of seglearn 1.2.5 (its SHA-256 is another). It would be "
            f"unpickled, which runs code, so no other file is read: {INSTALL}."
        )
    held: dict[str, Any] = np.load(io.BytesIO(content), allow_pickle=True).item()
    return tuple(
        Recording(np.asarray(signal, np.float64), int(label), int(subject))
        for signal, label, subject in zip(held["X"], held["y"], held["subject"], strict=True)
    )


def cut(recordings: Sequence[Recording]) -> Windows:
    """Every whole window of every recording, in order; what is left at an end is dropped."""
    inputs, owners = [], []
    for place, recording in enumerate(recordings):
        scaled = ((recording.signal - MEAN) / STD).astype(np.float32).T
        for start in range(0, scaled.shape[1] - LENGTH + 1, STRIDE):
            inputs.append(scaled[:, start : start + LENGTH])
            owners.append(place)
    return Windows(
        np.stack(inputs),
        np.array([recordings[place].label for place in owners], np.int64),
        np.array([recordings[place].subject for place in owners], np.int64),
        np.array(owners, np.int64),
    )


def validation_subject(left_out: int) -> int:
    """The subject after the one left out; after the last comes the first."""
    return SUBJECTS[SUBJECTS.index(left_out) + 1 - len(SUBJECTS)]


def split(windows: Windows, left_out: int) -> Fold:
    """The fold that measures on `left_out`: subjects, and so recordings, are never on two sides."""
    if left_out not in SUBJECTS:
        raise DataError(f"there is no subject {left_out}: subjects are 1 to {len(SUBJECTS)}.")
    validation = validation_subject(left_out)
    others = [subject for subject in SUBJECTS if subject not in (left_out, validation)]
    return Fold(windows.of(others), windows.of([validation]), windows.of([left_out]))


def choose_balanced(windows: Windows, count: int, seed: int) -> Windows:
    """Choose `count` windows at random, the sizes of any two classes at most one apart."""
    return windows.take(balanced(windows.labels, CLASSES, count, seed))


def evenly(windows: Windows, count: int) -> Windows:
    """`count` windows in order, as far apart as they can be."""
    return windows.take(np.linspace(0, len(windows) - 1, count).round().astype(np.int64))
