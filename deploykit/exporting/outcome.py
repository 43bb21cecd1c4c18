"""What one export produced, for those who record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.bundle import (
    Golden,
)
from deploykit.exporting.calibration_fit import CalibrationFit
from deploykit.exporting.entry import Entered
from deploykit.exporting.options import ExportOptions
from deploykit.exporting.temperature import Temperature
from deploykit.spec.allocation import Allocation
from deploykit.spec.equalization import EqualizationReport
from deploykit.spec.negligible import Negligible
from deploykit.spec.network import Network
from deploykit.spec.parity import Answers, IntegerComparison
from deploykit.spec.plan import QuantPlan
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.spec.removal import RemovalReport
from deploykit.spec.samples import Samples
from deploykit.verify.formats import Format


@dataclass(frozen=True)
class Outcome:
    """Everything that one export produced.

    balanced: the pruned network, its channels equalized where that was asked for; lowered: the same
    as integer_form has it. evaluated: what --eval-data holds, and in_calibration how many of these
    samples are calibration's too.
    """

    entered: Entered
    options: ExportOptions
    balanced: Network
    hidden: Negligible | None
    removal: RemovalReport
    equalization: EqualizationReport | None
    lowered: Network
    plan: QuantPlan
    network: QuantizedNetwork
    models: Mapping[Format, bytes]
    golden: Golden
    parity: tuple[IntegerComparison, ...]
    answers: Answers | None
    evaluated: Samples | None
    fit: CalibrationFit | None
    temperature: Temperature | None = None
    allocation: Allocation | None = None
    in_calibration: int = 0
