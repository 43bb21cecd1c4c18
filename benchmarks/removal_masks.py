"""Random dead channels in a float graph whose batch norms are not folded.

Before batch norm: the channel's weights and bias are zero; the norm leaves a constant. Behind it:
the norm's scale and shift are zero. A layer without a norm of its own (squeeze-and-excite, linears,
a convolution that a concatenation follows) has its weights and bias zeroed either way.

Spread: every layer draws its own channels. Tied: channels that residual sums, depthwise
convolutions and the like tie together are drawn as one, as group-sparse training leaves them.

Attention has its own patterns. Heads: q, k and v of whole heads. Even dims: as many dims of q and
of v in every head. Free dims: drawn over all heads; in both a pair of q and k dies in q. The
layers around attention (perceptron, projections) are killed as with "spread".

The last layer of a path to an output is spared. Whatever is drawn, `share` of it dies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from removal_graph import Array, Graph, attributes
from removal_walk import Layer, Walk


class Pattern(Enum):
    """Where channels die."""

    BEFORE_NORM = "before norm"
    AFTER_NORM = "after norm"
    BEFORE_NORM_TIED = "before norm, tied"
    AFTER_NORM_TIED = "after norm, tied"
    HEADS = "heads"
    EVEN_DIMS = "even dims"
    FREE_DIMS = "free dims"


BEHIND = frozenset((Pattern.AFTER_NORM, Pattern.AFTER_NORM_TIED))
TIED = frozenset((Pattern.BEFORE_NORM_TIED, Pattern.AFTER_NORM_TIED))
ATTENTION = (Pattern.HEADS, Pattern.EVEN_DIMS, Pattern.FREE_DIMS)


@dataclass(frozen=True)
class Mask:
    """dead: channels by weight initializer. behind: at the batch norm, where there is one."""

    dead: Mapping[str, tuple[int, ...]]
    behind: bool


def patterns_for(graph: Graph, found: Walk) -> tuple[Pattern, ...]:
    """Those that differ on this network. found: `walk(graph)`."""
    if found.products:
        return ATTENTION
    spread = (Pattern.BEFORE_NORM, Pattern.AFTER_NORM)
    tied = (Pattern.BEFORE_NORM_TIED, Pattern.AFTER_NORM_TIED)
    counts: dict[int, int] = {}
    for layer in _killable(graph, found):
        for label in set(layer.gives.tolist()):
            counts[label] = counts.get(label, 0) + 1
    return (*spread, *tied) if max(counts.values()) > 1 else spread


def draw(graph: Graph, found: Walk, share: float, pattern: Pattern, seed: int = 0) -> Mask:
    """A seeded mask for an unfolded graph. found: `walk(graph)`."""
    layers = _killable(graph, found)
    generator = np.random.default_rng((seed, round(100 * share)))
    dead: dict[str, tuple[int, ...]] = {}
    special = _attention(found, share, pattern, generator)
    tied = _tied(layers, share, generator) if pattern in TIED else frozenset()
    for layer in layers:
        labels = layer.gives
        if pattern in TIED:
            channels = np.flatnonzero(np.isin(labels, sorted(tied)))
        elif any(label in special.scope for label in labels.tolist()):
            channels = np.flatnonzero(_from_attention(layer, found, special))
        else:
            count = round(share * len(labels))
            channels = np.sort(generator.choice(len(labels), count, replace=False))
        if len(channels):
            dead[layer.weight] = tuple(channels.tolist())
    return Mask(dead, pattern in BEHIND)


def masked(graph: Graph, mask: Mask) -> onnx.ModelProto:
    """The graph with the mask's channels dead; the caller's graph stays as it is."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    changed: dict[str, Array] = {}

    def zero(name: str, channels: Sequence[int], axis: int) -> None:
        array = changed.setdefault(name, np.array(graph.constants[name]))
        index: list[slice | list[int]] = [slice(None)] * array.ndim
        index[axis] = list(channels)
        array[tuple(index)] = 0.0

    for node in graph.nodes:
        weight = node.input[1] if len(node.input) > 1 else ""
        channels = mask.dead.get(weight)
        if channels is None or node.op_type not in KILLABLE:
            continue
        norm = _own_norm(graph, node)
        if mask.behind and norm is not None:
            zero(norm.input[1], channels, 0)
            zero(norm.input[2], channels, 0)
            continue
        zero(weight, channels, _output_axis(node))
        bias = bias_of(graph, node)
        if bias is not None:
            zero(bias, channels, graph.constants[bias].ndim - 1)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return model


KILLABLE = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))


def _killable(graph: Graph, found: Walk) -> list[Layer]:
    """Layers that own their weight and do not give the network's output."""
    outputs = {
        label for name in graph.output_names for label in np.unique(found.labels[name]).tolist()
    }
    uses = [name for node in graph.nodes for name in node.input]
    return [
        layer
        for layer in found.layers
        if uses.count(layer.weight) == 1
        and layer.weight in graph.constants
        and not outputs & set(layer.gives.tolist())
    ]


def _output_axis(node: onnx.NodeProto) -> int:
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose" | "MatMul":
            return 1
        case _:
            return 0 if attributes(node).get("transB", 0) else 1


def _readers(graph: Graph, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.nodes if name in node.input]


def _own_norm(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The batch norm that alone reads a layer."""
    readers = _readers(graph, node.output[0])
    if len(readers) == 1 and readers[0].op_type == "BatchNormalization":
        return readers[0]
    return None


def bias_of(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The layer's bias, or the vector that an Add behind a MatMul puts on it."""
    if len(node.input) > 2 and node.input[2]:
        return str(node.input[2])
    readers = _readers(graph, node.output[0])
    if node.op_type == "MatMul" and len(readers) == 1 and readers[0].op_type == "Add":
        for name in readers[0].input:
            if name in graph.constants and graph.constants[name].ndim == 1:
                return str(name)
    return None


def _tied(layers: Sequence[Layer], share: float, generator: np.random.Generator) -> frozenset[int]:
    """Classes to kill: `share` of those that come from the same set of layers."""
    owners: dict[int, list[str]] = {}
    for layer in layers:
        for label in set(layer.gives.tolist()):
            owners.setdefault(label, []).append(layer.weight)
    groups: dict[tuple[str, ...], list[int]] = {}
    for label, weights in owners.items():
        groups.setdefault(tuple(weights), []).append(label)
    dead: set[int] = set()
    for labels in groups.values():
        count = round(share * len(labels))
        dead.update(generator.choice(sorted(labels), count, replace=False).tolist())
    return frozenset(dead)


@dataclass(frozen=True)
class _AttentionMask:
    """scope: classes that attention owns; summed: those of q and k; dead: those to kill.

    both: whether k dies with q (whole heads), or q alone.
    """

    scope: frozenset[int]
    summed: frozenset[int]
    dead: frozenset[int]
    both: bool


def _attention(
    found: Walk, share: float, pattern: Pattern, generator: np.random.Generator
) -> _AttentionMask:
    scope = {label for item in found.products for label in item.labels.ravel().tolist()}
    summed = {
        label for item in found.products if item.contracts for label in item.labels.ravel().tolist()
    }
    dead: set[int] = set()
    heads: dict[int, bool] = {}
    for item in found.products:
        if pattern is Pattern.FREE_DIMS:
            flat = item.labels.ravel()
            dead.update(generator.choice(flat, round(share * flat.size), replace=False).tolist())
            continue
        if item.contracts:
            chosen = generator.choice(item.scores, round(share * len(item.scores)), replace=False)
            heads.update(dict.fromkeys(chosen.tolist(), True))
        for scores, labels in zip(item.scores.tolist(), item.labels, strict=True):
            if pattern is Pattern.HEADS:
                dead.update(labels.tolist() if heads.get(scores, False) else [])
            else:
                count = round(share * len(labels))
                dead.update(generator.choice(labels, count, replace=False).tolist())
    return _AttentionMask(
        frozenset(scope), frozenset(summed), frozenset(dead), pattern is Pattern.HEADS
    )


def _from_attention(layer: Layer, found: Walk, mask: _AttentionMask) -> npt.NDArray[np.bool_]:
    """Which outputs of a layer die: of a class that both q and k carry, only q's, the first."""
    dead = np.isin(layer.gives, sorted(mask.dead))
    if mask.both:
        return dead
    first: set[int] = set()
    earlier = [
        label
        for other in found.layers[: found.layers.index(layer)]
        for label in other.gives.tolist()
    ]
    seen = {label for label in earlier if label in mask.summed}
    for index, label in enumerate(layer.gives.tolist()):
        if label in mask.summed and (label in seen or label in first):
            dead[index] = False
        first.add(label)
    return dead
