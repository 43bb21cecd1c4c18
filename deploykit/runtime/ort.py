"""ONNX Runtime on the CPU, one thread unless told otherwise.

onnxruntime is imported when a function first needs it; nothing else in the package imports it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from deploykit.errors import DataError, GraphError, RuntimeUnavailableError
from deploykit.runtime.batches import fill_batch
from deploykit.spec.arrays import AnyArray, Tensors
from deploykit.spec.batching import batching
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import Network
from deploykit.spec.parallel import in_parallel
from deploykit.spec.quantized import UINT8_SHIFT, Quantization, as_int8, as_uint8

TENSOR_KEY = "deploykit.tensor:"
"""A fact of the file format, stated again: emit and runtime do not import each other."""

ERRORS_ONLY = 3


_INT8 = onnx.TensorProto.INT8
EXACT_SUMS = "session.x64quantprecision"


class Sums(Enum):
    """How products of uint8 and int8 are added on x86 processors without VNNI: see spec.pairs.

    kernels: as ONNX Runtime does by default, in pairs of 16 bits, which saturate.
    exact: in 32 bits, as every other processor does; slower.
    """

    KERNELS = "0"
    EXACT = "1"


EVALUATING_THREADS = 1
"""The same on every machine: the last bits of a sum depend on how many threads share it."""

PORT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}
"""Element types of the inputs that a float graph is evaluated on."""


def version() -> str | None:
    """Version of the onnxruntime that can be imported, or None."""
    try:
        return str(_onnxruntime().__version__)
    except RuntimeUnavailableError:
        return None


def run(
    data: bytes, inputs: Tensors, threads: int = 1, sums: Sums = Sums.KERNELS
) -> dict[str, AnyArray]:
    """Every graph output by name, for the public inputs [N, ...] by port name.

    The file's batch is looped over, its last one filled up.
    """
    return _run(_session(data, threads, sums=sums), inputs)


def run_probe(
    data: bytes, inputs: Tensors, threads: int = 1, sums: Sums = Sums.KERNELS
) -> dict[str, AnyArray]:
    """Every integer activation as int8 in NCHW by the network's tensor name, of a probe file.

    Outputs of int32 and int64 are there as they are.

    inputs: by port name, int8 [N, ...] already quantized; a float port receives their real
    values, a uint8 port the shifted ones. A float port takes floats as they are.
    """
    session = _session(data, threads, sums=sums)
    names = _tensor_names(session)
    quantizations = _input_quantizations(data)
    public: dict[str, AnyArray] = {}
    tensors: dict[str, AnyArray] = {}
    for port in session.get_inputs():
        if port.name not in inputs:
            continue
        values = inputs[port.name]
        if values.dtype == np.int8 and port.type == "tensor(float)":
            values = quantizations[port.name].dequantize(values)
        elif values.dtype == np.int8 and port.type == "tensor(uint8)":
            values = as_uint8(values)
        if values.dtype == np.uint8:
            tensors[names.get(port.name, port.name)] = as_int8(values)
        public[port.name] = values
    for name, values in _run(session, public).items():
        if values.dtype == np.uint8:
            tensors[names.get(name, name)] = as_int8(values)
        elif values.dtype.kind == "i" and values.dtype.itemsize > 1:
            tensors[name] = values
    return tensors


def evaluate(network: Network, inputs: GraphInputs) -> dict[str, AnyArray]:
    """FloatEvaluator: every tensor the float graph computes, in the types that it states.

    inputs: [N, ...] of its one graph input, or of each by name.

    Graph optimizations are off, so that no tensor is fused away.
    """
    session = _evaluating(network)
    values = _typed_inputs(session, inputs)
    return {**values, **_run(session, values)}


class OutputEvaluator:
    """FloatEvaluator of the graph's outputs alone, whose session fuses what lies between them.

    Several threads may call it at once.
    """

    def __init__(self) -> None:
        self._network: Network | None = None
        self._session: Any = None
        self._loading = Lock()

    def __call__(self, network: Network, inputs: GraphInputs) -> dict[str, AnyArray]:
        """The inputs and the outputs by name. inputs: as for `evaluate`."""
        with self._loading:
            if network is not self._network:
                data = ir.to_proto(network.model).SerializeToString()
                self._session, self._network = _session(data, EVALUATING_THREADS), network
            session = self._session
        values = _typed_inputs(session, inputs)
        # ONNX Runtime takes no run that asks for nothing.
        computed = _run(session, values) if network.model.graph.outputs else {}
        return {**values, **computed}


def _evaluating(network: Network) -> Any:
    """A session that returns every tensor."""
    model: onnx.ModelProto = ir.to_proto(network.model)
    known = {value.name for value in model.graph.output}
    computed = (
        name for node in model.graph.node if node.op_type != "Constant" for name in node.output
    )
    for name in dict.fromkeys(name for name in computed if name and name not in known):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return _session(model.SerializeToString(), 1, optimize=False)


def optimized(data: bytes) -> onnx.ModelProto:
    """A file after ORT's fusions.

    Read at the extended level: the layout pass above it keeps every fusion but renames tensors.
    """
    ort = _onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = _options(ort, 1)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        _load(ort, data, options)
        return onnx.load(path)


def kernels(data: bytes) -> Mapping[str, str]:
    """The operator that computes each integer tensor after ORT's fusions, by tensor name."""
    model = onnx.load_from_string(data)
    names = {
        entry.key.removeprefix(TENSOR_KEY): entry.value
        for entry in model.metadata_props
        if entry.key.startswith(TENSOR_KEY)
    }
    wanted = _integer_outputs(model.graph)
    return {
        names.get(output, output): node.op_type
        for node in optimized(data).graph.node
        for output in node.output
        if output in wanted
    }


def node_kernels(data: bytes) -> Mapping[str, str]:
    """After ORT's fusions, the operator behind each node that kept its name."""
    return {node.name: node.op_type for node in optimized(data).graph.node if node.name}


def _onnxruntime() -> Any:
    """The onnxruntime module, its telemetry off and its warnings quiet."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"onnxruntime cannot be imported ({error}); install it with `pip install onnxruntime`."
        ) from error
    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    return onnxruntime


def _options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def _session(data: bytes, threads: int, optimize: bool = True, sums: Sums = Sums.KERNELS) -> Any:
    ort = _onnxruntime()
    options = _options(ort, threads)
    options.add_session_config_entry(EXACT_SUMS, sums.value)
    if sums is Sums.EXACT:
        data = with_own_constants(data)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _load(ort, data, options)


def with_own_constants(data: bytes) -> bytes:
    """Every node that reads weights with a DequantizeLinear and int8 constants of its own.

    For exact sums ONNX Runtime makes weights uint8 node by node, and fails at a constant that it
    made so before (1.32): a tied weight, or a zero point.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    constants = {one.name: one for one in graph.initializer if one.data_type == _INT8}
    weights = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    nodes: list[onnx.NodeProto] = []
    seen: set[str] = set()

    def own_constants(node: onnx.NodeProto) -> None:
        for slot, name in enumerate(node.input):
            if name in constants and name in seen:
                copy = graph.initializer.add()
                copy.CopyFrom(constants[name])
                node.input[slot] = copy.name = f"{name}/{len(graph.initializer)}"
            seen.add(name)

    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in weights and name in seen:
                own = onnx.NodeProto()
                own.CopyFrom(weights[name])
                own.output[0] = own.name = node.input[slot] = f"{name}/{len(nodes)}"
                own_constants(own)
                nodes.append(own)
        own_constants(node)
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    unshared: bytes = model.SerializeToString()
    return unshared


def _load(ort: Any, data: bytes, options: Any) -> Any:
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _refusals(ort) as error:
        raise GraphError(
            f"onnxruntime {ort.__version__} does not load the file: {error}; "
            "write it again, or try another version of the runtime."
        ) from error


def _refusals(ort: Any) -> tuple[type[Exception], ...]:
    """What onnxruntime raises where it does not take a file."""
    errors = ort.capi.onnxruntime_pybind11_state
    return (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
        errors.RuntimeException,
    )


def _fed(session: Any, names: list[str], feed: Tensors) -> list[AnyArray]:
    ort = _onnxruntime()
    try:
        results: list[AnyArray] = session.run(names, feed)
    except _refusals(ort) as error:
        raise GraphError(
            f"onnxruntime {ort.__version__} does not run the file: {error}; "
            "write it again, or try another version of the runtime."
        ) from error
    return results


def _run(session: Any, inputs: Tensors) -> dict[str, AnyArray]:
    """The session's outputs, joined over the batches that its static shapes allow at a time."""
    ports = session.get_inputs()
    missing = sorted({port.name for port in ports} - set(inputs))
    if missing:
        raise DataError(f"No values were given for the inputs {missing}; given: {sorted(inputs)}.")
    names = [output.name for output in session.get_outputs()]
    given = {port.name: inputs[port.name] for port in ports}
    if any(values.shape[:1] == (0,) for values in given.values()):
        raise DataError("There are no samples to run.")
    batch = batching({port.name: _static_batch(port) for port in ports}, given)
    if batch is None:
        return dict(zip(names, _fed(session, names, given), strict=True))
    filled = {
        name: fill_batch(values, batch.size) if name in batch.split else values
        for name, values in given.items()
    }

    def one(start: int) -> list[AnyArray]:
        stop = start + batch.size
        feed = {name: v[start:stop] if name in batch.split else v for name, v in filled.items()}
        return _fed(session, names, feed)

    parts = in_parallel(one, range(0, batch.samples, batch.size))
    return {
        name: _joined([part[i] for part in parts], batch.size, batch.samples)
        for i, name in enumerate(names)
    }


def _static_batch(port: Any) -> int | None:
    first = port.shape[0] if port.shape else None
    return first if isinstance(first, int) and first > 0 else None


def _typed_inputs(session: Any, inputs: GraphInputs) -> dict[str, AnyArray]:
    """The inputs by port, each in the port's element type."""
    ports = {port.name: port.type for port in session.get_inputs()}
    if not isinstance(inputs, Mapping):
        if len(ports) != 1:
            raise DataError(
                f"The graph has the inputs {list(ports)}, and one array was given; "
                "give an array for each of them by name."
            )
        inputs = dict.fromkeys(ports, inputs)
    if set(inputs) != set(ports):
        raise DataError(
            f"Values were given for {sorted(inputs)}, and the graph's inputs are {sorted(ports)}; "
            "give exactly those."
        )
    unknown = sorted({kind for kind in ports.values() if kind not in PORT_TYPES})
    if unknown:
        raise DataError(
            f"The graph takes inputs of the types {unknown}; "
            f"rewrite it with {', '.join(sorted(PORT_TYPES))}."
        )
    typed: dict[str, AnyArray] = {}
    for name, kind in ports.items():
        values, wanted = np.asarray(inputs[name]), np.dtype(PORT_TYPES[kind])
        if wanted.kind != "f" and values.dtype.kind == "f":
            raise DataError(
                f"The input {name!r} is of type {wanted}, not {values.dtype}; convert it."
            )
        typed[name] = values.astype(wanted, copy=False)
    return typed


def _joined(parts: list[AnyArray], batch: int, count: int) -> AnyArray:
    """The first `count` samples, one behind another along axis 0, which may hold rows of each.

    What holds no whole number of rows for a sample stays as it is.
    """
    first = parts[0]
    if first.ndim == 0 or not first.shape[0] or first.shape[0] % batch:
        return first
    kept = count * (first.shape[0] // batch)
    return first[:kept] if len(parts) == 1 else np.concatenate(parts)[:kept]


def _tensor_names(session: Any) -> dict[str, str]:
    """The network's tensor name by ONNX name, where the two differ."""
    metadata = session.get_modelmeta().custom_metadata_map
    return {
        key.removeprefix(TENSOR_KEY): value
        for key, value in metadata.items()
        if key.startswith(TENSOR_KEY)
    }


def _integer_outputs(graph: onnx.GraphProto) -> set[str]:
    """ONNX names of the uint8 activations that the file's nodes compute, and of wider outputs."""
    wide = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}
    whole = {one.name for one in graph.output if one.type.tensor_type.elem_type in wide}
    return whole | {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    }


def _input_quantizations(data: bytes) -> dict[str, Quantization]:
    """By float port, the quantization of the QuantizeLinear that reads it."""
    graph = onnx.load_from_string(data).graph
    constants = {constant.name: constant for constant in graph.initializer}

    def scalar(name: str) -> float:
        return float(onnx.numpy_helper.to_array(constants[name]))

    return {
        node.input[0]: Quantization(scalar(node.input[1]), int(scalar(node.input[2])) - UINT8_SHIFT)
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[1] in constants
    }
