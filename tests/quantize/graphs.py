"""Float networks written as ONNX text, with given or seeded initializers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network

HEADER = '<ir_version: 10, opset_import: ["": 20]>\n'
CONV = "kernel_shape=[{k},{k}], strides=[1,1], pads=[{p},{p},{p},{p}], dilations=[1,1]"
CONV1, CONV3 = CONV.format(k=1, p=0), CONV.format(k=3, p=1)


def float_network(text: str, **initializers: AnyArray) -> Network:
    """The network of one graph in ONNX text, shapes inferred, nodes named after their outputs."""
    proto = onnx.parser.parse_model(HEADER + text)
    for name, array in initializers.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return Network(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), {})


def seeded(*shape: int, seed: int = 0) -> AnyArray:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def residual_network() -> Network:
    """conv + relu, conv, sum + relu, 2x2 max pool, clip to [-1, 1], global average, linear."""
    return float_network(
        f"""
        residual (float[1, 3, 8, 8] input) => (float[1, 5] output) {{
            c1 = Conv <{CONV3}> (input, w1, b1)
            r1 = Relu (c1)
            c2 = Conv <{CONV3}> (r1, w2, b2)
            total = Add (r1, c2)
            r2 = Relu (total)
            pooled = MaxPool <kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0], dilations=[1,1]> (r2)
            clipped = Clip (pooled, low, high)
            mean = GlobalAveragePool (clipped)
            flat = Flatten <axis=1> (mean)
            output = Gemm <transB=1> (flat, w3, b3)
        }}
        """,  # noqa: E501
        w1=seeded(6, 3, 3, 3, seed=1), b1=seeded(6, seed=2),
        w2=seeded(6, 6, 3, 3, seed=3) / 4, b2=seeded(6, seed=4),
        w3=seeded(5, 6, seed=5), b3=seeded(5, seed=6),
        low=np.array(-1.0, np.float32), high=np.array(9.0, np.float32),
    )  # fmt: skip
