"""Weights of 4 and 2 bits in their carriers against int8: speed, kernels and bytes.

    python benchmarks/carriers.py [--networks mobilenet-v2,resnet18] [--rounds 12] [--json FILE]

Each network (random weights, 224x224) is planned at 8, 4 and 2 bits, rounded to the nearest, and
written in both formats: as deploykit writes it, for ONNX Runtime 1.20 too (tables of bytes), and
the naive way beside it (INT4 read by DequantizeLinear itself; CONV_2D with INT4); 2 bits as
--tflite-lowbit small stores them too. One thread, its processor time; the forms of a network
and runtime take turns inside of every round, and each round loads them anew.

Bounds: W4 and W2 take at most 1.15 of W8's time in both runtimes, every convolution is fused in
ONNX Runtime and delegated in LiteRT, and convolution weights of W4 take at most 0.53 of W8's bytes
in model.onnx, and in model.tflite where a FULLY_CONNECTED can hold them. Exits 1 on a miss.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from bounds import Bound, print_bounds
from carriers_naive import direct_onnx, direct_tflite
from removal_latency_timing import Rounds, ThreadStopwatch, time_rounds
from removal_sources import unfolded

from deploykit.emit.onnx_writer import write_onnx
from deploykit.emit.tflite_writer import write_tflite
from deploykit.graph.normalize import normalize
from deploykit.quantize.apply import apply_plan
from deploykit.quantize.bits import WeightBits
from deploykit.quantize.options import QuantizationOptions
from deploykit.quantize.planning import plan_quantization
from deploykit.quantize.settling import Runners
from deploykit.reference.integer import ReferenceRunner
from deploykit.runtime import litert, ort
from deploykit.spec.carriers import (
    ANY_RUNTIME,
    IN_INT8,
    OLDEST_ORT,
    Carrier,
    CarrierOptions,
    Carriers,
    Layer,
    TfliteLowbit,
)
from deploykit.spec.network import Network, static_shape
from deploykit.spec.operators import Conv, Linear
from deploykit.spec.plan import Rounding
from deploykit.spec.quantized import Batch, QuantizedNetwork
from deploykit.spec.samples import Samples
from deploykit.spec.storage import kind_of, storage_of
from deploykit.verify.integer_form import integer_form

NETWORKS = ("mobilenet-v2", "resnet18")
MOST_SLOWER, MOST_BYTES = 1.15, 0.53
W8 = "W8"
NARROW = ("W4", "W2")
OLD = " for ORT 1.20"
NAIVE, SMALL = " naive", " small"
FUSED = "QLinearConv"
DELEGATED = "XNNPACK"
AS_LINEAR = frozenset((Layer.POINTWISE, Layer.LINEAR))
KEYS = {".onnx": "onnx", ".tflite": "tflite"}


@dataclass(frozen=True)
class Row:
    """One file. ratio: of its time to W8's in the same runtime, with a 95 % interval.

    kernels: of its convolutions, how many have which. conv_bytes: of their weights in the file;
    as_linear_bytes: of those that a FULLY_CONNECTED can hold.
    """

    network: str
    runtime: str
    form: str
    ms: float
    ratio: float
    low: float
    high: float
    kernels: Mapping[str, int]
    conv_bytes: int
    as_linear_bytes: int
    file_bytes: int
    deflated_bytes: int


def integers(form: Network, bits: int, carriers: CarrierOptions) -> QuantizedNetwork:
    """The integer network, unproved: what a scale is changes no time."""
    shape = static_shape(form.model.graph.inputs[0])
    assert shape is not None
    inputs = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    runners = Runners(ort.OutputEvaluator(), ReferenceRunner(), [])
    options = QuantizationOptions(WeightBits(bits), rounding=Rounding.NEAREST, carriers=carriers)
    return apply_plan(form, plan_quantization(form, Samples(inputs), options, runners))


def stored(
    network: QuantizedNetwork, carriers: Callable[[Conv | Linear], Carriers]
) -> QuantizedNetwork:
    """The same integers in other carriers."""
    operators = tuple(
        replace(one, weight=replace(one.weight, carriers=carriers(one)))
        if isinstance(one, Conv | Linear)
        else one
        for one in network.operators
    )
    return replace(network, operators=operators)


def naive_tflite(network: QuantizedNetwork) -> tuple[bytes, QuantizedNetwork]:
    """Every convolution as a CONV_2D of INT4 where there are no groups, all else as int8."""
    whole = stored(network, lambda one: IN_INT8)

    def packed(one: Conv | Linear) -> Carriers:
        dense = isinstance(one, Conv) and one.groups == 1
        return Carriers(tflite=Carrier.INT4) if dense else IN_INT8

    return direct_tflite(write_tflite(whole)), stored(network, packed)


def forms(name: str) -> dict[str, dict[str, tuple[bytes, QuantizedNetwork]]]:
    """By suffix and form, the files of one network and what they hold."""
    normal = normalize(Network(ir.from_proto(unfolded(name)), {}))
    form = integer_form(normal, Batch.FIXED)
    networks = {f"W{bits}": integers(form, bits, ANY_RUNTIME) for bits in (8, 4, 2)}
    old = {f"W{bits}{OLD}": integers(form, bits, CarrierOptions(OLDEST_ORT)) for bits in (4, 2)}
    in_onnx = {label: (write_onnx(one), one) for label, one in (networks | old).items()}
    in_tflite = {label: (write_tflite(one), one) for label, one in networks.items()}
    in_onnx[f"W4{NAIVE}"] = (direct_onnx(in_onnx["W4"][0]), networks["W4"])
    small = integers(form, 2, CarrierOptions(tflite=TfliteLowbit.SMALL))
    in_tflite[f"W2{SMALL}"] = (write_tflite(small), small)
    in_tflite[f"W4{NAIVE}"] = naive_tflite(networks["W4"])
    return {".onnx": in_onnx, ".tflite": in_tflite}


def measure(name: str, rounds: int, folder: Path) -> list[Row]:
    """Every form of one network in both runtimes."""
    rows = []
    for suffix, made in forms(name).items():
        paths = {label: folder / f"{name}-{i}{suffix}" for i, label in enumerate(made)}
        for label, path in paths.items():
            path.write_bytes(made[label][0])
        timed = time_rounds(paths, rounds, ThreadStopwatch)
        rows += [
            row(name, suffix, label, data, network, timed)
            for label, (data, network) in made.items()
        ]
    return rows


def row(
    name: str, suffix: str, label: str, data: bytes, network: QuantizedNetwork, timed: Rounds
) -> Row:
    """One file as it was timed."""
    ratio = timed.ratio(label, W8)
    convs = [one for one in network.operators if isinstance(one, Conv)]
    taken = {one.output: storage_of(KEYS[suffix], one).file_bytes for one in convs}
    pointwise = [one.output for one in convs if kind_of(one) in AS_LINEAR]
    module = ort if suffix == ".onnx" else litert
    by_tensor = module.kernels(data)
    names = {one.output: by_tensor.get(one.output) or "" for one in convs}
    return Row(
        name, "ONNX Runtime" if suffix == ".onnx" else "LiteRT", label, timed.ms(label),
        ratio.median, ratio.low, ratio.high, dict(Counter(names.values())),
        sum(taken.values()), sum(taken[output] for output in pointwise),
        len(data), len(zlib.compress(data, 9)),
    )  # fmt: skip


def print_rows(rows: Sequence[Row]) -> None:
    """One line per file."""
    print(
        f"{'network':13s} {'runtime':13s} {'form':16s} {'ms':>7s} {'of W8':>6s} {'95 %':>11s} "
        f"{'conv weights':>12s} {'file':>11s} {'deflated':>11s}  kernels of convolutions"
    )
    for one in rows:
        kernels = ", ".join(f"{count} {kernel}" for kernel, count in sorted(one.kernels.items()))
        print(
            f"{one.network:13s} {one.runtime:13s} {one.form:16s} {one.ms:7.2f} {one.ratio:6.3f} "
            f"{one.low:5.3f}-{one.high:5.3f} {one.conv_bytes:12,} {one.file_bytes:11,} "
            f"{one.deflated_bytes:11,}  {kernels}"
        )


def bounds_of(rows: Sequence[Row]) -> list[Bound]:
    """What the carriers promise; the naive forms are there to be seen."""
    bounds = []
    wide = {(one.network, one.runtime): one for one in rows if one.form == W8}
    for one in rows:
        if one.form == W8 or NAIVE in one.form or SMALL in one.form:
            continue
        where = f"{one.network}, {one.runtime}, {one.form}"
        bounds.append(Bound(f"{where}: time of W8's", one.ratio, MOST_SLOWER))
        kernel = FUSED if one.runtime == "ONNX Runtime" else DELEGATED
        outside = sum(count for name, count in one.kernels.items() if name != kernel)
        bounds.append(Bound(f"{where}: convolutions outside {kernel}", outside, 0))
        before = wide[one.network, one.runtime]
        if one.form == "W4" and one.runtime == "ONNX Runtime":
            share = one.conv_bytes / before.conv_bytes
            bounds.append(Bound(f"{where}: conv weight bytes of W8's", share, MOST_BYTES))
        if one.form == "W4" and one.runtime == "LiteRT" and before.as_linear_bytes:
            share = one.as_linear_bytes / before.as_linear_bytes
            bounds.append(Bound(f"{where}: 1x1 weight bytes of W8's", share, MOST_BYTES))
    return bounds


def main() -> int:
    """Measure, print, compare."""
    parser = argparse.ArgumentParser(description="Weights of 4 and 2 bits against int8.")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="deploykit-carriers-") as folder:
        for name in options.networks.split(","):
            rows += measure(name, options.rounds, Path(folder))
    print_rows(rows)
    if options.json is not None:
        text = json.dumps([asdict(one) for one in rows], indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return print_bounds(bounds_of(rows))


if __name__ == "__main__":
    sys.exit(main())
