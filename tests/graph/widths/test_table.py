"""Width tables: the shipped files, and what is read off a curve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit.errors import ConfigError
from deploykit.graph.widths.table import PERIOD, Curve, LayerKind, Side, WidthTable
from tests.graph.widths.tables import staircase, table_of


@pytest.mark.parametrize("name", WidthTable.names())
def test_shipped_table_is_named_after_its_target_and_plausible(name: str) -> None:
    table = WidthTable.load(name)
    assert table.target == name
    for kind, costs in table.costs.items():
        assert 0 < costs.margin < 1
        for curve in (costs.outputs, *(() if costs.inputs is None else (costs.inputs,))):
            reference = 256 if kind is LayerKind.LINEAR else 64
            assert curve.at(reference) == pytest.approx(reference, rel=0.05)
            assert curve.at(512) == pytest.approx(512, rel=0.35)
            assert curve.at(1) > 0


def test_this_project_ships_tables_for_both_runtimes_and_element_types() -> None:
    assert {name.partition("-")[0] for name in WidthTable.names()} == {"litert", "ort"}
    assert {name.rpartition("-")[2] for name in WidthTable.names()} == {"float32", "int8"}


def test_unknown_target_lists_what_exists_and_how_to_measure() -> None:
    with pytest.raises(ConfigError, match=r"'litert-arm64-dotprod-int8'.*ort-.*widths\.py measure"):
        WidthTable.load("litert-arm64-dotprod-int8")


def test_cost_is_the_product_of_both_sides() -> None:
    table = table_of(staircase(16))
    assert table.cost(LayerKind.SPATIAL, 60, 17) == 64 * 32
    assert table.cost(LayerKind.LINEAR, 16, 1) == 16 * 16


@pytest.mark.parametrize(
    ("inputs", "outputs", "time"),
    [
        (64, 64, 64 * 64),
        (60, 64, 64 * 64 * 1.5),
        (64, 60, 64 * 64 * 1.5),
        (60, 60, 64 * 64 * 1.5),
        (60, 16, 64 * 16 + 32 * 32),
        (12, 60, 16 * 64 + max(8 * 64, 32 * 32)),
    ],
)
def test_a_layer_that_is_unlucky_on_any_side_pays_once(
    inputs: int, outputs: int, time: float
) -> None:
    table = table_of(staircase(16, penalty=1.5))
    assert table.cost(LayerKind.POINTWISE, inputs, outputs) == pytest.approx(time)


def test_one_side_pays_for_itself_alone() -> None:
    table = table_of(staircase(16, penalty=1.5))
    assert table.side_cost(LayerKind.LINEAR, Side.INPUTS, 64, 60) == 64 * 64
    assert table.side_cost(LayerKind.LINEAR, Side.INPUTS, 60, 60) == 64 * 64 * 1.5
    assert table.side_cost(LayerKind.LINEAR, Side.OUTPUTS, 60, 16) == 64 * 16 + 32 * 32


def test_the_floor_is_the_best_width_at_or_above() -> None:
    curve = staircase(8, penalty=2.0)
    assert [curve.floor(width) for width in (1, 8, 9, 57, 63, 64, 65)] == [8, 8, 16, 64, 64, 64, 72]


def test_depthwise_cost_reads_outputs_alone_at_its_own_rate() -> None:
    table = table_of(staircase(16))
    assert table.cost(LayerKind.DEPTHWISE, 1, 60) == 5 * 64


@pytest.mark.parametrize("tile", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("width", [65, 72, 96, 97, 100, 250, 1000])
def test_beyond_the_last_width_a_staircase_goes_on(tile: int, width: int) -> None:
    assert staircase(tile).at(width) == pytest.approx(-(-width // tile) * tile)


def test_a_gap_is_crossed_at_the_same_place_in_the_period() -> None:
    whole = staircase(8, penalty=1.5)
    gap = Curve(
        (*whole.widths, *range(4 * PERIOD + 1, 5 * PERIOD + 1)),
        (*whole.effective, *(whole.at(c) for c in range(4 * PERIOD + 1, 5 * PERIOD + 1))),
    )
    for width in range(2 * PERIOD + 1, 4 * PERIOD + 1):
        assert gap.at(width) == pytest.approx(whole.at(width))


@pytest.mark.parametrize("width", [0, -3])
def test_no_channels_have_no_cost(width: int) -> None:
    with pytest.raises(ConfigError, match="ask for 1 or more"):
        staircase(8).at(width)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"kinds": {}},
        {"isa": "avx2"},
        {"date": None, "kinds": {"spatial": 1}},
    ],
)
def test_a_damaged_table_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    name = WidthTable.names()[0]
    tables = Path(__file__).parents[3] / "deploykit" / "graph" / "widths" / "tables"
    record = json.loads((tables / f"{name}.json").read_text())
    file = tmp_path / "table.json"
    file.write_text(json.dumps(record | change))
    with pytest.raises(ConfigError, match=r"table\.json is no width table of schema 1"):
        WidthTable.read(file)


def test_a_curve_of_one_period_is_refused(tmp_path: Path) -> None:
    name = WidthTable.names()[0]
    tables = Path(__file__).parents[3] / "deploykit" / "graph" / "widths" / "tables"
    record = json.loads((tables / f"{name}.json").read_text())
    record["kinds"]["linear"]["outputs"] = {str(c): float(c) for c in range(1, PERIOD + 1)}
    file = tmp_path / "table.json"
    file.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="every width from 1 to 64"):
        WidthTable.read(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no width table"):
        WidthTable.read(tmp_path / "none.json")
