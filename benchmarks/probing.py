"""Which multiply-accumulates of a masked network could go: found by measuring, not by analysis.

Nothing of deploykit's liveness is used here. On the float graph with batch norm folded:

Constant: a channel of a tensor is constant if ONNX Runtime gives it one value over several random
    inputs and all positions, up to 1e-6 of the tensor's largest value on the first two; zero if
    that value is under 1e-7 of it. From the third input on, noise takes the place of the channels
    that were seen to vary, in front of every layer: a relu that few inputs open is not constant.
Unread: a layer does not read a channel of its input if noise in its place, put in front of that
    layer alone, changes no output of the network (in ONNX Runtime, by more than 1e-6 of the
    output's largest value). Gradients find the suspects: only channels whose gradient, in float64
    and on two random inputs, is under 1e-12 of the layer's largest one are tried, all at once and
    then by bisection.

Classes of channels that elementwise operators tie together come from `removal_walk`. A class is
removable if it is not pinned and if every layer that reads it either finds it constant or does not
read it. A product of q and k reads its summed channels: one can go if either factor is zero, or if
the product does not read it. From that follow

(a) a channel of a residual sum's addend goes only where the sum's channel can go;
(b) of n removable channels of a tensor that are constant and not zero, n - 1 go where a padded or
    a transposed convolution with a kernel larger than 1 reads the tensor: one stays to carry the
    border, in every group that reads its own. Where several such tensors share channels, the
    carriers are chosen greedily, the channel that serves most tensors first;
(c) a depthwise channel whose output differs at the border is not constant, and stays;
(d) channels of attention heads (the summed ones of q and k, the given ones of v) go in equal
    numbers from every head that stays; a head goes whole when all that it gives can go.

The removable MACs are those of each layer, product of attention included, that has a removable
channel as an input or as an output: MACs(masked) - MACs(with the removable channels gone).
MACs of a convolution: kernel elements for each pair of channels and output position (a transposed
one: input position); of a linear or a product: its multiplications. One sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from removal_graph import Array, Graph, Session, random_input
from removal_torch import evaluate
from removal_walk import Labels, Product, Walk, walk

CONSTANT = 1e-6
ZERO = 1e-7
UNCHANGED = 1e-6
NO_GRADIENT = 1e-12
PROBES = 12
QUIET_PROBES = 2


@dataclass(frozen=True)
class Removable:
    """MACs before, and with everything removable gone; the classes that could go."""

    macs: int
    macs_left: int
    classes: frozenset[int]
    walk: Walk


def probe(graph: Graph) -> Removable:
    """Measure a masked graph."""
    found = walk(graph)
    spans = _spans(graph, found)
    unread = _unread(graph, found, [random_input(graph, seed) for seed in range(2)])
    gone = _removable(found, spans, unread)
    return Removable(macs(found, frozenset()), macs(found, gone), gone, found)


def graph_macs(graph: Graph) -> int:
    """MACs of a graph as it is."""
    return macs(walk(graph), frozenset())


def macs(found: Walk, gone: frozenset[int]) -> int:
    """MACs of one sample with the channels of some classes taken out."""
    total = 0
    for layer in found.layers:
        if layer.depthwise:
            total += layer.pair_macs * _kept(layer.gives, gone)
            continue
        for reads, gives in layer.by_group():
            total += layer.pair_macs * _kept(gives, gone) * _kept(reads, gone)
    for product in found.products:
        total += product.channel_macs * _kept(product.labels.ravel(), gone)
    return total


@dataclass(frozen=True)
class Width:
    """Input and output channels of a layer."""

    reads: int
    gives: int


def widths(found: Walk, gone: frozenset[int]) -> dict[str, Width]:
    """By layer's node name, with the channels of some classes taken out."""
    return {
        layer.node.name: Width(_kept(layer.reads, gone), _kept(layer.gives, gone))
        for layer in found.layers
    }


def _kept(labels: Labels, gone: frozenset[int]) -> int:
    return sum(label not in gone for label in labels.tolist())


@dataclass(frozen=True)
class Span:
    """Classes of one tensor: those whose channels are all constant, and all zero."""

    constant: frozenset[int]
    zero: frozenset[int]


def _spans(graph: Graph, found: Walk) -> dict[str, Span]:
    """By tensor that a layer or a product reads."""
    readers = {reader.node.output[0]: reader for reader in _readers(found)}
    noise = Noise(graph, readers, frozenset(readers), every_tensor=True)
    wanted = {layer.source for layer in found.layers}
    wanted |= {name for product in found.products for name in product.node.input}
    low: dict[str, Array] = {}
    high: dict[str, Array] = {}
    scales: dict[str, float] = {}
    varying: list[Read] = []
    for seed in range(PROBES):
        own = {graph.input_name: random_input(graph, seed)}
        values = {**own, **noise.run(own, varying if seed >= QUIET_PROBES else [], seed)}
        for name in wanted:
            low[name] = np.minimum(low.get(name, values[name]), values[name])
            high[name] = np.maximum(high.get(name, values[name]), values[name])
            if seed < QUIET_PROBES:
                scales[name] = max(scales.get(name, 0.0), float(np.abs(values[name]).max()))
        spans = {
            name: _span(found.labels[name], low[name], high[name], scales[name]) for name in wanted
        }
        sources = {layer.node.output[0]: layer.source for layer in found.layers}
        varying = [
            (name, label)
            for name, reader in readers.items()
            for label in set(reader.reads.ravel().tolist())
            - spans[sources.get(name, reader.node.input[0])].constant
        ]
    return spans


def _span(labels: Labels, low: Array, high: Array, scale: float) -> Span:
    """scale: the tensor's largest value without noise, which would hide what borders differ by."""
    uniform = tuple(axis for axis, size in enumerate(labels.shape) if size == 1)
    least, most = low.min(axis=uniform).ravel(), high.max(axis=uniform).ravel()
    constant = most - least <= CONSTANT * scale
    zero = constant & (np.maximum(abs(least), abs(most)) <= ZERO * scale)
    own = labels.ravel()
    everything = set(own.tolist())
    return Span(
        frozenset(everything - set(own[~constant].tolist())),
        frozenset(everything - set(own[~zero].tolist())),
    )


@dataclass(frozen=True)
class Reader:
    """A layer, or a product that sums over channels: label of each channel that it reads.

    reads: labels with size 1 along the axes they do not depend on, aligned to the first input.
    """

    node: onnx.NodeProto
    reads: Labels


def _readers(found: Walk) -> list[Reader]:
    """The walk's layers, in order, then its summing products."""
    readers = []
    for layer in found.layers:
        channels_first = layer.node.op_type.startswith("Conv")
        rank = found.labels[layer.node.input[0]].ndim
        shape = (1, -1, *(1,) * (rank - 2)) if channels_first else (*(1,) * (rank - 1), -1)
        readers.append(Reader(layer.node, layer.reads.reshape(shape)))
    for product in found.products:
        if product.contracts:
            rank = found.labels[product.node.input[0]].ndim
            heads, channels = product.labels.shape
            shape = (*(1,) * (rank - 3), heads, 1, channels)
            readers.append(Reader(product.node, product.labels.reshape(shape)))
    return readers


Read = tuple[str, int]
"""The first output of a reader's node, and a class that it may read."""


def _unread(graph: Graph, found: Walk, inputs: Sequence[Array]) -> frozenset[Read]:
    readers = {reader.node.output[0]: reader for reader in _readers(found)}
    suspects = _without_gradient(graph, readers, inputs)
    if not suspects:
        return frozenset()
    noise = Noise(graph, readers, frozenset(name for name, _ in suspects))
    inputs_by_name = {graph.input_name: random_input(graph, PROBES)}
    quiet = noise.run(inputs_by_name, [], 0)
    unread: set[Read] = set()
    groups = [suspects]
    while groups:
        group = groups.pop()
        if _equal(quiet, noise.run(inputs_by_name, group, 0)):
            unread.update(group)
        elif len(group) > 1:
            groups += [group[: len(group) // 2], group[len(group) // 2 :]]
    return frozenset(unread)


def _equal(quiet: Mapping[str, Array], noisy: Mapping[str, Array]) -> bool:
    """Up to rounding, relative to each output's largest value."""
    return all(
        float(np.abs(noisy[name] - values).max()) <= UNCHANGED * float(np.abs(values).max())
        for name, values in quiet.items()
    )


def _without_gradient(
    graph: Graph, readers: Mapping[str, Reader], inputs: Sequence[Array]
) -> list[Read]:
    """Classes that no output depends on through one reader, at the inputs tried."""
    largest: dict[str, Array] = {}
    for seed, one in enumerate(inputs):
        leaves: dict[str, torch.Tensor] = {}

        def tap(
            node: onnx.NodeProto, x: torch.Tensor, leaves: dict[str, torch.Tensor] = leaves
        ) -> torch.Tensor:
            if node.output[0] not in readers:
                return x
            leaves[node.output[0]] = torch.zeros_like(x, requires_grad=True)
            return x + leaves[node.output[0]]

        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros((), dtype=torch.float64)
        for output in evaluate(graph, one, tap):
            weight = torch.randn(output.shape, generator=generator, dtype=output.dtype)
            total = total + (output * weight).sum()
        total.backward()  # type: ignore[no-untyped-call]
        for name, leaf in leaves.items():
            gradient = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.abs().numpy()
            channels = _reduced(gradient, readers[name].reads)
            largest[name] = np.maximum(largest.get(name, channels), channels)
    suspects: list[Read] = []
    for name, channels in largest.items():
        labels = readers[name].reads
        read = channels > NO_GRADIENT * channels.max()
        unread = set(labels[~read].tolist()) - set(labels[read].tolist())
        suspects += [(name, label) for label in sorted(unread)]
    return suspects


def _reduced(values: Array, labels: Labels) -> Array:
    """The largest value along the axes where labels have size 1."""
    axes = tuple(axis for axis, size in enumerate(labels.shape) if size == 1)
    largest: Array = values.max(axis=axes, keepdims=True)
    return largest


class Noise:
    """The graph with a switch for noise in front of some readers, in ONNX Runtime.

    scales: largest value of each tensor on a random input; the noise is up to ten times as large.
    """

    def __init__(
        self,
        graph: Graph,
        readers: Mapping[str, Reader],
        chosen: frozenset[str],
        every_tensor: bool = False,
    ) -> None:
        self.readers = readers
        quiet = {graph.input_name: random_input(graph, PROBES)}
        values = {**quiet, **Session(graph.model).run(quiet)}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.scales: dict[str, float] = {}
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        nodes: list[onnx.NodeProto] = []
        for original in graph.model.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            name = node.output[0]
            if name in chosen:
                value = values[node.input[0]]
                self.shapes[name] = value.shape
                self.scales[name] = float(np.abs(value).max()) or 1.0
                model.graph.input.extend(
                    (
                        onnx.helper.make_tensor_value_info(
                            f"{name}.noise", onnx.TensorProto.FLOAT, value.shape
                        ),
                        onnx.helper.make_tensor_value_info(
                            f"{name}.on", onnx.TensorProto.BOOL, readers[name].reads.shape
                        ),
                    )
                )
                nodes.append(
                    onnx.helper.make_node(
                        "Where", [f"{name}.on", f"{name}.noise", node.input[0]], [f"{name}.noisy"]
                    )
                )
                node.input[0] = f"{name}.noisy"
            nodes.append(node)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        self.session = Session(model, every_tensor)

    def run(
        self, inputs: Mapping[str, Array], reads: Sequence[Read], seed: int
    ) -> dict[str, Array]:
        """The session's outputs by name, with noise in the channels of `reads`."""
        generator = np.random.default_rng(seed)
        chosen: dict[str, list[int]] = {name: [] for name in self.shapes}
        for name, label in reads:
            chosen[name].append(label)
        feeds = dict(inputs)
        for name, labels in chosen.items():
            own = self.readers[name].reads
            feeds[f"{name}.on"] = np.isin(own, labels)
            noise = np.zeros(self.shapes[name], np.float32)
            if labels:
                scale = self.scales[name] * 10.0 ** generator.uniform(-1.0, 1.0)
                noise += generator.standard_normal(own.shape, dtype=np.float32)
                noise += generator.standard_normal(noise.shape, dtype=np.float32)
                noise *= np.float32(scale)
            feeds[f"{name}.noise"] = noise
        return self.session.run(feeds)


def _removable(found: Walk, spans: Mapping[str, Span], unread: frozenset[Read]) -> frozenset[int]:
    everything = {label for layer in found.layers for label in layer.gives.tolist()}
    gone = everything - found.pinned
    for layer in found.layers:
        if not layer.depthwise:
            constant = spans[layer.source].constant
            gone -= {
                label
                for label in set(layer.reads.tolist()) - constant
                if (layer.node.output[0], label) not in unread
            }
    for product in found.products:
        if product.contracts:
            zero = spans[product.node.input[0]].zero | spans[product.node.input[1]].zero
            gone -= {
                label
                for label in set(product.labels.ravel().tolist()) - zero
                if (product.node.output[0], label) not in unread
            }
    gone -= _carriers(found, spans, unread, gone)
    return _with_even_heads(found.products, frozenset(gone))


def _carriers(
    found: Walk, spans: Mapping[str, Span], unread: frozenset[Read], gone: set[int]
) -> set[int]:
    """(b): a smallest set, greedily, that leaves each bordered tensor one constant to carry."""
    needs: dict[tuple[str, int, int], set[int]] = {}
    for layer in found.layers:
        if not layer.bordered or layer.depthwise:
            continue
        span = spans[layer.source]
        for group, (reads, _) in enumerate(layer.by_group()):
            constants = {
                label
                for label in set(reads.tolist()) & gone & (span.constant - span.zero)
                if (layer.node.output[0], label) not in unread
            }
            needs.setdefault((layer.source, layer.groups, group), set()).update(constants)
    open_needs = [constants for constants in needs.values() if constants]
    carriers: set[int] = set()
    while open_needs:
        count: dict[int, int] = {}
        for constants in open_needs:
            for label in constants:
                count[label] = count.get(label, 0) + 1
        best = max(sorted(count), key=lambda label: count[label])
        carriers.add(best)
        open_needs = [constants for constants in open_needs if best not in constants]
    return carriers


def _with_even_heads(products: Sequence[Product], gone: frozenset[int]) -> frozenset[int]:
    """(d): take back what would leave the heads that stay with unequal numbers."""
    left = set(gone)
    alive: dict[int, bool] = {}
    for product in products:
        if not product.contracts:
            for scores, labels in zip(product.scores, product.labels, strict=True):
                alive[int(scores)] = any(label not in left for label in labels.tolist())
    for product in products:
        rows = [
            labels.tolist()
            for scores, labels in zip(product.scores, product.labels, strict=True)
            if alive.get(int(scores), True)
        ]
        width = max((sum(label not in left for label in row) for row in rows), default=0)
        for row in rows:
            missing = width - sum(label not in left for label in row)
            dead = [label for label in row if label in left]
            left -= set(dead[:missing])
    return frozenset(left)
