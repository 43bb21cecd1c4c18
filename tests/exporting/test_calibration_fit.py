"""Calibration data held against what the network says of its training data."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.exporting.calibration_fit import BatchNormFit, CalibrationFit, calibration_fit
from deploykit.spec.arrays import AnyArray
from deploykit.spec.model_metadata import ModelMetadata
from deploykit.spec.network import Network
from deploykit.spec.samples import Samples
from tests.quantize.graphs import float_network, seeded

PLAIN = ModelMetadata()


def network(mean: AnyArray, variance: AnyArray) -> Network:
    """A 1x1 convolution that passes three channels on, the third as zeros; a batch norm."""
    weight = np.diag([1.0, 2.0, 0.0]).astype(np.float32).reshape(3, 3, 1, 1)
    return float_network(
        "g (float[1,3,4,4] input) => (float[1,3,4,4] y) "
        "{ c = Conv <kernel_shape=[1,1]> (input, w) y = BatchNormalization (c, s, b, m, v) }",
        w=weight, s=np.ones(3, np.float32), b=np.zeros(3, np.float32),
        m=mean.astype(np.float32), v=variance.astype(np.float32),
    )  # fmt: skip


TRAINED = network(np.array([0.0, 1.0, 0.0]), np.array([1.0, 4.0, 0.0]))


def fit(values: AnyArray, metadata: ModelMetadata = PLAIN, of: Network = TRAINED) -> CalibrationFit:
    found = calibration_fit(of, Samples(values), metadata)
    assert found is not None
    return found


def test_statistics_of_the_first_batch_norm() -> None:
    values = seeded(16, 3, 4, 4)
    found = fit(values).batchnorm
    channels = values.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    shifts = [abs(channels[0].mean()), abs(2 * channels[1].mean() - 1) / 2]
    spreads = [channels[0].std(), channels[1].std()]
    assert found is not None and found.name == "y"
    assert found.shift == pytest.approx(np.median(shifts), rel=1e-4)
    assert found.spread == pytest.approx(np.median(spreads), rel=1e-4)
    assert found.shift < 1 and 0.8 < found.spread < 1.2


def test_pixels_for_a_network_of_normalized_inputs_are_far_off() -> None:
    pixels = np.rint(np.clip(seeded(16, 3, 4, 4) * 58 + 120, 0, 255)).astype(np.float32)
    found = fit(pixels)
    assert found.pixels
    assert found.batchnorm is not None
    assert found.batchnorm.shift > 50 and found.batchnorm.spread > 40


def test_a_batch_norm_that_never_trained_says_nothing() -> None:
    fresh = network(np.zeros(3), np.ones(3))
    assert fit(seeded(4, 3, 4, 4), of=fresh).batchnorm is None


@pytest.mark.parametrize(
    ("mean", "std", "possible"),
    [
        ((127.5,), (127.5,), (-1.0, 1.0)),
        ((0.5, 0.4, 0.5), (0.25, 0.2, 0.5), (-2.0, 3.0)),
        ((), (), None),
    ],
)
def test_what_pixels_become(
    mean: tuple[float, ...], std: tuple[float, ...], possible: tuple[float, float] | None
) -> None:
    found = fit(seeded(4, 3, 4, 4), ModelMetadata(mean=mean, std=std)).possible
    assert found == (None if possible is None else pytest.approx(possible))


def test_ids_have_no_fit() -> None:
    assert calibration_fit(TRAINED, Samples(np.zeros((4, 3), np.int64)), PLAIN) is None


def test_it_goes_into_the_manifest() -> None:
    found = CalibrationFit(0.0, 255.0, True, None, BatchNormFit("bn", 1.0, 2.0))
    assert found.record()["batchnorm"] == {"name": "bn", "shift": 1.0, "spread": 2.0}
