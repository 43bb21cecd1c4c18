"""Exports of one network in every form, and what is counted of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from demo import SAMPLE as LENET5
from energy_estimate import Work, joules
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
_FILES = {True: ("model.float.onnx", "model.float.tflite"), False: ("model.onnx", "model.tflite")}
_DEFLATE = 9


@dataclass(frozen=True)
class Data:
    """Labelled images as files: validation chooses bits, test is what figures are of."""

    validation: Path
    test: Path


@dataclass(frozen=True)
class Counted:
    """One network in one form; by runtime where the two have files of their own.

    top1: share of the test images. sizes, deflated: bytes. differing: of `integers`.
    joules: estimated, of one inference of the ONNX file.
    """

    network: str
    form: str
    top1: Mapping[str, float]
    parameters: int
    macs: int
    sizes: Mapping[str, int]
    deflated: Mapping[str, int]
    integers: int
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
    is_float = form == FLOAT
    scratch = bundle.with_name(f"{bundle.name}-float")
    scratch.mkdir()
    found = collect_models(bundle, scratch).files
    files = dict(zip(RUNTIMES, (found[name] for name in _FILES[is_float]), strict=True))
    shares = manifest["accuracy"]
    by_runtime = {
        runtime: shares["pruned" if is_float else name]
        for runtime, name in zip(RUNTIMES, _FILES[False], strict=True)
    }
    differing = {"onnxruntime": 0, "litert": 0} if is_float else {
        one["runtime"]: one["differing"] for one in manifest["parity"]
    }  # fmt: skip
    layers = manifest["layers"]
    macs = sum(one["macs"] for one in layers)
    parameters = manifest["removal"]["parameters_after"]
    moved = sum(one["float_bytes" if is_float else "bytes"] for one in layers)
    stored = 4 * parameters if is_float else files["ORT"].stat().st_size
    return Exported(
        network, form, by_runtime, parameters, macs,
        {runtime: path.stat().st_size for runtime, path in files.items()},
        {runtime: len(zlib.compress(path.read_bytes(), _DEFLATE))
         for runtime, path in files.items()},
        0 if is_float else sum(one["integers"] for one in manifest["parity"]),
        dict(zip(RUNTIMES, (differing["onnxruntime"], differing["litert"]), strict=True)),
        joules(Work(macs, stored, max(moved, stored), is_float)), files,
    )  # fmt: skip
