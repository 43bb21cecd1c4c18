"""The headline benchmark: its estimate, counter, bounds, table and plot."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import energy_counter
import pytest
from bounds import Bound
from energy_counter import readable
from energy_estimate import FLOAT_MAC, INT8_MAC, Work, joules
from headline import keep, load
from headline_bounds import bounds_of, unjudged
from headline_forms import (
    AUTO,
    FEW,
    FLOAT,
    FORMS,
    INT8,
    RUNTIMES,
    SMALL,
    work_in_float,
    work_in_integers,
)
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
    return Row(network, form, dict.fromkeys(RUNTIMES, top1), 100, 1000, pair, pair,
               dict.fromkeys(RUNTIMES, 10), dict.fromkeys(RUNTIMES, 0), 1e-6, timing)  # fmt: skip


def table(width: int, seed: int = 0, **changed: Row) -> Table:
    """Every row that a bound reads, all bounds held; `changed` replaces a form of the Bayesian."""
    dense = replace(row(DENSE, FLOAT, size=10_000), parameters=400, macs=4000)
    rows = {form: row(BAYESIAN, form) for form in FORMS}
    rows |= {form.replace("_", ", "): one for form, one in changed.items()}
    rivals = [row(RIVAL, form, top1=0.93) for form in (FLOAT, INT8)]
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
    slow = row(BAYESIAN, INT8, size=834, faster=4.09)
    assert missed(bounds_of([table(32, int8=slow)])) == [
        *(f"pruned int8, times smaller, {runtime}" for runtime in RUNTIMES),
        *(f"pruned int8, times faster, low end, {runtime}" for runtime in RUNTIMES),
    ]
    assert missed(bounds_of([table(32, auto=row(BAYESIAN, AUTO, size=501, top1=0.934))])) == [
        "auto, times smaller, ORT", "auto, points under dense",
    ]  # fmt: skip
    small = row(BAYESIAN, SMALL, size=501, top1=0.934)
    assert missed(bounds_of([table(32, auto_small=small)])) == [
        "auto, small, times smaller, LiteRT", "auto, small, points under dense, LiteRT",
    ]  # fmt: skip


def test_each_bound_of_lenet5_can_be_missed() -> None:
    name = f"{BAYESIAN}, KL weight 0.1"

    def lenet(size: int, top1: float) -> Table:
        forms = [row(name, form, size=size, top1=top1) for form in (FLOAT, AUTO, SMALL)]
        dense = row(DENSE, FLOAT, size=10_000)
        return Table("LeNet-5", 0, 0, "a processor", (dense, *forms))

    assert missed(bounds_of([lenet(250, 0.9201)])) == []
    assert missed(bounds_of([lenet(251, 0.9199)])) == [
        "auto, times smaller, ORT", "auto, small, times smaller, LiteRT",
        "auto, points under dense", "auto, small, points under dense, LiteRT",
    ]  # fmt: skip


def test_what_is_not_measured_is_said_not_to_be_judged() -> None:
    assert unjudged([]) == ["LeNet-5", "ResNet-18, width 32", "seeds of width 16"]
    assert unjudged([table(0), table(32), table(16, 0), table(16, 1)]) == []
    without = table(16, 1)
    without = replace(without, rows=tuple(r for r in without.rows if r.network != RIVAL))
    assert unjudged([table(32), table(16, 0), without]) == ["LeNet-5", "seeds of width 16"]
    assert set(seeds([table(16, 0), without], FLOAT)) == {DENSE, BAYESIAN}


def test_parity_is_held_but_where_litert_rounds_otherwise() -> None:
    differing = {"ORT": 0, "LiteRT": 1}
    held = replace(row(BAYESIAN, INT8), differing=differing)
    told = replace(row(BAYESIAN, SMALL), differing=differing)
    assert missed(bounds_of([table(16, int8=held)])) == ["differing of 170 integers"]
    assert missed(bounds_of([table(16, auto_small=told)])) == []


def test_seeds_are_summed_up_over_width_16_alone() -> None:
    tables = [table(32), table(16, 0), table(16, 1, float32=row(BAYESIAN, FLOAT, top1=0.92))]
    assert seeds(tables, FLOAT)[DENSE] == (0.94, 0.0)
    assert seeds(tables, FLOAT)[BAYESIAN] == pytest.approx((0.93, 0.02 / 2**0.5))
    assert missed(bounds_of(tables)) == ["pruned, points under dense"]
    worse = [table(16, seed, float32=row(BAYESIAN, FLOAT, top1=0.929)) for seed in (0, 1)]
    assert missed(bounds_of(worse)) == [
        "pruned, points under dense", "pruned, points over the rival of as many weights",
    ]  # fmt: skip
    assert seeds([table(32), table(16)], FLOAT) == {}


def test_the_estimate_adds_arithmetic_and_bytes() -> None:
    nothing = Work(0, 0, 0, INT8_MAC)
    assert joules(nothing) == 0
    assert joules(replace(nothing, macs=1000)) == pytest.approx(0.3e-9)
    assert joules(replace(nothing, macs=1000, mac_joules=FLOAT_MAC)) == pytest.approx(4.6e-9)
    assert joules(replace(nothing, weight_bytes=8)) == pytest.approx(1.3e-9)
    assert joules(replace(nothing, activation_bytes=8)) == pytest.approx(0.1e-9)


def test_work_is_what_the_layers_are_made_of() -> None:
    """A convolution of 450 weights in 4 bits and 18 biases, then a pool: 11,152 + 12,960 moved."""
    conv = {"macs": 259_200, "bytes": 11_152 + 450 + 72, "float_bytes": 4 * (11_152 + 450) + 72,
            "stored": {"onnx": {"bytes": 225}}}  # fmt: skip
    pool = {"macs": 0, "bytes": 12_960, "float_bytes": 4 * 12_960, "stored": {}}
    manifest = {"layers": [conv, pool], "removal": {"parameters_after": 450 + 18}}
    moved = 11_152 + 12_960
    assert work_in_integers(manifest) == Work(259_200, 225 + 72, moved, INT8_MAC)
    assert work_in_float(manifest) == Work(259_200, 4 * 468, 4 * moved, FLOAT_MAC)


def test_a_counter_is_read_where_there_is_one_and_may_wrap(tmp_path: Path) -> None:
    assert readable(tmp_path) is None
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"),
                         ("intel-rapl:1", "psys")):  # fmt: skip
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "name").write_text(f"{name}\n")
        (tmp_path / folder / "energy_uj").write_text("900\n")
        (tmp_path / folder / "max_energy_range_uj").write_text("999\n")
    counter = readable(tmp_path)
    assert counter is not None
    before = counter.read()
    assert before == (900,)
    file = tmp_path / "intel-rapl:0" / "energy_uj"

    def use(microjoules: int) -> None:
        """Add microjoules; the counter wraps at 999."""
        file.write_text(str((int(file.read_text()) + microjoules) % 1000))

    use(300)
    assert counter.since(before) == pytest.approx(300e-6)
    file.unlink()
    assert readable(tmp_path) is None


def test_an_inference_takes_what_is_used_over_idling(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 W idle; an inference of 0.1 s takes 0.3 J more."""
    clock = {"s": 0.0, "J": 0.0}

    def passes(seconds: float) -> None:
        clock["s"] += seconds
        clock["J"] += 2 * seconds

    class Meter:
        def read(self) -> tuple[int, ...]:
            return (round(1e6 * clock["J"]),)

        def since(self, before: tuple[int, ...]) -> float:
            return clock["J"] - before[0] / 1e6

    def infer() -> None:
        passes(0.1)
        clock["J"] += 0.3

    monkeypatch.setattr(energy_counter, "perf_counter", lambda: clock["s"])
    monkeypatch.setattr(energy_counter, "sleep", passes)
    assert energy_counter.joules(cast("Any", Meter()), infer) == pytest.approx(0.3)


def test_tables_come_back_from_json_and_print_every_row(tmp_path: Path) -> None:
    one = table(16)
    assert Table.of(asdict(one)) == one
    keep(tmp_path / "figures.json", [one])
    assert load(tmp_path / "figures.json") == {one.subject: one}
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
    assert any(line.startswith("| Bayesian, auto | 93.50 % | 250 B (40.0×)") for line in lines)
    assert lines[-1].startswith("| Bayesian, auto, small | 91.00 % |  | 200 B (50.0×) |  | 5.00×")
    tables = [table(16, 0), table(16, 1, float32=row(BAYESIAN, FLOAT, top1=0.92))]
    assert "| Bayesian | 93.00 ± 1.41 % | 94.00 ± 0.00 % |" in seed_summary(tables).splitlines()
    assert seed_summary(tables[:1]) == ""


def test_the_plot_is_svg_with_a_mark_for_each_row_in_both_panels() -> None:
    one = table(32, int8=row(BAYESIAN, INT8, top1=0.93, size=700, faster=6.0))
    root = ET.fromstring(drawn(one))
    flat = replace(
        one, rows=tuple(replace(r, top1=dict.fromkeys(RUNTIMES, 0.94)) for r in one.rows)
    )
    ET.fromstring(drawn(flat))
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
