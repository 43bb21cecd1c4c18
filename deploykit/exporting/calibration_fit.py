"""Whether calibration data looks like what the network was trained on, as far as can be seen.

batch norm    running mean m and variance v of the first one against those of the data there:
              shift = median |mean - m| / sqrt(v), spread = median sqrt(variance / v), by channel
pixels        --mean and --std say which real values pixels can become
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.graph.first_batchnorm import FirstBatchNorm, first_batchnorm
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import named_inputs, some_samples
from deploykit.spec.model_metadata import ModelMetadata
from deploykit.spec.network import Network, input_names
from deploykit.spec.samples import Samples

SEEN, AT_ONCE = 32, 4
"""Samples whose statistics are measured, and how many of them are held at a time."""
TINY = 1e-12
DARKEST, BRIGHTEST = 0.0, 255.0
BRIGHT = 128.0
"""A pixel at least so bright is among real images."""


@dataclass(frozen=True)
class BatchNormFit:
    """name: of the batch norm. shift: in standard deviations. spread: ratio of deviations."""

    name: str
    shift: float
    spread: float


@dataclass(frozen=True)
class CalibrationFit:
    """low, high: of all real values of an only image input. pixels: whether they are whole, 0..255.

    possible: what pixels become under --mean and --std. batchnorm: None without a trained one.
    """

    low: float
    high: float
    pixels: bool
    possible: tuple[float, float] | None
    batchnorm: BatchNormFit | None

    def record(self) -> dict[str, Any]:
        """For manifest.json."""
        return asdict(self)


def calibration_fit(
    network: Network, samples: Samples, metadata: ModelMetadata
) -> CalibrationFit | None:
    """None where the network has several inputs, or takes whole numbers.

    network: as it entered, its batch norms not folded.
    """
    values = samples.inputs
    if isinstance(values, Mapping) or values.dtype.kind != "f":
        return None
    low, high = float(values.min()), float(values.max())
    whole = (
        low >= DARKEST and BRIGHT <= high <= BRIGHTEST and bool((values == np.rint(values)).all())
    )
    found = first_batchnorm(network)
    fit = None if found is None else _batchnorm_fit(found, network, samples)
    return CalibrationFit(low, high, whole, _possible(metadata), fit)


def _batchnorm_fit(
    found: FirstBatchNorm, network: Network, samples: Samples
) -> BatchNormFit | None:
    """Of the channels that vary: those of closed gates are constant. None where none does."""
    mean, variance = _moments(model_bytes(found.before), network, samples.head(SEEN))
    deviation = np.sqrt(np.maximum(found.variance, TINY))
    live = variance > TINY
    if not live.any():
        return None
    return BatchNormFit(
        found.name,
        float(np.median((np.abs(mean - found.mean) / deviation)[live])),
        float(np.median((np.sqrt(variance) / deviation)[live])),
    )


def _moments(before: bytes, network: Network, samples: Samples) -> tuple[AnyArray, AnyArray]:
    """Mean and variance of what a graph gives, [N, C, ...], over all but C, in float64."""
    total, squares, count = np.zeros(()), np.zeros(()), 0
    for start in range(0, len(samples), AT_ONCE):
        part = some_samples(samples.inputs, slice(start, start + AT_ONCE))
        (values,) = ort.run(before, named_inputs(part, input_names(network))).values()
        axes = (0, *range(2, values.ndim))
        total = total + values.sum(axis=axes, dtype=np.float64)
        squares = squares + np.square(values, dtype=np.float64).sum(axis=axes)
        count += values.size // values.shape[1]
    mean = total / count
    return mean, np.maximum(squares / count - mean * mean, 0.0)


def _possible(metadata: ModelMetadata) -> tuple[float, float] | None:
    """(0 - mean) / std to (255 - mean) / std; to (1 - mean) / std where both are below one."""
    if not metadata.mean:
        return None
    mean, std = np.array(metadata.mean), np.array(metadata.std)
    brightest = 1.0 if max(*metadata.mean, *metadata.std) <= 1.0 else BRIGHTEST
    return float(((DARKEST - mean) / std).min()), float(((brightest - mean) / std).max())
