"""The headline benchmark: its estimate, counter, bounds, table and plot."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from bounds import Bound
from energy_counter import joules as counted_joules
from energy_counter import readable
from energy_estimate import Work, joules
from headline import load
from headline_bounds import bounds_of
from headline_forms import AUTO, FEW, FLOAT, FORMS, INT8, RUNTIMES, SMALL
from headline_plot import drawn
from headline_subjects import BAYESIAN, DENSE, RIVAL, Network, lenet5, resnet18, resnets
from headline_summary import seed_summary, summary
from headline_table import Row, Table, Timing, printed, seeds

from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.loading import load_tensors


def row(network: str, form: str, top1: float = 0.94, size: int = 100, faster: float = 5.0) -> Row:
    pair = dict.fromkeys(RUNTIMES, size)
    timing = dict.fromkeys(RUNTIMES, Timing(1.0, faster, faster - 0.1, faster + 0.1, 20.0))
    return Row(network, form, dict.fromkeys(RUNTIMES, top1), 100, 1000, pair, pair, 10,
               dict.fromkeys(RUNTIMES, 0), 1e-6, timing)  # fmt: skip


def table(width: int, seed: int = 0, **changed: Row) -> Table:
    """Every row that a bound reads, all bounds held; `changed` replaces a form of the Bayesian."""
    dense = replace(row(DENSE, FLOAT, size=10_000), parameters=400, macs=4000)
    rows = {form: row(BAYESIAN, form) for form in FORMS}
    rows |= {form.replace("_", ", "): one for form, one in changed.items()}
    rivals = [row(RIVAL, form) for form in (FLOAT, INT8)]
    dense_int8 = row(DENSE, INT8)
    return Table(f"width {width}, seed {seed}", width, seed, "a processor",
                 (dense, dense_int8, *rows.values(), *rivals))  # fmt: skip


def missed(bounds: list[Bound]) -> list[str]:
    return [bound.name.partition(": ")[2] for bound in bounds if not bound.holds]


def test_each_headline_bound_can_be_missed() -> None:
    assert missed(bounds_of([table(32)])) == []
    assert missed(bounds_of([table(32, float32=row(BAYESIAN, FLOAT, top1=0.9369))])) == [
        "pruned, points under dense"
    ]
    fat = replace(row(BAYESIAN, FLOAT), parameters=126, macs=2001)
    assert missed(bounds_of([table(32, float32=fat)])) == [
        "pruned, times fewer parameters", "pruned, times fewer MACs",
    ]  # fmt: skip
    slow = row(BAYESIAN, INT8, size=834, faster=3.9)
    assert missed(bounds_of([table(32, int8=slow)])) == [
        *(f"pruned int8, times smaller, {runtime}" for runtime in RUNTIMES),
        *(f"pruned int8, times faster, {runtime}" for runtime in RUNTIMES),
    ]
    assert missed(bounds_of([table(32, auto=row(BAYESIAN, AUTO, size=501, top1=0.934))])) == [
        "auto, times smaller, ORT", "auto, points under dense",
    ]  # fmt: skip
    small = row(BAYESIAN, SMALL, size=501, top1=0.934)
    assert missed(bounds_of([table(32, auto__small=small, auto_small=small)])) == [
        "auto, small, times smaller, LiteRT", "auto, small, points under dense, LiteRT",
    ]  # fmt: skip


def test_parity_is_held_but_where_litert_rounds_otherwise() -> None:
    differing = {"ORT": 0, "LiteRT": 1}
    held = replace(row(BAYESIAN, INT8), differing=differing)
    told = replace(row(BAYESIAN, SMALL), differing=differing)
    assert missed(bounds_of([table(16, int8=held)])) == ["differing of 90 integers"]
    assert missed(bounds_of([table(16, auto_small=told)])) == []


def test_seeds_are_summed_up_over_width_16_alone() -> None:
    tables = [table(32), table(16, 0), table(16, 1, float32=row(BAYESIAN, FLOAT, top1=0.92))]
    assert seeds(tables, FLOAT)[DENSE] == (0.94, 0.0)
    assert seeds(tables, FLOAT)[BAYESIAN] == pytest.approx((0.93, 0.02 / 2**0.5))
    assert missed(bounds_of(tables)) == ["pruned, points under dense"]
    assert seeds([table(32), table(16)], FLOAT) == {}


def test_the_estimate_adds_arithmetic_and_bytes() -> None:
    nothing = Work(0, 0, 0, False)
    assert joules(nothing) == 0
    assert joules(replace(nothing, macs=1000)) == pytest.approx(0.3e-9)
    assert joules(replace(nothing, macs=1000, is_float=True)) == pytest.approx(4.6e-9)
    weights = replace(nothing, weight_bytes=8, moved_bytes=8)
    assert joules(weights) == pytest.approx(1.3e-9)
    assert joules(replace(weights, moved_bytes=16)) == pytest.approx(1.4e-9)


def test_a_counter_is_read_where_there_is_one_and_may_wrap(tmp_path: Path) -> None:
    assert readable(tmp_path) is None
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("900\n")
        (tmp_path / name / "max_energy_range_uj").write_text("999\n")
    counter = readable(tmp_path)
    assert counter is not None
    before = counter.read()
    assert before == (900,)

    def infer() -> None:
        """Each inference adds 300 microjoules, and the counter wraps at 999."""
        file = tmp_path / "intel-rapl:0" / "energy_uj"
        file.write_text(str((int(file.read_text()) + 300) % 1000))

    infer()
    assert counter.since(before) == pytest.approx(300e-6)
    assert counted_joules(counter, lambda: None, seconds=0.01) == 0
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert readable(tmp_path) is None


def test_tables_come_back_from_json_and_print_every_row(tmp_path: Path) -> None:
    one = table(16)
    assert Table.of(asdict(one)) == one
    assert load(tmp_path / "absent.json") == {}
    lines = printed(one)
    assert sum(line.startswith(BAYESIAN) for line in lines) == 2 * len(FORMS)
    assert lines[-1].startswith("energy: no counter")
    read = Timing(1.0, 5.0, 4.9, 5.1, 20.0, joules=2e-6)
    rows = (replace(one.rows[0], timing=dict.fromkeys(RUNTIMES, read)), *one.rows[1:])
    assert "ORT: 2.0 uJ, 470,000 correct / J" in printed(replace(one, rows=rows))[-1]


def test_the_summary_leaves_out_what_another_row_says() -> None:
    one = table(32, auto=row(BAYESIAN, AUTO, top1=0.935, size=250))
    small = replace(row(BAYESIAN, SMALL, size=200), top1={"ORT": 0.935, "LiteRT": 0.91})
    lines = summary(replace(one, rows=(*one.rows, small))).splitlines()
    assert lines[0].startswith("| width 32, seed 0 | top-1 | model.onnx")
    assert lines[2] == (
        "| dense, float32 | 94.00 % | 10.0 kB (1.0×) | 10.0 kB (1.0×) | 5.00× | 5.00× | 940,000 |"
    )
    assert "| Bayesian, auto | 93.50 % | 250 B (40.0×)" in lines[-3]
    assert lines[-1].startswith("| Bayesian, auto, small | 91.00 % |  | 200 B (50.0×) |  | 5.00×")
    tables = [table(16, 0), table(16, 1, float32=row(BAYESIAN, FLOAT, top1=0.92))]
    assert "| Bayesian | 93.00 ± 1.41 % | 94.00 ± 0.00 % |" in seed_summary(tables).splitlines()
    assert seed_summary(tables[:1]) == ""


def test_the_plot_is_svg_with_a_mark_for_each_row_in_both_panels() -> None:
    one = table(32, int8=row(BAYESIAN, INT8, top1=0.93, size=700, faster=6.0))
    root = ET.fromstring(drawn(one))
    told = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    shown = [one for one in one.rows if one.form != SMALL]
    assert len(told) == 1 + 2 * len(shown)
    assert "Bayesian, int8: 93.00 %, 700 bytes of model.onnx" in told


def test_every_committed_network_can_be_built_and_loaded(tmp_path: Path) -> None:
    pairs = resnets()
    assert pairs
    every: list[Network] = list(lenet5().networks)
    for pair in pairs:
        subject = resnet18(*pair, tmp_path)
        assert {DENSE, BAYESIAN} <= {one.name for one in subject.networks}
        every += subject.networks
    for one in every:
        if "model" in one.options:
            network = load_factory(str(one.options["model"]))()
            load_tensors(network, load_checkpoint(one.checkpoint).tensors, str(one.checkpoint))
    assert any(one.full for one in every)
    assert set(FEW) < set(FORMS)
