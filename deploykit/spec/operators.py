"""The operators of the integer network.

Shapes are NCHW (or [N, F]) whatever a file format prefers; an operator refers to activations and
to integer constants of the network by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from deploykit.spec.arrays import Float32Array, Int8Array, Int32Array
from deploykit.spec.carriers import IN_INT8, Carriers

if TYPE_CHECKING:
    from deploykit.spec.network import Network


@dataclass(frozen=True)
class IntegerWeight:
    """Symmetric per-output-channel weights. values: [O, ...] int8 within `bits`; scale: [O].

    carriers: how files store them, which changes nothing in what they are.
    """

    name: str
    values: Int8Array
    scale: Float32Array
    bits: int = 8
    carriers: Carriers = IN_INT8


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window. pads: top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Conv:
    """weight: [O, I/groups, kh, kw]; bias: [O] int32 in steps of input scale * weight scale.

    Padded positions hold the input's zero point, so they add nothing.
    """

    name: str
    input: str
    output: str
    weight: IntegerWeight
    bias: Int32Array
    window: Window
    groups: int = 1


@dataclass(frozen=True)
class Linear:
    """weight: [O, I]; bias: [O] int32. input: [N, I]."""

    name: str
    input: str
    output: str
    weight: IntegerWeight
    bias: Int32Array


@dataclass(frozen=True)
class Add:
    """Sum of two tensors whose shapes broadcast; each of the three has scales of its own."""

    name: str
    left: str
    right: str
    output: str


@dataclass(frozen=True)
class Mul:
    """Product of two tensors whose shapes broadcast; each of the three has scales of its own."""

    name: str
    left: str
    right: str
    output: str


@dataclass(frozen=True)
class Sub:
    """Difference of two activations whose shapes broadcast, each of the three on its own scale."""

    name: str
    left: str
    right: str
    output: str


@dataclass(frozen=True)
class Maximum:
    """The larger of two integers. All three tensors have one shape and one quantization.

    One side may be a constant whose shape broadcasts.
    """

    name: str
    left: str
    right: str
    output: str


@dataclass(frozen=True)
class Minimum:
    """The smaller of two integers. All three tensors have one shape and one quantization.

    One side may be a constant whose shape broadcasts.
    """

    name: str
    left: str
    right: str
    output: str


class Function(Enum):
    """Real functions that a Lookup tabulates."""

    SIGMOID = "sigmoid"
    TANH = "tanh"
    ELU = "elu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    EXP = "exp"
    ERF = "erf"
    MISH = "mish"
    SOFTPLUS = "softplus"
    SOFTSIGN = "softsign"
    POWER = "power"
    THRESHOLDED = "thresholded"


@dataclass(frozen=True)
class Lookup:
    """y = round(f(x)), one of 256 integers for each of 256: see spec.functions.

    parameter: the exponent of POWER, the threshold of THRESHOLDED; 0 of all others.
    """

    name: str
    input: str
    output: str
    function: Function
    parameter: float = 0.0


@dataclass(frozen=True)
class MaxPool:
    """Padded positions never win. Input and output share one quantization."""

    name: str
    input: str
    output: str
    window: Window


@dataclass(frozen=True)
class GlobalAveragePool:
    """Mean over H and W, which stay as axes of length 1."""

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class Flatten:
    """[N, C, H, W] -> [N, C*H*W], channel-major. Input and output share one quantization."""

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class Clamp:
    """clip(q, low, high) for an activation that could not be fused into its producer's range.

    Input and output share one quantization.
    """

    name: str
    input: str
    output: str
    low: int
    high: int


@dataclass(frozen=True)
class Concat:
    """Tensors one behind another along an axis. All of them share one quantization."""

    name: str
    inputs: tuple[str, ...]
    output: str
    axis: int


@dataclass(frozen=True)
class Slice:
    """x[start:stop:step] along one axis, start < stop. Input and output share one quantization."""

    name: str
    input: str
    output: str
    axis: int
    start: int
    stop: int
    step: int = 1


@dataclass(frozen=True)
class Gather:
    """x[indices] along one axis, the batch's excepted. Input and output share one quantization."""

    name: str
    input: str
    output: str
    axis: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class IntegerTable:
    """Rows that an Embedding takes. values: [rows, columns] int8 of its output's quantization."""

    name: str
    values: Int8Array


@dataclass(frozen=True)
class Embedding:
    """Rows of a table by the network's own whole numbers, each from 0 to below the rows.

    input: [N, ...] of whole numbers; output: [N, ..., columns].
    """

    name: str
    input: str
    output: str
    table: IntegerTable


@dataclass(frozen=True)
class ArgMax:
    """Which entry along an axis is largest, the first of equal ones; output: whole numbers.

    The axis is gone from the output, or has length 1 there.
    """

    name: str
    input: str
    output: str
    axis: int


@dataclass(frozen=True)
class Repeat:
    """Every pixel of [N, C, H, W] `rows` times down and `columns` times across: nearest resizing.

    Input and output share one quantization.
    """

    name: str
    input: str
    output: str
    rows: int
    columns: int


@dataclass(frozen=True)
class DepthToSpace:
    """[N, b*b*C, H, W] -> [N, C, b*H, b*W]; channel (i*b + j)*C + c is pixel (i, j) of channel c.

    ONNX calls the order DCR. Input and output share one quantization.
    """

    name: str
    input: str
    output: str
    block: int


@dataclass(frozen=True)
class SpaceToDepth:
    """[N, C, b*H, b*W] -> [N, b*b*C, H, W]; pixel (i, j) of channel c is channel (i*b + j)*C + c.

    Input and output share one quantization.
    """

    name: str
    input: str
    output: str
    block: int


@dataclass(frozen=True)
class LeakyRelu:
    """q where q >= z, else z + ((q - z) * slope + 128 >> 8): a slope in steps of 1/256.

    Input and output share one quantization, whose zero point is z.
    """

    name: str
    input: str
    output: str
    slope: int


@dataclass(frozen=True)
class Pad:
    """`fill` around the pixels of [N, C, H, W]. pads: top, left, bottom, right.

    Input and output share one quantization.
    """

    name: str
    input: str
    output: str
    pads: tuple[int, int, int, int]
    fill: int


@dataclass(frozen=True)
class Reshape:
    """The same integers, channel-major, in the shape of the output; the batch stays apart.

    Input and output share one quantization.
    """

    name: str
    input: str
    output: str


@dataclass(frozen=True)
class Rearrange:
    """The same integers in another shape and order: a chain of Reshapes, Transposes and the like.

    body: the chain as a float graph of one input and one output; None where it was read from a
    file that states it in other operators. Input and output share one quantization.
    """

    name: str
    input: str
    output: str
    body: Network | None


@dataclass(frozen=True)
class Island:
    """A part computed in float: y = round(body(real values of the inputs)), see reference.regions.

    body: float graph of one output whose inputs stand in the order of `inputs`; None where it was
    read from a file that states it in other operators. Runtimes compute in their own float32, so
    that they may differ by one step.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    body: Network | None


Moving = (
    Maximum
    | Minimum
    | MaxPool
    | Flatten
    | Clamp
    | Concat
    | Slice
    | Gather
    | Repeat
    | DepthToSpace
    | SpaceToDepth
    | Pad
    | Reshape
    | Rearrange
)
"""Operators that move or compare integers: their tensors share one quantization."""

Computing = Add | Mul | Sub
"""Operators that compute a third number of two."""

Operator = (
    Moving
    | Computing
    | Conv
    | Linear
    | Lookup
    | GlobalAveragePool
    | LeakyRelu
    | Embedding
    | ArgMax
    | Island
)


def operator_inputs(operator: Operator) -> tuple[str, ...]:
    """Names of the tensors that an operator reads, weights apart."""
    match operator:
        case Add() | Mul() | Sub() | Maximum() | Minimum():
            return (operator.left, operator.right)
        case Concat() | Island():
            return operator.inputs
        case _:
            return (operator.input,)


def renamed(operator: Operator, called: str, name: Callable[[str], str]) -> Operator:
    """The same operator under another name, its tensors renamed by `name`."""
    output = name(operator.output)
    match operator:
        case Add() | Mul() | Sub() | Maximum() | Minimum():
            left, right = name(operator.left), name(operator.right)
            return replace(operator, name=called, left=left, right=right, output=output)
        case Concat() | Island():
            inputs = tuple(name(read) for read in operator.inputs)
            return replace(operator, name=called, inputs=inputs, output=output)
        case _:
            return replace(operator, name=called, input=name(operator.input), output=output)
