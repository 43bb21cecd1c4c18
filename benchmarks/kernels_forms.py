"""The forms that benchmarks/kernels.py times: small graphs that differ in one operator.

A form's text computes `y` from `x` [1, C, S, S]; around it stand two pointwise convolutions, so
that every runtime has the layout that it has inside a network. What stands around it alone is timed
too, and taken off. A stem reads the graph's input itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import onnx
import onnx_ir as ir

from deploykit.emit.tflite_graph import Options
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network

HEADER = '<ir_version: 10, opset_import: ["": 20]>\n'
EDGE = 8
"""Channels at both ends of the graph."""


class How(Enum):
    """written: as deploykit writes the text. lowered: after its lowerings. direct: as peers do.

    blocks, whole: a stem written so, whatever is faster.
    """

    BLOCKS = "blocks"
    WHOLE = "whole"
    WRITTEN = "written"
    LOWERED = "lowered"
    DIRECT = "direct"


@dataclass(frozen=True)
class Direct:
    """A TFLite operator on x, and in `placeholder` an operator of ours with the same shapes.

    alpha: whether a constant per channel is its second input.
    """

    code: str
    options: Options | None
    placeholder: str
    alpha: bool = False


@dataclass(frozen=True)
class Form:
    """side, channels: of x. constants: shapes by name, drawn at random. direct: where How says so.

    stem: x is the graph's input, and y its last tensor before the mean. whole: the time of what
    stands around stays in, because y has another size than x, and so has the layer behind it.
    """

    operator: str
    form: str
    text: str
    how: How = How.WRITTEN
    channels: int = 64
    side: int = 56
    constants: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    direct: Direct | None = None
    stem: bool = False
    whole: bool = False

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.operator}, {self.form}".replace(" ", "_").replace("/", "_")

    @property
    def around(self) -> Form:
        """The same without the operator."""
        return Form("around", f"{self.channels} {self.side}", "", How.WRITTEN, self.channels,
                    self.side)  # fmt: skip

    def network(self, text: str | None = None) -> Network:
        """The float graph; text: another one in the place of the form's."""
        inner = self.text if text is None else text
        shapes = dict(self.constants)
        if self.stem:
            entry, ends, source = self.channels, self.constants["w"][0], "x"
            body = f"{inner} mean = GlobalAveragePool (y)"
        else:
            entry, ends, source = EDGE, EDGE, "input"
            body = (
                f"x = Conv <{_conv(1)}> (input, win, bin) {inner} "
                f"z = Conv <{_conv(1)}> ({'y' if inner else 'x'}, wout, bout) "
                "mean = GlobalAveragePool (z)"
            )
            shapes |= {
                "win": (self.channels, EDGE, 1, 1), "bin": (self.channels,),
                "wout": (EDGE, self.channels, 1, 1), "bout": (EDGE,),
            }  # fmt: skip
        proto = onnx.parser.parse_model(
            f"{HEADER}g (float[1,{entry},{self.side},{self.side}] {source}) => "
            f"(float[1,{ends},1,1] mean) {{ {body} }}"
        )
        generator = np.random.default_rng(0)
        arrays: dict[str, AnyArray] = {
            key: generator.normal(size=shape).astype(np.float32) for key, shape in shapes.items()
        }
        arrays |= {key: np.array(value, np.float32) for key, value in self.values.items()}
        for key, array in arrays.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
        for node in proto.graph.node:
            node.name = node.output[0]
        return Network(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), {})


def _conv(kernel: int, stride: int = 1, pads: tuple[int, int, int, int] | None = None) -> str:
    around = list(pads) if pads is not None else [kernel // 2] * 4
    return (
        f"kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads={around}, "
        "dilations=[1,1]"
    )


def _stem(kernel: int, outputs: int, how: How) -> Form:
    name = "SpaceToDepth, convolution" if how is How.BLOCKS else "convolution"
    return Form(
        f"stem {kernel}x{kernel} 3->{outputs}", name, f"y = Conv <{_conv(kernel, 2)}> (x, w, b)",
        how, 3, 224, {"w": (outputs, 3, kernel, kernel), "b": (outputs,)}, stem=True,
    )  # fmt: skip


def _depthwise(kernel: int, channels: int, side: int) -> Form:
    return Form(
        f"depthwise {kernel}x{kernel} {side}x{side}", f"{channels} channels",
        f"y = Conv <{_conv(kernel)}, group={channels}> (x, w, b)", How.WRITTEN, channels, side,
        {"w": (channels, 1, kernel, kernel), "b": (channels,)},
    )  # fmt: skip


def _strided(form: str, pads: tuple[int, int, int, int]) -> Form:
    return Form(
        "depthwise 3x3 stride 2", form, f"y = Conv <{_conv(3, 2, pads)}, group=64> (x, w, b)",
        whole=True, constants={"w": (64, 1, 3, 3), "b": (64,)},
    )  # fmt: skip


STEMS = ((3, 16), (3, 32), (3, 64), (4, 32), (5, 32), (7, 64))
POOL = "kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0]"
POOL_FIELDS: Mapping[str, int] = {
    "padding": 1, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2
}  # fmt: skip
CLAMP = "y = Clip (x, low, high)"
BOUNDS: Mapping[str, float | tuple[float, ...]] = {"low": -1.0, "high": 2.0}

FORMS: tuple[Form, ...] = (
    *(_stem(*size, how) for size in STEMS for how in (How.WHOLE, How.BLOCKS)),
    *(_depthwise(3, c, 56) for c in (64, 72, 80)),
    *(_depthwise(5, c, 28) for c in (112, 120, 128)),
    _strided("pads 1,1,1,1", (1, 1, 1, 1)),
    _strided("pads 0,0,1,1", (0, 0, 1, 1)),
    Form("hard-swish", "HardSwish", "y = HardSwish (x)", How.DIRECT, values=BOUNDS,
         direct=Direct("HARD_SWISH", None, CLAMP)),
    Form("hard-swish", "Add, Mul", "y = HardSwish (x)", How.LOWERED),
    Form("relu alone", "Relu", "m = MaxPool <kernel_shape=[1,1]> (x) y = Relu (m)", How.DIRECT,
         values=BOUNDS, direct=Direct("RELU", None, CLAMP)),
    Form("relu alone", "Clip of integers", CLAMP, values=BOUNDS),
    Form("prelu", "PRelu", "y = PRelu (x, slope)", How.DIRECT, constants={"slope": (64, 1, 1)},
         values=BOUNDS, direct=Direct("PRELU", None, CLAMP, alpha=True)),
    Form("average pool 2x2", "AveragePool", f"y = AveragePool <{POOL}> (x)", How.DIRECT,
         direct=Direct("AVERAGE_POOL_2D", Options("Pool2DOptions", POOL_FIELDS),
                       f"y = MaxPool <{POOL}, dilations=[1,1]> (x)"), whole=True),
    Form("average pool 2x2", "depthwise convolution", f"y = AveragePool <{POOL}> (x)", How.LOWERED,
         whole=True),
    Form("max pool 2x2", "MaxPool", f"y = MaxPool <{POOL}, dilations=[1,1]> (x)", whole=True),
    Form("gate [1, C, 1, 1]", "Mul", "g = GlobalAveragePool (x) y = Mul (x, g)"),
    Form("factor per channel", "Mul", "y = Mul (x, f)", constants={"f": (1, 64, 1, 1)}),
    Form("factor per channel", "depthwise 1x1", "y = Mul (x, f)", How.LOWERED,
         constants={"f": (1, 64, 1, 1)}),
    Form("residual", "Add", f"p = Conv <{_conv(1)}> (x, w, b) y = Add (x, p)",
         constants={"w": (64, 64, 1, 1), "b": (64,)}),
    Form("sigmoid", "Sigmoid", "y = Sigmoid (x)"),
    Form("tanh", "Tanh", "y = Tanh (x)"),
    Form("gelu", "Gelu", "y = Gelu (x)"),
    Form("nearest 2x", "Resize",
         'y = Resize <mode="nearest", coordinate_transformation_mode="asymmetric", '
         'nearest_mode="floor"> (x, , scales)', side=28,
         values={"scales": (1.0, 1.0, 2.0, 2.0)}, whole=True),
    Form("transposed 2x2 stride 2", "ConvTranspose", "y = ConvTranspose <strides=[2,2]> (x, w, b)",
         How.DIRECT, side=28, constants={"w": (64, 64, 2, 2), "b": (64,)}, whole=True),
    Form("transposed 2x2 stride 2", "convolution, DepthToSpace",
         "y = ConvTranspose <strides=[2,2]> (x, w, b)", How.LOWERED, side=28,
         constants={"w": (64, 64, 2, 2), "b": (64,)}, whole=True),
)  # fmt: skip
