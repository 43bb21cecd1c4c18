"""The table: one row per operator. An operator without a row stops removal at its border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from deploykit.graph.channels.mixing import Mixing
from deploykit.graph.channels.passing import (
    ChannelAffine,
    Depthwise,
    Elementwise,
    FlattenChannels,
    Join,
    Pool,
    affine_of_constant,
    clip,
)
from deploykit.graph.channels.rule import Rule, activations, channel_count
from deploykit.graph.edit import attribute_float
from deploykit.spec.arrays import Float64Array


def _leaky(node: ir.Node, x: Float64Array) -> Float64Array:
    return np.where(x < 0, attribute_float(node, "alpha", 0.01) * x, x)


def _hard_sigmoid(node: ir.Node, x: Float64Array) -> Float64Array:
    alpha, beta = attribute_float(node, "alpha", 0.2), attribute_float(node, "beta", 0.5)
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _multiply(a: Float64Array, b: Float64Array) -> Float64Array:
    """Zero times anything is zero."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


RULES: Mapping[str, Sequence[Rule]] = {
    "Conv": (Mixing(), Depthwise()),
    "Gemm": (Mixing(),),
    "BatchNormalization": (ChannelAffine(affine_of_constant),),
    "Add": (Join(np.add), ChannelAffine(affine_of_constant)),
    "Sub": (Join(np.subtract), ChannelAffine(affine_of_constant)),
    "Mul": (Join(_multiply), ChannelAffine(affine_of_constant)),
    "Div": (ChannelAffine(affine_of_constant),),
    "Relu": (Elementwise(lambda _, x: np.maximum(x, 0.0)),),
    "Clip": (Elementwise(clip),),
    "LeakyRelu": (Elementwise(_leaky),),
    "Sigmoid": (Elementwise(lambda _, x: 0.5 * (1.0 + np.tanh(0.5 * x))),),
    "HardSigmoid": (Elementwise(_hard_sigmoid),),
    "HardSwish": (Elementwise(lambda _, x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)),),
    "Tanh": (Elementwise(lambda _, x: np.tanh(x)),),
    "MaxPool": (Pool(lambda _, x: x),),
    "AveragePool": (Pool(lambda _, x: x),),
    "GlobalAveragePool": (Pool(lambda _, x: x),),
    "Flatten": (FlattenChannels(lambda _, x: x),),
}


def rule_for(node: ir.Node) -> Rule | None:
    """The first row that speaks for this node, or None: removal stops here.

    No row speaks for tensors whose number of channels is not known, or for another domain's
    operators of the same name.
    """
    touched = [*activations(node), *node.outputs]
    if len(node.outputs) != 1 or any(channel_count(value) is None for value in touched):
        return None
    if node.domain not in ("", "ai.onnx"):
        return None
    for rule in RULES.get(node.op_type, ()):
        if rule.supports(node):
            return rule
    return None
