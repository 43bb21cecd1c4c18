"""Write the two slices of Fashion-MNIST that travel with the model.

calibration.npz  256 training images outside the validation split, classes balanced
test-2000.npz    the first 2,000 test images
Each holds `inputs` float32 [N, 1, 28, 28] in [0, 1] and `labels` int64 [N].
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from data import (
    CLASSES,
    DEBIAN_FOLDER,
    DataError,
    Images,
    split_for_validation,
    test_images,
    training_images,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from balanced import balanced

CALIBRATION_IMAGES = 256
TEST_IMAGES = 2_000


def save(images: Images, path: Path) -> None:
    np.savez_compressed(path, inputs=images.inputs, labels=images.labels)
    print(f"{path.name}: {len(images)} images, {path.stat().st_size:,} bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        rest, _ = split_for_validation(training_images(arguments.data_dir))
        test = test_images(arguments.data_dir)
    except DataError as error:
        print(f"make_data.py: {error}", file=sys.stderr)
        return 1
    chosen = balanced(rest.labels, CLASSES, CALIBRATION_IMAGES, arguments.seed)
    calibration = rest.take(chosen)
    save(calibration, arguments.out / "calibration.npz")
    save(test.take(np.arange(TEST_IMAGES)), arguments.out / "test-2000.npz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
