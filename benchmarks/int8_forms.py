"""How fast ONNX Runtime convolves in each form of 8-bit integers on this processor.

    python benchmarks/int8_forms.py [--runs 40]

Activations by weights: uint8 by int8, the form that export writes; uint8 by uint8 and int8 by int8,
which saturate on no processor. One thread; medians in ms, and the ratio to the first.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from deploykit.graph.widths.host import Element, instruction_sets, processor_flags

Integer = type[np.int8] | type[np.uint8]
FORMS: tuple[tuple[str, Integer, Integer], ...] = (
    ("uint8 x int8", np.uint8, np.int8),
    ("uint8 x uint8", np.uint8, np.uint8),
    ("int8 x int8", np.int8, np.int8),
)
ELEMENT = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
WARM_UP = 3


@dataclass(frozen=True)
class Convolution:
    """A square one, over a square image of `side`, padded to keep its size."""

    inputs: int
    outputs: int
    kernel: int
    side: int


CONVOLUTIONS = (
    Convolution(64, 64, 3, 56), Convolution(128, 128, 3, 28),
    Convolution(256, 256, 1, 28), Convolution(64, 128, 1, 56),
)  # fmt: skip


def session(one: Convolution, activation: Integer, weight: Integer) -> Any:
    """A QLinearConv with weights within 63, so that no form saturates."""
    rng = np.random.default_rng(0)
    zero = 128 if weight is np.uint8 else 0
    drawn = rng.integers(-63, 64, (one.outputs, one.inputs, one.kernel, one.kernel)) + zero
    constants: dict[str, npt.NDArray[Any]] = {
        "xs": np.array(1, np.float32), "xz": np.array(0, activation),
        "w": drawn.astype(weight), "ws": np.ones(one.outputs, np.float32),
        "wz": np.full(one.outputs, zero, weight), "ys": np.array(1e4, np.float32),
        "yz": np.array(0, activation), "b": np.zeros(one.outputs, np.int32),
    }  # fmt: skip
    reads = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    node = helper.make_node("QLinearConv", reads, ["y"], pads=[one.kernel // 2] * 4)
    element, shape = ELEMENT[activation], [1, one.inputs, one.side, one.side]
    graph = helper.make_graph(
        [node], "conv",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def median_ms(one: Convolution, activation: Integer, weight: Integer, runs: int) -> float:
    """Of one inference."""
    made = session(one, activation, weight)
    values = np.random.default_rng(1).integers(0, 127, (1, one.inputs, one.side, one.side))
    inputs = {"x": values.astype(activation)}
    times = []
    for _ in range(WARM_UP + runs):
        start = perf_counter()
        made.run(None, inputs)
        times.append(perf_counter() - start)
    return 1e3 * median(times[WARM_UP:])


def main() -> int:
    """One row per convolution."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=40)
    options = parser.parse_args()
    flags = sorted(instruction_sets(Element.INT8, processor_flags()))
    print(f"onnxruntime {onnxruntime.__version__}, {Path(sys.executable).name}, {', '.join(flags)}")
    print(f"{'convolution':<24}" + "".join(f"{name:>22}" for name, *_ in FORMS))
    for one in CONVOLUTIONS:
        times = [median_ms(one, left, right, options.runs) for _, left, right in FORMS]
        name = f"{one.kernel}x{one.kernel}, {one.inputs} -> {one.outputs}, {one.side}"
        cells = (f"{time:.3f} ({time / times[0]:.2f})" for time in times)
        print(f"{name:<24}" + "".join(f"{cell:>22}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
