"""LiteRT, the runtime of .tflite files: one thread, and XNNPACK, the delegate it has by default.

The interpreter comes from ai-edge-litert, or from tflite-runtime where a device has only that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.errors import DataError, GraphError, RuntimeUnavailableError
from deploykit.runtime.batches import fill_batch
from deploykit.spec.arrays import AnyArray, Tensors

PACKAGES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
)
DELEGATE = "DELEGATE"
XNNPACK = "XNNPACK"
LINEAR = "FULLY_CONNECTED"


def version() -> str | None:
    """For example "ai-edge-litert 2.3.0"; None where no interpreter can be imported."""
    for package, module in PACKAGES:
        with contextlib.suppress(ImportError, metadata.PackageNotFoundError):
            import_module(module)
            return f"{package} {metadata.version(package)}"
    return None


def run(data: bytes, inputs: Tensors) -> dict[str, AnyArray]:
    """Graph outputs by port name, [N, ...].

    inputs: by port name, [N, ...] in the file's element type and layout; a fixed batch is looped
    over, its last one filled up, a dynamic one becomes N.
    """
    interpreter = _interpreter(data)
    _, outputs = _ports(interpreter)
    return _run(interpreter, inputs, outputs)


def run_probe(data: bytes, inputs: Tensors) -> dict[str, AnyArray]:
    """Every integer input and output of a probe file, raw, by tensor name; inputs as in run()."""
    interpreter = _interpreter(data)
    details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    wanted = {
        str(detail["name"]): int(detail["index"])
        for detail in details
        if detail["dtype"] in (np.int8, np.uint8, np.int32, np.int64)
    }
    return _run(interpreter, inputs, wanted)


def kernels(data: bytes) -> Mapping[str, str | None]:
    """Who computes each integer activation: "XNNPACK", a builtin operator's name, or None.

    None: nobody, it is an input. The interpreter lists every operator of the file and one DELEGATE
    node per partition; the operators between a DELEGATE's outputs and its inputs are inside it.
    """
    interpreter = _interpreter(data)
    nodes = interpreter._get_ops_details()
    makers = _makers(nodes)
    delegated = _delegated(nodes, makers)
    activations = {*makers, *(int(detail["index"]) for detail in interpreter.get_input_details())}
    taken: dict[str, str | None] = {}
    for detail in interpreter.get_tensor_details():
        index = int(detail["index"])
        if index not in activations or np.dtype(detail["dtype"]).kind not in "iu":
            continue
        maker = str(makers[index]["op_name"]) if index in makers else None
        taken[str(detail["name"])] = XNNPACK if index in delegated else maker
    return taken


def weight_kernels(data: bytes) -> Mapping[str, str]:
    """By name of a FULLY_CONNECTED's weight, who computes it: "XNNPACK" or "FULLY_CONNECTED"."""
    interpreter = _interpreter(data)
    nodes = interpreter._get_ops_details()
    delegated = _delegated(nodes, _makers(nodes))
    names = {int(one["index"]): str(one["name"]) for one in interpreter.get_tensor_details()}
    return {
        names[int(node["inputs"][1])]: XNNPACK
        if {int(index) for index in node["outputs"]} <= delegated
        else LINEAR
        for node in nodes
        if node["op_name"] == LINEAR
    }


def _makers(nodes: Sequence[Any]) -> dict[int, Any]:
    """The operator of the file that computes each tensor, by tensor index."""
    return {
        int(index): node
        for node in nodes
        if node["op_name"] != DELEGATE
        for index in node["outputs"]
    }


def _delegated(nodes: Sequence[Any], makers: Mapping[int, Any]) -> set[int]:
    """Indices of the tensors that operators between a DELEGATE's inputs and outputs compute."""
    delegated: set[int] = set()
    for partition in (node for node in nodes if node["op_name"] == DELEGATE):
        border = {int(index) for index in partition["inputs"]}
        reached = [int(index) for index in partition["outputs"]]
        while reached:
            index = reached.pop()
            if index in border or index in delegated or index not in makers:
                continue
            delegated.add(index)
            reached.extend(int(source) for source in makers[index]["inputs"])
    return delegated


def partitions(data: bytes) -> int:
    """How many parts of the file XNNPACK took; 1 is the whole of a convolutional net."""
    nodes = _interpreter(data)._get_ops_details()
    return sum(node["op_name"] == DELEGATE for node in nodes)


def _run(interpreter: Any, inputs: Tensors, wanted: Mapping[str, int]) -> dict[str, AnyArray]:
    """Tensors by name for all batches, joined along axis 0. wanted: tensor indices by name."""
    ports, _ = _ports(interpreter)
    if sorted(inputs) != sorted(ports):
        raise DataError(f"The file takes the inputs {sorted(ports)}; given were {sorted(inputs)}.")
    _resize(interpreter, {index: len(inputs[name]) for name, index in ports.items()})
    details = {int(detail["index"]): detail for detail in interpreter.get_input_details()}
    steps = {name: _batches(name, inputs[name], details[index]) for name, index in ports.items()}
    if len({len(step) for step in steps.values()}) != 1:
        raise DataError("The inputs hold different numbers of samples; give each the same number.")
    collected: dict[str, list[AnyArray]] = {name: [] for name in wanted}
    for position in range(len(next(iter(steps.values())))):
        for name, index in ports.items():
            interpreter.set_tensor(index, steps[name][position])
        interpreter.invoke()
        for name, index in wanted.items():
            collected[name].append(interpreter.get_tensor(index))
    count, invoked = len(next(iter(inputs.values()))), sum(map(len, next(iter(steps.values()))))
    return {
        name: _first(np.concatenate(parts), count, invoked) for name, parts in collected.items()
    }


def _first(values: AnyArray, count: int, samples: int) -> AnyArray:
    """The rows of the first `count` of `samples` samples; all, where samples have no rows of it."""
    if len(values) % samples:
        return values
    return values[: count * (len(values) // samples)]


def _resize(interpreter: Any, samples: Mapping[int, int]) -> None:
    """Give inputs whose batch is dynamic as many samples as there are. samples: by tensor index."""
    dynamic = [
        detail
        for detail in interpreter.get_input_details()
        if list(detail["shape_signature"][:1]) == [-1] and samples[int(detail["index"])]
    ]
    for detail in dynamic:
        index = int(detail["index"])
        shape = [samples[index], *map(int, detail["shape"][1:])]
        interpreter.resize_tensor_input(index, shape, strict=True)
    if dynamic:
        with _native_stderr_silenced():
            interpreter.allocate_tensors()


def _batches(name: str, values: AnyArray, detail: Mapping[str, Any]) -> Sequence[AnyArray]:
    shape = tuple(int(length) for length in detail["shape"])
    fits = values.ndim == len(shape) and values.shape[1:] == shape[1:]
    if not fits or not len(values):
        raise DataError(
            f"Input {name!r} has shape {list(values.shape)} where the file takes {list(shape)}, or "
            "any number of samples along the first axis."
        )
    if values.dtype != detail["dtype"]:
        raise DataError(
            f"Input {name!r} is {values.dtype.name} where the file takes "
            f"{np.dtype(detail['dtype']).name}."
        )
    filled = fill_batch(np.ascontiguousarray(values), shape[0])
    return np.split(filled, len(filled) // shape[0])


def _ports(interpreter: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Tensor indices of inputs and outputs by public name, the signature's if there is one."""
    for signature in interpreter._get_full_signature_list().values():
        return dict(signature["inputs"]), dict(signature["outputs"])
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    return (
        {str(detail["name"]): int(detail["index"]) for detail in inputs},
        {str(detail["name"]): int(detail["index"]) for detail in outputs},
    )


def _interpreter(data: bytes) -> Any:
    """A ready interpreter; every failure of the runtime to take the file is a GraphError."""
    module = _import_interpreter()
    try:
        with _native_stderr_silenced():
            interpreter = module.Interpreter(model_content=data, num_threads=1)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise GraphError(f"LiteRT does not load the file: {reason}") from error
    return interpreter


def _import_interpreter() -> Any:
    for _, module in PACKAGES:
        with contextlib.suppress(ImportError):
            return import_module(module)
    raise RuntimeUnavailableError(
        "LiteRT cannot be imported; install it with `pip install ai-edge-litert`, or leave it out "
        "of the runtimes."
    )


@contextlib.contextmanager
def _native_stderr_silenced() -> Iterator[None]:
    """Hide the line that LiteRT writes to stderr when it makes its first XNNPACK delegate.

    Native code writes it and reads no log level, so the descriptor itself is turned away while a
    file loads; errors still arrive as exceptions.
    """
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
