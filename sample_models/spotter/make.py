"""Write a checkpoint of random weights and random calibration data, to try several inputs with.

python sample_models/spotter/make.py FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from model import BANDS, FRAMES, VOCABULARY, WORDS, spotter

SAMPLES = 64


def main() -> None:
    """spotter.pt and calibration.npz, the same every time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.save(spotter().state_dict(), folder / "spotter.pt")
    generator = np.random.default_rng(0)
    np.savez(
        folder / "calibration.npz",
        audio=generator.normal(size=(SAMPLES, 1, BANDS, FRAMES)).astype(np.float32),
        words=generator.integers(0, VOCABULARY, size=(SAMPLES, WORDS)),
    )


if __name__ == "__main__":
    main()
