"""What a diagnosis finds: per layer what it costs, and for the costliest why and what helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Cause(Enum):
    """Why a layer costs accuracy, in words."""

    WEIGHTS = "its weights in {bits} bits"
    OUTLIERS = "outlier weights, which leave the others few steps"
    FEW_CHANNELS = "the weights of few channels"
    SATURATION = "values beyond the range of its output"
    WIDE_RANGE = "few large values, which make the steps of its output coarse"
    ROUNDING = "the rounding of its output to 8 bits"
    GIVEN = "the grid of its output, which came with the network"


@dataclass(frozen=True)
class Channel:
    """One output channel. share: of the layer's own error; sqnr_db: of its own signal."""

    index: int
    share: float
    sqnr_db: float


@dataclass(frozen=True)
class LayerFinding:
    """One layer, or an input of the network.

    sqnr_db: of its output in the integer network. weights, activations: the error that its weights
    alone, or its output's integers alone, leave at the network's outputs while all else is float:
    power over the signal's. saturated: share of its output's float values beyond the range.
    clipped: of the power of that output's own error, the share of saturation. sensitivity: as bits
    were allocated by, where they were.
    """

    name: str
    operator: str
    bits: int | None
    sqnr_db: float
    weights: float
    activations: float
    saturated: float
    clipped: float
    channels: tuple[Channel, ...] = ()
    sensitivity: float | None = None

    @property
    def error(self) -> float:
        """Of both."""
        return self.weights + self.activations


@dataclass(frozen=True)
class Remedy:
    """Flags to add to the export, and the SQNR of the network's outputs before and with them.

    Estimated on the samples of the diagnosis, with the remedies of layers that hurt more already
    in place. of: what the estimate covers, where the flags do more. weight_bytes: more than before,
    by model file, None where that is not changed.
    """

    flags: tuple[str, ...]
    before_db: float
    after_db: float
    weight_bytes: Mapping[str, int] | None = None
    of: str = ""


@dataclass(frozen=True)
class Advice:
    """One of the layers that hurt most. tried: flags of remedies that were estimated.

    remedy: None where none of them helps.
    """

    layer: str
    share: float
    cause: Cause
    remedy: Remedy | None
    tried: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """output_db: SQNR of the network's outputs, simulated; measured_db: of model files' outputs
    where they are floats, by runtime. samples: that it was measured on; fitted: others, on which
    ranges and weights of remedies were fitted. together: all remedies at once. everywhere: remedies
    that act on all layers, each by itself, where the error is spread over many; untried: flags that
    may help there and take too long to try. limited: whether memory holds no more samples.
    target: under which bits were allocated, empty where they were not.
    """

    output_db: float
    measured_db: dict[str, float]
    samples: int
    fitted: int
    layers: tuple[LayerFinding, ...]
    advice: tuple[Advice, ...]
    together: Remedy | None = None
    everywhere: tuple[Remedy, ...] = ()
    untried: tuple[str, ...] = ()
    limited: bool = False
    target: str = ""

    @property
    def total(self) -> float:
        """Error of all layers, each alone."""
        return sum(layer.error for layer in self.layers)
