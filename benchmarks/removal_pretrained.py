"""What removal finds in the pretrained EfficientNet-Lite0 as it is, on real images.

Needs Pillow to read the images, which deploykit does not depend on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from probing import graph_macs, widths
from removal_graph import Graph, graph_of, session
from removal_sources import EFFICIENTNET, unfolded
from removal_walk import walk

from deploykit.graph.normalize import normalize
from deploykit.graph.options import RemovalOptions, Tolerance
from deploykit.graph.passes.negligible import zero_negligible
from deploykit.graph.removal import cut_channels
from deploykit.reference.float import evaluate
from deploykit.runtime.ort import evaluate as evaluate_ort
from deploykit.spec.network import Network

SIZE = 224
CROP = SIZE / (SIZE + 32)
TESTED = 100
CALIBRATION = 8

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """channels: outputs of all layers. logit_change: the largest, in logits, on `images` images.

    seconds: of the search for negligible channels and of the removal.
    """

    tolerance: str
    channels: int
    channels_after: int
    parameters: int
    parameters_after: int
    macs: int
    macs_after: int
    images: int
    logit_change: float
    largest_logit: float
    top1: float
    top1_after: float
    seconds: float


def find(folder: Path) -> list[Found]:
    """With exact zeros alone, and with what float32 rounding hides.

    The tested images are spread over the folder; others calibrate the search.
    """
    images, labels = read_images(folder)
    tested = np.linspace(0, len(images) - 1, TESTED).astype(int)
    others = np.setdiff1d(np.arange(len(images)), tested)[:: len(images) // CALIBRATION]
    whole = normalize(Network(ir.from_proto(unfolded(EFFICIENTNET)), {}))
    before = graph_of(ir.to_proto(whole.model))
    logits = _logits(before, images[tested])
    found = []
    for tolerance in Tolerance:
        start = perf_counter()
        network = whole
        if tolerance is Tolerance.FLOAT32:
            network, _ = zero_negligible(whole, evaluate, images[others], evaluate_ort)
        made = cut_channels(network, RemovalOptions())
        seconds = perf_counter() - start
        after = graph_of(ir.to_proto(made.pruned.model))
        logits_after = _logits(after, images[tested])
        found.append(
            Found(
                tolerance.value, _channels(before), _channels(after),
                _parameters(before), _parameters(after), graph_macs(before), graph_macs(after),
                len(tested), float(np.abs(logits_after - logits).max()),
                float(np.abs(logits).max()),
                float((logits.argmax(1) == labels[tested]).mean()),
                float((logits_after.argmax(1) == labels[tested]).mean()), seconds,
            )
        )  # fmt: skip
    return found


def read_images(folder: Path) -> tuple[Floats, npt.NDArray[np.int64]]:
    """[N, 3, 224, 224], (rgb - 127) / 128 of the central 7/8, and the class in each file's name.

    Raises FileNotFoundError where the folder holds no image.
    """
    from PIL import Image

    paths = sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])
    if not paths:
        raise FileNotFoundError(f"{folder} holds no .jpg or .png; name a folder of images")
    images = np.empty((len(paths), 3, SIZE, SIZE), np.float32)
    for index, path in enumerate(paths):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        width, height = image.size
        side = round(CROP * min(width, height))
        left, top = (width - side) // 2, (height - side) // 2
        cropped = image.crop((left, top, left + side, top + side))
        scaled = cropped.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        images[index] = (np.asarray(scaled, np.float32).transpose(2, 0, 1) - 127.0) / 128.0
    return images, np.array([int(path.name.split("_")[0]) for path in paths])


def _logits(graph: Graph, images: Floats) -> Floats:
    runtime = session(graph.model)
    return np.concatenate([runtime.run(None, {graph.input_name: one[None]})[0] for one in images])


def _channels(graph: Graph) -> int:
    return sum(width.gives for width in widths(walk(graph), frozenset()).values())


def _parameters(graph: Graph) -> int:
    return sum(value.size for value in graph.constants.values() if value.dtype.kind == "f")
