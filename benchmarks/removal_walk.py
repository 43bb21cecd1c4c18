"""Which channels of a graph stand or fall together, found by pushing labels through it.

Every element of every tensor carries a label; 0 is the label of constants. A layer that mixes
channels (Conv, ConvTranspose, Gemm, MatMul) gives each of its output channels a new label. An
operator that only moves elements (Concat, Split, Reshape, Transpose, ...) is executed on the labels
themselves. An elementwise operator ties the labels that meet in it; what is tied is one class, and
a class is removed from all the tensors that hold it, or from none. Pinned: the classes of the
graph's input and outputs, and those that a normalization or a softmax runs over.

Nothing here knows how deploykit decides; the benchmark measures deploykit against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator
from removal_graph import Array, Graph, Session, attributes, random_input

Labels = npt.NDArray[np.int64]
"""Labels of a tensor, with size 1 along each axis that they do not depend on."""

SAME = frozenset((
    "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu",
    "Erf", "Softplus", "Sqrt", "Elu", "Exp", "Identity", "Dropout", "Cast", "CastLike", "Neg",
    "BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize",
    "Pad", "Abs", "Reciprocal", "Mish", "Swish",
))  # fmt: skip
JOINING = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum"))
MOVING = frozenset((
    "Concat", "Split", "Slice", "Gather", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
    "Expand", "DepthToSpace", "SpaceToDepth",
))  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A node that mixes channels by constant weights.

    reads: label of each input channel; gives: of each output channel; pair_macs: multiply-
    accumulates for one input and one output channel; depthwise: channel i is read by i alone;
    groups: of channels that read one another; bordered: a constant input channel gives another sum
    at a border or at another phase.
    """

    node: onnx.NodeProto
    source: str
    weight: str
    reads: Labels
    gives: Labels
    pair_macs: int
    depthwise: bool
    bordered: bool
    groups: int = 1

    def by_group(self) -> list[tuple[Labels, Labels]]:
        """(reads, gives) of every group."""
        pairs = zip(
            *(np.split(held, self.groups) for held in (self.reads, self.gives)), strict=True
        )
        return list(pairs)


@dataclass(frozen=True)
class Product:
    """A MatMul of two activations, one per head: labels [heads, channels] of what may shrink.

    contracts: the channels are the ones summed over (q and k); else the ones it gives (v). scores:
    label per head of the attention scores, which ties the two products of a head together.
    """

    node: onnx.NodeProto
    labels: Labels
    scores: Labels
    contracts: bool
    channel_macs: int


@dataclass(frozen=True)
class Walk:
    """labels: by tensor, each label the one of its class."""

    labels: Mapping[str, Labels]
    layers: tuple[Layer, ...]
    products: tuple[Product, ...]
    pinned: frozenset[int]


@dataclass
class _Classes:
    """Union-find over labels."""

    parent: list[int] = field(default_factory=lambda: [0])

    def fresh(self, count: int) -> Labels:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def find(self, label: int) -> int:
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def tie(self, a: Labels, b: Labels) -> None:
        a, b = np.broadcast_arrays(a, b)
        pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
        for one, other in pairs.T.tolist():
            if one and other:
                self.parent[self.find(one)] = self.find(other)

    def table(self) -> Labels:
        """The class of each label."""
        return np.array([self.find(label) for label in range(len(self.parent))])


def walk(graph: Graph) -> Walk:
    """Label the whole graph; shapes and indices are read off one run in ONNX Runtime.

    Raises NotImplementedError for an operator without a rule, and for transposed convolutions in
    groups.
    """
    values = Session(graph.model).run({graph.input_name: random_input(graph, 0)})
    return _Walker(graph, values).walk()


class _Walker:
    def __init__(self, graph: Graph, values: Mapping[str, Array]) -> None:
        self.graph = graph
        self.values = {**graph.constants, **values}
        self.classes = _Classes()
        self.labels: dict[str, Labels] = {}
        self.pinned: list[Labels] = []
        self.layers: list[Layer] = []
        self.products: list[Product] = []
        self.unpadded: dict[str, str] = {}

    def walk(self) -> Walk:
        shape = self.graph.input_shape
        own = self.classes.fresh(shape[1])
        self.labels[self.graph.input_name] = own.reshape(1, -1, *(1,) * (len(shape) - 2))
        self.pinned.append(own)
        for node in self.graph.nodes:
            if node.op_type != "Constant":
                self._visit(node)
        self.pinned += [self.labels[name].ravel() for name in self.graph.output_names]
        table = self.classes.table()

        def settled(labels: Labels) -> Labels:
            classes: Labels = table[labels]
            return classes

        pinned = settled(np.concatenate([labels.ravel() for labels in self.pinned]))
        return Walk(
            {name: settled(labels) for name, labels in self.labels.items()},
            tuple(
                Layer(
                    layer.node, layer.source, layer.weight, settled(layer.reads),
                    settled(layer.gives), layer.pair_macs, layer.depthwise, layer.bordered,
                    layer.groups,
                )
                for layer in self.layers
            ),
            tuple(
                Product(
                    item.node, settled(item.labels), settled(item.scores), item.contracts,
                    item.channel_macs,
                )
                for item in self.products
            ),
            frozenset(pinned.tolist()) - {0},
        )  # fmt: skip

    def _visit(self, node: onnx.NodeProto) -> None:
        if self.values[node.output[0]].dtype.kind != "f":
            for name in node.output:
                self._give(name, np.zeros((1,) * self.values[name].ndim, np.int64))
            return
        if node.op_type in SAME:
            self._same(node)
        elif node.op_type in JOINING:
            self._join(node)
        elif node.op_type in MOVING:
            self._move(node)
        elif node.op_type in RULES:
            RULES[node.op_type](self, node)
        else:
            raise NotImplementedError(f"{node.op_type} {node.name}: the walk has no rule")

    def of(self, name: str) -> Labels:
        """Compact labels of a tensor; zeros for a constant."""
        if name in self.labels:
            return self.labels[name]
        return np.zeros((1,) * self.values[name].ndim, np.int64)

    def wide(self, name: str) -> Labels:
        """Labels of every element."""
        return np.broadcast_to(self.of(name), self._shape(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.graph.input_shape if name == self.graph.input_name else self.values[name].shape

    def _give(self, name: str, labels: Labels) -> None:
        for axis in range(labels.ndim):
            first = labels.take([0], axis)
            if labels.shape[axis] > 1 and np.array_equal(
                labels, np.broadcast_to(first, labels.shape)
            ):
                labels = first
        self.labels[name] = labels

    def _same(self, node: onnx.NodeProto) -> None:
        labels = self.of(node.input[0])
        if node.op_type == "PRelu":
            self._join(node)
            return
        for axis in range(2, labels.ndim):
            if node.op_type in WINDOWED:
                labels = self._uniform(labels, axis)
        self._give(node.output[0], labels)
        if node.op_type == "Pad":
            self.unpadded[node.output[0]] = self.unpadded.get(node.input[0], node.input[0])

    def _uniform(self, labels: Labels, axis: int) -> Labels:
        """Tie what differs along an axis that an operator mixes or slides over."""
        first = labels.take([0], axis)
        self.classes.tie(labels, first)
        return first

    def _join(self, node: onnx.NodeProto) -> None:
        joined = self.of(node.input[0])
        for name in node.input[1:]:
            other = self.of(name)
            self.classes.tie(*np.broadcast_arrays(*_aligned(joined, other)))
            left, right = _aligned(joined, other)
            joined = np.where(left == 0, right, left)
        self._give(node.output[0], joined)

    def _move(self, node: onnx.NodeProto) -> None:
        moved = 1 if node.op_type != "Concat" else len(node.input)
        feeds: dict[str, Array] = {}
        for index, name in enumerate(node.input):
            if name:
                feeds[name] = np.array(self.wide(name)) if index < moved else self.values[name]
        ports = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), None
            )
            for name, value in feeds.items()
        ]
        outputs = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
            for name in node.output
        ]
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "one", ports, outputs),
            opset_imports=self.graph.model.opset_import,
        )
        results: Any = ReferenceEvaluator(model).run(None, feeds)
        for name, labels in zip(node.output, results, strict=True):
            self._give(name, labels)

    def conv(self, node: onnx.NodeProto) -> None:
        """Conv and ConvTranspose."""
        options = attributes(node)
        weight = self.values[node.input[1]]
        group = options.get("group", 1)
        source = node.input[0]
        labels = self.of(source)
        for axis in range(2, labels.ndim):
            labels = self._uniform(labels, axis)
        reads = np.broadcast_to(labels.reshape(-1), (self._shape(source)[1],))
        output = self.values[node.output[0]]
        transposed = node.op_type == "ConvTranspose"
        depthwise = group > 1 and group == len(reads)
        if group > 1 and transposed:
            raise NotImplementedError(f"{node.name}: transposed and grouped")
        kernel = int(np.prod(weight.shape[2:]))
        if depthwise:
            gives = np.repeat(reads, output.shape[1] // group)
        else:
            gives = self.classes.fresh(output.shape[1])
        positions = self._shape(source)[2:] if transposed else output.shape[2:]
        padded = any(options.get("pads", ())) or b"SAME" in options.get("auto_pad", b"")
        origin = self.unpadded.get(source, source)
        bordered = kernel > 1 and (padded or transposed or origin != source)
        self.layers.append(
            Layer(
                node, origin, node.input[1], reads, gives,
                kernel * int(np.prod(positions)), depthwise, bordered, 1 if depthwise else group,
            )
        )  # fmt: skip
        self._give(node.output[0], gives.reshape(1, -1, *(1,) * (output.ndim - 2)))

    def linear(self, node: onnx.NodeProto) -> None:
        """Gemm and MatMul by a constant: over the last axis."""
        if node.op_type == "MatMul" and node.input[1] not in self.graph.constants:
            self._product(node)
            return
        weight = self.values[node.input[1]]
        transposed = node.op_type == "Gemm" and attributes(node).get("transB", 0)
        source, output = node.input[0], self.values[node.output[0]]
        labels = self.of(source)
        for axis in range(labels.ndim - 1):
            labels = self._uniform(labels, axis)
        reads = np.broadcast_to(labels.reshape(-1), (self._shape(source)[-1],))
        gives = self.classes.fresh(weight.shape[0 if transposed else 1])
        positions = int(np.prod(output.shape[:-1]))
        self.layers.append(
            Layer(node, source, node.input[1], reads, gives, positions, False, False)
        )
        self._give(node.output[0], gives.reshape((1,) * (output.ndim - 1) + (-1,)))

    def _product(self, node: onnx.NodeProto) -> None:
        """Two activations: the labels vary along the summed axis (scores), or along the last."""
        left, right = self.of(node.input[0]), self.of(node.input[1])
        a, b = self.values[node.input[0]], self.values[node.input[1]]
        output = self.values[node.output[0]]
        heads = int(np.prod(output.shape[:-2]))
        macs = output.shape[-2] * b.shape[-1]
        if left.shape[-1] > 1 or right.shape[-2] > 1:
            left, right = self._uniform(left, left.ndim - 2), self._uniform(right, right.ndim - 1)
            self.classes.tie(left[..., 0, :], right[..., :, 0])
            summed = np.broadcast_to(left[..., 0, :], (*output.shape[:-2], a.shape[-1]))
            scores = self.classes.fresh(heads)
            self.products.append(Product(node, summed.reshape(heads, -1), scores, True, macs))
            self._give(node.output[0], scores.reshape(*output.shape[:-2], 1, 1))
            return
        given = np.broadcast_to(right[..., 0, :], (*output.shape[:-2], b.shape[-1]))
        scores = np.broadcast_to(left[..., 0, 0], output.shape[:-2])
        self.products.append(
            Product(
                node, given.reshape(heads, -1), scores.reshape(heads), False,
                output.shape[-2] * a.shape[-1],
            )
        )  # fmt: skip
        self._give(node.output[0], given[..., None, :])

    def softmax(self, node: onnx.NodeProto) -> None:
        """What it runs over is pinned where it is channels."""
        self._pin_along(node, [attributes(node).get("axis", -1)])
        self._give(node.output[0], self.of(node.input[0]))

    def layer_norm(self, node: onnx.NodeProto) -> None:
        """From its axis to the last."""
        first = attributes(node).get("axis", -1)
        rank = self.of(node.input[0]).ndim
        self._pin_along(node, list(range(first % rank, rank)))
        self._give(node.output[0], self.of(node.input[0]))

    def reduce(self, node: onnx.NodeProto) -> None:
        """A mean over positions keeps labels; one over channels pins them."""
        options = attributes(node)
        given = self.values[node.input[1]].tolist() if len(node.input) > 1 else options.get("axes")
        labels = self.of(node.input[0])
        axes = [axis % labels.ndim for axis in given or range(labels.ndim)]
        over = [axis for axis in axes if labels.shape[axis] > 1]
        self._pin_along(node, over)
        for axis in over:
            labels = labels.take([0], axis) * 0
        if not options.get("keepdims", 1):
            labels = labels.squeeze(tuple(axes))
        self._give(node.output[0], labels)

    def _pin_along(self, node: onnx.NodeProto, axes: list[int]) -> None:
        labels = self.of(node.input[0])
        if any(labels.shape[axis] > 1 for axis in axes):
            self.pinned.append(labels.ravel())


WINDOWED = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize"))
RULES: Mapping[str, Callable[[_Walker, onnx.NodeProto], None]] = {
    "Conv": _Walker.conv,
    "ConvTranspose": _Walker.conv,
    "Gemm": _Walker.linear,
    "MatMul": _Walker.linear,
    "Softmax": _Walker.softmax,
    "LayerNormalization": _Walker.layer_norm,
    "ReduceMean": _Walker.reduce,
}


def _aligned(a: Labels, b: Labels) -> tuple[Labels, Labels]:
    """Both with the larger number of axes, ones in front."""
    rank = max(a.ndim, b.ndim)
    return a.reshape((1,) * (rank - a.ndim) + a.shape), b.reshape((1,) * (rank - b.ndim) + b.shape)
