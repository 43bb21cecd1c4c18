"""The table and the sentences below it, as people read them."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from deploykit.diagnose.findings import Advice, Cause, Channel, Diagnosis, LayerFinding, Remedy
from deploykit.diagnose.record import diagnosis_json
from deploykit_cli.diagnose import diagnosis_lines, diagnosis_table
from tests.cli.running import run

GOLDEN = Path(__file__).parent.parent / "golden" / "diagnosis.txt"
IN_EACH = {"model.onnx": 1_234, "model.tflite": 1_234}
TO_8_BITS = Remedy(("--layer-bits", "features.0.conv=8"), 18.25, 24.5, IN_EACH)
SEQUENTIAL = Remedy(("--rounding", "sequential"), 24.5, 25.0, None, "for these layers alone")

FOUND = Diagnosis(
    output_db=18.25,
    measured_db={"onnxruntime": 18.25, "litert": 18.24},
    samples=8,
    fitted=8,
    layers=(
        LayerFinding("image", "Input", None, 45.1, 0.0, 1e-6, 0.0, 0.0, (Channel(0, 1.0, 45.1),)),
        LayerFinding(
            "features.0.conv", "Conv", 4, 20.0, 0.009, 0.001, 0.0, 0.0,
            (Channel(11, 0.5, 12.0), Channel(3, 0.25, 14.0), Channel(0, 0.125, 19.0)),
        ),
        LayerFinding("features.1.pool", "MaxPool", None, 20.5, 0.0, 0.0, 0.0, 0.0),
        LayerFinding(
            "features.4.block.depthwise", "Conv", 4, 19.0, 0.001, 0.003, 0.0625, 0.9,
            (Channel(7, 0.875, -math.inf),),
        ),
        LayerFinding("head", "Linear", 4, 18.25, 0.0005, 0.0005, 0.0, 0.0),
    ),
    advice=(
        Advice("features.0.conv", 0.6667, Cause.WEIGHTS, TO_8_BITS, ("--layer-bits",)),
        Advice("features.4.block.depthwise", 0.2667, Cause.SATURATION, SEQUENTIAL),
        Advice("head", 0.0667, Cause.ROUNDING, None, ("--rounding sequential",)),
    ),
    together=Remedy(
        ("--layer-bits", "features.0.conv=8", "--rounding", "sequential"), 18.25, 25.0, IN_EACH,
        "for these layers alone",
    ),
    everywhere=(Remedy(("--bits", "8"), 18.25, 30.0, {"model.onnx": 56_789, "model.tflite": 0}),),
)  # fmt: skip


def rendered(found: Diagnosis) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(diagnosis_table(found))
    for line in diagnosis_lines(found, "use.npz"):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def test_the_table_reads_as_committed() -> None:
    assert rendered(FOUND) == GOLDEN.read_text(encoding="utf-8")
    table = rendered(FOUND).splitlines()[: len(FOUND.layers) + 4]
    assert max(map(len, table)) <= 80


def test_bits_that_were_chosen_come_with_one_more_column_and_what_to_type() -> None:
    channels = tuple(Channel(index, 0.3, 10.0) for index in (1022, 517, 768))
    layers = tuple(
        replace(
            one, operator="SpaceToDepth", sensitivity=2.19e-13, channels=channels, sqnr_db=-10.5
        )
        for one in FOUND.layers
    )
    target = "--max-bytes 36000"
    console = Console(file=io.StringIO(), width=80)
    console.print(diagnosis_table(replace(FOUND, layers=layers, target=target)))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("2.19e-13", "weights", "1022, 517,", "768", "-10.5"):
        assert word in shown
    assert "…" not in shown
    told = diagnosis_lines(replace(FOUND, target=target), "use.npz")
    (line,) = [one for one in told if target in one]
    assert "in place of --bits auto and its limit" in line


def test_no_infinity_is_in_json() -> None:
    record = diagnosis_json(FOUND)
    assert record["layers"][3]["worst_channels"][0]["sqnr_db"] is None
    assert record["advice"][0]["because"] == "its weights in 4 bits"
    assert record["advice"][2]["remedy"] is None
    assert record["together"]["estimated"] == "for these layers alone"


def test_help_is_no_error() -> None:
    result = run("diagnose", "--help")
    assert result.exit_code == 0 and "--samples" in result.stdout
