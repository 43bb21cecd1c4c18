"""The parity ladder: what was compared with what, and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from deploykit.spec.confidence import Predictive


class Verdict(Enum):
    """How a step ended.

    Skipped: it could not be tried here (a runtime is missing). Not applicable: this bundle has
    nothing to compare at this step. Unchecked: it needs data that no bundle holds. All give the
    reason in the step's detail.
    """

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    INAPPLICABLE = "not applicable"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class Step:
    """One rung. number: 1 to 4 as in the ladder; detail: the measured figure, or why skipped.

    operator: the first operator that diverges, where one does.
    """

    number: int
    compared: str
    verdict: Verdict
    detail: str
    operator: str | None = None


@dataclass(frozen=True)
class ParityReport:
    """All rungs of one bundle."""

    steps: tuple[Step, ...]

    @property
    def failed(self) -> bool:
        """Whether any rung failed."""
        return any(step.verdict is Verdict.FAILED for step in self.steps)

    @property
    def complete(self) -> bool:
        """Whether every rung was tried."""
        return all(step.verdict is not Verdict.SKIPPED for step in self.steps)


@dataclass(frozen=True)
class IntegerComparison:
    """Integers of one runtime against the reference. differing, compared: by tensor name.

    operator: the first operator, in running order, that turns equal inputs into other integers;
    largest: the largest difference in steps. one_step: by result of a float island, integers that
    the runtime's own float32 rounds to the next step; such a network is compared operator by
    operator on the runtime's own inputs, and those count as no difference. drift: the largest
    difference of an output, from the network's input on, to which such steps add up.
    """

    runner: str
    samples: int
    compared: Mapping[str, int]
    differing: Mapping[str, int]
    largest: int = 0
    operator: str | None = None
    one_step: Mapping[str, int] = field(default_factory=dict)
    drift: int = 0

    @property
    def total_one_step(self) -> int:
        """Integers of float islands that are one step apart."""
        return sum(self.one_step.values())

    @property
    def total_differing(self) -> int:
        """Differing integers over all tensors."""
        return sum(self.differing.values())

    @property
    def total_compared(self) -> int:
        """Compared integers over all tensors."""
        return sum(self.compared.values())


@dataclass(frozen=True)
class Accuracy:
    """Share of correct answers by stage, on how many labelled samples."""

    samples: int
    by_stage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Confidence:
    """Metrics of class probabilities by stage, on how many labelled samples.

    without: at temperature 1, None where the files are at it.
    """

    samples: int
    by_stage: Mapping[str, Predictive]
    without: Mapping[str, Predictive] | None = None


@dataclass(frozen=True)
class Answers:
    """How right a network is, by stage. confidence: None where it has no class probabilities."""

    accuracy: Accuracy
    confidence: Confidence | None = None
