"""Bits under a limit, from end to end: kept on the files that were written, and reusable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import deploykit
from deploykit.bundle import Bundle
from deploykit.errors import DataError, QuantizationError
from deploykit.runtime import ort
from deploykit.spec.allocation import ALLOCATED_BITS
from deploykit.spec.arrays import AnyArray
from tests.exported import contents, save
from tests.quantize.graphs import seeded
from tests.quantize.test_bits import mobile_network

WEIGHTS = {
    "stem": 1242, "expand": 2208, "depthwise": 432, "project": 2208, "window": 26496,
    "output": 640,
}  # fmt: skip


def answers(inputs: AnyArray) -> AnyArray:
    return np.asarray(ort.evaluate(mobile_network(), inputs)["output"].argmax(axis=1))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, calibration data, and other data with the network's own answers as labels."""
    folder = tmp_path_factory.mktemp("source")
    path = folder / "net.onnx"
    path.write_bytes(ir.to_proto(mobile_network().model).SerializeToString())
    save(folder / "data.npz", inputs=seeded(32, 3, 8, 8, seed=3))
    others = seeded(300, 3, 8, 8, seed=4)
    save(folder / "eval.npz", inputs=others, labels=answers(others))
    return path


def exported(source: Path, folder: Path, **options: Any) -> Bundle:
    data = source.parent / "data.npz"
    return deploykit.export(source, out=folder / "bundle", data=data, align="none", **options)


def bits_of(bundle: Bundle) -> dict[str, int]:
    return {one["name"]: one["bits"] for one in bundle.manifest["layers"] if one["bits"]}


@pytest.fixture(scope="module")
def small(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(
        source, tmp_path_factory.mktemp("small"), bits="auto", max_bytes="24kB", to=["onnx"],
        rounding="nearest",
    )  # fmt: skip


def test_the_file_takes_at_most_what_was_allowed(small: Bundle) -> None:
    assert 20_000 < small.manifest["sizes"]["model.onnx"] <= 24_000
    found = small.manifest["allocation"]
    assert found["target"] == "--max-bytes 24000"
    assert {tuple(one["layers"]): one["weights"] for one in found["layers"]} == {
        (name,): count for name, count in WEIGHTS.items()
    }
    assert {one["layers"][0]: one["bits"] for one in found["layers"]} == bits_of(small)
    # The stem is written over blocks of pixels, with zeros beside its own weights.
    written = small.manifest["stored"]["model.onnx"]["weight_bytes"]
    assert found["weight_bytes"] <= written <= found["weight_bytes"] + WEIGHTS["stem"]
    assert found["tried"][-1]["largest_file"] == small.manifest["sizes"]["model.onnx"]
    assert len(set(bits_of(small).values())) > 1
    assert [one["differing"] for one in small.manifest["parity"]] == [0]


def test_every_layer_s_cost_is_told(small: Bundle) -> None:
    found = small.manifest["allocation"]
    plan = json.loads((small.path / "plan.json").read_text(encoding="utf-8"))
    assert plan["allocation"] == found
    assert found["sensitivity"] == "moments"
    assert found["posterior"]["without_variance"] == list(WEIGHTS)
    assert sum(one["share"] for one in found["layers"]) == pytest.approx(1.0)
    for one in found["layers"]:
        assert list(one["sensitivity_by_bits"]) == [str(bits) for bits in ALLOCATED_BITS]
        assert one["sensitivity"] == one["sensitivity_by_bits"][str(one["bits"])]
        assert one["bytes"] == one["bytes_by_bits"][str(one["bits"])]


def test_a_bundle_s_plan_makes_it_again(small: Bundle, source: Path, tmp_path: Path) -> None:
    again = exported(source, tmp_path, plan=small.path / "plan.json", to=["onnx"])
    before, after = contents(small.path), contents(again.path)
    assert before["model.onnx"] == after["model.onnx"]
    assert bits_of(again) == bits_of(small)
    other = exported(
        source, tmp_path, plan=small.path / "plan.json", layer_bits={"window": 8}, to=["onnx"]
    )
    assert bits_of(other) == {**bits_of(small), "window": 8}


def test_a_mean_is_kept_with_layers_that_are_named(source: Path, tmp_path: Path) -> None:
    bundle = exported(
        source, tmp_path, bits="auto", target_bits=3.5, layer_bits={"stem": 8}, to=["tflite"],
        rounding="nearest",
    )  # fmt: skip
    bits = bits_of(bundle)
    assert bits["stem"] == 8
    mean = sum(WEIGHTS[name] * wide for name, wide in bits.items()) / sum(WEIGHTS.values())
    assert 3.4 < mean <= 3.5
    assert bundle.manifest["allocation"]["mean_bits"] == pytest.approx(mean)
    (stem,) = (o for o in bundle.manifest["allocation"]["layers"] if o["layers"] == ["stem"])
    assert (stem["fixed"], stem["sensitivity"], stem["share"]) == ("as asked", None, None)


def test_accuracy_falls_by_at_most_what_was_allowed(source: Path, tmp_path: Path) -> None:
    bundle = exported(
        source, tmp_path, bits="auto", max_accuracy_drop=8, eval_data=source.parent / "eval.npz",
        to=["onnx"], rounding="nearest",
    )  # fmt: skip
    found = bundle.manifest["allocation"]
    assert found["float_accuracy"] == 1.0
    accuracy = bundle.manifest["accuracy"]["model.onnx"]
    assert accuracy >= 0.92
    held = [one for one in found["tried"] if one["accuracy"] >= 0.92]
    smallest = min(one["largest_file"] for one in held)
    assert smallest == bundle.manifest["sizes"]["model.onnx"]
    failed = [one["largest_file"] for one in found["tried"] if one["accuracy"] < 0.92]
    assert failed and max(failed) < smallest


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (
            {"max_bytes": 5000},
            r"--max-bytes 5000: with no layer's bits fixed the smallest model\.onnx takes [\d,]+ "
            r"bytes, [\d,]+ of them integers of weights",
        ),
        (
            {"target_bits": 2, "layer_bits": {"window": 4}},
            r"--target-bits 2: with 1 of 6 layers' bits fixed the mean is 3\.\d+ bits at the least",
        ),
        ({"target_bits": 4, "layer_bits": {"windw": 4}}, "--layer-bits windw=4: no layer has this"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(
    source: Path, tmp_path: Path, limit: dict[str, Any], told: str
) -> None:
    with pytest.raises(QuantizationError, match=told):
        exported(source, tmp_path, bits="auto", to=["onnx"], rounding="nearest", **limit)
    assert not (tmp_path / "bundle").exists()


def test_an_accuracy_that_8_bits_do_not_reach_is_refused(source: Path, tmp_path: Path) -> None:
    inputs = seeded(300, 3, 8, 8, seed=5)
    scores = np.sort(ort.evaluate(mobile_network(), inputs)["output"], axis=1)
    unsure = inputs[np.argsort(scores[:, -1] - scores[:, -2])[:40]]
    data = save(tmp_path / "unsure.npz", inputs=unsure, labels=answers(unsure))
    told = "--max-accuracy-drop 0: with every weight as wide as it may be, top-1 is 0.* float"
    with pytest.raises(QuantizationError, match=told):
        exported(
            source, tmp_path, bits="auto", max_accuracy_drop=0, eval_data=data, to=["onnx"],
            rounding="nearest",
        )  # fmt: skip
    with pytest.raises(DataError, match="data that calibration has not seen"):
        deploykit.export(
            source, out=tmp_path / "b", data=data, eval_data=data, bits="auto", max_accuracy_drop=1
        )


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ({"stem": 4}, "edited.json states no bits for layer expand; add it there, or give"),
        (
            {**dict.fromkeys(WEIGHTS, 4), "windw": 4},
            "edited.json: layers.windw.weight.bits = 4: no layer has this name; .* window",
        ),
    ],
)
def test_a_plan_of_another_network_is_refused(
    source: Path, tmp_path: Path, layers: dict[str, int], told: str
) -> None:
    path = tmp_path / "edited.json"
    stated = {name: {"weight": {"bits": bits}} for name, bits in layers.items()}
    path.write_text(json.dumps({"layers": stated}), encoding="utf-8")
    with pytest.raises(QuantizationError, match=told):
        exported(source, tmp_path, plan=path)


@pytest.mark.parametrize("limit", [0.5, 1.5])
def test_a_limit_of_half_a_sample_allows_none_more(
    limit: float, source: Path, tmp_path: Path
) -> None:
    others = seeded(100, 3, 8, 8, seed=5)
    data = save(tmp_path / "eval.npz", inputs=others, labels=answers(others))
    try:
        bundle = exported(
            source, tmp_path, bits="auto", max_accuracy_drop=limit, eval_data=data, to=["onnx"],
            rounding="nearest",
        )  # fmt: skip
    except QuantizationError as error:
        assert "with every weight as wide as it may be" in str(error)
        return
    assert bundle.manifest["accuracy"]["model.onnx"] >= 1.0 - limit / 100 - 1e-9
