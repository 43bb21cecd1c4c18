"""Exports at a temperature: the integers without it, the outputs divided, in every file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import deploykit
from deploykit.bundle import Bundle, load_golden
from deploykit.errors import ConfigError, DataError, QuantizationError, UsageError
from deploykit.report.warnings import warnings_of
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.confidence import metrics, probabilities, scores_of, softmax
from deploykit.spec.parity import Verdict
from deploykit.spec.temperature import fitted_temperature, one_hot
from tests import onnx_files
from tests.cli.running import assert_refused, run
from tests.exported import save
from tests.onnx_files import file, node, normal
from tests.posterior.gnj_layers import bayesian_net, images, randomised

GIVEN = 1.37


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Bayesian network, labelled images, and others to fit a temperature on."""
    folder = tmp_path_factory.mktemp("temperature")
    network = randomised(bayesian_net())
    torch.save(network.state_dict(), folder / "net.pt")
    generator = np.random.default_rng(0)
    for name, inputs in (("data", images(64)), ("others", images(48, seed=77))):
        with torch.no_grad():
            answers = network.eval()(torch.from_numpy(inputs)).numpy().argmax(axis=1)
        guessed = generator.integers(0, 3, len(inputs))
        labels = np.where(generator.uniform(size=len(inputs)) < 0.4, guessed, answers)
        save(folder / f"{name}.npz", inputs=inputs, labels=labels)
    save(folder / "unlabelled.npz", inputs=images(48, seed=77))
    return folder


def exported(folder: Path, out: Path, **options: Any) -> Bundle:
    data = folder / "data.npz"
    settings: dict[str, Any] = {
        "model": "tests.posterior.gnj_layers:bayesian_net", "input_shape": (1, 1, 8, 8),
        "data": data, "eval_data": data, "prune_rule": "none",
    }  # fmt: skip
    return deploykit.export(folder / "net.pt", out=out / "b", **{**settings, **options})


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Without temperature."""
    return exported(folder, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def given(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """At a given temperature."""
    return exported(folder, tmp_path_factory.mktemp("given"), temperature=GIVEN)


def verify(bundle: Bundle) -> None:
    report = deploykit.verify_bundle(bundle.path)
    assert [step for step in report.steps if step.verdict is Verdict.FAILED] == []
    assert report.complete
    assert [found["differing"] for found in bundle.manifest["parity"]] == [0, 0]


def integers(bundle: Bundle) -> dict[str, AnyArray]:
    golden = load_golden(bundle.file("golden.npz"))
    return {**golden.integers, **{f"all {name}": v for name, v in golden.outputs.items()}}


def assert_same_integers(one: Bundle, other: Bundle) -> None:
    assert integers(one).keys() == integers(other).keys()
    for name, values in integers(one).items():
        np.testing.assert_array_equal(values, integers(other)[name])


def answers(bundle: Bundle, inputs: AnyArray) -> dict[str, AnyArray]:
    """Outputs of the three files for inputs in NCHW."""
    (source,), (target,) = bundle.manifest["inputs"], bundle.manifest["outputs"]
    laid = inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs
    given = {"tflite": {source["name"]: laid}, "onnx": {source["name"]: inputs}}
    name = target["name"]
    return {
        "float": ort.run(bundle.file("model.float.onnx").read_bytes(), given["onnx"])[name],
        "onnx": ort.run(bundle.file("model.onnx").read_bytes(), given["onnx"])[name],
        "tflite": litert.run(bundle.file("model.tflite").read_bytes(), given["tflite"])[name],
    }


def test_no_integer_of_either_runtime_changes_and_every_output_is_divided(
    plain: Bundle, given: Bundle, folder: Path
) -> None:
    verify(given)
    assert_same_integers(plain, given)
    stated = given.manifest["temperature"]
    assert (stated["fitted_on"], stated["samples"]) == ("given", 0)
    assert stated["value"] == pytest.approx(GIVEN, rel=5e-4)
    assert stated["multipliers_moved"] == stated["integers_changed"] == 0
    assert stated["integers_compared"] == 64 * stated["channels"]
    inputs = images(64)
    before, after = answers(plain, inputs), answers(given, inputs)
    np.testing.assert_array_equal(after["onnx"], after["tflite"])
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values / stated["value"], rtol=1e-5, atol=1e-6)
    plans = [json.loads(one.file("plan.json").read_text()) for one in (plain, given)]
    weights = [plan["network"] for plan in plans]
    assert weights[0].keys() == weights[1].keys()


def test_the_golden_floats_are_divided_too(plain: Bundle, given: Bundle) -> None:
    before, after = (load_golden(one.file("golden.npz")) for one in (plain, given))
    value = given.manifest["temperature"]["value"]
    assert before.mean_forward is not None and after.mean_forward is not None
    for one, other in (
        (before.folded, after.folded),
        (before.masked, after.masked),
        (before.mean_forward, after.mean_forward),
    ):
        np.testing.assert_allclose(other, one / value, rtol=1e-5, atol=1e-5)


def test_without_a_temperature_the_manifest_has_confidence_alone(plain: Bundle) -> None:
    assert plain.manifest["temperature"] is None
    confidence = plain.manifest["confidence"]
    assert confidence["samples"] == 64
    assert set(confidence["stages"]) == {"mean", "folded", "pruned", "model.onnx", "model.tflite"}


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_integer_ports_state_the_divided_scale(
    io: str, plain: Bundle, folder: Path, tmp_path: Path
) -> None:
    bundle = exported(folder, tmp_path, temperature=GIVEN, io=io)
    verify(bundle)
    assert_same_integers(plain, bundle)
    plan = json.loads(plain.file("plan.json").read_text())
    (port,) = bundle.manifest["outputs"]
    before = plain.manifest["layers"][-1]["output_scale"]
    assert port["scale"] == pytest.approx(before / GIVEN, rel=5e-4)
    assert bundle.manifest["layers"][-1]["output_scale"] == port["scale"]
    assert plan["names"] == json.loads(bundle.file("plan.json").read_text())["names"]


def test_labels_halve_the_evaluation_data(plain: Bundle, folder: Path, tmp_path: Path) -> None:
    """Even samples fit, odd ones judge; both figures are reproduced from the files."""
    bundle = exported(folder, tmp_path, temperature="labels")
    verify(bundle)
    assert_same_integers(plain, bundle)
    with np.load(folder / "data.npz") as data:
        inputs, labels = data["inputs"], data["labels"]
    before, after = answers(plain, inputs)["onnx"], answers(bundle, inputs)["onnx"]
    wanted = fitted_temperature(before[::2], one_hot(labels[::2], 3))
    stated = bundle.manifest["temperature"]
    assert (stated["fitted_on"], stated["samples"]) == ("labels", 32)
    assert stated["value"] == pytest.approx(wanted, rel=5e-4)
    assert (stated["in_calibration"], bundle.manifest["evaluation"]["in_calibration"]) == (32, 64)
    assert bundle.manifest["confidence"]["samples"] == 32
    odd = labels[1::2]
    for when, values in (("before", before), ("after", after)):
        found = metrics(probabilities(values[1::2]), odd)
        assert stated[f"nll_{when}"] == pytest.approx(found.nll, rel=1e-5)
        assert stated[f"ece_{when}"] == pytest.approx(found.ece, abs=1e-5)
    fitted = metrics(probabilities(after[::2]), labels[::2]).nll
    assert fitted <= metrics(probabilities(before[::2]), labels[::2]).nll
    assert bundle.manifest["accuracy"]["model.onnx"] == plain.manifest["accuracy"]["model.onnx"]


def test_labels_of_a_file_of_their_own_leave_the_evaluation_data_whole(
    folder: Path, tmp_path: Path
) -> None:
    bundle = exported(
        folder, tmp_path, temperature="labels", temperature_data=folder / "others.npz"
    )
    assert bundle.manifest["temperature"]["samples"] == 48
    assert bundle.manifest["confidence"]["samples"] == 64


def test_labels_of_calibration_samples_are_told(folder: Path, tmp_path: Path) -> None:
    """However their numbers were stored."""
    with np.load(folder / "data.npz") as data, np.load(folder / "others.npz") as others:
        inputs = np.concatenate(
            [data["inputs"][:8].astype(np.float64) * (1 + 1e-7), others["inputs"]]
        )
        labels = np.concatenate([data["labels"][:8], others["labels"]])
    bundle = exported(
        folder, tmp_path, temperature="labels", eval_data=None,
        temperature_data=save(tmp_path / "mixed.npz", inputs=inputs, labels=labels),
    )  # fmt: skip
    assert bundle.manifest["temperature"]["in_calibration"] == 8
    assert any("8 samples of the calibration data are in the labelled data" in sentence
               for sentence in warnings_of(bundle.manifest))  # fmt: skip


@pytest.mark.parametrize("own", [None, "unlabelled.npz"])
def test_monte_carlo_needs_no_labels(
    own: str | None, plain: Bundle, folder: Path, tmp_path: Path
) -> None:
    data = None if own is None else folder / own
    bundle = exported(folder, tmp_path, temperature="monte-carlo", temperature_data=data)
    verify(bundle)
    assert_same_integers(plain, bundle)
    stated = bundle.manifest["temperature"]
    assert (stated["fitted_on"], stated["samples"]) == ("monte-carlo", 48 if own else 64)
    assert bundle.manifest["confidence"]["samples"] == 64
    inputs = images(48, seed=77) if own else images(64)
    drawn = predictive(folder, inputs)
    divergence = {
        name: kl(drawn, answers(one, inputs)["onnx"])
        for name, one in (("plain", plain), ("fitted", bundle))
    }
    assert divergence["fitted"] < divergence["plain"]
    for factor in (0.97, 1.03):
        other = answers(bundle, inputs)["onnx"] / factor
        assert divergence["fitted"] <= kl(drawn, other)


def predictive(folder: Path, inputs: AnyArray) -> AnyArray:
    from deploykit.posterior.checkpoint import load_checkpoint
    from deploykit.posterior.fold import fold_posterior
    from deploykit.posterior.options import PruneRule, PruneSpec
    from deploykit.posterior.predictive import predictive_of

    checkpoint = load_checkpoint(folder / "net.pt")
    folded = fold_posterior(checkpoint, bayesian_net, images(4), PruneSpec(PruneRule.NONE))
    drawing = predictive_of(folded, checkpoint)
    assert drawing is not None
    return drawing(inputs, lambda done, total: None)


def kl(p: AnyArray, outputs: AnyArray) -> float:
    log_q = np.log(softmax(scores_of(outputs)))
    return float((p * (np.log(p) - log_q)).sum(axis=1).mean())


@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax"])
def test_a_softmax_at_the_end_reads_the_divided_logits(tail: str, tmp_path: Path) -> None:
    model = file(
        [node("Gemm", "input w b", "z", transB=1), node(tail, "z", "output", axis=-1)],
        {"w": normal(5, 12, seed=1), "b": normal(5, seed=2)},
        {"input": [1, 12]}, {"output": [1, 5]},
    )  # fmt: skip
    source = onnx_files.save(model, tmp_path / "net.onnx")
    inputs = normal(40, 12, seed=4)
    data = save(tmp_path / "data.npz", inputs=inputs, labels=np.arange(40) % 5)
    before, after = (
        deploykit.export(source, data=data, eval_data=data, out=tmp_path / name, temperature=value)
        for name, value in (("plain", None), ("tempered", 1.8))
    )
    verify(after)
    assert_same_integers(before, after)
    value = after.manifest["temperature"]["value"]
    for name, values in answers(before, inputs).items():
        expected = softmax(scores_of(values) / value)
        expected = expected if tail == "Softmax" else np.log(expected)
        np.testing.assert_allclose(answers(after, inputs)[name], expected, rtol=1e-4, atol=1e-5)
    stated = after.manifest["temperature"]
    plain = before.manifest["confidence"]["stages"]["model.onnx"]
    assert stated["nll_before"] == pytest.approx(plain["nll"], rel=1e-5)


@pytest.mark.parametrize("rounding", ["sequential", "compensated"])
def test_four_bits_keep_their_integers_too(rounding: str, folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"bits": 4, "rounding": rounding}
    before = exported(folder, tmp_path / "plain", **options)
    after = exported(folder, tmp_path / "tempered", **options, temperature=0.7)
    verify(after)
    assert_same_integers(before, after)


def test_a_thousand_classes_verify_and_say_what_moved(tmp_path: Path) -> None:
    model = file(
        [node("Gemm", "input w b", "output", transB=1)],
        {"w": normal(1000, 16, seed=1), "b": normal(1000, seed=2)},
        {"input": [1, 16]}, {"output": [1, 1000]},
    )  # fmt: skip
    source = onnx_files.save(model, tmp_path / "net.onnx")
    data = save(tmp_path / "data.npz", inputs=normal(40, 16, seed=4))
    bundle = deploykit.export(source, data=data, out=tmp_path / "b", temperature="1.3")
    verify(bundle)
    stated = bundle.manifest["temperature"]
    assert 0 < stated["multipliers_moved"] < 400
    assert stated["integers_changed"] <= 5
    assert stated["integers_compared"] == 40_000
    assert stated["nll_after"] is None
    model = onnx.load(bundle.file("model.onnx"))
    assert len(model.graph.output) == 1


def test_the_table_shows_both(folder: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [
        "export", folder / "net.pt", "--model", "tests.posterior.gnj_layers:bayesian_net",
        "--input-shape", "1,1,8,8", "--data", folder / "data.npz", "--prune-rule", "none",
        "--eval-data", folder / "data.npz", "--out", tmp_path / "b", "--temperature", "labels",
    ]  # fmt: skip
    done = run(*words)
    assert done.exit_code == 0, done.stderr
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    stated, shown = manifest["temperature"], " ".join(done.stdout.split())
    told = f"temperature {stated['value']:.4f}, by NLL on 32 labelled samples; every integer as"
    assert told in shown
    nll = f"NLL {stated['nll_before']:.3f} → {stated['nll_after']:.3f} nats"
    ece = f"ECE {stated['ece_before']:.3f} → {stated['ece_after']:.3f}"
    assert f"model.onnx, model.tflite {nll}, {ece}" in shown


REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "cold": ({"temperature": 0}, UsageError, r"--temperature 0: give labels, monte-carlo, or a n"),
    "not a number": ({"temperature": "nan"}, UsageError, "from 0.03125 to 32"),
    "a word": ({"temperature": "warm"}, UsageError, "--temperature warm: give labels, monte-carlo"),
    "data of a number": (
        {"temperature": 2.0, "temperature_data": "others.npz"}, ConfigError, "taken as it is",
    ),
    "data alone": ({"temperature_data": "others.npz"}, UsageError, "say what to fit"),
    "nothing labelled": (
        {"temperature": "labels", "eval_data": None}, UsageError, "give --temperature-data",
    ),
    "no labels in it": (
        {"temperature": "labels", "temperature_data": "unlabelled.npz"}, DataError,
        "holds no `labels`",
    ),
    "no labels to halve": (
        {"temperature": "labels", "eval_data": "unlabelled.npz"}, DataError,
        "--eval-data holds no `labels`",
    ),
    "judged by itself": (
        {"temperature": "labels", "temperature_data": "data.npz"}, DataError,
        "64 samples of .*data.npz are in --eval-data too",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_leave_nothing(name: str, folder: Path, tmp_path: Path) -> None:
    options, kind, sentence = REFUSALS[name]
    given = {
        key: folder / value if str(value).endswith(".npz") else value
        for key, value in options.items()
    }
    with pytest.raises(kind, match=sentence):
        exported(folder, tmp_path, **given)
    assert not (tmp_path / "b").exists()


def test_an_onnx_file_has_no_posterior(tmp_path: Path) -> None:
    source = onnx_files.save(onnx_files.classifier(11), tmp_path / "net.onnx")
    data = save(tmp_path / "data.npz", inputs=normal(16, 3, 8, 8))
    assert_refused(
        run(
            "export", source, "--data", data, "--out", tmp_path / "b",
            "--temperature", "monte-carlo",
        ),
        3,
        "draws from a posterior, and an ONNX file has none",
    )  # fmt: skip


def test_a_point_checkpoint_has_none_either(folder: Path, tmp_path: Path) -> None:
    from tests.posterior.gnj_layers import plain_net

    torch.save(plain_net().state_dict(), tmp_path / "plain.pt")
    with pytest.raises(ConfigError, match="no layer of the checkpoint has a posterior to draw"):
        deploykit.export(
            tmp_path / "plain.pt", model="tests.posterior.gnj_layers:plain_net",
            input_shape=(1, 1, 8, 8), data=folder / "data.npz", out=tmp_path / "b",
            temperature="monte-carlo", prune_rule="none",
        )  # fmt: skip


def test_a_network_that_ends_in_a_pool_is_refused_before_anything_is_planned(
    tmp_path: Path,
) -> None:
    model = file(
        [
            node("Conv", "input w b", "c", kernel_shape=[1, 1]),
            node("GlobalAveragePool", "c", "m"), node("Flatten", "m", "output"),
        ],
        {"w": normal(5, 3, 1, 1, seed=1), "b": normal(5, seed=2)},
        {"input": [1, 3, 4, 4]}, {"output": [1, 5]},
    )  # fmt: skip
    source = onnx_files.save(model, tmp_path / "net.onnx")
    data = save(tmp_path / "data.npz", inputs=normal(16, 3, 4, 4))
    with pytest.raises(QuantizationError, match=r"GlobalAveragePool.*whose scale is not free"):
        deploykit.export(source, data=data, out=tmp_path / "b", temperature=2)


def test_a_constant_answer_is_told_and_gets_no_temperature(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Gemm", "r v c", "y")]
    arrays = {
        "w": np.zeros((8, 6), np.float32), "b": normal(6), "v": normal(6, 3, seed=1),
        "c": np.array([1.0, 0.0, -1.0], np.float32),
    }  # fmt: skip
    onnx_files.save(file(nodes, arrays, {"x": [1, 8]}, {"y": [1, 3]}), tmp_path / "net.onnx")
    floats = ort.run((tmp_path / "net.onnx").read_bytes(), {"x": np.zeros((1, 8), np.float32)})["y"]
    labels = np.where(np.arange(60) % 3 == 0, (floats.argmax() + 1) % 3, floats.argmax())
    data = save(tmp_path / "data.npz", inputs=normal(60, 8, seed=2), labels=labels)
    given: dict[str, Any] = {"data": data, "eval_data": data, "align": "none"}
    with pytest.raises(QuantizationError, match="the same scores for all 30 samples"):
        deploykit.export(tmp_path / "net.onnx", out=tmp_path / "b", temperature="labels", **given)
    assert not (tmp_path / "b").exists()
    bundle = deploykit.export(tmp_path / "net.onnx", out=tmp_path / "b", **given)
    assert bundle.manifest["constant_output"]["samples"] == 32
    assert any("the same output for all 32" in one for one in warnings_of(bundle.manifest))
    scaled = deploykit.export(tmp_path / "net.onnx", out=tmp_path / "t", temperature=2, **given)
    assert scaled.manifest["temperature"]["value"] == pytest.approx(2.0, rel=1e-3)


def test_zero_weights_alone_in_integers_are_told_too(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("Gemm", "r v c", "y")]
    arrays = {
        "w": normal(8, 6), "b": normal(6), "v": np.zeros((6, 3), np.float32), "c": normal(3),
    }  # fmt: skip
    onnx_files.save(file(nodes, arrays, {"x": [1, 8]}, {"y": [1, 3]}), tmp_path / "net.onnx")
    bundle = deploykit.export(
        tmp_path / "net.onnx", out=tmp_path / "b", activations="float", align="none",
        data=save(tmp_path / "data.npz", inputs=normal(40, 8, seed=2)),
    )  # fmt: skip
    found = bundle.manifest["constant_output"]
    assert found["samples"] == 32 and found["zero_weights"]
    assert any("are all zero" in one for one in warnings_of(bundle.manifest))


def test_an_answer_that_changes_is_not_told_to_be_constant(plain: Bundle) -> None:
    assert plain.manifest["constant_output"] is None
