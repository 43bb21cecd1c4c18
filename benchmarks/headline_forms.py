"""Exports of one network in every form, and what is counted of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from demo import SAMPLE as LENET5
from energy_estimate import FLOAT_MAC, INT8_MAC, Work, joules
from headline_subjects import Network

import deploykit
from deploykit.bench.models import collect_models

FLOAT, INT8, W4, AUTO, SMALL = "float32", "int8", "W4", "auto", "auto, small"
FORMS = (FLOAT, INT8, W4, AUTO, SMALL)
FEW = (FLOAT, INT8)
RUNTIMES = ("ORT", "LiteRT")
AUTO_DROP = 0.2
"""Points of top-1 that bits may cost on the validation images."""
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    FLOAT: {"align": "none"},
    INT8: {},
    W4: {"bits": 4, "rounding": "sequential"},
    SMALL: {"tflite_lowbit": "small"},
}
_FLOAT_FILES = ("model.float.onnx", "model.float.tflite")
_FILES = ("model.onnx", "model.tflite")
_DEFLATE = 9


@dataclass(frozen=True)
class Data:
    """Labelled images as files: validation chooses bits, test is what figures are of."""

    validation: Path
    test: Path


@dataclass(frozen=True)
class Counted:
    """One network in one form; by runtime where the two have files of their own.

    top1: share of the test images. sizes, deflated: bytes. differing: of `integers` compared.
    joules: estimated, of one inference of the ONNX file.
    """

    network: str
    form: str
    top1: Mapping[str, float]
    parameters: int
    macs: int
    sizes: Mapping[str, int]
    deflated: Mapping[str, int]
    integers: Mapping[str, int]
    differing: Mapping[str, int]
    joules: float


@dataclass(frozen=True)
class Exported(Counted):
    """And its files, by runtime."""

    files: Mapping[str, Path]


def data_files(folder: Path, validation: Any, test: Any) -> Data:
    """Both as `export` reads them; anything with inputs and labels."""
    found = Data(folder / "validation.npz", folder / "test.npz")
    for path, images in ((found.validation, validation), (found.test, test)):
        np.savez(path, inputs=images.inputs, labels=images.labels)
    return found


def exports(network: Network, data: Data, folder: Path) -> Iterator[Exported]:
    """Every form that the network is to be measured in, one after another."""
    search = folder / "search"
    for form in FORMS if network.full else FEW:
        given = {"data": LENET5 / "calibration.npz", **network.options, **_OPTIONS.get(form, {})}
        if form == AUTO:
            deploykit.export(
                network.checkpoint, **given, bits="auto", max_accuracy_drop=AUTO_DROP,
                to=["onnx"], eval_data=data.validation, out=search,
            )  # fmt: skip
        if form in (AUTO, SMALL):
            given["plan"] = search / "plan.json"
        out = folder / form.replace(", ", "-")
        bundle = deploykit.export(network.checkpoint, **given, eval_data=data.test, out=out)
        yield _exported(network.name, form, bundle.path, bundle.manifest)


def _exported(network: str, form: str, bundle: Path, manifest: Any) -> Exported:
    scratch = bundle.with_name(f"{bundle.name}-float")
    scratch.mkdir()
    found = collect_models(bundle, scratch).files
    shares = manifest["accuracy"]
    if form == FLOAT:
        files = {runtime: found[name] for runtime, name in zip(RUNTIMES, _FLOAT_FILES, strict=True)}
        top1 = dict.fromkeys(RUNTIMES, shares["pruned"])
        integers = differing = dict.fromkeys(RUNTIMES, 0)
        work = work_in_float(manifest)
    else:
        files = {runtime: found[name] for runtime, name in zip(RUNTIMES, _FILES, strict=True)}
        top1 = {runtime: shares[name] for runtime, name in zip(RUNTIMES, _FILES, strict=True)}
        by_runtime = {one["runtime"]: one for one in manifest["parity"]}
        parity = {"ORT": by_runtime["onnxruntime"], "LiteRT": by_runtime["litert"]}
        integers = {runtime: one["integers"] for runtime, one in parity.items()}
        differing = {runtime: one["differing"] for runtime, one in parity.items()}
        work = work_in_integers(manifest)
    return Exported(
        network, form, top1, manifest["removal"]["parameters_after"], work.macs,
        {runtime: path.stat().st_size for runtime, path in files.items()},
        {runtime: len(zlib.compress(path.read_bytes(), _DEFLATE))
         for runtime, path in files.items()},
        integers, differing, joules(work), files,
    )  # fmt: skip


def _total(manifest: Any, what: str) -> int:
    return sum(int(one[what]) for one in manifest["layers"])


def _bias_bytes(manifest: Any) -> int:
    """A layer's `bytes` are activations + weights + biases, its `float_bytes` four times the
    first two + biases: these are of four bytes in both.
    """
    return (4 * _total(manifest, "bytes") - _total(manifest, "float_bytes")) // 3


def _activations(manifest: Any) -> int:
    """Numbers that operators read and write."""
    weights = int(manifest["removal"]["parameters_after"]) - _bias_bytes(manifest) // 4
    return _total(manifest, "bytes") - weights - _bias_bytes(manifest)


def work_in_float(manifest: Any) -> Work:
    """Of model.float.onnx."""
    parameters = manifest["removal"]["parameters_after"]
    return Work(_total(manifest, "macs"), 4 * parameters, 4 * _activations(manifest), FLOAT_MAC)


def work_in_integers(manifest: Any) -> Work:
    """Of model.onnx: weights in as many bits as it stores."""
    stored = sum(one["stored"]["onnx"]["bytes"] for one in manifest["layers"] if one["stored"])
    weight_bytes = stored + _bias_bytes(manifest)
    return Work(_total(manifest, "macs"), weight_bytes, _activations(manifest), INT8_MAC)
