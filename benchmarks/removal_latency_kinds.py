"""Kinds of operators that removal speeds up differently, and what each costs beyond its share.

With the whole network's MACs smaller by a factor m, a kind that took t ms would take t / m if time
went with MACs. What it takes beyond that is why efficiency is under 1:

    beyond(kind) = pruned_ms(kind) - dense_ms(kind) / m
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

STEM_INPUTS = 4


class Kind(Enum):
    """By what bounds the time: arithmetic, memory, or the making of other layouts."""

    STEM = "stem"
    SPATIAL = "spatial"
    POINTWISE = "pointwise"
    DEPTHWISE = "depthwise"
    GROUPED = "grouped"
    TRANSPOSED = "transposed"
    LINEAR = "linear"
    POOL = "pool"
    JOIN = "concat, split"
    MOVE = "gather, transpose, pad"
    ELEMENTWISE = "elementwise"
    NORMALIZE = "softmax, norm"
    RESIZE = "resize"
    LAYOUT = "runtime's layout"


OPERATORS: Mapping[Kind, frozenset[str]] = {
    Kind.TRANSPOSED: frozenset(("ConvTranspose",)),
    Kind.LINEAR: frozenset(("Gemm", "MatMul", "FusedGemm", "FusedMatMul")),
    Kind.POOL: frozenset(
        ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean")
    ),
    Kind.JOIN: frozenset(("Concat", "Split", "Slice")),
    Kind.MOVE: frozenset(
        ("Gather", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Pad",
         "DepthToSpace", "SpaceToDepth", "Expand", "Identity")
    ),
    Kind.ELEMENTWISE: frozenset(
        ("Add", "Sub", "Mul", "Div", "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh",
         "HardSigmoid", "HardSwish", "Gelu", "BiasGelu", "QuickGelu", "Erf", "Softplus", "Sum",
         "Sqrt", "Pow", "Silu", "Swish")
    ),
    Kind.NORMALIZE: frozenset(
        ("Softmax", "LayerNormalization", "SkipLayerNormalization", "InstanceNormalization",
         "BatchNormalization", "SimplifiedLayerNormalization")
    ),
    Kind.RESIZE: frozenset(("Resize", "Upsample")),
    Kind.LAYOUT: frozenset(("ReorderInput", "ReorderOutput")),
}  # fmt: skip
"""Of all operators but convolutions; those of ONNX Runtime's own fusions too."""


def kind_of(operator: str, shapes: Sequence[tuple[int, ...]]) -> Kind:
    """Kind of a node by its operator and the shapes of its inputs, weights included.

    Raises ValueError for an operator that no row of OPERATORS holds.
    """
    if operator in ("Conv", "FusedConv"):
        return _convolution(shapes[0][1], shapes[1])
    for kind, operators in OPERATORS.items():
        if operator in operators:
            return kind
    raise ValueError(f"{operator} has no kind in OPERATORS, which has {list(OPERATORS)}")


def _convolution(inputs: int, weight: tuple[int, ...]) -> Kind:
    if inputs <= STEM_INPUTS:
        return Kind.STEM
    if weight[1] == 1:
        return Kind.DEPTHWISE
    if weight[1] < inputs:
        return Kind.GROUPED
    return Kind.POINTWISE if set(weight[2:]) == {1} else Kind.SPATIAL


Profile = Mapping[Kind, float]
"""Milliseconds of one inference by kind."""


@dataclass(frozen=True)
class Beyond:
    """What a kind takes in the pruned network beyond its share of the MACs."""

    kind: Kind
    ms: float
    share: float
    """Of the pruned network's time."""


def beyond_share(dense: Profile, pruned: Profile, macs_ratio: float) -> tuple[Beyond, ...]:
    """Kinds in which time shrank by less than MACs, the most costly first."""
    total = sum(pruned.values())
    found = [
        Beyond(kind, ms - dense.get(kind, 0.0) / macs_ratio, 0.0) for kind, ms in pruned.items()
    ]
    ordered = sorted(found, key=lambda one: one.ms, reverse=True)
    return tuple(Beyond(one.kind, one.ms, one.ms / total) for one in ordered if one.ms > 0)
