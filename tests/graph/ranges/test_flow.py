"""On random networks every value lies in its channel's range; borders couple nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings

from deploykit.graph.ranges.flow import Flow, spans, trace
from deploykit.graph.ranges.measured import measure
from deploykit.reference.float import evaluate
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from tests.graph.random_graphs import networks
from tests.graph.text import graph, probes, weights

FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(FIXED, max_examples=80)
@given(networks())
def test_ranges_hold_on_random_networks(network: Network) -> None:
    """Only the input's magnitude is given, and those of tensors that borders compute."""
    for inputs in probes(network):
        tensors = evaluate(network, inputs)
        flow = trace(network.model.graph, measure(network, evaluate, inputs).shapes)
        assert_ranges_hold(flow, tensors)


def assert_ranges_hold(flow: Flow, tensors: Mapping[str, AnyArray]) -> None:
    known = {str(value.name) for value in flow.graph.inputs}
    for node in flow.graph:
        if node not in flow.layers and node not in flow.places:
            known.update(str(value.name) for value in node.outputs)
    limits = {name: float(np.abs(tensors[name]).max()) for name in known}
    for name, span in spans(flow, limits, lambda layer, source, _: layer.span(source), 1).items():
        values = np.moveaxis(tensors[name], flow.channels[name].axis, 0)
        values = values.reshape(len(values), -1)
        slack = 1e-6 * max(1.0, float(np.abs(values).max()))
        assert np.all(values >= span.low[:, None] - slack), name
        assert np.all(values <= span.high[:, None] + slack), name


SHAPES: dict[str, tuple[int, str, Mapping[str, npt.ArrayLike], list[list[int]]]] = {
    "flatten": (2, "output = Flatten(a)", {}, [[0] * 4 + [1] * 4]),
    "reshape": (3, "output = Reshape(a, shape)", {"shape": np.array([1, 2, 4])}, [[0, 1]]),
    "squeeze": (
        2,
        "g = GlobalAveragePool(a)\noutput = Squeeze(g, axes)",
        {"axes": np.array([2, 3])},
        [[0, 1], [0, 1]],
    ),
    "mean": (
        2,
        "output = ReduceMean<keepdims=0>(a, axes)",
        {"axes": np.array([2, -1])},
        [[0, 1]],
    ),
    "transpose": (4, "output = Transpose<perm=[0,2,3,1]>(a)", {}, [[0, 1]]),
    "concat": (4, "output = Concat<axis=1>(a, a)", {}, [[0, 1, 0, 1]]),
    "concat of rows": (4, "output = Concat<axis=2>(a, a)", {}, [[0, 1]]),
    "pad": (4, "output = Pad(a, pads)", {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, [[0, 1]]),
    "resize": (
        4,
        'output = Resize<mode="linear">(a, , scales)',
        {"scales": np.array([1.0, 1.0, 2.0, 2.0])},
        [[0, 1]],
    ),
    "quotient": (4, "output = Div(a, c)", {"c": np.array([-2.0, 4.0]).reshape(2, 1, 1)}, [[0, 1]]),
    "row of constants": (4, "output = Sub(c, a)", {"c": np.array([-2.0, 4.0])}, [[0, 1]]),
    "average with zeros": (
        4,
        "output = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(a)",
        {},
        [[0, 1]],
    ),
}


@pytest.mark.parametrize(("rank", "text", "constants", "atoms"), SHAPES.values(), ids=SHAPES)
def test_channels_and_ranges_through(
    rank: int, text: str, constants: Mapping[str, npt.ArrayLike], atoms: list[list[int]]
) -> None:
    flow, tensors = traced(rank, text, constants)
    numbers = {int(atom): index for index, atom in enumerate(flow.channels["a"].atoms)}
    computed = [str(node.outputs[0].name) for node in flow.graph][1:]
    found = [[numbers[int(atom)] for atom in flow.channels[name].atoms] for name in computed]
    assert found == atoms
    assert_ranges_hold(flow, tensors)


BORDERS: dict[str, tuple[int, str, Mapping[str, npt.ArrayLike]]] = {
    "softmax": (4, "output = Softmax<axis=1>(a)", {}),
    "a channel shuffle": (
        5,
        "c = Conv(input, w4)\noutput = Reshape(c, shape)",
        {"w4": weights(4, 3, 1, 1), "shape": np.array([1, 2, 2, 2, 2])},
    ),
    "a cubic resize": (
        4,
        'output = Resize<mode="cubic">(a, , scales)',
        {"scales": np.array([1.0, 1.0, 2.0, 2.0])},
    ),
    "a mean over channels": (4, "output = ReduceMean(a, axes)", {"axes": np.array([1])}),
    "a quotient of tensors": (4, "r = Exp(a)\noutput = Div(a, r)", {}),
    "pads of channels": (
        4,
        "output = Pad(a, pads)",
        {"pads": np.array([0, 1, 0, 0, 0, 0, 0, 0])},
    ),
    "a linear over rows": (4, "output = MatMul(a, w2)", {"w2": weights(2, 2)}),
}


@pytest.mark.parametrize(("rank", "text", "constants"), BORDERS.values(), ids=BORDERS)
def test_a_border_pins_what_it_reads(
    rank: int, text: str, constants: Mapping[str, npt.ArrayLike]
) -> None:
    flow, tensors = traced(rank, text, constants)
    read = list(flow.graph)[-1].inputs[0]
    assert read is not None
    source = flow.channels[str(read.name)].atoms
    assert flow.pinned[source].all()
    assert not np.isin(source, flow.channels["output"].atoms).any()
    assert_ranges_hold(flow, tensors)


def traced(
    rank: int, text: str, constants: Mapping[str, npt.ArrayLike]
) -> tuple[Flow, dict[str, AnyArray]]:
    """`text` behind a convolution `a` of two channels, and every tensor on random inputs."""
    sizes = ",".join("NABCD"[:rank])
    network = graph(
        f"(float[1,3,2,2] input) => (float[{sizes}] output) {{\na = Conv(input, w, b)\n{text}\n}}",
        {"w": weights(2, 3, 1, 1), "b": np.ones(2), **constants},
    )
    inputs = np.random.default_rng(0).normal(size=(1, 3, 2, 2)).astype(np.float32)
    tensors = ort.evaluate(network, inputs)
    return trace(network.model.graph, {k: v.shape for k, v in tensors.items()}), tensors
