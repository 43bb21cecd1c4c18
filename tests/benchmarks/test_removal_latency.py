"""The latency benchmark: kinds, ratios, bounds, and timings of real small files."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from removal_latency import Row, bounds_of, row_of
from removal_latency_kinds import Kind, beyond_share, kind_of
from removal_latency_profile import profile
from removal_latency_timing import Ratio, Rounds, ratio, time_rounds

from deploykit.graph.widths.host import Runtime
from deploykit.spec.network import Network

EVEN = Ratio(1.0, 1.0, 1.0)
ROW = Row(
    "net", "litert", "after norm", 0.5, 8.0, 0.01, 400, 100, 110,
    Ratio(2.0, 1.9, 2.1), Ratio(3.0, 2.9, 3.1), Ratio(0.9, 0.8, 1.0), 3, {},
)  # fmt: skip


@pytest.mark.parametrize(
    ("operator", "shapes", "kind"),
    [
        ("Conv", [(1, 3, 32, 32), (16, 3, 3, 3)], Kind.STEM),
        ("Conv", [(1, 16, 8, 8), (16, 16, 3, 3)], Kind.SPATIAL),
        ("FusedConv", [(1, 16, 8, 8), (16, 16, 1, 1)], Kind.POINTWISE),
        ("Conv", [(1, 16, 8, 8), (16, 1, 3, 3)], Kind.DEPTHWISE),
        ("Conv", [(1, 16, 8, 8), (16, 4, 3, 3)], Kind.GROUPED),
        ("Gemm", [(1, 16)], Kind.LINEAR),
        ("ReorderOutput", [(1, 16, 8, 8)], Kind.LAYOUT),
    ],
)
def test_kinds(operator: str, shapes: list[tuple[int, ...]], kind: Kind) -> None:
    assert kind_of(operator, shapes) is kind


def test_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="Quux has no kind"):
        kind_of("Quux", [])


def test_what_a_kind_takes_beyond_its_share() -> None:
    dense = {Kind.POINTWISE: 8.0, Kind.DEPTHWISE: 2.0}
    pruned = {Kind.POINTWISE: 2.0, Kind.DEPTHWISE: 1.5, Kind.MOVE: 0.5}
    found = beyond_share(dense, pruned, macs_ratio=4.0)
    assert [(one.kind, one.ms, one.share) for one in found] == [
        (Kind.DEPTHWISE, 1.0, 0.25),
        (Kind.MOVE, 0.5, 0.125),
    ]


def test_ratio_of_rounds() -> None:
    assert Rounds({"a": (8, 9, 10, 11, 12)}).spread("a") == 0.2
    found = ratio([2.0] * 5 + [8.0])
    assert found.median == 2.0
    assert found.low == 2.0 < found.high
    with pytest.raises(ValueError, match="5 rounds"):
        ratio([1.0] * 5)


def test_efficiency_and_bounds() -> None:
    assert ROW.efficiency(ROW.none) == 0.5
    assert ROW.efficiency(ROW.auto) == 0.75
    worse = replace(ROW, runtime="ort", slower=Ratio(1.03, 1.01, 1.05))
    assert missed([ROW]) == []
    assert missed([worse]) == ["median", "lower end of 95 %"]
    assert missed([replace(ROW, auto=EVEN)]) == ["geometric mean of 1"]
    assert missed([replace(ROW, spread=0.2)]) == ["spread of the dense rounds"]


def missed(rows: list[Row]) -> list[str]:
    """Ends of the names of the bounds that do not hold."""
    names = [bound.name for bound in bounds_of(rows) if not bound.holds]
    return [name.replace(": ", ", ").split(", ")[-1] for name in names]


def test_row_survives_json() -> None:
    assert row_of(asdict(ROW)) == ROW


def test_equal_files_are_timed_once(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.onnx" for name in ("a", "b", "c")}
    for name, path in files.items():
        onnx.save(_model(24 if name == "c" else 16), path)
    rounds = time_rounds(files, 6)
    assert rounds.least_ns["a"] == rounds.least_ns["b"] != rounds.least_ns["c"]
    assert rounds.ratio("a", "b") == EVEN
    assert rounds.ms("c") > 0


@pytest.mark.parametrize("runtime", list(Runtime))
def test_profile_names_every_kind(runtime: Runtime) -> None:
    found = profile(Network(ir.from_proto(_model(16)), {}), runtime)
    expected = {Kind.STEM, Kind.DEPTHWISE, Kind.POOL}
    assert expected <= set(found) <= expected | {Kind.LAYOUT}
    assert all(ms > 0 for ms in found.values())


def _model(width: int) -> onnx.ModelProto:
    """3 -> width, relu, depthwise, global pool, on 32x32."""
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(width, 3, 3, 3)).astype(np.float32),
        "w1": rng.normal(size=(width, 1, 3, 3)).astype(np.float32),
        "b": np.zeros(width, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r"]),
        helper.make_node("Conv", ["r", "w1", "b"], ["c1"], group=width, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c1"], ["y"]),
    ]

    def port(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    image = (1, width, 32, 32)
    graph = helper.make_graph(
        nodes, "g", [port("x", (1, 3, 32, 32))], [port("y", (1, width, 1, 1))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
        value_info=[port(name, image) for name in ("c0", "r", "c1")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
