"""Parts of a file written for two numbers of samples become one for any, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.emit.tflite_any_batch import Part, write_open
from deploykit.emit.tflite_graph import Options, TfliteGraph
from deploykit.errors import UnsupportedOperatorError
from deploykit.spec.quantized import Batch


def reshaped(samples: int) -> Part:
    """[N, 4, 6] -> [N * 4, 6]."""
    graph = TfliteGraph()
    source = graph.activation("x", (samples, 4, 6), None, np.float32)
    result = graph.activation("y", (samples * 4, 6), None, np.float32)
    shape = graph.integers("shape", [samples * 4, 6])
    options = Options("ReshapeOptions", {"newShape": (samples * 4, 6)})
    graph.operator("RESHAPE", (source, shape), result, options)
    return Part(graph, (source,), result)


def repeated(samples: int) -> Part:
    graph = TfliteGraph()
    source = graph.activation("x", (1, 6), None, np.float32)
    result = graph.activation("y", (samples, 6), None, np.float32)
    graph.operator("TILE", (source, graph.integers("times", [samples, 1])), result, None)
    return Part(graph, (source,), result)


def cut(samples: int) -> Part:
    """The first half of twice as many samples."""
    graph = TfliteGraph()
    source = graph.activation("x", (2 * samples, 6), None, np.float32)
    result = graph.activation("y", (samples, 6), None, np.float32)
    inputs = (source, graph.integers("begin", [0, 0]), graph.integers("size", [samples, 6]))
    graph.operator("SLICE", inputs, result, Options("SliceOptions"))
    return Part(graph, (source,), result)


def test_lengths_that_grow_are_open_and_stated_for_one_sample() -> None:
    graph = TfliteGraph(Batch.DYNAMIC)
    source = graph.activation("held", (1, 4, 6), None, np.float32)
    result = write_open(graph, [source], reshaped, "island")
    (operator,) = graph.operators
    assert operator.inputs[0] == source
    assert graph.tensors[result].shape == (4, 6)
    assert graph.signature(graph.tensors[result]) == (-1, 6)
    shape = graph.tensors[operator.inputs[1]].values
    assert shape is not None and shape.tolist() == [-1, 6]
    assert operator.options == Options("ReshapeOptions", {"newShape": (-1, 6)})


@pytest.mark.parametrize(
    ("part", "told"), [(repeated, "a parameter of TILE"), (cut, "a SLICE cuts among the samples")]
)
def test_what_would_state_the_samples_is_refused(part: object, told: str) -> None:
    graph = TfliteGraph(Batch.DYNAMIC)
    source = graph.activation("held", (1, 6), None, np.float32)
    with pytest.raises(
        UnsupportedOperatorError, match=f"island: LiteRT has no form .*{told}.*--to onnx"
    ):
        write_open(graph, [source], part, "island")  # type: ignore[arg-type]
