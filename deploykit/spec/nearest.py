"""Which element a Resize to the nearest takes, along one axis.

Source: ONNX operator specification, Resize.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from deploykit.spec.arrays import Float32Array, IntArray

HALF = np.float32(0.5)


COORDINATES: Mapping[str, Callable[[Float32Array, np.float32, int, int], Float32Array]] = {
    "half_pixel": lambda index, scale, *_: (index + HALF) / scale - HALF,
    "pytorch_half_pixel": lambda index, scale, _, size: (
        (index + HALF) / scale - HALF if size > 1 else index
    ),
    "align_corners": lambda index, _, length, size: (
        index * np.float32(length - 1) / np.float32(max(size - 1, 1))
    ),
    "asymmetric": lambda index, scale, *_: index / scale,
}
"""Where on its axis of `length` each of `size` positions lies, by the attribute's name.

In float32, as runtimes compute it: what lies on the edge between two elements must fall as there.
half_pixel_symmetric is left out: what lies there falls in ONNX Runtime as its compiler has it.
"""

ROUNDINGS: Mapping[str, Callable[[Float32Array], Float32Array]] = {
    "round_prefer_floor": lambda spots: np.ceil(spots - HALF),
    "round_prefer_ceil": lambda spots: np.floor(spots + HALF),
    "floor": np.floor,
    "ceil": np.ceil,
}


def nearest_places(
    coordinates: str, rounding: str, scale: float, length: int, size: int
) -> IntArray:
    """Of an axis of `length`, which place each of `size` has. scale: size over length, as stated.

    nearest_places("asymmetric", "floor", 1.5, 2, 3) -> [0, 0, 1]. Raises KeyError where a name is
    none of the tables'.
    """
    index = np.arange(size, dtype=np.float32)
    spots = COORDINATES[coordinates](index, np.float32(scale), length, size)
    return np.asarray(np.clip(ROUNDINGS[rounding](spots), 0, length - 1), np.int64)
