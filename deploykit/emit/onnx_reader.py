"""Reads an ONNX file in QDQ form back into the integer network, refusing what it does not know.

Shares only constants with the writer, so that a round trip checks both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import NodeProto, TensorProto

from deploykit.emit.onnx_carriers import carrying_nodes
from deploykit.emit.onnx_file import parse_onnx
from deploykit.emit.onnx_format import (
    REGION_KEY,
    RUNTIME_KEY,
    STEM_KEY,
    TENSOR_KEY,
)
from deploykit.emit.onnx_operands import Operands
from deploykit.emit.onnx_parts import Parts, attribute
from deploykit.emit.onnx_reader_operators import read_operator
from deploykit.emit.onnx_reader_regions import find_regions
from deploykit.errors import GraphError
from deploykit.spec.carriers import BITS_KEY, Version
from deploykit.spec.operators import ArgMax, Embedding, Operator
from deploykit.spec.quantized import (
    ActivationTensor,
    IndexTensor,
    IoType,
    Port,
    Quantization,
    QuantizedNetwork,
    Tail,
    tail_axis,
)
from deploykit.spec.stem import stems_from_blocks

WHOLE_TYPES: Mapping[int, str] = {TensorProto.INT32: "int32", TensorProto.INT64: "int64"}
"""Of ports that hold whole numbers without a scale."""

IO_TYPES: Mapping[int, IoType] = {
    TensorProto.FLOAT: IoType.FLOAT,
    TensorProto.INT8: IoType.INT8,
    TensorProto.UINT8: IoType.UINT8,
}


TURNED = frozenset({"Gather", "Transpose"})
HELPERS = frozenset({"QuantizeLinear", "DequantizeLinear", "BitwiseNot", "Cast"})
"""Operators that stand for none of the network, but belong to those that read or fill them."""

TAILS: Mapping[str, Tail] = {"LogSoftmax": Tail.LOG_SOFTMAX, "Softmax": Tail.SOFTMAX}


def read_onnx(data: bytes) -> QuantizedNetwork:
    """The integer network in a file; whatever is wrong with it is a GraphError."""
    model = parse_onnx(data)
    try:
        return _Reader(model).network()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise GraphError(
            f"The ONNX file is damaged ({type(error).__name__}: {error}); write it again."
        ) from error


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.parts = Parts(model.graph)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        renamed = _by_prefix(metadata, TENSOR_KEY)
        self.tensors = {
            renamed.get(name, name): ActivationTensor(
                renamed.get(name, name), self.parts.shape(name), quantization
            )
            for name, quantization in self._quantizations().items()
        }
        self.operands = Operands(self.parts, self.tensors, renamed, _by_prefix(metadata, BITS_KEY))
        self.stems = {
            renamed.get(name, name): text for name, text in _by_prefix(metadata, STEM_KEY).items()
        }
        stated = metadata.get(RUNTIME_KEY)
        self.oldest = None if stated is None else Version.parse(stated)
        self.carrying = carrying_nodes(self.parts)
        self.regions = find_regions(self.parts, self.operands, _by_prefix(metadata, REGION_KEY))

    def network(self) -> QuantizedNetwork:
        """The integer network of the whole graph."""
        ends = {region.last: region for region in self.regions}
        inside = {name for region in self.regions for name in region.inner}
        operators = tuple(
            ends[node.name].operator if node.name in ends else read_operator(self.operands, node)
            for node in self.graph.node
            if node.name in ends
            or (
                node.op_type not in HELPERS
                and node.name not in inside
                and node.output[0] not in self.carrying
                and self._tail(node.output[0]) is None
                and not self._turned(node)
            )
        )
        network = QuantizedNetwork(
            self.tensors,
            operators,
            tuple(Port(value.name, self._input_tensor(value.name)) for value in self.graph.input),
            tuple(
                Port(value.name, self._output_tensor(value.name), self._tail(value.name))
                for value in self.graph.output
            ),
            self._io(),
            self.operands.constants,
            self.parts.batch,
            self._indices(operators),
            self.oldest,
        )
        self._check_complete(network)
        return stems_from_blocks(network, self.stems)

    def _io(self) -> IoType:
        every = (*self.graph.input, *self.graph.output)
        types = {self.parts.element_type(value.name) for value in every} - set(WHOLE_TYPES)
        if not types:
            return IoType.FLOAT
        if len(types) != 1 or not types <= set(IO_TYPES):
            raise GraphError(
                f"The ports have the element types {sorted(types)} of onnx.TensorProto; all must "
                "be float, or all int8, or all uint8."
            )
        return IO_TYPES[types.pop()]

    def _indices(self, operators: Sequence[Operator]) -> dict[str, IndexTensor]:
        """The whole numbers that the file takes, below its smallest table's rows, and gives."""
        answers = {one.output: one for one in operators if isinstance(one, ArgMax)}
        found = {}
        for value in self.graph.output:
            kind = self.parts.element_type(value.name)
            if kind not in WHOLE_TYPES:
                continue
            if value.name not in answers:
                raise GraphError(f"No ArgMax computes the whole numbers of {value.name!r}.")
            answer = answers[value.name]
            entries = self.tensors[answer.input].shape[answer.axis]
            shape = self.parts.shape(value.name)
            found[value.name] = IndexTensor(value.name, shape, entries, WHOLE_TYPES[kind])
        for value in self.graph.input:
            kind = self.parts.element_type(value.name)
            if kind not in WHOLE_TYPES:
                continue
            rows = [
                len(operator.table.values)
                for operator in operators
                if isinstance(operator, Embedding) and operator.input == value.name
            ]
            if not rows:
                raise GraphError(f"No table is read by the whole numbers of {value.name!r}.")
            shape = self.parts.shape(value.name)
            found[value.name] = IndexTensor(value.name, shape, min(rows), WHOLE_TYPES[kind])
        return found

    def _quantizations(self) -> dict[str, Quantization]:
        """By ONNX name of every uint8 activation; all that say something must say the same."""
        found = self.parts.annotated()
        for node in self.graph.node:
            match node.op_type:
                case "QuantizeLinear":
                    name = node.output[0]
                case "DequantizeLinear":
                    name = node.input[0]
                case _:
                    continue
            if self.parts.element_type(name) != TensorProto.UINT8:
                continue  # a weight, or a constant operand
            quantization = self.parts.quantization(node)
            if found.setdefault(name, quantization) != quantization:
                raise GraphError(
                    f"{node.op_type} {node.name!r} gives {name!r} {quantization}, another node "
                    f"{found[name]}; an integer tensor has one quantization."
                )
        return found

    def _input_tensor(self, port: str) -> str:
        """The integer tensor that a graph input becomes."""
        node = NodeProto(op_type="Port", name=port, output=[port])
        match self.parts.element_type(port):
            case kind if kind in WHOLE_TYPES:
                return port
            case TensorProto.UINT8:
                return self.operands.tensor(port)
            case TensorProto.INT8:
                node = self.parts.only_reader(node, "DequantizeLinear")
                into = self.operands.requantized(node)
                self._check_shift(self.parts.quantization(node), into, port)
                return into
            case _:
                return self.operands.requantized(node)

    def _output_tensor(self, port: str) -> str:
        """The integer tensor behind a graph output."""
        node = NodeProto(op_type="Port", name=port, input=[port])
        match self.parts.element_type(port):
            case kind if kind in WHOLE_TYPES:
                return port
            case TensorProto.UINT8:
                return self.operands.tensor(port)
            case TensorProto.INT8:
                node = self.parts.producer(port, node, "QuantizeLinear")
                source = self.operands.activation(node, 0)
                self._check_shift(self.parts.quantization(node), source, port)
                return source
            case _:
                if self._tail(port) is not None:
                    softmax = self.parts.producer(port, node, str(self.parts.made_by(port)))
                    if attribute(softmax, "axis", -1) != tail_axis(len(self.parts.shape(port))):
                        raise GraphError(
                            f"{softmax.op_type} {softmax.name!r} runs along another axis."
                        )
                    node = NodeProto(op_type="Port", name=port, input=[softmax.input[0]])
                return self.operands.activation(node, 0)

    def _tail(self, port: str) -> Tail | None:
        """What computes a float output behind the last integers."""
        public = any(value.name == port for value in self.graph.output)
        return TAILS.get(self.parts.made_by(port) or "") if public else None

    def _turned(self, node: NodeProto) -> bool:
        """Whether a node is the inside of a Gather along the last axis: no tensor of the network's.

        Whatever else lacks a quantization and is read by such a Gather is caught where it ends.
        """
        inner = node.op_type in TURNED and self.operands.tensor(node.output[0]) not in self.tensors
        return inner and not self.parts.is_output(node.output[0])

    def _check_shift(self, port: Quantization, tensor: str, name: str) -> None:
        if port != self.tensors[tensor].quantization:
            raise GraphError(
                f"The int8 port {name!r} has {port}, its tensor {tensor!r} has "
                f"{self.tensors[tensor].quantization}; both must mean the same integers."
            )

    def _check_complete(self, network: QuantizedNetwork) -> None:
        made = {operator.output for operator in network.operators}
        made |= {port.tensor for port in network.inputs}
        made -= network.indices.keys()
        ends = {port.tensor for port in network.outputs} - network.indices.keys()
        for name in (*made, *ends):
            if name not in network.tensors:
                raise GraphError(
                    f"Nothing in the file says what the integers of {name!r} mean; "
                    "add a quantization annotation for it."
                )
        for name in network.tensors:
            if name not in made:
                raise GraphError(f"No operator computes {name!r}; the file is not complete.")


def _by_prefix(metadata: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)
    }
