"""Which model files of a bundle are measured, the float TFLite made for comparison among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploykit.bundle import FLOAT_MODEL, HASHES, ONNX_MODEL, TFLITE_MODEL, read_bundle
from deploykit.errors import BundleError, GraphError, RuntimeUnavailableError
from deploykit.spec.bench import Unmeasured

FLOAT_TFLITE = "model.float.tflite"
FLOAT_MODELS = frozenset({FLOAT_MODEL, FLOAT_TFLITE})
IN_BUNDLE = (FLOAT_MODEL, ONNX_MODEL, TFLITE_MODEL)
RUNTIME_BY_SUFFIX = {".onnx": "onnxruntime", ".tflite": "ai_edge_litert"}


@dataclass(frozen=True)
class Models:
    """Files by name, in the order in which they are reported, and those that could not be had."""

    files: Mapping[str, Path]
    missing: tuple[Unmeasured, ...]


def collect_models(bundle: Path, scratch: Path) -> Models:
    """The bundle's model files, and its float graph as TFLite, written into `scratch`.

    A bundle holds float as ONNX only: the TFLite form exists so that int8 is compared with float
    on the same runtime. A changed file is not worth measuring: where the folder has hashes, they
    have to match.
    """
    if not bundle.is_dir():
        raise BundleError(f"{bundle} is not a folder; give a bundle that `deploykit export` wrote")
    files = {name: bundle / name for name in IN_BUNDLE if (bundle / name).is_file()}
    if not files:
        raise BundleError(f"{bundle} holds none of {', '.join(IN_BUNDLE)}; export it again")
    if (bundle / HASHES).is_file():
        read_bundle(bundle)
    if FLOAT_MODEL not in files:
        return Models(files, (_missing(f"the bundle has no {FLOAT_MODEL} to write it from"),))
    try:
        written = _write_float_tflite(files[FLOAT_MODEL], scratch / FLOAT_TFLITE)
    except (GraphError, RuntimeUnavailableError) as error:
        return Models(files, (_missing(str(error)),))
    order = (FLOAT_MODEL, FLOAT_TFLITE, *IN_BUNDLE[1:])
    every = {**files, FLOAT_TFLITE: written}
    return Models({name: every[name] for name in order if name in every}, ())


def _write_float_tflite(source: Path, target: Path) -> Path:
    from deploykit.emit.onnx_file import read_float_onnx
    from deploykit.emit.tflite_float import write_float_tflite
    from deploykit.graph.lowering import lower_for_float

    network = lower_for_float(read_float_onnx(source.read_bytes()))
    target.write_bytes(write_float_tflite(network))
    return target


def _missing(reason: str) -> Unmeasured:
    return Unmeasured(FLOAT_TFLITE, RUNTIME_BY_SUFFIX[".tflite"], reason)
