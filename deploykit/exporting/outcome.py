"""What an export has in hand: planned on paper, then written and proved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.bundle import Golden
from deploykit.exporting.options import ExportOptions
from deploykit.exporting.preparing import Prepared
from deploykit.exporting.temperature import Temperature
from deploykit.spec.allocation import Allocation
from deploykit.spec.network import Network
from deploykit.spec.parity import Answers, IntegerComparison
from deploykit.spec.plan import QuantPlan
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.verify.formats import Format


@dataclass(frozen=True)
class Planned:
    """A network that is quantized on paper: nothing is written yet.

    prepared: its float stages, at the temperature where there is one. lowered: the balanced one as
    integer_form has it. allocation: None where bits were given.
    """

    prepared: Prepared
    lowered: Network
    plan: QuantPlan
    allocation: Allocation | None
    temperature: Temperature | None
    formats: tuple[Format, ...]


@dataclass(frozen=True)
class Outcome:
    """Everything that one export produced. network: of the plan, as the models hold it."""

    options: ExportOptions
    planned: Planned
    network: QuantizedNetwork
    models: Mapping[Format, bytes]
    golden: Golden
    parity: tuple[IntegerComparison, ...]
    answers: Answers | None
