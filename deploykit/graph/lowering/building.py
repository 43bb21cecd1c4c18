"""New nodes in place of one that goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from deploykit.graph.edit import floats, fresh_name, set_initializer, take_over
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import Network


def replace_each(
    network: Network,
    fits: Callable[[ir.Node], bool],
    replace: Callable[[ir.Graph, ir.Node], None],
) -> Rewritten:
    """A pass that puts something else in the place of every node that fits.

    Constants that nobody reads any more go, with their variances. The very same network where no
    node fits.
    """
    if not any(fits(node) for node in network.model.graph):
        return Rewritten(network)
    model = network.model.clone()
    for node in list(model.graph):
        if fits(node):
            replace(model.graph, node)
    return Affine(model.graph, dict(network.variance)).finish(network, model)


def constant_behind(
    node: ir.Node, size: int, shape: tuple[int, ...]
) -> tuple[ir.Node, Float64Array]:
    """The last node of a product, which is an Add of a constant or itself, and the constant [size].

    shape: the constant's last axes, which say along which axis of the product it is added. Zeros
    where nothing of that shape is added, or anything else reads the product.
    """
    output, nothing = node.outputs[0], (node, np.zeros(size))
    uses = tuple(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.op_type != "Add":
        return nothing
    follower = uses[0].node
    values = floats(follower.inputs[1 - uses[0].idx])
    if values is None or values.size != size or values.shape[-len(shape) :] != shape:
        return nothing
    if values.ndim > len(output.shape or ()):
        return nothing
    return follower, np.asarray(values.reshape(-1), np.float64)


class Replacement:
    """Nodes that are put before `node`; the last one takes its output over.

    New tensors and constants are named after the output of the node that goes.
    """

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph = graph
        self._node = node
        self._name = str(node.outputs[0].name)

    def constant(self, suffix: str, array: AnyArray) -> ir.Value:
        """An initializer in the element type of the node's output, integers as they are."""
        kind = self._node.outputs[0].dtype
        if array.dtype.kind == "f" and kind is not None:
            array = array.astype(kind.numpy())
        return set_initializer(
            self._graph, fresh_name(self._graph, f"{self._name}.{suffix}"), array
        )

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        suffix: str,
        shape: Sequence[int],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """The output of a new node, of this shape."""
        made = ir.node(op_type, list(inputs), dict(attributes or {}))
        (output,) = made.outputs
        output.name = fresh_name(self._graph, f"{self._name}.{suffix}")
        output.shape, output.type = ir.Shape(list(shape)), self._node.outputs[0].type
        made.name = output.name
        self._graph.insert_before(self._node, made)
        return output

    def reshaped(self, value: ir.Value | None, suffix: str, shape: Sequence[int]) -> ir.Value:
        """The value in another shape."""
        sizes = self.constant(f"{suffix}.shape", np.array(shape, np.int64))
        return self.node("Reshape", [value, sizes], suffix, shape)

    def finish(self, result: ir.Value) -> None:
        """`result` stands for the node's output from now on; the node is gone."""
        producer = result.producer()
        take_over(self._graph, self._node.outputs[0], result)
        if producer is not None:
            producer.name = self._node.name or self._name
        self._graph.remove(self._node, safe=True)


def scalar(value: float, rank: int) -> AnyArray:
    """A number that broadcasts to any tensor of a rank: [1, 1, ...]."""
    return np.full((1,) * rank, value)
