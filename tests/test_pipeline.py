"""Whole exports: what each option changes, and that every result verifies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

import deploykit
from deploykit import pipeline
from deploykit.bundle import Bundle
from deploykit.errors import ConfigError, ParityError
from deploykit.exporting.evidence import prove_parity
from deploykit.quantize import apply
from deploykit.quantize.apply import apply_plan
from deploykit.spec.network import Network
from deploykit.spec.operators import Conv
from deploykit.spec.parity import ParityReport, Verdict
from deploykit.spec.plan import QuantPlan
from deploykit.spec.progress import Advance
from deploykit.spec.quantized import QuantizedNetwork
from deploykit.verify import saturation
from tests import small_models
from tests.cli.running import start
from tests.exported import CHECKPOINT, SAMPLE, TWIN, contents, save
from tests.posterior.gnj_layers import bayesian_net, images, randomised

BAYESIAN = "tests.posterior.gnj_layers:bayesian_net"
PLAIN = "tests.posterior.gnj_layers:plain_net"


def verified(bundle: Bundle) -> ParityReport:
    """The bundle's own proof, whole and without a failure."""
    report = deploykit.verify_bundle(bundle.path)
    assert [step for step in report.steps if step.verdict is Verdict.FAILED] == []
    assert report.complete
    return report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small Bayesian network with batch norm, and labelled data."""
    folder = tmp_path_factory.mktemp("bayesian")
    torch.save(randomised(bayesian_net()).state_dict(), folder / "net.pt")
    labels = np.arange(16) % 3
    save(folder / "data.npz", inputs=images(16), labels=labels)
    return folder


def exported(folder: Path, out: Path, **options: Any) -> Bundle:
    """The small Bayesian network, nothing pruned unless asked."""
    data = folder / "data.npz"
    settings: dict[str, Any] = {
        "model": BAYESIAN, "input_shape": (1, 1, 8, 8), "data": data, "eval_data": data,
        "prune_rule": "none",
    }  # fmt: skip
    return deploykit.export(folder / "net.pt", out=out / "b", **{**settings, **options})


@pytest.fixture(scope="module")
def unpruned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small Bayesian network with every default but the rule."""
    return exported(folder, tmp_path_factory.mktemp("unpruned"))


def public_types(bundle: Bundle) -> dict[str, set[str]]:
    """Element types of the graph's inputs and outputs by file."""
    graph = onnx.load(bundle.file("model.onnx")).graph
    interpreter = Interpreter(str(bundle.file("model.tflite")))
    details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    names = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT8: "int8"}
    return {
        "onnx": {
            names.get(port.type.tensor_type.elem_type, "uint8")
            for port in (*graph.input, *graph.output)
        },
        "tflite": {np.dtype(detail["dtype"]).name for detail in details},
    }


@pytest.mark.parametrize(
    ("io", "kind"), [("float", "float32"), ("int8", "int8"), ("uint8", "uint8")]
)
def test_io_is_the_type_of_both_files_ports(
    io: str, kind: str, folder: Path, unpruned: Bundle, tmp_path: Path
) -> None:
    bundle = unpruned if io == "float" else exported(folder, tmp_path, io=io)
    assert public_types(bundle) == {"onnx": {kind}, "tflite": {kind}}
    assert bundle.manifest["io"] == io
    verified(bundle)


def tflite_input_shape(bundle: Bundle) -> list[int]:
    details = Interpreter(str(bundle.file("model.tflite"))).get_input_details()
    shape: list[int] = details[0]["shape"].tolist()
    return shape


@pytest.mark.parametrize("io", ["float", "int8", "uint8"])
def test_the_tflite_input_keeps_the_order_where_asked(io: str, tmp_path: Path) -> None:
    bundle = exported_residual(tmp_path, tflite_layout="nchw", io=io)
    assert tflite_input_shape(bundle) == [1, 3, 32, 32]
    verified(bundle)


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_one_format_alone_is_a_whole_bundle(form: str, folder: Path, tmp_path: Path) -> None:
    bundle = exported(folder, tmp_path, to=[form])
    assert bundle.models() == (f"model.{form}",)
    report = verified(bundle)
    assert [step.number for step in report.steps] == [1, 2, 3, *[4] * 6]
    assert len(bundle.manifest["parity"]) == 1


def test_each_calibration_verifies_and_states_itself(
    folder: Path, unpruned: Bundle, tmp_path: Path
) -> None:
    bundles = {
        method: exported(folder, tmp_path / method, calibration=method)
        for method in ("minmax", "percentile", "entropy")
    }
    scales = {}
    for method, bundle in {"mse": unpruned, **bundles}.items():
        verified(bundle)
        assert json.loads(bundle.file("plan.json").read_bytes())["calibration"] == method
        scales[method] = [layer["output_scale"] for layer in bundle.manifest["layers"]]
    assert scales["mse"] != scales["minmax"]
    assert all(a <= b * 1.001 for a, b in zip(scales["mse"], scales["minmax"], strict=True))


def closed(bundle: Bundle) -> int:
    return sum(layer["closed"] for layer in bundle.manifest["fold"]["gates"])


def test_no_rule_closes_nothing(unpruned: Bundle) -> None:
    assert closed(unpruned) == 0
    removal = unpruned.manifest["removal"]
    assert removal["parameters_before"] == removal["parameters_after"]


@pytest.mark.parametrize(
    ("rule", "threshold"), [("snr", 1.0), ("family", 0.0), ("savage-dickey", -8.0)]
)
def test_a_rule_closes_gates_and_the_channels_go(
    rule: str, threshold: float, folder: Path, tmp_path: Path
) -> None:
    bundle = exported(folder, tmp_path, prune_rule=rule, threshold=threshold)
    assert bundle.manifest["fold"]["prune_rule"] == rule
    assert closed(bundle) > 0
    removal = bundle.manifest["removal"]
    assert removal["parameters_after"] < removal["parameters_before"]
    assert removal["max_relative_difference"] <= 1e-5
    verified(bundle)


def test_the_deterministic_twin_s_factory_gives_the_same_integers(
    folder: Path, unpruned: Bundle, tmp_path: Path
) -> None:
    twin = exported(folder, tmp_path, model=PLAIN)
    for name in ("model.onnx", "model.tflite", "plan.json"):
        assert twin.file(name).read_bytes() == unpruned.file(name).read_bytes()
    first = verified(twin).steps[0]
    assert (first.number, first.verdict) == (1, Verdict.INAPPLICABLE)
    assert first.detail == "no Bayesian mean forward: --model named a deterministic twin"
    assert verified(unpruned).steps[0].verdict is Verdict.PASSED


def test_a_plain_checkpoint_is_exported_whole(sample_config: Path, tmp_path: Path) -> None:
    data = sample_config.parent
    bundle = deploykit.export(
        TWIN, model=f"{SAMPLE}/model.py:lenet5", input_shape=(1, 1, 28, 28), prune_rule="none",
        data=data / "calibration.npz", eval_data=data / "test-2000.npz", out=tmp_path / "b",
    )  # fmt: skip
    assert set(bundle.manifest["fold"]["families"].values()) == {"deterministic"}
    assert bundle.manifest["removal"]["parameters_after"] == 431_080
    assert "mean" not in bundle.manifest["accuracy"]
    assert verified(bundle).steps[0].verdict is Verdict.INAPPLICABLE


def exported_residual(folder: Path, **options: Any) -> Bundle:
    """A residual network with batch norm, a padded max pool and a global average pool."""
    generator = np.random.default_rng(1)
    inputs = generator.standard_normal((16, *small_models.RESIDUAL_SHAPE[1:]))
    save(folder / "data.npz", inputs=inputs.astype(np.float32))
    settings: dict[str, Any] = {
        "model": "tests.small_models:residual", "input_shape": small_models.RESIDUAL_SHAPE,
        "data": folder / "data.npz", "eval_data": folder / "data.npz", "prune_rule": "none",
    }  # fmt: skip
    checkpoint = small_models.save_random(small_models.residual(), folder / "net.pt", seed=3)
    return deploykit.export(checkpoint, out=folder / "b", **{**settings, **options})


def test_a_residual_network_computes_the_same_integers_everywhere(tmp_path: Path) -> None:
    bundle = exported_residual(tmp_path)
    assert tflite_input_shape(bundle) == [1, 32, 32, 3]
    assert [(p["runtime"], p["differing"]) for p in bundle.manifest["parity"]] == [
        ("onnxruntime", 0),
        ("litert", 0),
    ]
    assert all(p["integers"] > 400_000 for p in bundle.manifest["parity"])
    operators = [layer["operator"] for layer in bundle.manifest["layers"]]
    assert operators.count("Add") == 2
    assert {"MaxPool", "GlobalAveragePool", "Linear"} <= set(operators)
    assert min(v for v in bundle.manifest["sqnr_db"].values() if v is not None) > 25.0
    verified(bundle)


def test_a_batch_of_several_is_exported_and_verified(tmp_path: Path) -> None:
    bundle = exported_residual(tmp_path, input_shape=(4, *small_models.RESIDUAL_SHAPE[1:]))
    assert bundle.manifest["inputs"][0]["shape"][0] == 4
    verified(bundle)


@pytest.mark.parametrize("io", ["float", "uint8"])
def test_a_dynamic_batch_is_in_both_files_and_verifies(
    io: str, folder: Path, tmp_path: Path
) -> None:
    bundle = exported(folder, tmp_path, batch="dynamic", io=io)
    verified(bundle)
    assert bundle.manifest["batch"] == "dynamic"
    value = onnx.load(bundle.path / "model.onnx").graph.input[0]
    first, *rest = value.type.tensor_type.shape.dim
    assert (first.dim_param, [dim.dim_value for dim in rest]) == ("batch", [1, 8, 8])
    (detail,) = Interpreter(str(bundle.path / "model.tflite")).get_input_details()
    assert detail["shape_signature"].tolist() == [-1, 8, 8, 1]


def test_a_target_of_any_processor_verifies_its_sums(folder: Path, tmp_path: Path) -> None:
    bundle = exported(folder, tmp_path, target="any")
    steps = {step.compared: step.detail for step in verified(bundle).steps}
    assert steps["model.onnx, 16-bit sums / any"].endswith("at most 128 fit")
    assert bundle.manifest["int16_pairs"]["overflowing"] == []


def test_inputs_without_any_rounding_error_verify(folder: Path, tmp_path: Path) -> None:
    """Their SQNR is infinite, which JSON cannot say."""
    grid = np.random.default_rng(0).integers(-128, 128, (16, 1, 8, 8)) / 64.0
    data = save(tmp_path / "grid.npz", inputs=grid.astype(np.float32))
    bundle = exported(folder, tmp_path, data=data, eval_data=data, calibration="minmax")
    assert bundle.manifest["sqnr_db"]["input_quantized"] is None
    verified(bundle)


def test_the_sample_s_certificate_and_parity_hold(sample_bundle: Path) -> None:
    bundle = deploykit.inspect(sample_bundle)
    assert isinstance(bundle, Bundle)
    assert bundle.manifest["removal"]["max_relative_difference"] <= 1e-5
    assert [found["differing"] for found in bundle.manifest["parity"]] == [0, 0]
    assert 16 * bundle.manifest["sizes"]["model.tflite"] <= bundle.manifest["dense_float32_bytes"]


def test_another_process_writes_the_same_bytes(
    sample_config: Path, sample_bundle: Path, tmp_path: Path
) -> None:
    """The command line there, the Python API here; hashes of strings differ between the two."""
    again_at = tmp_path / "again"
    with start("export", CHECKPOINT, "--config", sample_config, "--out", again_at) as process:
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    again, before = contents(again_at), contents(sample_bundle)
    assert sorted(again) == sorted(before)
    assert [name for name in before if again[name] != before[name]] == []


class Stages:
    """Keeps the names of the stages."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[Advance]:
        self.names.append(name)
        yield lambda done, total: None


def unreadable() -> frozenset[str]:
    raise ConfigError("the instruction sets of this processor cannot be read")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (lambda: frozenset({"avx2"}), "no bundle was written"),
        (unreadable, "on an x86 processor .* which this one may be, .* with --target x86-avx2"),
    ],
)
def test_a_runtime_that_disagrees_ends_the_export(
    flags: Callable[[], frozenset[str]],
    told: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverging(*words: Any) -> Any:
        first, *rest = prove_parity(*words)
        return (replace(first, differing={"relu": 2}, operator="conv1"), *rest)

    monkeypatch.setattr(pipeline, "prove_parity", diverging)
    monkeypatch.setattr(saturation, "processor_flags", flags)
    stages = Stages()
    with pytest.raises(ParityError, match=f"disagree on 2 of .* operator conv1; {told}"):
        exported(folder, tmp_path, progress=stages)
    assert list(tmp_path.iterdir()) == []
    assert stages.names[0] == "load checkpoint"
    assert "write bundle" not in stages.names


def test_integers_that_are_not_the_weights_rounded_are_never_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files and the reference would agree on them."""

    def turned(lowered: Network, plan: QuantPlan) -> QuantizedNetwork:
        network = apply_plan(lowered, plan)
        first = next(one for one in network.operators if isinstance(one, Conv))
        values = first.weight.values.copy()
        values.flat[np.abs(values).argmax()] *= -1
        other = replace(first, weight=replace(first.weight, values=values))
        operators = [other if one is first else one for one in network.operators]
        return replace(network, operators=tuple(operators))

    monkeypatch.setattr(apply, "apply_plan", turned)
    with pytest.raises(ParityError, match=r"operator 0: a weight or bias is .* no bundle"):
        exported(folder, tmp_path)
    assert not (tmp_path / "b").exists()
