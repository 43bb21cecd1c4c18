"""4-bit convolutions written the obvious way, as quantizers and converters write them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploykit.emit.packing import pack
from deploykit.emit.tflite_flatbuffer import load_schema, pack_model
from deploykit.spec.carriers import Carrier
from deploykit.spec.quantized import int_range

INT4_CONV_2D = 7
"""Version of the operator from which it takes INT4 kernels."""
OPSET = 21


def direct_onnx(data: bytes) -> bytes:
    """A file whose weights are behind a Cast, without it: DequantizeLinear reads INT4 itself."""
    model = onnx.load_from_string(data)
    constants = {one.name: one for one in model.graph.initializer}
    casts = {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "Cast" and node.input[0] in constants
    }
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in casts:
            node.input[0] = casts[node.input[0]].input[0]
            zero = constants[node.input[2]]
            empty = np.zeros(numpy_helper.to_array(zero).shape, np.int8)
            zero.CopyFrom(
                TensorProto(
                    name=zero.name, data_type=TensorProto.INT4, dims=empty.shape,
                    raw_data=pack(empty, Carrier.INT4).tobytes(),
                )
            )  # fmt: skip
    for node in casts.values():
        model.graph.node.remove(node)
    opset = max(OPSET, model.opset_import[0].version)
    model.opset_import[0].version = opset
    model.ir_version = helper.find_min_ir_version_for(model.opset_import)
    return bytes(model.SerializeToString())


def direct_tflite(data: bytes) -> bytes:
    """A file of int8 kernels, with INT4 in every CONV_2D whose integers fit."""
    schema = load_schema()
    model = schema.ModelT.InitFromPackedBuf(bytearray(data))
    (subgraph,) = model.subgraphs
    low, high = int_range(Carrier.INT4.bits)
    codes = {
        index
        for index, code in enumerate(model.operatorCodes)
        if code.builtinCode == schema.BuiltinOperator.CONV_2D
    }
    packed: set[int] = set()
    for operator in subgraph.operators:
        kernel = int(operator.inputs[1]) if len(operator.inputs) > 1 else -1
        if operator.opcodeIndex not in codes or kernel in packed:
            continue
        tensor = subgraph.tensors[kernel]
        buffer = model.buffers[tensor.buffer]
        values = np.asarray(buffer.data, np.uint8).view(np.int8)
        if values.min() < low or values.max() > high:
            continue
        buffer.data = pack(values, Carrier.INT4)
        tensor.type = schema.TensorType.INT4
        packed.add(kernel)
    for index in codes:
        model.operatorCodes[index].version = INT4_CONV_2D
    return pack_model(model)
