"""Small graphs to remove channels from, and removal with the float64 reference as evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from deploykit.graph.channels.liveness import Liveness, analyse
from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.removal import RemovalReport
from tests.graph.text import assert_same_function, graph, weights


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
