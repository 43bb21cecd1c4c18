"""apply_plan: join the float graph's structure and the plan's numbers into the integer network."""

from __future__ import annotations

from deploykit.errors import QuantizationError
from deploykit.quantize.layer_plan import layer_plan, quantized_name
from deploykit.quantize.nodes import (
    arg_axis,
    constant,
    function_of,
    gathered_axis,
    groups_of,
    joined_axis,
    pads_of,
    parameter_of,
    repeats_of,
    slope_of,
    spans_of,
    window_of,
)
from deploykit.quantize.operators import Kind
from deploykit.quantize.regions import Region, body_of
from deploykit.quantize.structure import Layer, build_structure, tails
from deploykit.quantize.whole_numbers import index_tensors
from deploykit.spec.arrays import Int32Array
from deploykit.spec.network import Network, static_shape
from deploykit.spec.operators import (
    Add,
    ArgMax,
    Clamp,
    Concat,
    Conv,
    DepthToSpace,
    Embedding,
    Flatten,
    Gather,
    GlobalAveragePool,
    IntegerWeight,
    Island,
    LeakyRelu,
    Linear,
    Lookup,
    Maximum,
    MaxPool,
    Minimum,
    Mul,
    Operator,
    Pad,
    Rearrange,
    Repeat,
    Reshape,
    Slice,
    SpaceToDepth,
    Sub,
)
from deploykit.spec.plan import LayerPlan, QuantPlan
from deploykit.spec.quantized import (
    ActivationTensor,
    ConstantTensor,
    Port,
    Quantization,
    QuantizedNetwork,
    int_range,
)
from deploykit.spec.whole_numbers import real_inputs


def apply_plan(network: Network, plan: QuantPlan) -> QuantizedNetwork:
    """The integer network; it makes no choices of its own.

    Raises QuantizationError where the plan was made for another graph.
    """
    layers = build_structure(network)
    if [layer.name for layer in layers] != [layer.name for layer in plan.layers]:
        raise QuantizationError("the plan was made for another graph: its layers differ")
    graph = network.model.graph
    shapes = {
        str(value.name): static_shape(value) or ()
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs))
    }
    float_names = [
        *real_inputs(network),
        *(layer.output for layer in layers if layer.kind is not Kind.ARG_MAX),
    ]
    tensors = {}
    for name in float_names:
        integer = quantized_name(network, name)
        tensors[integer] = ActivationTensor(integer, shapes[name], plan.tensors[integer])
    operators = tuple(
        _operator(layer, decided, plan.tensors.get(decided.output))
        if layer.region is None
        else _of_region(network, layer.region, decided)
        for layer, decided in zip(layers, plan.layers, strict=True)
    )
    constants = [decided.constant for decided in plan.layers if decided.constant is not None]
    return QuantizedNetwork(
        tensors,
        operators,
        tuple(Port(str(v.name), quantized_name(network, str(v.name))) for v in graph.inputs),
        _outputs(network),
        plan.io,
        {
            held.name: ConstantTensor(held.name, held.values, held.quantization)
            for held in constants
        },
        plan.batch,
        index_tensors(network),
        plan.min_ort,
    )


def _outputs(network: Network) -> tuple[Port, ...]:
    ends = tails(network)
    ports = []
    for value in network.model.graph.outputs:
        node, tail, tensor = value.producer(), None, value
        if node is not None and node in ends and node.inputs[0] is not None:
            tail, tensor = ends[node], node.inputs[0]
        ports.append(Port(str(value.name), quantized_name(network, str(tensor.name)), tail))
    return tuple(ports)


def regions_of(network: Network) -> dict[str, Island | Rearrange]:
    """The islands and rearrangements of a lowered graph, by the integer tensor that they give.

    A file's reader cannot tell what they compute; the float graph can.
    """
    return {
        quantized_name(network, layer.output): _of_region(
            network, layer.region, layer_plan(network, layer, None)
        )
        for layer in build_structure(network)
        if layer.region is not None
    }


def _of_region(network: Network, region: Region, plan: LayerPlan) -> Island | Rearrange:
    body = body_of(network, region)
    if region.kind is Kind.REARRANGE:
        return Rearrange(plan.name, plan.inputs[0], plan.output, body)
    return Island(plan.name, plan.inputs, plan.output, body)


def _operator(layer: Layer, plan: LayerPlan, output: Quantization | None) -> Operator:
    """output: of what it gives; None of whole numbers."""
    if output is None:
        return ArgMax(plan.name, plan.inputs[0], plan.output, arg_axis(layer.nodes[0]))
    node, name, source = layer.nodes[0], plan.name, plan.inputs[0]
    match layer.kind:
        case Kind.CONV:
            weight, bias = _parameters(plan)
            return Conv(name, source, plan.output, weight, bias, window_of(node), groups_of(node))
        case Kind.LINEAR:
            return Linear(name, source, plan.output, *_parameters(plan))
        case Kind.ADD:
            return Add(name, *_sides(plan), plan.output)
        case Kind.MUL:
            return Mul(name, *_sides(plan), plan.output)
        case Kind.SUB:
            return Sub(name, *_sides(plan), plan.output)
        case Kind.LOOKUP:
            return Lookup(name, source, plan.output, function_of(node), parameter_of(node))
        case Kind.GLOBAL_AVERAGE_POOL:
            return GlobalAveragePool(name, source, plan.output)
        case Kind.CLAMP:
            low, high = _integer_bounds(layer, output)
            return Clamp(name, source, plan.output, low, high)
        case Kind.PAD:
            padded = pads_of(node)
            assert padded is not None
            pads, value = padded
            return Pad(name, source, plan.output, pads, _integer(value, output))
        case Kind.EMBEDDING:
            if plan.table is None:
                raise QuantizationError(f"{name}: the plan holds no table for this layer")
            return Embedding(name, source, plan.output, plan.table)
        case _:
            return _moving(layer, plan)


def _moving(layer: Layer, plan: LayerPlan) -> Operator:
    node, name, source = layer.nodes[0], plan.name, plan.inputs[0]
    match layer.kind:
        case Kind.MAXIMUM:
            return Maximum(name, *_sides(plan), plan.output)
        case Kind.MINIMUM:
            return Minimum(name, *_sides(plan), plan.output)
        case Kind.MAX_POOL:
            return MaxPool(name, source, plan.output, window_of(node))
        case Kind.FLATTEN:
            return Flatten(name, source, plan.output)
        case Kind.CONCAT:
            return Concat(name, plan.inputs, plan.output, joined_axis(node))
        case Kind.SLICE:
            return Slice(name, source, plan.output, *spans_of(node)[layer.place])
        case Kind.GATHER:
            indices = constant(node, 1)
            assert indices is not None
            taken = tuple(int(index) for index in indices)
            return Gather(name, source, plan.output, gathered_axis(node), taken)
        case Kind.REPEAT:
            times = repeats_of(node)
            assert times is not None
            return Repeat(name, source, plan.output, *times)
        case Kind.DEPTH_TO_SPACE | Kind.SPACE_TO_DEPTH:
            block = int(node.attributes["blocksize"].as_int())
            kind = DepthToSpace if layer.kind is Kind.DEPTH_TO_SPACE else SpaceToDepth
            return kind(name, source, plan.output, block)
        case Kind.LEAKY_RELU:
            return LeakyRelu(name, source, plan.output, slope_of(node))
        case Kind.RESHAPE:
            return Reshape(name, source, plan.output)
        case _:
            raise QuantizationError(f"{name}: {layer.kind.value} does not move integers")


def _sides(plan: LayerPlan) -> tuple[str, str]:
    """What an operator of two operands reads, left and right."""
    names = list(plan.inputs)
    if plan.constant is not None:
        names.insert(plan.constant.side, plan.constant.name)
    left, right = names
    return left, right


def _parameters(plan: LayerPlan) -> tuple[IntegerWeight, Int32Array]:
    if plan.weight is None or plan.bias is None:
        raise QuantizationError(f"{plan.name}: the plan holds no weights for this layer")
    weight = plan.weight
    held = IntegerWeight(weight.name, weight.values, weight.scale, weight.bits, weight.carriers)
    return held, plan.bias


def _integer(real: float, quantization: Quantization) -> int:
    """The integer nearest to a real number, within range."""
    lowest, highest = int_range(quantization.bits)
    return min(max(round(real / quantization.scale) + quantization.zero_point, lowest), highest)


def _integer_bounds(layer: Layer, quantization: Quantization) -> tuple[int, int]:
    """The bounds of a Relu or Clip as integers of its tensor's quantization."""
    lowest, highest = int_range(quantization.bits)
    low = lowest if layer.low is None else _integer(layer.low, quantization)
    high = highest if layer.high is None else _integer(layer.high, quantization)
    return low, high
