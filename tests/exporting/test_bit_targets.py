"""--bits auto, its limits and --plan as flags, tables and files give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploykit.errors import ConfigError, DataError, UsageError
from deploykit.exporting.bit_targets import size_in_bytes
from deploykit.exporting.held_out import check_held_out
from deploykit.exporting.options import ExportOptions, build_options
from deploykit.exporting.plan_file import read_plan
from deploykit.exporting.shared_samples import in_both
from deploykit.quantize.bits import WeightBits
from deploykit.spec.allocation import (
    AutoBits,
    MaxAccuracyDrop,
    MaxBytes,
    SensitivityChoice,
    TargetBits,
)
from deploykit.spec.plan import Rounding
from deploykit.spec.samples import Samples
from tests.exporting.test_weight_bits import LEAST
from tests.quantize.graphs import seeded

AUTO: dict[str, Any] = {"bits": "auto"}


def options(config: Path | None = None, **given: Any) -> ExportOptions:
    return build_options({**LEAST, **given}, config)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_bytes": 40_000}, AutoBits(MaxBytes(40_000))),
        ({"max_bytes": "40kB"}, AutoBits(MaxBytes(40_000))),
        ({"target_bits": 4.5}, AutoBits(TargetBits(4.5))),
        (
            {"target_bits": 2, "sensitivity": "moments"},
            AutoBits(TargetBits(2.0), SensitivityChoice.MOMENTS),
        ),
        (
            {"max_accuracy_drop": 0.5, "eval_data": "e.npz"},
            AutoBits(MaxAccuracyDrop(0.5)),
        ),
    ],
)
def test_auto_takes_one_limit(given: dict[str, Any], expected: AutoBits) -> None:
    found = options(**AUTO, **given)
    assert found.auto == expected
    assert found.plans_bits
    assert found.quantization.bits == WeightBits(8)


def test_layers_that_are_named_keep_their_bits() -> None:
    found = options(bits="auto", target_bits=4, layer_bits=["a=8"])
    assert found.quantization.bits == WeightBits(8, {"a": 8})
    table = options(bits={"default": "auto", "a": 2}, target_bits=4)
    assert table.auto == AutoBits(TargetBits(4))
    assert table.quantization.bits == WeightBits(8, {"a": 2})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (AUTO, "needs one limit and got no limit: give --max-bytes .* --target-bits .* or --max-a"),
        ({**AUTO, "max_bytes": 1, "target_bits": 4}, "got --max-bytes and --target-bits"),
        ({"max_bytes": 1000}, "--max-bytes belongs to --bits auto: give --bits auto with it"),
        (
            {"bits": 4, "target_bits": 4},
            "--target-bits belongs to --bits auto: --bits is 4",
        ),
        ({"bits": 4, "sensitivity": "moments"}, "--sensitivity belongs to --bits auto"),
        ({**AUTO, "target_bits": 9}, "--target-bits 9: give a number from 2 to 8"),
        ({**AUTO, "target_bits": 1.9}, "--target-bits 1.9: give"),
        ({**AUTO, "target_bits": "nan"}, "--target-bits nan: give a number"),
        ({**AUTO, "max_accuracy_drop": 0.5}, "--max-accuracy-drop 0.5 is measured on --eval-data"),
        ({**AUTO, "max_accuracy_drop": -1, "eval_data": "e"}, "drop -1: give points of top-1"),
        ({**AUTO, "max_bytes": "big"}, "--max-bytes big: give a size such as 40000, 40kB"),
        ({**AUTO, "max_bytes": 0}, "--max-bytes 0: give a size"),
        ({**AUTO, "max_bytes": "3 parsec"}, "--max-bytes 3 parsec: give a size"),
        ({**AUTO, "target_bits": 4, "sensitivity": "x"}, "choose one of auto, posterior, moments"),
        ({"bits": "automatic"}, "--bits automatic: weights are quantized to"),
        ({"bits": 4, "plan": "p.json"}, "--plan states the bits of every layer"),
    ],
)
def test_what_is_no_limit_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        options(**given)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("1.5 MiB", 1_572_864), ("3MB", 3_000_000), ("2kib", 2048)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


def plan_file(folder: Path, **more: Any) -> Path:
    path = folder / "plan.json"
    layers = {"a": {"weight": {"bits": 4}}, "pool": {}, "b": {"weight": {"bits": 2, "name": "w"}}}
    path.write_text(json.dumps({"layers": layers, **more}), encoding="utf-8")
    return path


def test_a_plan_states_every_layer_s_bits(tmp_path: Path) -> None:
    path = plan_file(tmp_path, rounding="nearest", schema=1)
    found = options(plan=path).quantization
    assert (found.bits.default, found.bits.layers) == (None, {"a": 4, "b": 2})
    assert found.rounding is Rounding.NEAREST
    assert options(plan=path).plans_bits
    assert options(plan=path, rounding="sequential").quantization.rounding is Rounding.SEQUENTIAL
    named = options(plan=path, layer_bits={"b": 8}).quantization.bits
    assert (named.default, named.layers) == (None, {"a": 4, "b": 8})
    assert named.entry("a") == f"--plan {path}: layers.a.weight.bits = 4"
    assert named.entry("b") == "--layer-bits b=8"


def test_a_plan_may_leave_layers_in_float(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    layers = {"a": {"weight": {"bits": 4}}, "b": {"weight": {"bits": "float"}}}
    path.write_text(json.dumps({"layers": layers, "in_float": ["c"]}), encoding="utf-8")
    bits = options(plan=path).quantization.bits
    assert (bits.layers, bits.in_float) == ({"a": 4}, frozenset("bc"))
    assert bits.entry("c") == f"--plan {path}: in_float lists c"
    assert bits.entry("b") == f'--plan {path}: layers.b.weight.bits = "float"'
    named = options(plan=path, layer_bits={"a": "float", "c": 2}).quantization.bits
    assert (named.entry("a"), named.entry("c")) == ("--layer-bits a=float", "--layer-bits c=2")
    assert (named.layers, named.in_float) == ({"c": 2}, frozenset("ab"))


def test_flags_replace_how_a_file_asks_for_bits(tmp_path: Path) -> None:
    config = tmp_path / "export.toml"
    config.write_text('bits = "auto"\nmax_bytes = "40kB"\nrounding = "compensated"\n', "utf-8")
    assert options(config).auto == AutoBits(MaxBytes(40_000))
    assert options(config, target_bits=3).auto == AutoBits(TargetBits(3))
    assert options(config, bits=4).auto is None
    path = plan_file(tmp_path, rounding="nearest")
    planned = options(config, plan=path)
    assert planned.auto is None
    assert planned.quantization.rounding is Rounding.NEAREST
    config.write_text('plan = "plan.json"\nrounding = "compensated"\n', "utf-8")
    assert options(config).quantization.rounding is Rounding.COMPENSATED
    assert options(config).quantization.bits.layers == {"a": 4, "b": 2}
    assert options(config, bits=4).quantization.bits == WeightBits(4)
    config.write_text('plan = "plan.json"\nbits = 4\n', "utf-8")
    with pytest.raises(UsageError, match="leave --bits out, or the plan"):
        options(config)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ("[1]", "has no `layers`"),
        ('{"layers": {}}', "names no layer with a weight"),
        ('{"layers": {"a": 4}}', "layers.a is 4"),
        ('{"layers": {"a": {"weight": {"bits": 7}}}}', r"layers.a.weight.bits is 7; weights are"),
        ('{"layers": {"a": {"weight": 4}}}', "layers.a.weight.bits is None"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        read_plan(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_plan(tmp_path / "none.json")


def test_accuracy_is_measured_on_data_that_calibration_has_not_seen(tmp_path: Path) -> None:
    def checked(evaluated: Samples, eval_data: str = "e.npz", **given: Any) -> None:
        found = options(**AUTO, **given, eval_data=tmp_path / eval_data, data=tmp_path / "d.npz")
        shared = in_both(evaluated.inputs, calibration)
        check_held_out(found, Samples(calibration), evaluated, shared)

    calibration, others = seeded(100, 2, seed=1), seeded(150, 2, seed=2)
    labels = np.zeros(150, np.int64)
    drop: dict[str, Any] = {"max_accuracy_drop": 1}
    checked(Samples(others, labels), **drop)
    stray = np.concatenate([others[1:], calibration[:1]])
    checked(Samples(stray, labels), **drop)
    with pytest.raises(DataError, match="--eval-data and --data are both"):
        checked(Samples(others, labels), "d.npz", **drop)
    leaked = np.concatenate([others[50:], calibration[:50]])
    with pytest.raises(DataError, match=r"50 of the 150 samples in .* are in"):
        checked(Samples(leaked, labels), **drop)
    many, few = seeded(5000, 2, seed=3), calibration[:20]
    swallowed = np.concatenate([many, few])
    with pytest.raises(DataError, match=r"20 of the 5020 samples in .* are in"):
        checked(Samples(swallowed, np.zeros(5020, np.int64)), **drop)
    with pytest.raises(DataError, match="holds no `labels`"):
        checked(Samples(others), **drop)
    checked(Samples(calibration), target_bits=4)
