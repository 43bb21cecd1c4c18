"""Runs probe files in ONNX Runtime; started under an emulator, with the folder that holds them.

NAME.onnx with NAME.inputs.npz becomes NAME.tensors.npz: every integer activation by name.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from deploykit.runtime import ort


def main(folder: Path) -> None:
    for file in sorted(folder.glob("*.onnx")):
        with np.load(file.with_suffix(".inputs.npz")) as inputs:
            tensors = ort.run_probe(file.read_bytes(), dict(inputs))
        np.savez(file.with_suffix(".tensors.npz"), allow_pickle=False, **tensors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
