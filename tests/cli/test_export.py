"""deploykit export: what it prints, and every refusal as one sentence with nothing written."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import small_models
from tests.cli.running import assert_refused, run, start
from tests.exported import CHECKPOINT, SAMPLE, TWIN, contents, save, write_config

Words = list[str | Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The sample's export.toml and data, to change."""
    write_config(tmp_path)
    return tmp_path


def sample(folder: Path, *more: str | Path, checkpoint: Path = CHECKPOINT) -> Words:
    """An export of the sample with changes."""
    config = folder / "export.toml"
    return ["export", checkpoint, "--config", config, "--out", folder / "out", *more]


def small(folder: Path, factory: str, *more: str | Path, shape: str = "1,1,4,4") -> Words:
    """An export of one of the small networks with random weights, four samples to calibrate on."""
    checkpoint = small_models.save_random(getattr(small_models, factory)(), folder / "small.pt")
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((4, 1, 4, 4)).astype(np.float32)
    data = save(folder / "small.npz", inputs=drawn)
    return [
        "export", checkpoint, "--model", f"tests.small_models:{factory}", "--data", data,
        "--input-shape", shape, "--prune-rule", "none", "--out", folder / "out", *more,
    ]  # fmt: skip


def cut_off(folder: Path) -> Words:
    checkpoint = folder / "cut.pt"
    checkpoint.write_bytes(CHECKPOINT.read_bytes()[:100_000])
    return sample(folder, checkpoint=checkpoint)


def unknown_family(folder: Path) -> Words:
    state = torch.load(CHECKPOINT, weights_only=True)
    tensors = state.get("state_dict", state)
    tensors["conv1.weight_rho"] = tensors.pop("conv1.weight_logvar")
    torch.save(tensors, folder / "odd.pt")
    return sample(folder, checkpoint=folder / "odd.pt")


def calibrated_on(**arrays: np.ndarray) -> Callable[[Path], Words]:
    def words(folder: Path) -> Words:
        return sample(folder, "--data", save(folder / "data.npz", **arrays))

    return words


def evaluated_on(**arrays: np.ndarray) -> Callable[[Path], Words]:
    def words(folder: Path) -> Words:
        return sample(folder, "--eval-data", save(folder / "data.npz", **arrays))

    return words


def data_file(content: bytes) -> Callable[[Path], Words]:
    def words(folder: Path) -> Words:
        (folder / "data.npz").write_bytes(content)
        return sample(folder, "--data", folder / "data.npz")

    return words


def single_array(folder: Path) -> Words:
    np.save(folder / "data.npy", np.zeros((3, 1, 28, 28), np.float32))
    return sample(folder, "--data", folder / "data.npy")


def damaged_zip(folder: Path) -> Words:
    data = bytearray((SAMPLE / "calibration.npz").read_bytes())
    data[500:520] = bytes(20)
    return data_file(bytes(data))(folder)


def configured(text: str) -> Callable[[Path], Words]:
    def words(folder: Path) -> Words:
        config = folder / "export.toml"
        config.write_text(text + config.read_text(encoding="utf-8"), encoding="utf-8")
        return sample(folder)

    return words


def with_options(*more: str | Path) -> Callable[[Path], Words]:
    return lambda folder: sample(folder, *more)


def with_factory(source: str) -> Callable[[Path], Words]:
    def words(folder: Path) -> Words:
        (folder / "own.py").write_text(source, encoding="utf-8")
        return sample(folder, "--model", f"{folder / 'own.py'}:build")

    return words


def without(key: str) -> Callable[[Path], Words]:
    def words(folder: Path) -> Words:
        config = folder / "export.toml"
        lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{key} =")]
        config.write_text("".join(kept), encoding="utf-8")
        return sample(folder)

    return words


def without_thresholds(folder: Path) -> Words:
    config = folder / "export.toml"
    text = config.read_text(encoding="utf-8").partition("[threshold]")[0]
    config.write_text(text, encoding="utf-8")
    return sample(folder)


def occupied(make: Callable[[Path], object]) -> Callable[[Path], Words]:
    def words(folder: Path) -> Words:
        make(folder / "out")
        return sample(folder)

    return words


def folder_of_something_else(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_bytes(b"")


IMAGES = np.zeros((5, 1, 28, 28), np.float32)
FIVE = np.arange(5)


def with_value(value: float) -> np.ndarray:
    images = IMAGES.copy()
    images[3, 0, 7, 7] = value
    return images


REFUSED: dict[str, tuple[Callable[[Path], Words], list[str]]] = {
    "missing checkpoint": (
        lambda folder: sample(folder, checkpoint=folder / "gone.pt"),
        ["gone.pt: there is no such file; check the path"],
    ),
    "cut-off checkpoint": (cut_off, ["cut.pt: is cut off", "copy it again"]),
    "unknown family": (
        unknown_family,
        ["layer 'conv1' is not understood", "conv1.weight_rho", "the nearest known family is"],
    ),
    "input shape that does not fit": (
        lambda folder: small(folder, "linear", shape="1,1,4,5"), ["[4, 1, 4, 4]", "[N, 1, 4, 5]"],
    ),
    "input shape and data that do not fit the network": (
        with_options("--model", "tests.small_models:linear", "--prune-rule", "none"), ["conv1"],
    ),
    "input shape of letters": (
        with_options("--input-shape", "1,one,28,28"), ["--input-shape 1,one,28,28 is no shape"],
    ),
    "data of another shape": (
        calibrated_on(inputs=np.zeros((5, 3, 28, 28), np.float32)),
        ["`inputs` has shape [5, 3, 28, 28]", "[N, 1, 28, 28]", "give data"],
    ),
    "data of another rank": (
        calibrated_on(inputs=np.zeros((5, 784), np.float32)), ["`inputs` has shape [5, 784]"],
    ),
    "data with NaN": (
        calibrated_on(inputs=with_value(np.nan)), ["sample 3 of `inputs` holds NaN or infinity"],
    ),
    "data with infinity": (calibrated_on(inputs=with_value(-np.inf)), ["sample 3", "1 of 5"]),
    "data beyond float32": (
        calibrated_on(inputs=with_value(1.0).astype(np.float64) * 1e300), ["sample 3"],
    ),
    "data without inputs": (
        calibrated_on(images=IMAGES), ["has no array `inputs` but ['images']", "[N, C, H, W]"],
    ),
    "data without samples": (calibrated_on(inputs=IMAGES[:0]), ["`inputs` holds no samples"]),
    "integer data": (
        calibrated_on(inputs=IMAGES.astype(np.uint8)), ["`inputs` is uint8; give float32"],
    ),
    "data of objects": (
        calibrated_on(inputs=np.array([str(i) for i in range(5)])), ["`inputs` has shape [5]"],
    ),
    "data that is no npz": (data_file(b"text"), ["data.npz cannot be read as .npz"]),
    "empty data": (data_file(b""), ["data.npz cannot be read as .npz"]),
    "a single array as data": (single_array, ["data.npy holds a single array; an .npz"]),
    "damaged data": (damaged_zip, ["data.npz cannot be read as .npz"]),
    "missing data": (with_options("--data", "gone.npz"), ["gone.npz: there is no such file"]),
    "a label too few": (
        evaluated_on(inputs=IMAGES, labels=FIVE[:4]), ["`labels` has shape [4] for 5 inputs"],
    ),
    "real-valued labels": (
        evaluated_on(inputs=IMAGES, labels=FIVE / 2), ["`labels` is float64; give class numbers"],
    ),
    "labels beyond the classes": (
        evaluated_on(inputs=IMAGES, labels=FIVE + 6), ["labels run from 6 to 10", "10 classes"],
    ),
    "an operator of neither format": (
        lambda folder: small(folder, "cumulative"), ["operator CumSum", "Replace it"],
    ),
    "unknown rule": (
        with_options("--prune-rule", "foo"), ["--prune-rule foo: choose one of family, snr"],
    ),
    "unknown bits": (with_options("--bits", "7"), ["--bits 7", "2, 3, 4, 5, 6, 8 bits"]),
    "unknown numerics": (
        with_options("--numerics", "half"), ["--numerics half: choose one of exact, reference"],
    ),
    "unknown io": (with_options("--io", "x"), ["--io x: choose one of float, int8, uint8"]),
    "unknown format": (with_options("--to", "coreml"), ["--to coreml: choose onnx, tflite"]),
    "unknown calibration": (
        with_options("--calibration", "z"), ["--calibration z: choose one of mse, minmax"],
    ),
    "unknown batch norm": (
        with_options("--batchnorm", "fuse"), ["--batchnorm fuse: choose one of keep"],
    ),
    "unknown layout": (
        with_options("--tflite-layout", "hw"), ["--tflite-layout hw: choose one of nhwc, nchw"],
    ),
    "unknown key in export.toml": (
        configured('prunerule = "none"\n'), ["export.toml: unknown option prunerule; there are"],
    ),
    "broken export.toml": (configured("bits = = 8\n"), ["export.toml is not TOML", "line 1"]),
    "missing export.toml": (with_options("--config", "gone.toml"), ["gone.toml: No such file"]),
    "no data": (without("data"), ["give --data calibration.npz"]),
    "no model": (without("model"), ["give --model FILE.py:FACTORY"]),
    "no input shape": (without("input_shape"), ["give --input-shape 1,1,28,28"]),
    "no threshold": (without_thresholds, ["no default threshold", "give --threshold T"]),
    "threshold that closes everything": (
        with_options("--threshold", "-1000"), ["layer 'conv1'", "closes all 20 gates"],
    ),
    "threshold that is no number": (with_options("--threshold", "nan"), ["no finite number"]),
    "a threshold for a layer that the rule never prunes": (
        with_options("--prune-rule", "savage-dickey"),
        ["threshold for 'fc2': it is the output layer", "leave it out"],
    ),
    "a rule without a posterior": (
        lambda folder: sample(folder, "--model", f"{SAMPLE}/model.py:lenet5", checkpoint=TWIN),
        ["the checkpoint holds no posterior", "give --prune-rule none"],
    ),
    "missing model file": (
        with_options("--model", "gone.py:build"), ["gone.py: there is no such file"],
    ),
    "missing factory": (
        with_options("--model", f"{SAMPLE}/model.py:resnet"), ["has no factory 'resnet'", "lenet5"],
    ),
    "no factory named": (with_options("--model", "model.py"), ["'model.py' names no factory"]),
    "factory that fails": (
        with_factory("def build():\n    raise KeyError('no')\n"), ["building the network raised"],
    ),
    "factory of something else": (with_factory("def build():\n    return 3\n"), ["returned a int"]),
    "factory file that is no Python": (with_factory("def build(:\n"), ["SyntaxError"]),
    "a file where the bundle goes": (
        occupied(lambda path: path.write_bytes(b"")), ["out exists and is not a folder"],
    ),
    "a folder of something else where the bundle goes": (
        occupied(folder_of_something_else), ["out exists, is not empty and is not a bundle"],
    ),
    "a file above the bundle": (
        lambda folder: sample(folder, "--out", folder / "export.toml" / "b"),
        ["export.toml is not a folder, so no bundle can be written in it; choose another --out"],
    ),
}  # fmt: skip


NOT_UNDERSTOOD = frozenset(
    (
        "unknown rule", "unknown numerics", "unknown bits", "unknown io", "unknown format",
        "unknown calibration",
        "unknown batch norm", "unknown layout", "no data", "no model", "no input shape",
    )
)  # fmt: skip
"""Of these, what ends with the code of a command line that was not understood."""


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_exported_is_refused_in_a_sentence(what: str, folder: Path) -> None:
    make, told = REFUSED[what]
    words = make(folder)
    before = sorted(folder.rglob("*"))
    assert_refused(run(*words), 2 if what in NOT_UNDERSTOOD else 3, *told)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--bits", "many"], "--bits"),
        (["--threshold", "high"], "--threshold"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_a_line_that_cannot_be_parsed_is_a_usage_error(
    words: list[str], told: str, folder: Path
) -> None:
    result = run(*sample(folder, *words))
    assert result.exit_code == 2
    assert told in result.stderr


def test_what_it_lacks_is_a_usage_error() -> None:
    for words, told in ((["export"], "Missing"), (["export", "a.pt"], "give --out")):
        result = run(*words)
        assert result.exit_code == 2
        assert told in result.stderr


def test_debug_shows_the_traceback_above_the_sentence(folder: Path) -> None:
    result = run(*sample(folder, "--io", "x", "--debug"))
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: --io x")


def test_evaluation_data_without_labels_says_what_it_was_used_for(folder: Path) -> None:
    data = save(folder / "eval.npz", inputs=np.ones((5, 1, 4, 4), np.float32))
    result = run(*small(folder, "linear"), "--eval-data", data)
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    assert "not measured: --eval-data holds no `labels`; the integers of its 5 inputs" in told


def test_a_bundle_is_written_and_summed_up(folder: Path) -> None:
    result = run(*small(folder, "linear"))
    assert result.exit_code == 0, result.stderr
    for told in ("layer", "Linear", "model.tflite", "0 of", f"The bundle is in {folder / 'out'}"):
        assert told in result.stdout
    assert "deploykit verify" in result.stdout
    for stage in ("load checkpoint", "prove parity", "write bundle"):
        assert stage in result.stderr
    assert run("verify", folder / "out").exit_code == 0


def test_json_is_the_manifest_alone(folder: Path) -> None:
    result = run(*small(folder, "linear", "--json"))
    assert result.exit_code == 0, result.stderr
    written = json.loads((folder / "out" / "manifest.json").read_bytes())
    assert json.loads(result.stdout) == written


def test_an_old_bundle_is_replaced_and_survives_a_refusal(folder: Path) -> None:
    words = small(folder, "linear")
    assert run(*words).exit_code == 0
    before = contents(folder / "out")
    assert run(*words, "--io", "int8").exit_code == 0
    changed = contents(folder / "out")
    assert changed["model.onnx"] != before["model.onnx"]
    assert_refused(run(*small(folder, "cumulative")), 3, "operator CumSum")
    assert contents(folder / "out") == changed


def test_a_disk_that_refuses_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small(folder, "linear")
    before = sorted(folder.rglob("*"))

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    assert_refused(run(*words), 3, "could not be written (No space left on device)")
    assert sorted(folder.rglob("*")) == before


def test_ctrl_c_half_way_leaves_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with start(*sample(folder)) as process:
        assert process.stderr is not None
        assert "load checkpoint" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert sorted(folder.rglob("*")) == before


def test_an_average_beside_the_weights_is_told_and_can_be_taken(folder: Path) -> None:
    words = small(folder, "linear")
    plain = torch.load(folder / "small.pt", weights_only=True)
    average = {f"net.{name}": 2 * tensor for name, tensor in plain.items()}
    torch.save({"model": plain, "ema": average}, folder / "small.pt")
    first = run(*words)
    assert first.exit_code == 0, first.stderr
    assert "It holds ema too; to take that: --weights ema" in first.stdout
    second = run(*words, "--weights", "ema")
    assert second.exit_code == 0, second.stderr
    assert "Of the checkpoint: ema, net." in second.stdout


def test_pixels_for_a_network_that_saw_normalized_ones_are_warned_of(folder: Path) -> None:
    network = small_models.residual()
    network.train()
    for _ in range(50):
        network(torch.randn(32, *small_models.RESIDUAL_SHAPE[1:]))
    torch.save(network.state_dict(), folder / "trained.pt")
    drawn = np.random.default_rng(0).normal(size=(32, 3, 32, 32)).astype(np.float32)
    told = {}
    for name, inputs in {"as trained": drawn, "pixels": np.clip(drawn * 58 + 120, 0, 255)}.items():
        data = save(folder / "data.npz", inputs=inputs)
        result = run(
            "export", folder / "trained.pt", "--model", "tests.small_models:residual",
            "--input-shape", "1,3,32,32", "--prune-rule", "none", "--data", data,
            "--out", folder / "out", "--rounding", "nearest",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        told[name] = "at the first batch norm" in result.stdout
    assert told == {"as trained": False, "pixels": True}


def test_dead_channels_that_stay_for_an_aligned_width_are_told(folder: Path) -> None:
    config = folder / "export.toml"
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("target =")))
    done = run(*sample(folder, "--align", "16"))
    assert done.exit_code == 0, done.stderr
    told = "dead channels             conv1 (14 of 32), conv2 (2 of 32), fc1 (8 of 64), for \n"
    assert told in done.stdout
    assert told in run("inspect", folder / "out").stdout
    made = json.loads((folder / "out" / "manifest.json").read_text())
    kept = {layer["name"]: layer.get("dead_channels") for layer in made["layers"]}
    assert (kept["conv1"], kept["conv2"], kept["fc1"]) == (14, 2, 8)
    assert kept["fc2"] is None
