"""Runs probe files in ONNX Runtime; started under an emulator, with their folder and its sums.

NAME.onnx with NAME.inputs.npz becomes NAME.tensors.npz: every integer activation by name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from deploykit.runtime import ort


def main(folder: Path, sums: ort.Sums) -> None:
    for file in sorted(folder.glob("*.onnx")):
        with np.load(file.with_suffix(".inputs.npz")) as inputs:
            tensors = ort.run_probe(file.read_bytes(), dict(inputs), sums=sums)
        np.savez(file.with_suffix(".tensors.npz"), allow_pickle=False, **tensors)


if __name__ == "__main__":
    main(Path(sys.argv[1]), ort.Sums[sys.argv[2]])
