"""What each form of an operator costs, int8 and float32, on both runtimes; lowering follows it.

    python benchmarks/kernels.py [--operators a,b] [--rounds N] [--json FILE]

Every form of kernels_forms stands between two pointwise convolutions; their own time, measured in
the same interleaved rounds, is taken off, but for stems and for forms that change the size of what
stands behind them. Least of all rounds, one thread. A form that a runtime has no integers for is
written as its own tools do: QDQ by onnxruntime.quantization, the builtin operator in LiteRT.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import onnx_ir as ir
from kernels_forms import EDGE, FORMS, Direct, Form, How
from removal_latency_timing import Rounds, time_rounds

from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_flatbuffer import FilePort, pack_graph
from deploykit.emit.tflite_float import write_float_tflite
from deploykit.emit.tflite_graph import TfliteGraph, TfliteQuantization
from deploykit.emit.tflite_layout import file_shape
from deploykit.emit.tflite_operators import lower as write_operator
from deploykit.emit.tflite_site import Site
from deploykit.emit.tflite_versions import OPERATOR_VERSIONS, OperatorVersion
from deploykit.emit.tflite_writer import write_tflite
from deploykit.graph.lowering import lower
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.quantize.sharing import separate_concats
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import ort
from deploykit.spec import stem
from deploykit.spec.network import Network, static_shape
from deploykit.spec.quantized import IoType, QuantizedNetwork
from deploykit.spec.samples import Samples

DIRECT_VERSIONS = {
    "AVERAGE_POOL_2D": OperatorVersion(2, "1.14.0"),
    "HARD_SWISH": OperatorVersion(1, "1.15.0"),
    "PRELU": OperatorVersion(1, "1.8.0"),
    "RELU": OperatorVersion(2, "1.14.0"),
}
"""Of int8 operators that deploykit never writes. Source: as OPERATOR_VERSIONS."""


@dataclass(frozen=True)
class Cost:
    """Microseconds of one form in one runtime, what stands around it taken off; None: no form."""

    operator: str
    form: str
    runtime: str
    int8_us: float | None
    float_us: float


def planned(network: Network, io: IoType = IoType.FLOAT) -> QuantizedNetwork:
    """The integers of a float graph, unproved: what a scale is changes no time."""
    form = separate_concats(network)
    shape = static_shape(form.model.graph.inputs[0])
    assert shape is not None
    inputs = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    runners = Runners(ort.OutputEvaluator(), ReferenceRunner(), [])
    options = QuantizationOptions(io=io)
    return apply_plan(form, plan_quantization(form, Samples(inputs), options, runners))


def write_files(form: Form, folder: Path) -> dict[str, Path]:
    """Its files by "runtime element"; direct ones where a form says so."""
    network = form.network()
    model = ir.to_proto(network.model)
    files = {"onnxruntime float": f"{form.name}.float.onnx", "litert float": f"{form.name}.tflite"}
    paths = {key: folder / name for key, name in files.items()}
    paths["onnxruntime float"].write_bytes(model.SerializeToString())
    paths["litert float"].write_bytes(write_float_tflite(network))
    paths["onnxruntime int8"] = folder / f"{form.name}.int8.onnx"
    paths["litert int8"] = folder / f"{form.name}.int8.tflite"
    if form.how is not How.DIRECT:
        integers = planned(lower(network) if form.how is How.LOWERED else network)
        with stems_written(form.how):
            paths["onnxruntime int8"].write_bytes(write_onnx(integers))
            paths["litert int8"].write_bytes(write_tflite(integers))
        return paths
    from peers_ort import convert

    inputs = np.random.default_rng(1).normal(size=(1, EDGE, form.side, form.side))
    convert(paths["onnxruntime float"], inputs.astype(np.float32), paths["onnxruntime int8"])
    if form.direct is None:
        del paths["litert int8"]
        return paths
    around = planned(form.network(form.direct.placeholder))
    paths["litert int8"].write_bytes(_direct_tflite(around, form.direct))
    return paths


@contextmanager
def stems_written(how: How) -> Iterator[None]:
    """Stems as blocks or whole, where a form is one of these, and as is faster otherwise."""
    fewest, most = dict(stem.FEWEST_TAPS), 1 << 30
    asked = {How.BLOCKS: dict.fromkeys(fewest, 1), How.WHOLE: dict.fromkeys(fewest, most)}
    stem.FEWEST_TAPS = asked.get(how, fewest)
    try:
        yield
    finally:
        stem.FEWEST_TAPS = fewest


def _direct_tflite(network: QuantizedNetwork, direct: Direct) -> bytes:
    """The file of a network whose operator "y" is a builtin one that deploykit has no use for."""
    OPERATOR_VERSIONS.update(DIRECT_VERSIONS)
    graph = TfliteGraph()
    index = {
        name: graph.activation(name, file_shape(tensor.shape), tensor.quantization)
        for name, tensor in network.tensors.items()
    }
    site = Site(network, graph, index, {})
    for operator in network.operators:
        if operator.output != "y":
            write_operator(operator, site)
            continue
        source = index["x"]
        read: tuple[int, ...] = (source,)
        if direct.alpha:
            channels = graph.tensors[source].shape[3]
            values = np.arange(channels, dtype=np.int8).reshape(1, 1, channels)
            scale = TfliteQuantization(np.array([0.01], np.float32), 0)
            read = (source, graph.constant("alpha", values, scale))
        graph.operator(direct.code, read, index["y"], direct.options)
    inputs, outputs = (
        [FilePort(port.name, index[port.tensor]) for port in side]
        for side in (network.inputs, network.outputs)
    )
    return pack_graph(graph, inputs, outputs)


def measure(forms: Sequence[Form], rounds: int, folder: Path) -> Iterator[Cost]:
    """Forms of one operator, and what stands around them, in the same rounds."""
    around = {form.name: form.around for form in forms if not (form.stem or form.whole)}
    written = {one.name: write_files(one, folder) for one in (*forms, *around.values())}
    for runtime in ("onnxruntime", "litert"):
        files = {
            f"{name} {key}": path
            for name, paths in written.items()
            for key, path in paths.items()
            if key.startswith(runtime)
        }
        timed = time_rounds(files, rounds)
        for form in forms:
            taken = [
                _us(timed, form, f"{runtime} {element}", around.get(form.name))
                for element in ("int8", "float")
            ]
            assert taken[1] is not None
            yield Cost(form.operator, form.form, runtime, taken[0], taken[1])


def _us(timed: Rounds, form: Form, key: str, around: Form | None) -> float | None:
    """Least over rounds: on a shared machine everything else only adds."""
    held = timed.least_ns.get(f"{form.name} {key}")
    if held is None:
        return None
    other = 0 if around is None else min(timed.least_ns[f"{around.name} {key}"])
    return (min(held) - other) / 1e3


def print_costs(costs: Sequence[Cost]) -> None:
    """One line per form."""
    print(f"{'':<58}{'ORT us':>16}{'LiteRT us':>20}")
    print(f"{'operator':<30}{'form':<28}{'int8':>10}{'float':>10}{'int8':>10}{'float':>10}")
    for (operator, form), held in groupby(
        sorted(costs, key=lambda cost: (cost.operator, cost.form)),
        key=lambda cost: (cost.operator, cost.form),
    ):
        by_runtime = {cost.runtime: cost for cost in held}
        cells = [by_runtime[name] for name in ("onnxruntime", "litert")]
        numbers = "".join(
            f"{'-' if us is None else f'{us:.1f}':>10}"
            for cost in cells
            for us in (cost.int8_us, cost.float_us)
        )
        print(f"{operator:<30}{form:<28}{numbers}")


def main() -> int:
    """Every operator's forms, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--operators", help="comma-separated starts of names; all by default")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    starts = tuple(options.operators.split(",")) if options.operators else ("",)
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="deploykit-kernels-") as folder:
        for operator, forms in groupby(FORMS, key=lambda form: form.operator):
            if operator.startswith(starts):
                costs += measure(list(forms), options.rounds, Path(folder))
                print(f"{operator}: done", file=sys.stderr)
    print_costs(costs)
    if options.json:
        command = " ".join(["python benchmarks/kernels.py", *sys.argv[1:]])
        found = {"command": command, "costs": [asdict(cost) for cost in costs]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
