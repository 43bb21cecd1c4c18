"""A float ONNX file as an integer one, by onnxruntime.quantization as its guide recommends.

    python benchmarks/peers_ort.py --model FILE.onnx --data FILE.npz --out FILE.onnx [--bits 4]

quant_pre_process (shapes, fusions), then quantize_static: QDQ, MinMax, uint8 activations, weights
of 8 or 4 bits per channel. The last line is JSON: seconds of each, imports apart.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """One sample after another. samples: [N, ...]."""

    def __init__(self, name: str, samples: np.ndarray[Any, Any]) -> None:
        self._rows: Iterator[dict[str, Any]] = ({name: sample[None]} for sample in samples)

    def get_next(self) -> dict[str, Any] | None:
        """The next one; None at the end."""
        return next(self._rows, None)


WEIGHTS = {8: QuantType.QInt8, 4: QuantType.QInt4}


def convert(
    model: Path, samples: np.ndarray[Any, Any], out: Path, bits: int = 8
) -> dict[str, float]:
    """Write the file; seconds by step. samples: [N, C, H, W] float32."""
    name = onnx.load(model).graph.input[0].name
    prepared = out.with_suffix(".prepared.onnx")
    start = perf_counter()
    quant_pre_process(str(model), str(prepared))
    preparing, start = perf_counter() - start, perf_counter()
    quantize_static(
        str(prepared), str(out), Samples(name, samples), quant_format=QuantFormat.QDQ,
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=WEIGHTS[bits],
        calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip
    return {"preprocess": preparing, "quantize": perf_counter() - start}


def main() -> None:
    """Convert one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name in ("--model", "--data", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--bits", type=int, choices=WEIGHTS, default=8)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with np.load(options.data) as data:
        samples = data["inputs"]
    print(json.dumps(convert(options.model, samples, options.out, options.bits)))


if __name__ == "__main__":
    main()
