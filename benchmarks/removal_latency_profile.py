"""Where the time of a float network goes, by kind of operator.

ONNX Runtime: its own profiler, inside the whole graph. LiteRT: its interpreter does not say what
XNNPACK's operators take, so every operator, with the activation fused into it, is written as a file
of its own and timed; how far their sum is from the whole network is the error of this.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter
from onnx import helper, numpy_helper
from removal_graph import Array, Graph, graph_of, random_input
from removal_latency_kinds import Kind, Profile, kind_of

from deploykit.emit.tflite_float import write_float_tflite
from deploykit.graph.widths.host import Runtime
from deploykit.spec.network import Network

RUNS = 30
ORT_RUNS = 60
FUSED = frozenset(("Relu", "Clip"))


def profile(network: Network, runtime: Runtime) -> Profile:
    """Milliseconds by kind, one thread."""
    profilers: dict[Runtime, Callable[[Network], Profile]] = {
        Runtime.ORT: profile_ort,
        Runtime.LITERT: profile_litert,
    }
    return profilers[runtime](network)


def profile_ort(network: Network) -> Profile:
    """Least time of each node over ORT_RUNS inferences, from the profiler."""
    graph = graph_of(ir.to_proto(network.model))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(
            graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        values = random_input(graph, 0)
        for _ in range(ORT_RUNS):
            session.run(None, {graph.input_name: values})
        events = json.loads(Path(session.end_profiling()).read_text())
    least: dict[tuple[str, Kind], float] = {}
    for event in events:
        if event["cat"] != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        facts = event["args"]
        shapes = [tuple(next(iter(shape.values()))) for shape in facts["input_type_shape"]]
        key = (event["name"], kind_of(facts["op_name"], shapes))
        least[key] = min(least.get(key, float("inf")), event["dur"] / 1e3)
    return _summed((kind, ms) for (_, kind), ms in least.items())


def profile_litert(network: Network) -> Profile:
    """Least time of each operator in a file of its own; equal ones are timed once."""
    known: dict[bytes, float] = {}
    return _summed((kind, _least_ms(data, known)) for kind, data in _single_files(network))


def _summed(parts: Iterator[tuple[Kind, float]]) -> Profile:
    found: defaultdict[Kind, float] = defaultdict(float)
    for kind, ms in parts:
        found[kind] += ms
    return dict(found)


def _least_ms(data: bytes, known: dict[bytes, float]) -> float:
    if data not in known:
        interpreter = Interpreter(model_content=data, num_threads=1)
        interpreter.allocate_tensors()
        generator = np.random.default_rng(0)
        for port in interpreter.get_input_details():
            values = generator.random(port["shape"]).astype(port["dtype"])
            interpreter.set_tensor(port["index"], values)
        least = float("inf")
        for _ in range(RUNS):
            start = perf_counter_ns()
            interpreter.invoke()
            least = min(least, (perf_counter_ns() - start) / 1e6)
        known[data] = least
    return known[data]


def _single_files(network: Network) -> Iterator[tuple[Kind, bytes]]:
    """Every node with the activation that it alone feeds, as a TFLite file of zero weights."""
    graph = graph_of(ir.to_proto(network.model))
    shapes = _shapes(graph)
    taken: set[str] = set()
    for node in graph.nodes:
        if node.output[0] in taken or all(name in graph.constants for name in node.input):
            continue
        nodes = [node]
        readers = [other for other in graph.nodes if node.output[0] in other.input]
        if len(readers) == 1 and readers[0].op_type in FUSED:
            nodes.append(readers[0])
            taken.add(readers[0].output[0])
        kind = kind_of(node.op_type, [shapes[name] for name in node.input if name])
        yield kind, write_float_tflite(_single(graph, nodes, shapes))


def _shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    ports = (*graph.model.graph.input, *graph.model.graph.value_info, *graph.model.graph.output)
    shapes = {
        port.name: tuple(max(size.dim_value, 1) for size in port.type.tensor_type.shape.dim)
        for port in ports
    }
    return {**shapes, **{name: array.shape for name, array in graph.constants.items()}}


def _single(
    graph: Graph, nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]]
) -> Network:
    """The nodes as a network; its inputs and outputs are named by place, so that equals are equal.

    Float constants of two axes and more are zero: what they hold does not change the time.
    """
    place: dict[str, str] = {}
    initializers = []
    ports = []
    copies: list[onnx.NodeProto] = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if not name:
                continue
            if name not in place:
                place[name] = f"t{len(place)}"
                if name in graph.constants:
                    array = _blank(graph.constants[name])
                    initializers.append(numpy_helper.from_array(array, place[name]))
                else:
                    ports.append(_port(place[name], shapes[name]))
            copy.input[index] = place[name]
        for index, name in enumerate(node.output):
            place[name] = f"t{len(place)}"
            copy.output[index] = place[name]
        copy.name = f"n{len(copies)}"
        copies.append(copy)
    outputs = [_port(place[name], shapes[name]) for name in nodes[-1].output if name in shapes]
    inner = [_port(place[nodes[0].output[0]], shapes[nodes[0].output[0]])] if nodes[1:] else []
    made = helper.make_graph(copies, "one", ports, outputs, initializers, value_info=inner)
    model = helper.make_model(made, opset_imports=list(graph.model.opset_import))
    return Network(ir.from_proto(model), {})


def _blank(array: Array) -> Array:
    return np.zeros_like(array) if array.dtype.kind == "f" and array.ndim > 1 else array


def _port(name: str, shape: tuple[int, ...]) -> Any:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
