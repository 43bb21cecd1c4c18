"""What does not fit into one file is refused before anything long begins."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from deploykit.errors import GraphError
from deploykit.exporting.size import check_size


def model_with(*elements: int) -> ir.Model:
    """float32 initializers of these lengths, none of them in memory."""

    def unread() -> ir.TensorProtocol:
        raise AssertionError("a size needs no values")

    values = [
        ir.Value(
            name=f"w{i}",
            const_value=ir.LazyTensor(unread, ir.DataType.FLOAT, ir.Shape([count]), name=f"w{i}"),
        )
        for i, count in enumerate(elements)
    ]
    graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": 20})
    return ir.Model(graph, ir_version=10)


def test_two_gigabytes_are_the_limit() -> None:
    check_size(model_with(400_000_000, 100_000_000), "net.onnx")
    with pytest.raises(GraphError, match=r"^net.onnx holds 2.20 GB of weights.*split the network"):
        check_size(model_with(400_000_000, 150_000_000), "net.onnx")
