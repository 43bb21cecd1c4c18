"""Small graphs to remove channels from, removal, and the checks that it computes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx.shape_inference
import onnx_ir as ir
import onnxruntime

from deploykit.graph.certificate import certificate_inputs
from deploykit.graph.channels.liveness import Liveness, analyse
from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.network import Network
from deploykit.spec.removal import RemovalReport
from tests.graph.text import assert_same_function, expected, graph, weights, written

LIVE, ZERO, CONSTANT, UNREAD = range(4)
"""The channels of `four_channels` and of who reads them by `reading_three`."""


def pruned_to(network: Network, text: str, *borders: str) -> Network:
    """Remove, and compare what is left with its text; ONNX Runtime finds both equal."""
    pruned, report = removed(network)
    left = written(pruned)
    assert left == expected(text), f"left:\n{left}"
    assert report.borders == borders
    assert_equal_in_runtime(network, pruned)
    return pruned


def assert_equal_in_runtime(network: Network, pruned: Network) -> None:
    """The pruned graph is legal, has the shapes that it states, and ONNX Runtime agrees."""
    proto = ir.to_proto(pruned.model)
    onnx.checker.check_model(proto)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    batches = {str(port.name): (port.shape or (1,))[0] for port in network.model.graph.inputs}
    inputs = {
        name: array[: int(batches[name])].astype(np.float32)  # type: ignore[arg-type]
        for name, array in certificate_inputs(network)["random"].items()
    }
    before, after = run(network, inputs), run(pruned, inputs)
    for name, array in before.items():
        scale = max(1.0, float(np.abs(array).max(initial=0.0)))
        np.testing.assert_allclose(after[name], array, rtol=0, atol=1e-5 * scale)


def run(network: Network, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Outputs by name, by ONNX Runtime."""
    model = ir.to_proto(network.model).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def four_channels() -> dict[str, npt.ArrayLike]:
    """w, b of a layer whose channels are live, zero, constant 2, and live but not to be read."""
    return first_layer([0.5, 0.0, 2.0, 0.5], live=[LIVE, UNREAD])


def reading_three(size: int = 1, outputs: int = 2) -> Float32Array:
    """A kernel [outputs, 4, size, size] that reads all but the last of `four_channels`."""
    return second_layer(1, 1, 1, 0, outputs=outputs, size=size)


def removed(network: Network) -> tuple[Network, RemovalReport]:
    """Remove, check the function here too, and check that a second time nothing goes."""
    pruned, report = remove_dead_channels(network, evaluate)
    assert_same_function(network, pruned)
    again, second = remove_dead_channels(pruned, evaluate)
    assert channels(again) == channels(pruned)
    assert second.parameters_after == report.parameters_after
    return pruned, report


def found(network: Network) -> Liveness:
    """The analysis alone."""
    return analyse(network.model.graph)


def channels(network: Network) -> dict[str, int]:
    """Channels by tensor, of every tensor that has them."""
    return {
        str(output.name): int(output.shape[1])
        for node in network.model.graph
        for output in node.outputs
        if output.shape is not None and len(output.shape) > 1 and isinstance(output.shape[1], int)
    }


def first_layer(biases: Sequence[float], live: Sequence[int] = ()) -> dict[str, npt.ArrayLike]:
    """w [C, 1, 1, 1] that reads the input in the `live` channels only, and b, the biases."""
    kernel = np.zeros((len(biases), 1, 1, 1), np.float32)
    kernel[list(live)] = 1.0
    return {"w": kernel, "b": np.array(biases)}


def second_layer(*scales: float, outputs: int = 2, size: int = 3) -> Float32Array:
    """[O, I, k, k]: random kernels, channel by channel times `scales`."""
    kernel = weights(outputs, len(scales), size, size, seed=3)
    return kernel * np.array(scales, np.float32).reshape(1, -1, 1, 1)


def two_layers(
    first: Mapping[str, npt.ArrayLike], second: Float32Array, pad: int, between: str = "Relu"
) -> Network:
    """conv 1x1 -> relu (or `between`) -> conv, padded or not, on a 5 x 5 image of one channel."""
    outputs = len(second)
    size = 5 + 2 * pad - second.shape[2] + 1
    return graph(
        f"""
        (float[1,1,5,5] input) => (float[1,{outputs},{size},{size}] output) {{
            a = Conv(input, w, b)
            r = {between}(a)
            output = Conv<pads=[{pad},{pad},{pad},{pad}]>(r, v, c)
        }}
        """,
        {**first, "v": second, "c": weights(outputs, seed=9)},
        ["w", "b", "v", "c"],
    )
