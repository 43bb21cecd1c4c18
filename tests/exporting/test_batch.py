"""What --batch dynamic asks of a graph that does not state every shape, as exporters' do."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import GraphError
from deploykit.exporting.batch import check_samples
from deploykit.spec.network import Network
from deploykit.spec.quantized import Batch
from tests.graph.text import graph, weights


def without_shape(text: str, name: str) -> Network:
    """input [1, 12, 8] -> output [1, 12, 8]"""
    network = graph(
        f"(float[1,12,8] input) => (float[1,12,8] output) {{ {text} }}",
        {
            "windows": np.array([3, 4, 8]),
            "whole": np.array([1, 12, 8]),
            "w": weights(8, 8),
            "b": weights(8),
        },
    )
    for node in network.model.graph:
        node.name = node.outputs[0].name
        if node.outputs[0].name == name:
            node.outputs[0].shape = None
    return network


def test_windows_of_each_sample_stay_apart_through_a_linear_layer() -> None:
    text = """
        z = Reshape (input, windows)
        m = MatMul (z, w)
        a = Add (m, b)
        s = Add (z, a)
        output = Reshape (s, whole)
    """
    check_samples(without_shape(text, "m"), Batch.DYNAMIC)


def test_what_mixes_samples_behind_a_linear_layer_is_refused() -> None:
    text = "m = MatMul (input, w) output = Softmax <axis=0> (m)"
    with pytest.raises(GraphError, match=r"^output: operator Softmax mixes the samples"):
        check_samples(without_shape(text, "m"), Batch.DYNAMIC)
