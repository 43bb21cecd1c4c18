"""The quantization plan: every decision, taken before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from deploykit.spec.arrays import Float32Array, Int8Array, Int32Array
from deploykit.spec.carriers import Carriers, Version
from deploykit.spec.operators import IntegerTable
from deploykit.spec.pairs import Target
from deploykit.spec.quantized import Batch, IoType, Quantization


@dataclass(frozen=True)
class PairPlan:
    """What a layer's weights are to a processor that adds two products in int16 (spec.pairs).

    largest: sum of two paired weights. narrowed: output channels on a coarser scale, so that they
    fit; growth: of the scale that grew most, 1 where none did.
    """

    largest: int
    narrowed: int = 0
    growth: float = 1.0


class Rounding(Enum):
    """How real weights become integers.

    Each to the nearest; so that errors cancel in the layer's output; that, layer after layer, each
    making up for what rounding did to its inputs; or that, and then learned block by block.
    """

    NEAREST = "nearest"
    COMPENSATED = "compensated"
    SEQUENTIAL = "sequential"
    LEARNED = "learned"

    @property
    def in_sequence(self) -> bool:
        """Whether layers are planned one after another, on what the ones before give them."""
        return self in {Rounding.SEQUENTIAL, Rounding.LEARNED}

    @property
    def reach(self) -> float:
        """How far an integer may lie from what it approximates, in steps of the scale."""
        return 0.5 if self is Rounding.NEAREST else 1.0

    @property
    def drift(self) -> float:
        """How far from its weight what an integer approximates may lie, in steps of the scale."""
        return 1.0 if self.in_sequence else 0.0

    @property
    def steps(self) -> float:
        """How far an integer may lie from its weight, in steps of the scale."""
        return self.reach + self.drift


class BiasCorrection(Enum):
    """Whether biases take off what rounded weights add to the mean of an output."""

    MEANS = "means"
    NONE = "none"


class WeightRange(Enum):
    """What a weight's scale reaches below 8 bits, per channel: its largest, or what errs least."""

    LARGEST = "largest"
    LEAST_ERROR = "least-error"


@dataclass(frozen=True)
class WeightPlan:
    """Integers of one weight and how they are stored. values: [O, ...]; scale: [O].

    bits: that the integers take. carriers: storage forms that keep the runtimes' integer kernels.
    """

    name: str
    bits: int
    granularity: str
    carriers: Carriers
    scale: Float32Array
    values: Int8Array
    pairs: PairPlan


@dataclass(frozen=True)
class ConstantPlan:
    """Integers of the constant that an operator of two reads. side: 0 left, 1 right."""

    name: str
    side: int
    quantization: Quantization
    values: Int8Array


@dataclass(frozen=True)
class LayerPlan:
    """One operator of the integer network: what it fuses, and its weight where it has one.

    nodes: names of the float graph's nodes that this operator computes. inputs: activations.
    table: of an Embedding.
    input_means: [I], by which the bias was corrected; see spec.correction. output_shift: [O], in
    its place where the bias was moved so that the outputs' means are the float network's.
    """

    name: str
    operator: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    weight: WeightPlan | None = None
    bias: Int32Array | None = None
    constant: ConstantPlan | None = None
    input_means: Float32Array | None = None
    output_shift: Float32Array | None = None
    table: IntegerTable | None = None


@dataclass(frozen=True)
class Proof:
    """Agreement of the runtimes on an operator, by enumeration of all its inputs.

    cases: how many inputs were tried; nudges: how often a scale had to grow;
    runners: who was compared with the reference.
    """

    layer: str
    cases: int
    nudges: int
    runners: tuple[str, ...]


@dataclass(frozen=True)
class GridUse:
    """What became of a grid that the network was trained on. kind: weight or activation.

    name: of the layer, or of the tensor. bits: of the grid's integers. why: it was not kept; empty
    where it was.
    """

    kind: str
    name: str
    bits: int
    why: str = ""

    @property
    def kept(self) -> bool:
        """Whether scale, zero point and integers are the given ones."""
        return not self.why


@dataclass(frozen=True)
class QuantPlan:
    """Frozen: per tensor scale and zero point, per layer weights, and the proofs of agreement.

    target: processors for whose 16-bit sums the weights are planned, None where for none.
    given: what became of the grids that the network came with.
    min_ort: oldest ONNX Runtime that has to load model.onnx; None: any that can.
    in_float: layers that the user left in float, in graph order.
    """

    tensors: Mapping[str, Quantization]
    layers: tuple[LayerPlan, ...]
    calibration: str
    calibration_samples: int
    io: IoType
    rounding: Rounding
    proofs: tuple[Proof, ...] = ()
    target: Target | None = None
    batch: Batch = Batch.FIXED
    given: tuple[GridUse, ...] = ()
    min_ort: Version | None = None
    weight_range: WeightRange = WeightRange.LEAST_ERROR
    in_float: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The plan as a table, one line per layer."""
        rows = [("layer", "operator", "output", "scale", "zero point", "weight", "bits", "carrier")]
        for layer in self.layers:
            output = self.tensors.get(layer.output)
            weight = layer.weight
            rows.append(
                (
                    layer.name,
                    layer.operator,
                    layer.output,
                    "" if output is None else f"{output.scale:.6g}",
                    "" if output is None else str(output.zero_point),
                    "" if weight is None else "x".join(map(str, weight.values.shape)),
                    "" if weight is None else str(weight.bits),
                    "" if weight is None else ", ".join(weight.carriers.distinct()),
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        sources = [name for name in self.tensors if all(name != la.output for la in self.layers)]
        heads = [
            f"input {name}: scale {self.tensors[name].scale:.6g}, "
            f"zero point {self.tensors[name].zero_point}"
            for name in sources
        ]
        calibrated = (
            f"calibration {self.calibration} on {self.calibration_samples} samples, "
            f"rounding {self.rounding.value}"
        )
        return "\n".join([calibrated, *heads, *lines])
