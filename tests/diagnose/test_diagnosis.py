"""A layer that is bad is named first, with its cause, and the advice helps once it is taken."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import deploykit
from deploykit.bundle import read_bundle
from deploykit.diagnose.changes import State
from deploykit.diagnose.findings import Cause
from deploykit.diagnose.remedies import Remedies
from deploykit.diagnose.subject import choose_samples, open_subject, run_both
from deploykit.spec.arrays import AnyArray
from deploykit.spec.progress import Silent, ignore
from tests import small_models
from tests.cli.running import assert_refused, run
from tests.diagnose import bad_layers
from tests.diagnose.bad_layers import diagnosed, exported
from tests.exported import copy_of, flip, save
from tests.libraries.examples import bayesian_bits
from tests.libraries.frame import CHECKPOINTS
from tests.libraries.images import SLICES
from tests.onnx_files import save as save_model


def placed(folder: Path, network: onnx.ModelProto, **data: AnyArray) -> Path:
    """The network as net.onnx, each data set as NAME.npz."""
    save_model(network, folder / "net.onnx")
    for name, values in data.items():
        save(folder / f"{name}.npz", inputs=values)
    return folder


def assert_helps(folder: Path, found: Any, data: Path, *flags: str | Path) -> Any:
    """Export again with what the first advice says; SQNR in the runtimes is as estimated."""
    remedy = found["advice"][0]["remedy"]
    again = diagnosed(exported(folder, *flags, *remedy["flags"], out="better"), "--data", data)
    for runtime, before in found["measured_sqnr_db"].items():
        measured = again["measured_sqnr_db"][runtime]
        assert measured > before + 3.0
        # Other data round weights anew too, which the estimate leaves out.
        assert measured > remedy["estimated_after_db"] - 1.5
    return again


def test_outlier_weights_are_told_and_the_layer_is_left_in_float(tmp_path: Path) -> None:
    placed(tmp_path, bad_layers.outliers(), data=bad_layers.inputs(48))
    found = diagnosed(exported(tmp_path), "--data", tmp_path / "data.npz")
    first = found["advice"][0]
    assert (first["layer"], first["cause"]) == ("conv2", "outliers")
    assert first["remedy"]["flags"] == ["--layer-bits", "conv2=float"]
    more = 3 * 16 * 8 * 9
    assert first["remedy"]["more_weight_bytes"] == {"model.onnx": more, "model.tflite": more}
    (row,) = [layer for layer in found["layers"] if layer["name"] == "conv2"]
    assert row["worst_channels"][0]["channel"] == 5
    assert row["output_error_by_weights"] > 100 * row["output_error_by_activations"]
    again = assert_helps(tmp_path, found, tmp_path / "data.npz")
    assert again["advice"][0]["layer"] != "conv2"


def test_a_channel_that_calibration_left_off_asks_for_other_data(tmp_path: Path) -> None:
    network, calibration, use = bad_layers.asleep()
    placed(tmp_path, network, data=calibration, use=use)
    bundle = exported(tmp_path)
    found = diagnosed(bundle, "--data", tmp_path / "use.npz")
    first = found["advice"][0]
    assert (first["layer"], first["cause"]) == ("conv2", "saturation")
    assert first["remedy"]["flags"] == ["--data", str(tmp_path / "use.npz")]
    (row,) = [layer for layer in found["layers"] if layer["name"] == "conv2"]
    assert row["worst_channels"][0]["channel"] == 3 and row["saturated"] > 0.05
    assert_helps(tmp_path, found, tmp_path / "use.npz")
    calm = diagnosed(bundle)  # the bundle's own samples do not show it
    assert calm["output_sqnr_db"] > 30 and calm["samples"] == 8


def test_a_range_that_few_values_stretch_asks_for_another_calibration(tmp_path: Path) -> None:
    network, calibration = bad_layers.stretched()
    placed(tmp_path, network, data=calibration)
    data = tmp_path / "data.npz"
    bundle = exported(tmp_path, "--calibration", "minmax")
    found = diagnosed(bundle, "--data", data, "--samples", "32")
    first = found["advice"][0]
    assert (first["layer"], first["cause"]) == ("conv1", "wide_range")
    assert first["remedy"]["flags"][2] == "--calibration"
    assert_helps(tmp_path, found, data)


def test_few_bits_are_told_and_estimates_hold_one_on_top_of_the_other(tmp_path: Path) -> None:
    placed(tmp_path, bad_layers.network(), data=bad_layers.inputs(48))
    data = tmp_path / "data.npz"
    few = [word for name in ("conv2", "conv3") for word in ("--layer-bits", f"{name}=2")]
    few += ["--rounding", "compensated"]
    found = diagnosed(exported(tmp_path, *few), "--data", data)
    assert {one["layer"] for one in found["advice"][:2]} == {"conv2", "conv3"}
    assert {one["cause"] for one in found["advice"][:2]} <= {"weights", "few_channels"}
    flags = found["together"]["flags"]
    steps = [one["remedy"] for one in found["advice"] if one["remedy"] is not None]
    for earlier, later in pairwise(steps):
        assert earlier["estimated_after_db"] == later["estimated_before_db"]
    assert found["together"]["estimated_after_db"] == steps[-1]["estimated_after_db"]
    asked = few[:-2]
    kept = [word for word in asked if not any(word.split("=")[0] in flag for flag in flags)]
    pairs = [word for word in kept if word != "--layer-bits"]
    left = [word for name in pairs for word in ("--layer-bits", name)]
    if "--rounding" not in flags:
        left += ["--rounding", "compensated"]
    again = diagnosed(exported(tmp_path, *left, *flags, out="better"), "--data", data)
    gained = again["output_sqnr_db"] - found["output_sqnr_db"]
    assert gained > 5.0
    assert again["output_sqnr_db"] > found["together"]["estimated_after_db"] - 1.5


def test_in_sequence_every_layer_is_rounded_anew_behind_what_is_tried(tmp_path: Path) -> None:
    placed(tmp_path, bad_layers.network(), data=bad_layers.inputs(96))
    data = tmp_path / "data.npz"
    bundle = exported(tmp_path, "--bits", "3")
    found = diagnosed(bundle, "--data", data)
    helping = [one["remedy"] for one in found["advice"] if one["remedy"] is not None]
    assert helping and not any("--rounding" in one["flags"] for one in helping)
    together = found["together"] or helping[0]
    again = diagnosed(
        exported(tmp_path, "--bits", "3", *together["flags"], out="better"), "--data", data
    )
    gained = again["output_sqnr_db"] - found["output_sqnr_db"]
    estimated = together["estimated_after_db"] - together["estimated_before_db"]
    assert abs(gained - estimated) < 2.5


def test_where_many_layers_are_to_blame_all_are_rounded_anew(tmp_path: Path) -> None:
    placed(tmp_path, bad_layers.network(), data=bad_layers.inputs(48))
    opened = open_subject(exported(tmp_path, "--bits", "3", "--rounding", "compensated"))
    chosen = choose_samples(opened, tmp_path / "data.npz", 16)
    measured = run_both(opened, chosen.measured, Silent(), "")
    assert chosen.fitted is not None
    fitting = run_both(opened, chosen.fitted, Silent(), "")
    remedies = Remedies(State(opened, measured, fitting), None, {})
    found = {one.flags: one for one in remedies.everywhere(ignore)}
    assert set(found) == {("--rounding", "sequential"), ("--bits", "8")}
    grown = found["--bits", "8"].weight_bytes
    assert grown is not None and grown["model.onnx"] > grown["model.tflite"] > 0
    for flags, remedy in found.items():
        bits = () if flags[0] == "--bits" else ("--bits", "3")
        again = exported(tmp_path, *bits, *flags, out="better")
        after = diagnosed(again, "--data", tmp_path / "data.npz", "--samples", "16")
        # The export rounds on all data, the estimate on a third of it.
        assert after["output_sqnr_db"] > max(remedy.after_db - 1.5, remedy.before_db)


def test_the_simulation_is_what_runtimes_compute(tmp_path: Path) -> None:
    placed(tmp_path, bad_layers.outliers(), data=bad_layers.inputs(48))
    for flags in ((), ("--layer-bits", "conv2=float", "--io", "int8")):
        found = diagnosed(exported(tmp_path, *flags))
        assert set(found["measured_sqnr_db"]) == {"onnxruntime", "litert"}
        for measured in found["measured_sqnr_db"].values():
            assert measured == pytest.approx(found["output_sqnr_db"], abs=0.02)


def test_rows_of_tokens_are_followed_sample_by_sample(tmp_path: Path) -> None:
    checkpoint = small_models.save_random(small_models.reader(), tmp_path / "net.pt", seed=3)
    tokens = np.random.default_rng(0).integers(0, 50, (16, 12))
    bundle = deploykit.export(
        checkpoint, model="tests.small_models:reader", input_shape="1,12:int64", prune_rule="none",
        data=save(tmp_path / "data.npz", inputs=tokens), out=tmp_path / "bundle",
    )  # fmt: skip
    found = deploykit.diagnose_bundle(bundle.path)
    assert found.measured_db.keys() == {"onnxruntime", "litert"}
    # Islands may round to the next step, and their inputs then differ.
    for measured in found.measured_db.values():
        assert measured == pytest.approx(found.output_db, abs=0.2)


def test_grids_that_training_chose_are_told_and_left_alone(tmp_path: Path) -> None:
    found = deploykit.export(
        CHECKPOINTS / "bayesian_bits.pt", model=f"{bayesian_bits.__file__}:twin", align="none",
        input_shape=(1, 1, 28, 28), data=SLICES / "calibration.npz", out=tmp_path / "bundle",
    )  # fmt: skip
    advice = deploykit.diagnose_bundle(found.path).advice
    assert [one.cause for one in advice[:2]] == [Cause.GIVEN, Cause.GIVEN]
    assert [(one.remedy, one.tried) for one in advice[:2]] == [(None, ()), (None, ())]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnose")
    return exported(placed(folder, bad_layers.network(), data=bad_layers.inputs(48)))


def test_errors_of_layers_add_up_to_the_network_s(bundle: Path) -> None:
    found = diagnosed(bundle, "--samples", "24")
    alone = sum(
        layer["output_error_by_weights"] + layer["output_error_by_activations"]
        for layer in found["layers"]
    )
    assert -10 * np.log10(alone) == pytest.approx(found["output_sqnr_db"], abs=1.5)
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1.0)


def test_what_cannot_be_diagnosed_is_refused(bundle: Path, tmp_path: Path) -> None:
    assert_refused(run("diagnose", tmp_path / "none"), 3, "there is no bundle here")
    assert_refused(run("diagnose", bundle, "--samples", "0"), 2, "give at least 1")
    wrong = save(tmp_path / "d.npz", inputs=bad_layers.inputs(4)[:, :2])
    assert_refused(run("diagnose", bundle, "--data", wrong), 3, "has shape [4, 2, 8, 8]")
    damaged = copy_of(bundle, tmp_path)
    flip(damaged / "model.onnx", 200)
    assert_refused(run("diagnose", damaged), 1, "model.onnx is not the file that was written")


def test_samples_that_do_not_fit_in_memory_are_left_out(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not diagnosed(bundle, "--samples", "16")["limited_by_memory"]
    monkeypatch.setattr("deploykit.diagnose.subject.BYTES_HELD", 4 * 3 * 4 * 4000)
    found = diagnosed(bundle, "--samples", "16")
    assert found["limited_by_memory"] and 1 <= found["samples"] < 8


def test_chosen_bits_stay_where_the_advice_is_taken(tmp_path: Path) -> None:
    placed(tmp_path, bad_layers.network(), data=bad_layers.inputs(48))
    limit = ("--bits", "auto", "--target-bits", "3")
    bundle = exported(tmp_path, *limit)
    found = diagnosed(bundle, "--data", tmp_path / "data.npz")
    assert found["bits_allocated_under"] == "--target-bits 3"
    plan = ["--plan", str(bundle / "plan.json")]
    remedies = [one["remedy"] for one in found["advice"] if one["remedy"] is not None]
    flags = found["together"]["flags"] if found["together"] else remedies[0]["flags"]
    assert flags[:2] == plan and flags.count("--plan") == 1 and "--layer-bits" in flags
    before, after = bits_of(bundle), bits_of(exported(tmp_path, *flags, out="better"))
    pairs = zip(flags[2::2], flags[3::2], strict=True)
    named = {word.partition("=")[0] for flag, word in pairs if flag == "--layer-bits"}
    assert named
    assert {name for name in before if before[name] != after[name]} == named


def bits_of(bundle: Path) -> dict[str, int]:
    layers = read_bundle(bundle).manifest["layers"]
    return {layer["name"]: layer["bits"] for layer in layers}
