"""What it costs to copy a tensor between two layers: to other channels, or with numbers added.

    x -> (c -> gather -> + x) * REPEATS -> G             against the same without the gather
    x -> (c -> gather -> add -> + x) * REPEATS -> G      against the one above: runtimes fold an add
                                                         right behind a layer into its bias

Of the differences per copy by size of the tensor, the envelope is kept: the least size gives the
fixed part, and the largest of the others' per element the rest. So no size is predicted too cheap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper
from removal_latency_timing import time_rounds

from deploykit.emit.tflite_float import write_float_tflite
from deploykit.graph.widths.host import Runtime
from deploykit.graph.widths.table import Move
from deploykit.spec.network import Network

CHAINS: tuple[tuple[Move, ...], ...] = ((), (Move.GATHER,), (Move.GATHER, Move.ADD))
REPEATS = 4
SIZES = ((32, 7), (64, 14), (256, 14), (128, 28), (64, 56), (256, 56))
"""Channels and side, by size."""


def measure_moves(runtime: Runtime, rounds: int) -> dict[str, dict[str, float]]:
    """The table's `moves`: nanoseconds, of float32."""
    found: dict[Move, dict[int, float]] = {move: {} for move in Move}
    for channels, side in SIZES:
        elements = channels * side * side
        for move, nanoseconds in _differences(runtime, channels, side, rounds).items():
            found[move][elements] = nanoseconds
            print(f"  {move.value} of {channels} x {side} x {side}: {nanoseconds / 1e3:.1f} us")
    return {move.value: _envelope(times) for move, times in found.items()}


def _envelope(times: Mapping[int, float]) -> dict[str, float]:
    least = min(times)
    per_element = max(times[n] / n for n in times if n != least)
    fixed = max(times[least] - per_element * least, 0.0)
    return {"ns_fixed": float(f"{fixed:.4g}"), "ns_per_element": float(f"{per_element:.4g}")}


def _differences(runtime: Runtime, channels: int, side: int, rounds: int) -> dict[Move, float]:
    """Nanoseconds of one copy."""
    with tempfile.TemporaryDirectory(prefix="deploykit-moves-") as folder:
        files = {}
        for moves in CHAINS:
            network = _network(_model(channels, side, moves))
            match runtime:
                case Runtime.ORT:
                    suffix, data = ".onnx", ir.to_proto(network.model).SerializeToString()
                case Runtime.LITERT:
                    suffix, data = ".tflite", write_float_tflite(network)
                case _:
                    assert_never(runtime)
            name = str(len(moves))
            files[name] = Path(folder) / f"{name}{suffix}"
            files[name].write_bytes(data)
        timed = time_rounds(files, rounds)
    took = [1e6 * timed.ms(str(len(moves))) / REPEATS for moves in CHAINS]
    return {
        moves[-1]: max(after - before, 0.0)
        for moves, before, after in zip(CHAINS[1:], took, took[1:], strict=False)
    }


def _network(model: onnx.ModelProto) -> Network:
    """As a network with shapes; nothing is folded, so that the copies stay."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return Network(ir.from_proto(inferred), {})


def _model(channels: int, side: int, moves: Sequence[Move]) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes, initializers, current = [], [], "x"
    for place in range(REPEATS):
        made = f"c{place}"
        weight = rng.standard_normal((channels, channels, 1, 1), np.float32)
        initializers += [
            numpy_helper.from_array(weight / np.float32(channels**0.5), f"{made}.weight"),
            numpy_helper.from_array(rng.standard_normal(channels, np.float32), f"{made}.bias"),
        ]
        nodes.append(helper.make_node("Conv", [current, f"{made}.weight", f"{made}.bias"], [made]))
        for move in moves:
            source, held, made = made, f"{made}.{move.value}", f"{made}.moved"
            match move:
                case Move.GATHER:
                    initializers.append(numpy_helper.from_array(rng.permutation(channels), held))
                    nodes.append(helper.make_node("Gather", [source, held], [made], axis=1))
                case Move.ADD:
                    numbers = rng.standard_normal((1, channels, 1, 1), np.float32)
                    initializers.append(numpy_helper.from_array(numbers, held))
                    nodes.append(helper.make_node("Add", [source, held], [made]))
                case _:
                    assert_never(move)
        nodes.append(helper.make_node("Add", [made, current], [f"s{place}"]))
        current = f"s{place}"
    nodes.append(helper.make_node("GlobalAveragePool", [current], ["y"]))
    shapes = {"x": (1, channels, side, side), "y": (1, channels, 1, 1)}
    ports = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    graph = helper.make_graph(nodes, "moves", [ports["x"]], [ports["y"]], initializers)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
