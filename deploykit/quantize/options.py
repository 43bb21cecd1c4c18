"""What the user decides about the integers."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.quantize.bits import EIGHT_BITS, WeightBits
from deploykit.quantize.calibration import Calibration
from deploykit.spec.carriers import ANY_RUNTIME, CarrierOptions
from deploykit.spec.pairs import Target
from deploykit.spec.plan import BiasCorrection, Rounding, WeightRange
from deploykit.spec.quantized import Batch, IoType


@dataclass(frozen=True)
class QuantizationOptions:
    """What the user decides: weights' bits and rounding, range choice, the ports' type.

    target: processors for whose 16-bit sums weights are planned.
    """

    bits: WeightBits = EIGHT_BITS
    calibration: Calibration = Calibration.MSE
    io: IoType = IoType.FLOAT
    target: Target | None = None
    batch: Batch = Batch.FIXED
    rounding: Rounding = Rounding.COMPENSATED
    carriers: CarrierOptions = ANY_RUNTIME
    weight_range: WeightRange = WeightRange.LEAST_ERROR
    bias_correction: BiasCorrection = BiasCorrection.MEANS
