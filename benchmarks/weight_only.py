"""Weights of linears alone in integers, against int8 and float: speed, bytes and error.

    python benchmarks/weight_only.py [--tokens 1,64] [--rounds 12] [--json FILE]

A multilayer perceptron of four blocks 768 -> 3072 -> 768 (random weights, Relu between) is written
in float32, in int8, and with weights alone in 8 bits, in 4, and in 4 with a scale for each 32
inputs; one token at a time and many. One thread, its processor time; the forms of a runtime take
turns inside of every round. SQNR: of the output on 64 other samples, against float64. Weights are
rounded to nearest, so that planning takes seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper
from removal_latency_timing import ThreadStopwatch, time_rounds

from deploykit.emit.onnx_weight_only import write_weight_only_onnx
from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_float import write_float_tflite
from deploykit.emit.tflite_weight_only import write_weight_only_tflite
from deploykit.emit.tflite_writer import write_tflite
from deploykit.exporting.onnx_bytes import model_bytes
from deploykit.graph.normalize import normalize
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.quantize.weight_only import plan_weight_only
from deploykit.reference.float import evaluate_outputs
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network
from deploykit.spec.plan import Rounding
from deploykit.spec.progress import ignore
from deploykit.spec.quantized import Batch
from deploykit.spec.samples import Samples
from deploykit.verify.integer_form import integer_form
from deploykit.verify.metrics import sqnr_db

WIDTH, HIDDEN, BLOCKS = 768, 3072, 4
CALIBRATION, JUDGED = 64, 64
FLOAT, INT8 = "float", "int8"
WEIGHT_ONLY: Mapping[str, tuple[int, int | None]] = {
    "W8": (8, None), "W4": (4, None), "W4 g32": (4, 32),
}  # fmt: skip
"""By form, bits and the inputs that share a scale."""


@dataclass(frozen=True)
class Row:
    """One file. ratio: of its time to float's in the same runtime, with a 95 % interval."""

    tokens: int
    runtime: str
    form: str
    ms: float
    ratio: float
    low: float
    high: float
    sqnr_db: float
    file_bytes: int


def perceptron(tokens: int) -> Network:
    """[tokens, WIDTH] -> [tokens, WIDTH]"""
    generator = np.random.default_rng(0)
    nodes, constants, source = [], [], "x"
    for index in range(2 * BLOCKS):
        inputs, outputs = (WIDTH, HIDDEN) if index % 2 == 0 else (HIDDEN, WIDTH)
        weight = generator.normal(size=(outputs, inputs)) * np.sqrt(2 / inputs)
        bias = generator.normal(size=outputs) / 10
        for name, values in ((f"w{index}", weight), (f"b{index}", bias)):
            constants.append(numpy_helper.from_array(values.astype(np.float32), name))
        linear = helper.make_node(
            "Gemm", [source, f"w{index}", f"b{index}"], [f"y{index}"], f"y{index}", transB=1
        )
        nodes.append(linear)
        source = f"y{index}"
        if index < 2 * BLOCKS - 1:
            nodes.append(helper.make_node("Relu", [source], [f"r{index}"], f"r{index}"))
            source = f"r{index}"
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "perceptron", [helper.make_tensor_value_info("x", kind, [tokens, WIDTH])],
        [helper.make_tensor_value_info(source, kind, [tokens, WIDTH])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return normalize(Network(ir.from_proto(onnx.shape_inference.infer_shapes(model)), {}))


def files(network: Network, samples: Samples) -> dict[str, dict[str, bytes]]:
    """By suffix and form."""
    evaluate = ort.OutputEvaluator()
    made = {
        ".onnx": {FLOAT: model_bytes(network)},
        ".tflite": {FLOAT: write_float_tflite(network)},
    }
    form = integer_form(network, Batch.FIXED)
    options = QuantizationOptions(rounding=Rounding.NEAREST)
    runners = Runners(evaluate, ReferenceRunner(), [])
    integers = apply_plan(form, plan_quantization(form, samples, options, runners))
    made[".onnx"][INT8], made[".tflite"][INT8] = write_onnx(integers), write_tflite(integers)
    for label, (bits, block) in WEIGHT_ONLY.items():
        options = QuantizationOptions(WeightBits(bits), rounding=Rounding.NEAREST)
        plan = plan_weight_only(network, samples, options, block, evaluate, ignore)
        made[".onnx"][label] = write_weight_only_onnx(network, plan)
        made[".tflite"][label] = write_weight_only_tflite(network, plan)
    return made


def measure(tokens: int, rounds: int, folder: Path) -> list[Row]:
    """Every form in both runtimes."""
    network = perceptron(tokens)
    generator = np.random.default_rng(1)
    drawn = generator.normal(size=(CALIBRATION + JUDGED, WIDTH)).astype(np.float32)
    calibration, judged = drawn[:CALIBRATION], drawn[CALIBRATION:]
    (wanted,) = evaluate_outputs(network, judged).values()
    rows = []
    for suffix, forms in files(network, Samples(calibration)).items():
        paths = {label: folder / f"{tokens}-{i}{suffix}" for i, label in enumerate(forms)}
        for label, path in paths.items():
            path.write_bytes(forms[label])
        timed = time_rounds(paths, rounds, ThreadStopwatch)
        for label, data in forms.items():
            ratio = timed.ratio(label, FLOAT)
            rows.append(
                Row(
                    tokens,
                    "ONNX Runtime" if suffix == ".onnx" else "LiteRT",
                    label,
                    timed.ms(label),
                    ratio.median,
                    ratio.low,
                    ratio.high,
                    sqnr_db(wanted, _output(suffix, data, judged)),
                    len(data),
                )
            )
    return rows


def _output(suffix: str, data: bytes, inputs: AnyArray) -> AnyArray:
    found = ort.run(data, {"x": inputs}) if suffix == ".onnx" else litert.run(data, {"x": inputs})
    (output,) = found.values()
    return output


def print_rows(rows: Sequence[Row]) -> None:
    """One line per file."""
    print(
        f"{'tokens':>6s} {'runtime':13s} {'form':7s} {'ms':>8s} {'of float':>8s} {'95 %':>13s} "
        f"{'SQNR dB':>7s} {'file':>11s}"
    )
    for one in rows:
        print(
            f"{one.tokens:6d} {one.runtime:13s} {one.form:7s} {one.ms:8.3f} {one.ratio:8.3f} "
            f"{f'{one.low:.3f}-{one.high:.3f}':>13s} {one.sqnr_db:7.1f} {one.file_bytes:11,}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Weights of linears alone in integers.")
    parser.add_argument("--tokens", default="1,64")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="deploykit-weight-only-") as folder:
        for tokens in options.tokens.split(","):
            rows += measure(int(tokens), options.rounds, Path(folder))
    print_rows(rows)
    if options.json is not None:
        text = json.dumps([asdict(one) for one in rows], indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
