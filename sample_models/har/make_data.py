"""Write the two slices of the recordings that travel with the model, for the fold that is exported.

calibration.npz  128 training windows, classes balanced: of neither the left-out subject nor the
                 validation subject
test-128.npz     128 windows of the left-out subject, evenly spaced
Each holds `inputs` float32 [N, 6, 128] and `labels` int64 [N].
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from data import (
    CALIBRATION_WINDOWS,
    SUBJECTS,
    DataError,
    Windows,
    choose_balanced,
    cut,
    evenly,
    read_recordings,
    split,
)

EXPORTED = 10
"""The left-out subject of the fold that export.toml takes."""
TEST_WINDOWS = 128


def save(windows: Windows, path: Path) -> None:
    """Inputs and labels, compressed."""
    np.savez_compressed(path, inputs=windows.inputs, labels=windows.labels)
    print(f"{path.name}: {len(windows)} windows, {path.stat().st_size:,} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="watch_dataset.npy, if seglearn is not installed")
    parser.add_argument("--left-out", type=int, choices=SUBJECTS, default=EXPORTED)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        fold = split(cut(read_recordings(arguments.data)), arguments.left_out)
    except DataError as error:
        print(f"make_data.py: {error}", file=sys.stderr)
        return 1
    calibration = choose_balanced(fold.training, CALIBRATION_WINDOWS, arguments.seed)
    save(calibration, arguments.out / "calibration.npz")
    save(evenly(fold.test, TEST_WINDOWS), arguments.out / "test-128.npz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
