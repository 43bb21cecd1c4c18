"""Scales that every runtime takes, and on which none can round otherwise than another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.quantize.agreement import (
    Agreement,
    Average,
    Pairs,
    Question,
    Table,
    WithConstant,
)
from deploykit.quantize.given import largest_sum
from deploykit.quantize.nodes import function_of, parameter, parameter_of
from deploykit.quantize.operators import BINARY, Kind
from deploykit.quantize.scales import check_scale
from deploykit.quantize.sharing import Group, fixed_quantization
from deploykit.quantize.structure import Layer
from deploykit.quantize.weights import LARGEST_RATIO
from deploykit.spec.given import GivenIntegers
from deploykit.spec.network import FloatEvaluator, static_shape
from deploykit.spec.operators import Add, Computing, Mul, Sub
from deploykit.spec.plan import ConstantPlan, Proof
from deploykit.spec.quantized import IntegerRunner, Quantization, int_range

OPERATORS: Mapping[Kind, type[Computing]] = {Kind.ADD: Add, Kind.MUL: Mul, Kind.SUB: Sub}

NUDGE = 1.0003
LARGEST_SUM = 2.0**30
"""Half of int32, of a requantized sum before it saturates."""
TRIES = 64
"""Moves of one scale; far more than the twenty that were ever needed."""


@dataclass(frozen=True)
class Runners:
    """Who evaluates while planning: floats for calibration, integers for the proofs."""

    evaluate: FloatEvaluator
    reference: IntegerRunner
    runtimes: Sequence[IntegerRunner]


@dataclass(frozen=True)
class Fixed:
    """What the network was trained on. tensors: whose scale moves only where no other can.

    weights: by name of a layer, their integers.
    """

    tensors: Collection[str] = ()
    weights: Mapping[str, GivenIntegers] = field(default_factory=dict)


NOTHING_FIXED = Fixed()


def settle_scales(
    layers: Sequence[Layer],
    groups: Sequence[Group],
    chosen: dict[str, Quantization],
    constants: Mapping[str, ConstantPlan | None],
    runners: Runners,
    fixed: Fixed = NOTHING_FIXED,
) -> tuple[Proof, ...]:
    """Grow scales in `chosen` until all hold; tensors of a group move together.

    A layer whose output has a scale of its own kind (a sigmoid), or one that was given, moves an
    input's instead.

    Raises QuantizationError where no scale nearby does, or one is larger than runtimes take.
    """
    held = {name: group for group in groups for name in group.tensors}
    agreement = Agreement(runners.reference, runners.runtimes)
    moves: dict[str, int] = {}
    made = {layer.output for layer in layers}

    for name, quantization in chosen.items():
        check_scale(name, quantization.scale)
    for held_constant in constants.values():
        if held_constant is not None:
            check_scale(held_constant.name, held_constant.quantization.scale)

    def move(name: str, scale: float) -> None:
        check_scale(name, scale)
        for tensor in held[name].tensors:
            chosen[tensor] = replace(chosen[tensor], scale=float(np.float32(scale)))

    def settled(layer: Layer) -> bool:
        smallest = _smallest_scale(layer, chosen, constants.get(layer.name), fixed)
        if chosen[layer.output].scale < smallest:
            move(layer.output, smallest)
            return False
        asked = _question(layer, constants.get(layer.name))
        if asked is None or agreement.holds(asked, _quantizations(layer, chosen, constants)):
            return True
        moved = _movable(layer, fixed, made)
        moves[moved] = moves.get(moved, 0) + 1
        if moves[moved] > TRIES:
            raise QuantizationError(
                f"{layer.name}: no scale within {NUDGE**TRIES - 1:.1%} makes the runtimes round "
                f"alike; this is not expected: please report the scales ({moved}: "
                f"{chosen[moved].scale!r}, zero point {chosen[moved].zero_point})"
            )
        move(moved, chosen[moved].scale * NUDGE)
        return False

    while not all(settled(layer) for layer in layers):
        pass
    moved_by = {layer.name: _movable(layer, fixed, made) for layer in layers}
    return tuple(_proofs(layers, chosen, constants, agreement, moves, runners, moved_by))


def _proofs(
    layers: Sequence[Layer],
    chosen: Mapping[str, Quantization],
    constants: Mapping[str, ConstantPlan | None],
    agreement: Agreement,
    moves: Mapping[str, int],
    runners: Runners,
    moved_by: Mapping[str, str],
) -> Iterator[Proof]:
    names = tuple(runner.name for runner in runners.runtimes)
    for layer in layers:
        asked = _question(layer, constants.get(layer.name))
        if asked is not None:
            moved = moved_by[layer.name]
            tried = agreement.tried(asked, _quantizations(layer, chosen, constants))
            yield Proof(layer.name, tried, moves.get(moved, 0), names)


def _movable(layer: Layer, fixed: Fixed, made: Collection[str]) -> str:
    """The tensor whose scale may grow: one that was given only where no other is left.

    made: tensors that layers compute; the scale of the network's own input stays a power of two.
    """
    own = fixed_quantization(layer) is None
    free = [layer.output] if own else []
    free += [name for name in layer.inputs if name in made]
    fallback = layer.output if own else layer.inputs[0]
    return next((name for name in free if name not in fixed.tensors), fallback)


def _question(layer: Layer, held: ConstantPlan | None) -> Question | None:
    """What has to be tried for a layer, None where its arithmetic is the same everywhere."""
    if layer.kind is Kind.LOOKUP:
        return Table(function_of(layer.nodes[0]), parameter_of(layer.nodes[0]))
    if layer.kind is Kind.GLOBAL_AVERAGE_POOL:
        shape = static_shape(layer.nodes[0].inputs[0])
        assert shape is not None
        return Average((shape[2], shape[3]))
    if layer.kind not in BINARY:
        return None
    operator = OPERATORS[layer.kind]
    if held is not None:
        values = tuple(int(value) for value in np.unique(held.values))
        return WithConstant(operator, values)
    shapes = [static_shape(value) or () for value in layer.nodes[0].inputs]
    full = static_shape(layer.nodes[0].outputs[0])
    wide = (shapes[0] == full, shapes[1] == full)
    return Pairs(operator, wide)


def _quantizations(
    layer: Layer,
    chosen: Mapping[str, Quantization],
    constants: Mapping[str, ConstantPlan | None],
) -> tuple[Quantization, ...]:
    """Of what a layer reads, a constant last, and of its output."""
    read = [chosen[name] for name in layer.inputs]
    held = constants.get(layer.name)
    return (*read, *(() if held is None else (held.quantization,)), chosen[layer.output])


def _smallest_scale(
    layer: Layer, chosen: Mapping[str, Quantization], held: ConstantPlan | None, fixed: Fixed
) -> float:
    """The finest output scale that runtimes take, and that tells anything.

    A Relu that never fires, or a sum that cancels, asks for a scale far under its inputs'. A
    convolution's accumulator moves in steps of input scale * weight scale: a finer output scale
    tells nothing more, and multiplies a large negative sum beyond int32. One that was given is
    finer only up to what no sum of the layer leaves.
    """
    if layer.kind is Kind.EMBEDDING:
        return 0.0
    read = [chosen[name].scale for name in layer.inputs]
    inputs = max(read if held is None else [*read, held.quantization.scale])
    match layer.kind:
        case Kind.CONV | Kind.LINEAR:
            own = fixed.weights.get(layer.name)
            largest = np.abs(parameter(layer.nodes[0], 1)).max(initial=0.0)
            step = largest / int_range(8)[1] if own is None else float(own.scale.max(initial=0.0))
            if layer.output not in fixed.tensors:
                return float(np.float32(inputs * largest / int_range(8)[1]))
            room = max(1.0 / LARGEST_RATIO, largest_sum(own, layer) / LARGEST_SUM)
            return float(np.float32(inputs * step * room))
        case Kind.ADD | Kind.SUB | Kind.GLOBAL_AVERAGE_POOL:
            return float(np.float32(inputs / LARGEST_RATIO))
        case _:
            return 0.0
