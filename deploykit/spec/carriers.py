"""Carriers: the form in which a file stores a weight, chosen so that its integer kernel stays.

Storage width and compute width are two decisions. A kernel that multiplies int8 takes weights of
4 or 2 bits where the file's runtime widens them when it loads; written otherwise they drop out of
the kernel, and the layer runs slower than in float. So a carrier is a row of a table, measured per
runtime and version (tests/suite/test_carriers.py holds the table against the installed ones):

    format   carrier   the file holds                                          widened
    onnx     int4      INT4 -> Cast(int8) -> DequantizeLinear, opset 21        at load
             int2      INT2 -> Cast(int8) -> DequantizeLinear, opset 25        at load
             table4    uint8 of two -> Gather of a table [256, 2] -> Reshape   at load
             table2    uint8 of four -> Gather of a table [256, 4] -> Reshape  at load
    tflite   int4      INT4 of a FULLY_CONNECTED, which a 1x1 convolution is   by the kernel
             int2      INT2 of the same, at 1.6 times int8's time: on request  by the kernel
    both     int8      int8, whatever its integers need; deflate finds that out

XNNPACK takes convolutions with int8 kernels only: CONV_2D with INT4 runs on a builtin kernel, which
unpacks the weights at every call and rounds its sums otherwise: on request too. With INT2 it does
not run at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod

from deploykit.errors import QuantizationError

FORMATS = ("onnx", "tflite")

BITS_KEY = "deploykit.bits:"
"""Metadata key prefix in ONNX files: the initializer of a weight of fewer bits than its carrier."""


class Carrier(Enum):
    """How a weight is stored."""

    INT8 = "int8"
    INT4 = "int4"
    INT2 = "int2"
    TABLE4 = "table4"
    TABLE2 = "table2"

    @property
    def bits(self) -> int:
        """Of one integer in the file. Carrier.TABLE4.bits -> 4"""
        return int(self.value[-1])

    @property
    def per_byte(self) -> int:
        """Integers in one byte of the file. Carrier.INT2.per_byte -> 4"""
        return 8 // self.bits

    def size_bytes(self, count: int) -> int:
        """Of so many integers. Carrier.INT4.size_bytes(5) -> 3"""
        return -(-count // self.per_byte)


@dataclass(frozen=True)
class Carriers:
    """The carrier of one weight in each format."""

    onnx: Carrier = Carrier.INT8
    tflite: Carrier = Carrier.INT8

    def of(self, fmt: str) -> Carrier:
        """In a format by its name."""
        return {"onnx": self.onnx, "tflite": self.tflite}[fmt]

    def names(self) -> Mapping[str, str]:
        """By format, as plan.json has them."""
        return {"onnx": self.onnx.value, "tflite": self.tflite.value}

    def distinct(self) -> tuple[str, ...]:
        """Their names, one where both have the same."""
        return tuple(dict.fromkeys(self.names().values()))


IN_INT8 = Carriers()


class Layer(Enum):
    """What a weight is multiplied in, as far as kernels tell it apart."""

    LINEAR = "linear"
    POINTWISE = "1x1 convolution of stride 1"
    WINDOW = "convolution"
    GROUPED = "grouped or depthwise convolution"


class TfliteLowbit(Enum):
    """What a .tflite file is to be below 8 bits where it cannot be both.

    small: convolutions of 4 bits, and INT2, whatever they cost in time.
    """

    FAST = "fast"
    SMALL = "small"


@dataclass(frozen=True, order=True)
class Version:
    """A release of a runtime, by its first two numbers."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Version.parse("1.23.2") -> 1.23; ValueError where it is none."""
        major, minor, *_ = (int(part) for part in text.split("."))
        return cls(major, minor)


OLDEST_ORT = Version(1, 20)
"""The oldest ONNX Runtime that the table was tried on."""


@dataclass(frozen=True)
class CarrierOptions:
    """min_ort: oldest ONNX Runtime that has to load the file; None: any that can."""

    min_ort: Version | None = None
    tflite: TfliteLowbit = TfliteLowbit.FAST


ANY_RUNTIME = CarrierOptions()


@dataclass(frozen=True)
class Row:
    """One storage form that keeps a runtime's kernel.

    kernels: by kind of layer, the kernel that computes it. since: the oldest release that was seen
    to do so (of ONNX Runtime from 1.20 on, of ai-edge-litert from 1.4 on), None where every one
    does that reads the int8 form. multiple: what the number of
    integers has to be divided by, inputs: and that of one output channel. fewest: integers from
    which the file is smaller than in int8. memory_bits: of an integer as the kernel reads it.
    only: where the user has to ask for it. exact: its kernel rounds as the reference does, where
    builtin ones of LiteRT take the next step now and then.
    """

    format: str
    carrier: Carrier
    kernels: Mapping[Layer, str]
    since: Version | None = None
    multiple: int = 1
    inputs: int = 1
    fewest: int = 0
    memory_bits: int = 8
    only: TfliteLowbit | None = None
    exact: bool = True

    def takes(self, layer: Layer, bits: int, shape: tuple[int, ...]) -> bool:
        """Whether a weight [O, ...] of so many bits fits. shape: of the weight."""
        return (
            layer in self.kernels
            and self.carrier.bits >= bits
            and prod(shape) % self.multiple == 0
            and prod(shape[1:]) % self.inputs == 0
            and prod(shape) >= self.fewest
        )

    def allowed(self, options: CarrierOptions) -> bool:
        """Whether the user's options leave it."""
        old = options.min_ort is not None and self.since is not None and self.format == "onnx"
        if old and options.min_ort < self.since:  # type: ignore[operator]
            return False
        return self.only in (None, options.tflite)


IN_ORT = {
    Layer.LINEAR: "QGemm",
    Layer.POINTWISE: "QLinearConv",
    Layer.WINDOW: "QLinearConv",
    Layer.GROUPED: "QLinearConv",
}
IN_XNNPACK = dict.fromkeys(Layer, "XNNPACK")
AS_LINEAR = {Layer.LINEAR: "XNNPACK", Layer.POINTWISE: "XNNPACK"}

TABLE: tuple[Row, ...] = (
    Row("onnx", Carrier.INT2, IN_ORT, Version(1, 24), fewest=256),
    Row("onnx", Carrier.TABLE2, IN_ORT, multiple=4, fewest=2048),
    Row("onnx", Carrier.INT4, IN_ORT, Version(1, 23), fewest=256),
    Row("onnx", Carrier.TABLE4, IN_ORT, multiple=2, fewest=2048),
    Row("onnx", Carrier.INT8, IN_ORT),
    Row(
        "tflite", Carrier.INT2, AS_LINEAR, Version(2, 2), inputs=4, memory_bits=2,
        only=TfliteLowbit.SMALL,
    ),
    Row("tflite", Carrier.INT4, AS_LINEAR, Version(1, 4), inputs=2, memory_bits=4),
    Row(
        "tflite", Carrier.INT4, {Layer.WINDOW: "CONV_2D"}, Version(1, 4), memory_bits=4,
        only=TfliteLowbit.SMALL, exact=False,
    ),
    Row("tflite", Carrier.INT8, IN_XNNPACK),
)  # fmt: skip
"""The first row that takes a weight is its carrier; narrower ones stand first.

memory_bits: measured, 2 x 4096 x 4096 weights add 32, 16 and 8 MB to a process in LiteRT with int8,
int4 and int2, and as much as int8 whatever the carrier in ONNX Runtime.
"""


def layer_kind(shape: tuple[int, ...], plain: bool, groups: int = 1) -> Layer:
    """Of a weight [O, I] or [O, I/groups, kh, kw]. plain: neither strides nor pads."""
    if len(shape) == 2:
        return Layer.LINEAR
    if groups != 1:
        return Layer.GROUPED
    return Layer.POINTWISE if shape[2:] == (1, 1) and plain else Layer.WINDOW


def chosen_row(
    fmt: str, layer: Layer, bits: int, shape: tuple[int, ...], options: CarrierOptions
) -> Row:
    """The table's row for a weight of so many bits. shape: [O, ...]."""
    for row in TABLE:
        if row.format == fmt and row.allowed(options) and row.takes(layer, bits, shape):
            return row
    raise QuantizationError(
        f"no form of a {fmt} file holds weights of {bits} bits in a {layer.value}; "
        "quantize them to 8 bits or fewer"
    )


def chosen_carriers(
    layer: Layer, bits: int, shape: tuple[int, ...], options: CarrierOptions
) -> Carriers:
    """The carriers of one weight."""
    return Carriers(*(chosen_row(fmt, layer, bits, shape, options).carrier for fmt in FORMATS))


def row_of(fmt: str, carrier: Carrier, layer: Layer) -> Row:
    """The row that says what runs a layer whose weight has this carrier.

    Raises QuantizationError where no kernel takes it.
    """
    for row in TABLE:
        if row.format == fmt and row.carrier is carrier and layer in row.kernels:
            return row
    raise QuantizationError(f"no {fmt} file holds {carrier.value} in a {layer.value}")
