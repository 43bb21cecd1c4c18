"""One node per case: the operators of the float evaluator, over their attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network

IMAGE = (1, 4, 9, 8)

Draw = Literal["normal", "positive", "halves", "integers", "indices", "booleans", "odd"]
"""What inputs are drawn from; halves hit the ties of rounding and comparing, odd are no numbers."""


def weights(*shape: int) -> AnyArray:
    """Normal float32 numbers, equal every time."""
    return np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)


def integers(*values: int) -> AnyArray:
    """A 1-D int64 tensor."""
    return np.array(values, dtype=np.int64)


def number(value: float) -> AnyArray:
    """A float32 scalar."""
    return np.array(value, dtype=np.float32)


def numbers(*values: float) -> AnyArray:
    """A 1-D float32 tensor."""
    return np.array(values, dtype=np.float32)


@dataclass(frozen=True)
class Row:
    """One node under test: operator, attributes, constants behind its first input.

    outputs: how many the node names. values: what the first input is drawn from.
    """

    op_type: str
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[AnyArray | None, ...] = ()
    shape: tuple[int, ...] = IMAGE
    opset: int = 17
    outputs: int = 1
    values: Draw = "normal"

    def __str__(self) -> str:
        written = [f"{key}={value}" for key, value in self.attributes.items() if key != "value"]
        return "-".join([self.op_type, *written, f"rank{len(self.shape)}", str(self.opset)])

    def network(self) -> Network:
        """The node between the graph input x and the graph outputs y, y1, y2, ..."""
        names = [f"c{i}" if c is not None else "" for i, c in enumerate(self.constants)]
        outputs = ["y", *(f"y{index}" for index in range(1, self.outputs))]
        node = helper.make_node(self.op_type, ["x", *names], outputs, name="n", **self.attributes)
        return graph(
            [node],
            self.shape,
            {n: c for n, c in zip(names, self.constants, strict=True) if c is not None},
            self.opset,
            outputs,
            onnx.helper.np_dtype_to_tensor_dtype(self.inputs().dtype),
        )

    def inputs(self) -> AnyArray:
        """Values for x, equal every time."""
        generator = np.random.default_rng(4)
        match self.values:
            case "normal":
                return generator.normal(0, 1, self.shape).astype(np.float32)
            case "positive":
                return generator.uniform(0.1, 3, self.shape).astype(np.float32)
            case "halves":
                return (generator.integers(-6, 7, self.shape) / 2).astype(np.float32)
            case "integers":
                return generator.integers(-9, 10, self.shape)
            case "indices":
                return generator.integers(0, 4, self.shape)
            case "booleans":
                return generator.integers(0, 2, self.shape).astype(np.bool_)
            case "odd":
                return generator.choice(numbers(np.nan, np.inf, -np.inf, 0, 1), self.shape)
        assert_never(self.values)


def recurrent(op_type: str, gates: int, **attributes: int) -> list[Row]:
    """A layer of 5 units over 7 times of 3 sequences: forward, backward, both, from a state."""
    made = []
    for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        constants = (
            weights(count, gates * 5, 4), weights(count, gates * 5, 5),
            weights(count, 2 * gates * 5),
        )  # fmt: skip
        state = (None, weights(count, 3, 5))
        own = {**attributes, "hidden_size": 5, "direction": direction}
        made.append(Row(op_type, own, constants, (7, 3, 4), outputs=2))
        made.append(Row(op_type, own, (*constants, *state), (7, 3, 4), outputs=2))
    return made


def graph(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str, ...],
    constants: dict[str, AnyArray],
    opset: int = 17,
    outputs: list[str] | None = None,
    element: int = TensorProto.FLOAT,
) -> Network:
    """Nodes from the graph input x to outputs (y alone where none are named)."""
    return network(nodes, {"x": (element, shape)}, constants, outputs or ["y"], opset)


def network(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, tuple[int | str, ...]]],
    constants: dict[str, AnyArray],
    outputs: list[str],
    opset: int = 17,
) -> Network:
    """Nodes from typed graph inputs to graph outputs."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(made, opset_imports=imports, ir_version=8 if opset <= 17 else 10)
    return Network(ir.from_proto(onnx.shape_inference.infer_shapes(model)), {})


UP = numbers(1, 1, 2, 3)
DOWN = numbers(1, 1, 0.5, 0.75)
ODD = numbers(1, 1, 1.3, 0.6)
SIZES = integers(1, 4, 13, 5)


def resized(*constants: AnyArray | None, opset: int = 17, **attributes: Any) -> Row:
    """A Resize without a region of interest."""
    return Row("Resize", attributes, (None, *constants), opset=opset)


def elementwise() -> tuple[Row, ...]:
    """Operators of one element at a time."""
    plain = (
        "Abs Ceil Celu Cos Elu Erf Exp Floor HardSigmoid HardSwish Identity LeakyRelu Neg "
        "Reciprocal Relu Selu Sigmoid Sign Sin Softplus Softsign Tanh ThresholdedRelu"
    )
    pairs = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"]
    compared = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
    return (
        *(Row(op_type) for op_type in plain.split()),
        *(Row(op_type, {}, (weights(4, 1, 1),)) for op_type in pairs),
        *(Row(op_type, {}, (weights(1, 4, 1, 1), weights(8))) for op_type in pairs[4:]),
        *(Row(op_type, {}, (weights(8).round(),), values="halves") for op_type in compared),
        *(
            Row(op_type, {}, (np.arange(8) > 3,), values="booleans")
            for op_type in ("And", "Or", "Xor")
        ),
        Row("Not", values="booleans"),
        Row("IsNaN", values="odd"),
        Row("Add", {}, (weights(1),), (1, 4)),
        Row("Div", {}, (integers(2, -3, 4, -5, 6, 7, -8, 9),), values="integers"),
        Row("Mod", {}, (integers(2, -3, 4, -5, 6, 7, -8, 9),), values="integers"),
        Row("Mod", {"fmod": 1}, (numbers(2, -3, 4, -5, 6, 7, -8, 9),)),
        Row("Sqrt", values="positive"),
        Row("Log", values="positive"),
        Row("Pow", {}, (numbers(0.5),), values="positive"),
        Row("Pow", {}, (numbers(2.0),), values="integers"),
        Row("Round", values="halves"),
        Row("Mish", opset=18),
        Row("Gelu", opset=20),
        Row("Gelu", {"approximate": "tanh"}, opset=20),
        Row("Swish", {"alpha": 1.5}, opset=24),
        Row("Elu", {"alpha": 0.3}),
        Row("Celu", {"alpha": 0.7}),
        Row("Selu", {"alpha": 1.5, "gamma": 0.5}),
        Row("LeakyRelu", {"alpha": 0.2}),
        Row("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        Row("PRelu", {}, (weights(4, 1, 1),)),
        Row("PRelu", {}, (weights(1),)),
        Row("Clip", {}, (number(-0.5), number(0.75))),
        Row("Clip", {}, (None, number(0.75))),
        Row("Clip", {}, (number(0.1),)),
        Row("Clip", {"min": -0.5, "max": 0.25}, opset=10),
        Row("Clip", {"max": 0.25}, opset=9),
        Row("Where", {}, (weights(4, 1, 1), weights(1)), values="booleans"),
        Row("Cast", {"to": TensorProto.INT64}, values="halves"),
        Row("Cast", {"to": TensorProto.BOOL}, values="halves"),
        Row("Cast", {"to": TensorProto.FLOAT}, values="integers"),
        Row("Dropout"),
        Row("Dropout", {"ratio": 0.5}, opset=10),
    )


def windows() -> tuple[Row, ...]:
    """Convolutions and pools."""
    return (
        Row("Conv", {"pads": [1, 1, 1, 1]}, (weights(6, 4, 3, 3), weights(6))),
        Row("Conv", {}, (weights(6, 4, 1, 1), weights(6))),
        Row("Conv", {"strides": [2, 2]}, (weights(6, 4, 1, 1),)),
        Row("Conv", {"pads": [1, 0, 0, 1]}, (weights(6, 4, 1, 1),)),
        Row("Conv", {"strides": [2, 1], "pads": [0, 1, 2, 0]}, (weights(6, 4, 3, 3),)),
        Row("Conv", {"dilations": [2, 2]}, (weights(6, 4, 3, 2), weights(6))),
        Row("Conv", {"group": 2}, (weights(6, 2, 3, 3), weights(6))),
        Row("Conv", {"group": 2}, (weights(6, 2, 1, 1),), (3, 4, 17, 16)),
        Row("Conv", {"group": 4, "pads": [1, 1, 1, 1]}, (weights(4, 1, 3, 3),), (3, 4, 9, 8)),
        Row("Conv", {"group": 4}, (weights(8, 1, 3, 3), weights(8)), (2, 4, 9, 8)),
        Row("Conv", {"group": 4, "strides": [2, 2]}, (weights(24, 1, 3, 3),)),
        Row("Conv", {"group": 4, "dilations": [2, 1]}, (weights(4, 1, 3, 3),)),
        Row("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (weights(6, 4, 3, 3),)),
        Row("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (weights(6, 4, 2, 4),)),
        Row("Conv", {"auto_pad": "VALID"}, (weights(6, 4, 3, 3),)),
        Row("Conv", {"pads": [1, 1, 1, 1]}, (weights(32, 64, 3, 3),), (2, 64, 40, 40)),
        Row("Conv", {"pads": [2, 1], "strides": [2]}, (weights(6, 4, 5), weights(6)), (1, 4, 20)),
        Row("Conv", {"group": 4, "pads": [2, 0]}, (weights(4, 1, 3),), (2, 4, 20)),
        Row("Conv", {"pads": [1, 1, 0, 1, 0, 1]}, (weights(6, 4, 3, 2, 2),), (2, 4, 5, 6, 7)),
        Row("Conv", {"group": 4, "strides": [2, 1, 1]}, (weights(4, 1, 3, 2, 2),), (2, 4, 5, 6, 7)),
        Row("ConvTranspose", {}, (weights(4, 6, 3, 3), weights(6))),
        Row("ConvTranspose", {"strides": [2, 2]}, (weights(4, 6, 2, 2),), (2, 4, 5, 6)),
        Row("ConvTranspose", {"strides": [2, 3], "pads": [1, 0, 0, 2]}, (weights(4, 6, 4, 3),)),
        Row("ConvTranspose", {"strides": [2, 2], "group": 2}, (weights(4, 3, 3, 3), weights(6))),
        Row("ConvTranspose", {"strides": [2, 2], "group": 4}, (weights(4, 1, 4, 4),)),
        Row(
            "ConvTranspose",
            {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
            (weights(4, 6, 3, 3), weights(6)),
        ),
        Row("ConvTranspose", {"dilations": [2, 1], "pads": [1, 0, 1, 0]}, (weights(4, 6, 3, 3),)),
        Row("ConvTranspose", {"strides": [2, 2], "output_shape": [18, 17]}, (weights(4, 6, 3, 3),)),
        Row(
            "ConvTranspose",
            {"strides": [2, 2], "output_shape": [18, 16], "auto_pad": "SAME_UPPER"},
            (weights(4, 6, 3, 3),),
        ),
        Row("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, (weights(4, 6, 3, 3),)),
        Row("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (weights(4, 6, 3, 3),)),
        Row("ConvTranspose", {"auto_pad": "VALID"}, (weights(4, 6, 3, 3),)),
        Row("ConvTranspose", {"strides": [3], "pads": [1, 1]}, (weights(4, 6, 5),), (1, 4, 20)),
        Row("ConvTranspose", {"strides": [2, 1, 2]}, (weights(4, 6, 2, 3, 2),), (1, 4, 3, 4, 5)),
        Row("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        Row("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        Row("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        Row("MaxPool", {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}),
        Row("MaxPool", {"kernel_shape": [3], "dilations": [2]}, shape=(1, 4, 20)),
        Row("MaxPool", {"kernel_shape": [2, 3, 2]}, shape=(1, 4, 5, 6, 7)),
        Row("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        Row("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
        Row("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        Row(
            "AveragePool",
            {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
        ),
        Row("AveragePool", {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        Row("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 3]}, opset=19),
        Row("AveragePool", {"kernel_shape": [2, 3, 2]}, shape=(1, 4, 5, 6, 7)),
        Row("GlobalAveragePool"),
        Row("GlobalAveragePool", shape=(2, 4, 9)),
        Row("GlobalMaxPool"),
    )


def linear() -> tuple[Row, ...]:
    """Matrix products and attention."""
    key, value = weights(2, 3, 7, 8), weights(2, 3, 7, 5)
    mask = weights(7, 7)
    return (
        Row("Gemm", {}, (weights(12, 5), weights(5)), (3, 12)),
        Row(
            "Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, (weights(5, 12), weights(5)), (3, 12)
        ),
        Row("Gemm", {"transA": 1}, (weights(3, 5),), (3, 12)),
        Row("Gemm", {}, (weights(12, 5), weights(3, 1)), (3, 12)),
        Row("MatMul", {}, (weights(8, 5),)),
        Row("MatMul", {}, (weights(8),)),
        Row("MatMul", {}, (weights(2, 1, 8, 5),), (4, 9, 8)),
        Row("MatMul", {}, (weights(8, 5),), (8,)),
        Row("Einsum", {"equation": "bchw,hk->bckw"}, (weights(9, 5),)),
        Row("Einsum", {"equation": "bchw,bcij->bhwij"}, (weights(1, 4, 3, 2),)),
        Row("Attention", {}, (key, value), (2, 3, 6, 8), 23),
        Row("Attention", {"is_causal": 1, "scale": 0.3}, (key, value), (2, 3, 7, 8), 23),
        Row("Attention", {"softcap": 0.7}, (key, value, mask), (2, 3, 7, 8), 23),
        Row("Attention", {}, (key, value, mask > 0), (2, 3, 7, 8), 23),
        Row("Attention", {}, (weights(2, 1, 7, 8), weights(2, 1, 7, 5)), (2, 3, 7, 8), 23),
        Row(
            "Attention",
            {"q_num_heads": 4, "kv_num_heads": 2},
            (weights(2, 7, 6), weights(2, 7, 10)),
            (2, 5, 12),
            23,
        ),
        Row(
            "Attention",
            {"is_causal": 1},
            (key, value, None, weights(2, 3, 2, 8), weights(2, 3, 2, 5)),
            (2, 3, 7, 8),
            23,
            3,
        ),
    )


def normalizations() -> tuple[Row, ...]:
    """Statistics of the input, or stored ones."""
    four, eight = weights(4), weights(8)
    return (
        Row("BatchNormalization", {"epsilon": 1e-3}, (four, four, four, np.abs(four))),
        Row("BatchNormalization", {}, (four, four, four, np.abs(four)), (3, 4)),
        Row("InstanceNormalization", {"epsilon": 1e-3}, (four, weights(4))),
        Row("InstanceNormalization", {}, (four, four), (2, 4, 20)),
        Row("GroupNormalization", {"num_groups": 2}, (numbers(1, 2), numbers(3, 4)), opset=18),
        Row("GroupNormalization", {"num_groups": 2}, (four, four), opset=21),
        *recurrent("GRU", 3, linear_before_reset=1),
        *recurrent("GRU", 3, linear_before_reset=0),
        *recurrent("LSTM", 4),
        Row("LayerNormalization", {}, (eight, eight)),
        Row("LayerNormalization", {"axis": 2, "epsilon": 1e-3}, (weights(9, 8),)),
        Row("LayerNormalization", {"axis": -1}, (eight,), outputs=3),
        Row("RMSNormalization", {"axis": -2}, (weights(9, 8),), opset=23),
        Row("LpNormalization", {"axis": 1}),
        Row("LpNormalization", {"axis": -1, "p": 1}),
        Row("LRN", {"size": 3}),
        Row("LRN", {"size": 5, "alpha": 0.5, "beta": 0.6, "bias": 2.0}),
        Row("Softmax"),
        Row("Softmax", {"axis": 1}),
        Row("Softmax", opset=11),
        Row("LogSoftmax", {"axis": 1}),
        Row("LogSoftmax", {"axis": 2}, opset=11),
    )


def reductions() -> tuple[Row, ...]:
    """Fewer elements along some axes."""
    kinds = ["L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"]
    return (
        *(Row(f"Reduce{kind}", {"axes": [2, -1], "keepdims": 0}) for kind in kinds),
        *(Row(f"Reduce{kind}", {}, (integers(1),), opset=18) for kind in kinds),
        Row("ReduceMean"),
        Row("ReduceMean", {"axes": [-1]}),
        Row("ReduceMean", {"noop_with_empty_axes": 1}, opset=18),
        Row("ReduceSum", {"axes": [1], "keepdims": 0}, opset=11),
        Row("ReduceSum", {"keepdims": 0}, (integers(2, 3),)),
        Row("ArgMax", {"axis": 1}, values="halves"),
        Row("ArgMax", {"axis": -1, "keepdims": 0, "select_last_index": 1}, values="halves"),
        Row("ArgMin", {"axis": 2}, values="halves"),
        Row("TopK", {"axis": 1}, (integers(2),), values="halves", outputs=2),
        Row("TopK", {"largest": 0}, (integers(3),), values="halves", outputs=2),
        Row("CumSum", {}, (np.array(1),)),
        Row("CumSum", {"exclusive": 1, "reverse": 1}, (np.array(-1),)),
    )


def shapes() -> tuple[Row, ...]:
    """Values moved, repeated, picked."""
    picked = np.random.default_rng(5).integers(0, 4, (1, 2, 9, 5))
    pairs = np.array([[0, 1, 2], [0, 3, -1]])
    return (
        Row("Flatten"),
        Row("Flatten", {"axis": 2}),
        Row("Flatten", {"axis": -1}),
        Row("Flatten", {"axis": 0}),
        Row("Reshape", {}, (integers(1, -1),)),
        Row("Reshape", {}, (integers(0, 2, 2, -1),)),
        Row("Transpose", {"perm": [0, 2, 3, 1]}),
        Row("Transpose"),
        Row("Squeeze", {}, (integers(2),), (1, 4, 1, 8)),
        Row("Squeeze", {"axes": [2]}, (), (1, 4, 1, 8), 11),
        Row("Squeeze", {}, (), (1, 4, 1, 8)),
        Row("Unsqueeze", {}, (integers(2, 4),)),
        Row("Unsqueeze", {"axes": [-1]}, opset=11),
        Row("Concat", {"axis": 1}, (weights(1, 3, 9, 8),)),
        Row("Concat", {"axis": -1}, (weights(1, 4, 9, 2), weights(1, 4, 9, 3))),
        Row("Split", {"axis": 1}, outputs=2),
        Row("Split", {"axis": 1}, (integers(1, 3),), outputs=2),
        Row("Split", {"axis": 1, "split": [3, 1]}, opset=11, outputs=2),
        Row("Split", {"axis": 2, "num_outputs": 4}, opset=18, outputs=4),
        Row("Slice", {}, (integers(1, -3), integers(3, 99), integers(1, 2))),
        Row("Slice", {}, (integers(0, 1), integers(1, 4))),
        Row("Slice", {}, (integers(-1), integers(-999), integers(3), integers(-2))),
        Row("Slice", {}, (integers(7), integers(1), integers(2), integers(-3))),
        Row("Slice", {"starts": [1], "ends": [-1], "axes": [3]}, opset=9),
        Row("Gather", {"axis": 1}, (integers(2, 0, -1),)),
        Row("Gather", {"axis": 1}, (np.array(2),)),
        Row("Gather", {"axis": 3}, (np.array([[0, 1], [5, 2]]),)),
        Row("GatherElements", {"axis": 1}, (picked,)),
        Row("GatherND", {}, (pairs,)),
        Row("GatherND", {"batch_dims": 1}, (np.array([[1, -2]]),)),
        Row("ScatterND", {}, (pairs, weights(2, 8)), opset=18),
        Row(
            "ScatterND", {"reduction": "add"}, (np.array([[0], [0]]), weights(2, 4, 9, 8)), opset=18
        ),
        Row("Expand", {}, (integers(3, 1, 4, 9, 8),)),
        Row("Expand", {}, (integers(5, 1),), (1, 8)),
        Row("Tile", {}, (integers(1, 2, 1, 3),)),
        Row("Trilu"),
        Row("Trilu", {"upper": 0}, (np.array(-1),)),
        Row("Pad", {}, (integers(0, 0, 1, 2, 0, 0, 3, 0), number(1.5))),
        Row("Pad", {}, (integers(0, 0, -1, 2, 0, 0, 3, -2),)),
        Row("Pad", {}, (integers(1, 2, 3, 0), None, integers(2, -1)), opset=18),
        Row("Pad", {"mode": "reflect"}, (integers(0, 0, 1, 2, 0, 0, 3, 0),)),
        Row("Pad", {"mode": "edge"}, (integers(0, 0, 1, 2, 0, 0, 3, 0),)),
        Row("Pad", {"mode": "wrap"}, (integers(0, 0, 1, 2, 0, 0, 3, 0),), opset=19),
        Row("Pad", {"pads": [0, 0, 1, 2, 0, 1, 0, 0], "value": 0.5}, opset=10),
        Row("DepthToSpace", {"blocksize": 2}),
        Row("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, shape=(2, 12, 3, 4)),
        Row("DepthToSpace", {"blocksize": 2, "mode": "DCR"}, shape=(2, 12, 3, 4)),
        Row("SpaceToDepth", {"blocksize": 2}, shape=(2, 3, 6, 4)),
        Row("Shape"),
        Row("Shape", {"start": 1, "end": -1}),
        Row("Size"),
        Row("ConstantOfShape", {}, (), (2,), values="indices"),
        Row(
            "ConstantOfShape",
            {"value": helper.make_tensor("v", TensorProto.INT64, [1], [7])},
            (),
            (2,),
            values="indices",
        ),
        Row("Range", {}, (np.array(20), np.array(3)), (), values="indices"),
        Row("Range", {}, (number(-3), number(-0.4)), ()),
    )


def resizes() -> tuple[Row, ...]:
    """Interpolations, with the modes that exporters write."""
    asymmetric: dict[str, Any] = {
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return (
        *(
            resized(scales, mode=mode, coordinate_transformation_mode=coordinates)
            for mode in ("linear", "cubic")
            for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
            for scales in (UP, DOWN, ODD)
        ),
        *(
            resized(None, SIZES, mode=mode, coordinate_transformation_mode="half_pixel")
            for mode in ("nearest", "linear", "cubic")
        ),
        *(
            resized(UP, mode="nearest", nearest_mode=rounding)
            for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        ),
        *(resized(scales, mode="nearest", **asymmetric) for scales in (UP, DOWN, ODD)),
        resized(ODD, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
        resized(None, integers(1, 4, 1, 16), mode="linear", opset=18),
        resized(
            None,
            integers(1, 4, 1, 1),
            mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        ),
        resized(
            ODD, mode="linear", coordinate_transformation_mode="half_pixel_symmetric", opset=19
        ),
        resized(numbers(2, 3), mode="linear", axes=[2, 3], opset=18),
        resized(
            None,
            integers(20, 12),
            mode="linear",
            axes=[2, 3],
            opset=18,
            keep_aspect_ratio_policy="not_larger",
        ),
        resized(
            None,
            integers(20, 12),
            mode="linear",
            axes=[2, 3],
            opset=18,
            keep_aspect_ratio_policy="not_smaller",
        ),
        Row("Resize", {"mode": "linear"}, (UP,), opset=10),
        Row("Resize", {"mode": "nearest"}, (UP,), opset=10),
        Row("Resize", {"mode": "nearest"}, (DOWN,), opset=10),
        Row("Upsample", {"mode": "nearest"}, (UP,), opset=9),
        Row("Upsample", {"mode": "linear"}, (UP,), opset=9),
    )


ROWS = (
    *elementwise(),
    *windows(),
    *linear(),
    *normalizations(),
    *reductions(),
    *shapes(),
    *resizes(),
)
