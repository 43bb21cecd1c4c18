"""A layer alone gives what it gives inside of its network, however many rows a sample has."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.quantize.layer_network import batch_of, layer_network, run_layer
from deploykit.quantize.structure import build_structure
from deploykit.runtime import ort
from deploykit.spec.network import Network
from tests.quantize.graphs import float_network, seeded

TOKENS = (
    "g (float[{n},6,4] x) => (float[{n},6,3] y) {{ f = Reshape (x, flat) "
    "h = Gemm <transB=1> (f, w, b) y = Reshape (h, whole) }}"
)


def tokens(batch: int) -> Network:
    """A linear over 6 tokens of each sample."""
    return float_network(
        TOKENS.format(n=batch), w=seeded(3, 4), b=seeded(3),
        flat=np.array([-1, 4]), whole=np.array([batch, 6, 3]),
    )  # fmt: skip


@pytest.mark.parametrize(("batch", "samples"), [(1, 5), (2, 5), (2, 4)])
def test_layers_of_several_rows_run_on_all_samples(batch: int, samples: int) -> None:
    network, inputs = tokens(batch), seeded(samples, 6, 4, seed=1)
    assert batch_of(network) == batch
    tensors = {"x": inputs}
    for layer in build_structure(network):
        alone = layer_network(network, layer)
        read = {name: tensors[name] for name in layer.inputs}
        tensors[layer.output] = run_layer(alone, read, ort.OutputEvaluator(), batch)
    wanted = inputs @ seeded(3, 4).T + seeded(3)
    assert tensors["h"].shape == (samples * 6, 3)
    assert tensors["y"].shape == wanted.shape
    np.testing.assert_allclose(tensors["y"], wanted, rtol=1e-5, atol=1e-5)
