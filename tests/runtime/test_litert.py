"""The runtime's own surface: ports, batches, kernels, and what it says of what it lacks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploykit.emit.tflite_layout import to_tflite_layout
from deploykit.emit.tflite_writer import write_tflite
from deploykit.errors import DataError, GraphError, RuntimeUnavailableError
from deploykit.runtime import litert
from deploykit.spec.operators import Window
from deploykit.spec.quantized import IoType
from tests.emit.tflite_networks import NetworkBuilder, every_operator, plain_cnn, random_inputs

pytestmark = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")


def test_version_names_package_and_number() -> None:
    assert str(litert.version()).startswith(("ai-edge-litert ", "tflite-runtime "))


def test_many_samples_equal_one_after_another() -> None:
    network = plain_cnn()
    data = write_tflite(network)
    inputs = to_tflite_layout(network, random_inputs(network, samples=5))
    together = litert.run(data, inputs)["scores"]
    for position in range(5):
        single = litert.run(data, {"input": inputs["input"][position : position + 1]})
        np.testing.assert_array_equal(single["scores"][0], together[position])


def test_kernels_by_tensor() -> None:
    network = every_operator(IoType.INT8)
    kernels = litert.kernels(write_tflite(network))
    clamp = next(op for op in network.operators if type(op).__name__ == "Clamp")
    assert kernels["input"] is None
    assert kernels[clamp.output] == "MINIMUM"
    assert {kernels[op.output] for op in network.operators[:3]} == {"XNNPACK"}


def test_xnnpack_has_no_pool_that_skips_pixels() -> None:
    build = NetworkBuilder(np.random.default_rng(0))
    pool = build.max_pool(build.image(2, 9, 9), Window((2, 2), (3, 3)))
    assert litert.kernels(write_tflite(build.network(pool))) == {
        "input": None,
        "scores": "MAX_POOL_2D",
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 3, 8, 12), dtype=np.float32), "has shape"),
        (np.zeros((0, 8, 12, 3), dtype=np.float32), "has shape"),
        (np.zeros((1, 8, 12, 3), dtype=np.int8), "takes float32"),
    ],
)
def test_wrong_inputs_are_named(values: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        litert.run(write_tflite(plain_cnn()), {"input": values})


def test_samples_that_do_not_fill_the_last_batch_are_all_answered() -> None:
    network = every_operator(batch=2)
    inputs = to_tflite_layout(network, random_inputs(network, samples=4))
    whole = litert.run(write_tflite(network), inputs)
    odd = litert.run(write_tflite(network), {name: x[:3] for name, x in inputs.items()})
    for name, values in whole.items():
        np.testing.assert_array_equal(odd[name], values[:3])


def test_unknown_port_is_named() -> None:
    with pytest.raises(DataError, match=r"\['input'\]; given were \['x'\]"):
        litert.run(write_tflite(plain_cnn()), {"x": np.zeros(1, dtype=np.float32)})


def test_a_broken_file_is_a_sentence() -> None:
    with pytest.raises(GraphError, match="does not load"):
        litert.run(b"not a model at all", {})


def test_a_missing_runtime_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, module in litert.PACKAGES:
        monkeypatch.setitem(sys.modules, module, None)
    assert litert.version() is None
    with pytest.raises(RuntimeUnavailableError, match="pip install ai-edge-litert"):
        litert.run(b"", {})


def test_nothing_is_written_to_stderr() -> None:
    program = (
        "import sys\n"
        "from deploykit.runtime import litert\n"
        "print(litert.partitions(sys.stdin.buffer.read()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=write_tflite(plain_cnn()),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert (result.stdout.strip(), result.stderr) == (b"1", b"")
