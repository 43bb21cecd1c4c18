"""Float TFLite forms of what works element by element, operands broadcast included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

import numpy as np
import onnx_ir as ir

from deploykit.emit import tflite_float_node as read
from deploykit.emit.tflite_float_order import Order, natural, stored, widened
from deploykit.emit.tflite_float_site import FloatSite, Place
from deploykit.emit.tflite_graph import Activation, Options
from deploykit.emit.tflite_lowering import limit

UNARY: Mapping[str, tuple[str, Options | None]] = {
    "Abs": ("ABS", Options("AbsOptions")),
    "Exp": ("EXP", Options("ExpOptions")),
    "HardSwish": ("HARD_SWISH", Options("HardSwishOptions")),
    "Log": ("LOG", None),
    "Neg": ("NEG", Options("NegOptions")),
    "Sigmoid": ("LOGISTIC", None),
    "Sqrt": ("SQRT", None),
    "Tanh": ("TANH", None),
}
"""The TFLite operator and its options by operator type."""

BINARY: Mapping[str, tuple[str, str]] = {
    "Add": ("ADD", "AddOptions"),
    "Div": ("DIV", "DivOptions"),
    "Max": ("MAXIMUM", "MaximumMinimumOptions"),
    "Min": ("MINIMUM", "MaximumMinimumOptions"),
    "Mul": ("MUL", "MulOptions"),
    "Sub": ("SUB", "SubOptions"),
}
"""The TFLite operator and its table of options by operator type."""

POWERS: Mapping[float, tuple[str, Options | None]] = {
    0.5: ("SQRT", None),
    -0.5: ("RSQRT", None),
    2.0: ("SQUARE", Options("SquareOptions")),
}


def unary(node: ir.Node, site: FloatSite) -> None:
    """The row of UNARY."""
    code, options = UNARY[node.op_type]
    source, result = _through(node, site)
    site.graph.operator(code, (source,), result, options)


def clip(node: ir.Node, site: FloatSite) -> None:
    """A Relu or Clip that no producer takes in: RELU, RELU6, RELU_N1_TO_1, else MAXIMUM, MINIMUM.

    MAXIMUM and MINIMUM read a constant.
    """
    low, high = read.bounds(node)
    source, result = _through(node, site)
    activation = read.ACTIVATIONS.get((low, high))
    if activation is not None:
        site.graph.operator(activation.name, (source,), result)
        return
    steps = [("MAXIMUM", low)] if low > -inf else []
    steps += [("MINIMUM", high)] if high < inf else []
    if not steps:
        raise read.refuse(node, "it has no bounds", "remove it from the network")
    limit(site.graph, source, result, read.label(node), steps)


def gelu(node: ir.Node, site: FloatSite) -> None:
    """GELU, by the error function or, approximate="tanh", by tanh."""
    source, result = _through(node, site)
    approximate = node.attributes.get_string("approximate", "none") == "tanh"
    options = Options("GeluOptions", {"approximate": approximate})
    site.graph.operator("GELU", (source,), result, options)


def spelled_gelu(node: ir.Node, site: FloatSite, value: ir.Value) -> None:
    """GELU of a value; `node` ends its spelling by Erf."""
    place = site.places[str(value.name)]
    result = site.define(node.outputs[0], place.order)
    site.graph.operator(
        "GELU", (place.index,), result, Options("GeluOptions", {"approximate": False})
    )


def leaky_relu(node: ir.Node, site: FloatSite) -> None:
    """LEAKY_RELU."""
    source, result = _through(node, site)
    options = Options("LeakyReluOptions", {"alpha": node.attributes.get_float("alpha", 0.01)})
    site.graph.operator("LEAKY_RELU", (source,), result, options)


def elu(node: ir.Node, site: FloatSite) -> None:
    """ELU, which has alpha = 1."""
    alpha = node.attributes.get_float("alpha", 1.0)
    if alpha != 1.0:
        raise read.refuse(node, f"its alpha is {alpha}", "TFLite's ELU has alpha 1")
    source, result = _through(node, site)
    site.graph.operator("ELU", (source,), result)


def prelu(node: ir.Node, site: FloatSite) -> None:
    """PRELU with a slope [1, ..., C]; LEAKY_RELU where there is one slope for all channels."""
    slope = read.parameter(node, 1)
    if slope is None:
        raise read.refuse(node, "it has no slope", "give it a constant slope")
    place = site.place(node)
    if slope.size == 1:
        source, result = _through(node, site)
        options = Options("LeakyReluOptions", {"alpha": slope.item()})
        site.graph.operator("LEAKY_RELU", (source,), result, options)
        return
    rank = len(place.shape)
    wide = slope.reshape((1,) * (rank - slope.ndim) + slope.shape).transpose(place.order)
    values = np.ascontiguousarray(wide.reshape(wide.shape[1:]))
    alpha = site.graph.constant(f"{read.label(node)}/slope", values)
    result = site.define(node.outputs[0], place.order)
    site.graph.operator("PRELU", (place.index, alpha), result)


def hard_sigmoid(node: ir.Node, site: FloatSite) -> None:
    """clip(alpha * x + beta, 0, 1), as alpha * clip(x + beta / alpha, 0, 1 / alpha).

    With alpha = 1/6 the inner clip is the ADD's fused RELU6.
    """
    alpha = node.attributes.get_float("alpha", 0.2)
    beta = node.attributes.get_float("beta", 0.5)
    if alpha <= 0:
        raise read.refuse(node, f"its alpha is {alpha}", "use a positive alpha")
    source, result = _through(node, site)
    name, shape = read.label(node), site.graph.tensors[source].shape
    shift = site.number(f"{name}/shift", beta / alpha)
    sixth = abs(alpha - 1 / 6) < 1e-7
    options = Options("AddOptions").fusing(Activation.RELU6 if sixth else Activation.NONE)
    shifted = site.step("ADD", (source, shift), f"{name}/shifted", shape, options)
    if not sixth:
        clipped = site.graph.like(shifted, f"{name}/clipped", shape)
        bounds = [("MAXIMUM", 0.0), ("MINIMUM", 1 / alpha)]
        limit(site.graph, shifted, clipped, name, bounds)
        shifted = clipped
    factor = site.number(f"{name}/alpha", alpha)
    site.graph.operator("MUL", (shifted, factor), result, Options("MulOptions"))


def softplus(node: ir.Node, site: FloatSite) -> None:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    source, result = _through(node, site)
    _softplus(site, source, result, read.label(node))


def mish(node: ir.Node, site: FloatSite) -> None:
    """x * tanh(softplus(x))."""
    source, result = _through(node, site)
    name, shape = read.label(node), site.graph.tensors[source].shape
    soft = site.graph.like(source, f"{name}/softplus", shape)
    _softplus(site, source, soft, name)
    gate = site.step("TANH", (soft,), f"{name}/tanh", shape)
    site.graph.operator("MUL", (source, gate), result, Options("MulOptions"))


def power(node: ir.Node, site: FloatSite) -> None:
    """SQUARE, SQRT, RSQRT, a product for the cube; else POW, which XNNPACK does not take."""
    exponent = read.parameter(node, 1)
    if exponent is None or exponent.size != 1:
        raise read.refuse(node, "its exponent is no single number", "use one exponent")
    source, result = _through(node, site)
    name, shape = read.label(node), site.graph.tensors[source].shape
    if exponent.item() in POWERS:
        code, options = POWERS[exponent.item()]
        site.graph.operator(code, (source,), result, options)
    elif exponent.item() == 3.0:
        square = site.step("SQUARE", (source,), f"{name}/square", shape, Options("SquareOptions"))
        site.graph.operator("MUL", (source, square), result, Options("MulOptions"))
    else:
        inputs = (source, site.number(f"{name}/exponent", exponent.item()))
        site.graph.operator("POW", inputs, result, Options("PowOptions"))


def reciprocal(node: ir.Node, site: FloatSite) -> None:
    """DIV of 1."""
    source, result = _through(node, site)
    one = site.number(f"{read.label(node)}/one", 1.0)
    site.graph.operator("DIV", (one, source), result, Options("DivOptions"))


def binary(node: ir.Node, site: FloatSite) -> None:
    """The row of BINARY. Both operands come in the order of the larger one; constants broadcast."""
    if len(node.inputs) != 2:
        raise read.refuse(node, f"it has {len(node.inputs)} operands", "use two operands at a time")
    code, table = BINARY[node.op_type]
    order = largest_order(node, site, (0, 1))
    inputs = (site.operand(node, 0, order), site.operand(node, 1, order))
    result, activation = site.result(node, order)
    site.graph.operator(code, inputs, result, Options(table).fusing(activation))


def expand(node: ir.Node, site: FloatSite) -> None:
    """MUL by ones of the lengths that the axes of length 1 grow to."""
    place = site.place(node)
    shape = read.value_shape(node.outputs[0])
    order = widened(place.order, len(shape))
    source = site.operand(node, 0, order)
    narrow = site.graph.tensors[source].shape
    result = site.define(node.outputs[0], order)
    wide = site.graph.tensors[result].shape
    grown = tuple(
        after if after != before else 1 for before, after in zip(narrow, wide, strict=True)
    )
    ones = site.graph.constant(f"{read.label(node)}/ones", np.ones(grown, dtype=np.float32))
    site.graph.operator("MUL", (source, ones), result, Options("MulOptions"))


def alias(node: ir.Node, site: FloatSite) -> None:
    """Identity, inference-mode Dropout, a Cast of float32 to itself: no operator."""
    place = site.place(node)
    if node.op_type in {"Cast", "CastLike"} and node.outputs[0].dtype != ir.DataType.FLOAT:
        raise read.refuse(node, f"it casts to {node.outputs[0].dtype}", "keep float32 throughout")
    site.put(node.outputs[0], place.index, place.order)


def _softplus(site: FloatSite, source: int, result: int, name: str) -> None:
    shape = site.graph.tensors[source].shape
    size = site.step("ABS", (source,), f"{name}/abs", shape, Options("AbsOptions"))
    negative = site.step("NEG", (size,), f"{name}/neg", shape, Options("NegOptions"))
    small = site.step("EXP", (negative,), f"{name}/exp", shape, Options("ExpOptions"))
    one = site.number(f"{name}/one", 1.0)
    above = site.step("ADD", (small, one), f"{name}/above_one", shape, Options("AddOptions"))
    soft = site.step("LOG", (above,), f"{name}/log", shape)
    hard = site.step("RELU", (source,), f"{name}/relu", shape)
    site.graph.operator("ADD", (hard, soft), result, Options("AddOptions"))


def _through(node: ir.Node, site: FloatSite) -> tuple[int, int]:
    """Indices of a node's input and output, which keep one order."""
    place = site.place(node)
    result = site.define(node.outputs[0], place.order)
    if place.unflattened is not None:
        name = str(node.outputs[0].name)
        site.places[name] = Place(result, place.shape, place.order, place.unflattened)
    return place.index, result


def largest_order(node: ir.Node, site: FloatSite, positions: Iterable[int]) -> Order:
    """Order of the operand with the most elements, at the rank of the result."""
    rank = len(read.value_shape(node.outputs[0]))
    places = [
        site.place(node, position) for position in positions if read.term(node, position) is None
    ]
    full = [place for place in places if len(place.shape) == rank]
    if not full:
        return natural(rank)
    return max(full, key=lambda place: np.prod(stored(place.shape, place.order))).order
