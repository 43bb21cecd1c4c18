"""EfficientNet-Lite0 quantized by each runtime's own tools to 8 and 4 bits, on lowbit's images."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from peers_litert import EFFICIENTNET
from peers_measure import HERE, least_sqnr, outputs_of, run_tool
from pretrained_int8 import CALIBRATING, Images
from removal_sources import state_file, unfolded

SEED = 1


@dataclass(frozen=True)
class PeerRow:
    """One file on the first split's test images; `failed` is the tool's last word where none."""

    tool: str
    bits: int
    top1: float | None
    agreement: float | None
    sqnr_db: float | None
    seconds: float | None
    failed: str | None = None


def peer_rows(given: Images, python: Path) -> Iterator[PeerRow]:
    """Prints a line of each. python: where litert-torch and ai-edge-quantizer are installed."""
    from deploykit.runtime import litert, ort

    order = list(range(len(given.images)))
    random.Random(SEED).shuffle(order)
    chosen, tested = order[:CALIBRATING], order[CALIBRATING:]
    images, labels = given.images[tested], given.labels[tested]
    with tempfile.TemporaryDirectory(prefix="deploykit-peers-") as name:
        folder = Path(name)
        source, data = folder / "network.onnx", folder / "calibration.npz"
        onnx.save(unfolded(EFFICIENTNET), source)
        np.savez(data, inputs=given.images[chosen])
        (expected,) = outputs_of(ort.run, source, images)
        network = ["--network", EFFICIENTNET, "--state", str(state_file(EFFICIENTNET))]
        tools = (
            ("onnxruntime.quantization", "theirs.onnx", ort.run,
             [sys.executable, str(HERE / "peers_ort.py"), "--model", str(source)]),
            ("ai-edge-quantizer", "theirs.tflite", litert.run,
             [str(python), str(HERE / "peers_litert.py"), *network]),
        )  # fmt: skip
        for tool, file, run, command in tools:
            for bits in (8, 4):
                out = folder / f"{bits}.{file}"
                try:
                    seconds = run_tool([*command, "--bits", str(bits)], data, out)
                    (found,) = outputs_of(run, out, images)
                except RuntimeError as error:
                    row = PeerRow(tool, bits, None, None, None, None, str(error))
                else:
                    answers = found.argmax(1)
                    row = PeerRow(
                        tool, bits, float((answers == labels).mean()),
                        float((answers == expected.argmax(1)).mean()),
                        least_sqnr([expected], [found]), seconds,
                    )  # fmt: skip
                print(told(row), flush=True)
                yield row


def told(row: PeerRow) -> str:
    """Its line in lowbit's table."""
    if row.failed is not None:
        return f"{row.tool:<26}{row.bits:>2}  {row.failed}"
    return (
        f"{row.tool:<26}{row.bits:>2}{SEED:>3}{'':>8}{row.top1:>8.4f}{row.agreement:>8.4f}"
        f"{row.sqnr_db:>9.2f}{'':>8}{row.seconds:>8.1f}"
    )
