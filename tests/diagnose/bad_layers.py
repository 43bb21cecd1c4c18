"""Networks of which one layer is bad, each in its own way, and their data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from deploykit.spec.arrays import AnyArray
from tests.cli.running import run
from tests.onnx_files import file, node, normal

SHAPE = (1, 3, 8, 8)


def network(**replaced: AnyArray) -> onnx.ModelProto:
    """Three convolutions, a global pool and a linear: conv1, conv2, conv3, head."""
    nodes = [
        node("Conv", "image w1 b1", "conv1", pads=[1, 1, 1, 1]),
        node("Relu", "conv1", "relu1"),
        node("Conv", "relu1 w2 b2", "conv2", pads=[1, 1, 1, 1]),
        node("Relu", "conv2", "relu2"),
        node("Conv", "relu2 w3 b3", "conv3", pads=[1, 1, 1, 1]),
        node("Relu", "conv3", "relu3"),
        node("GlobalAveragePool", "relu3", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat w4 b4", "head", transB=1),
    ]
    return file(nodes, {**constants(), **replaced}, {"image": SHAPE}, {"head": (1, 5)}, 17)


def constants() -> dict[str, npt.ArrayLike]:
    """Weights of about unit gain."""
    return {
        "w1": normal(8, 3, 3, 3) / 4, "b1": normal(8, seed=1) / 4,
        "w2": normal(16, 8, 3, 3, seed=2) / 6, "b2": normal(16, seed=3) / 4,
        "w3": normal(16, 16, 3, 3, seed=4) / 9, "b3": normal(16, seed=5) / 4,
        "w4": normal(5, 16, seed=6) / 3, "b4": normal(5, seed=7) / 4,
    }  # fmt: skip


def outliers() -> onnx.ModelProto:
    """One weight of channel 5 of conv2 is 400 times as large as the others there.

    The channel of conv1 that it reads is 50 times as small as the others.
    """
    first, bias = normal(8, 3, 3, 3) / 4, normal(8, seed=1) / 4
    first[2], bias[2] = first[2] / 50, 0.001
    second, third = normal(16, 8, 3, 3, seed=2) / 6, normal(16, 16, 3, 3, seed=4) / 9
    second[5, 2, 0, 0] = 400 * np.abs(second[5]).mean()
    third[:, 5] *= 4
    return network(w1=first, b1=bias, w2=second, w3=third)


def stretched() -> tuple[onnx.ModelProto, AnyArray]:
    """A network, and calibration data of which one image in 16 has one pixel of 400.

    Channel 1 of conv1 sees that pixel alone, and nothing behind it reads that channel much.
    """
    first, second = normal(8, 3, 3, 3) / 4, normal(16, 8, 3, 3, seed=2) / 6
    first[1] = 0.0
    first[1, 0, 1, 1] = 100.0
    second[:, 1] /= 1e5
    data = inputs(64)
    data[:, 0, 0, 0] = 0.0
    data[:, 0] = np.minimum(data[:, 0], 0.0)
    data[::16, 0, 4, 4] = 4.0
    return network(w1=first, w2=second), data


def inputs(count: int, seed: int = 9) -> AnyArray:
    """Normal numbers."""
    return normal(count, *SHAPE[1:], seed=seed)


def asleep() -> tuple[onnx.ModelProto, AnyArray, AnyArray]:
    """A network, calibration data and data of use: a channel of conv2 that the former leave off.

    Channel 3 of conv2 reads the image's last channel alone, by way of channel 0 of conv1. It is
    large in use, and conv3 makes little of it.
    """
    first, second = normal(8, 3, 3, 3) / 4, normal(16, 8, 3, 3, seed=2) / 6
    first[1:, 2] = 0.0
    first[0] = 0.0
    first[0, 2, 1, 1] = 1.0
    bias, wake = normal(8, seed=1) / 4, normal(16, seed=3) / 4
    bias[0] = 0.0
    second[3] = 0.0
    second[3, 0, 1, 1] = 40.0
    third = normal(16, 16, 3, 3, seed=4) / 9
    third[:, 3] /= 20
    calibration, use = inputs(32), inputs(32, seed=10)
    calibration[:, 2] = 0.0
    use[:, 2] = np.abs(use[:, 2])
    return network(w1=first, b1=bias, w2=second, b2=wake, w3=third), calibration, use


def exported(folder: Path, *flags: str | Path, out: str = "bundle") -> Path:
    """A bundle of net.onnx in `folder`; the last of flags that are given twice counts."""
    words: dict[str, str | Path] = {"--data": folder / "data.npz", "--align": "none"}
    repeated: list[str | Path] = []
    for flag, value in zip(flags[0::2], flags[1::2], strict=True):
        if flag == "--layer-bits":
            repeated += [flag, value]
        else:
            words[str(flag)] = value
    given = [word for pair in words.items() for word in pair]
    result = run("export", folder / "net.onnx", "--out", folder / out, *given, *repeated)
    assert result.exit_code == 0, result.stderr
    return folder / out


def diagnosed(bundle: Path, *words: str | Path) -> Any:
    """What `deploykit diagnose --json` says."""
    result = run("diagnose", bundle, "--json", *words)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
