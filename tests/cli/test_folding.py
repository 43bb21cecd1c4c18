"""Names in tables break at their joints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deploykit_cli.folding import folded
from deploykit_cli.tables import layer_table, legend


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("conv1", 12, ["conv1"]),
        ("backbone.stage1.conv in float", 16, ["backbone.stage1.", "conv in float"]),
        ("features/denseblock1/denselayer12", 14, ["features/", "denseblock1/", "denselayer12"]),
        ("SpaceToDepth, QLinearConv", 10, ["SpaceTo", "Depth,", "QLinear", "Conv"]),
        ("max_pool2d_1", 11, ["max_pool2d_", "1"]),
        ("QLinearGlobalAveragePool", 12, ["QLinear", "Global", "AveragePool"]),
        ("aaaaaaaa", 3, ["aaa", "aaa", "aa"]),
        ("", 5, [""]),
    ],
)
def test_lines(text: str, width: int, lines: list[str]) -> None:
    assert folded(text, width) == lines
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def layer(name: str, operator: str = "Conv") -> dict[str, object]:
    return {
        "name": name, "operator": operator, "channels_before": 2048, "channels_after": 1920,
        "bits": 8, "macs": 123_456_789, "sqnr_db": 40.2,
        "kernels": {"onnxruntime": "QLinearGlobalAveragePool", "litert": "XNNPACK"},
    }  # fmt: skip


def test_a_layer_table_of_80_columns_breaks_names_behind_dots() -> None:
    name = "backbone.features.denseblock1.conv2"
    console = Console(width=80, file=io.StringIO())
    console.print(layer_table({"layers": [layer(name)]}))
    assert isinstance(console.file, io.StringIO)
    rows = console.file.getvalue().partition("─\n")[2].splitlines()
    first = [row.split(" ")[0] for row in rows]
    assert "".join(first) == name
    assert all(part.endswith(".") for part in first if part and not part.endswith("conv2"))


def test_operators_that_no_format_has_are_explained_where_they_are_met() -> None:
    (line,) = legend(["Conv", "Island", "Rearrange", "Island"])
    assert line.startswith("Island: a part of the network that is computed in float")
    assert "Rearrange: the same integers" in line and "Lookup" not in line
    assert legend(["Conv", "Linear"]) == []
