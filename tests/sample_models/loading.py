"""Modules of a sample's folder, imported as its scripts do, and little data for them."""

from __future__ import annotations

import importlib
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

RESNET18_MODULES = (
    "augment", "compact", "costs", "data", "information_bottleneck", "magnitude", "model",
    "optimizers", "report", "table", "train",
)  # fmt: skip


@contextmanager
def modules_of(
    folder: Path, names: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], ModuleType]]:
    """Import by name, the folder first on the path; other samples have modules of these names."""
    monkeypatch.syspath_prepend(str(folder))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def interrupt_second_epoch(
    train: Any, fit: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the second of the epochs that `fit` trains by the module's train_epoch."""
    train_epoch = train.train_epoch

    def stop_in_the_second(*arguments: Any) -> float:
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        return float(train_epoch(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_epoch", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            fit()


def tiny_fashion_mnist(folder: Path) -> Path:
    """A folder of idx files: 128 random images beside the 5,000 held out, and 16 to test."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", 5_128), ("t10k", 16)):
        labels = generator.integers(0, 10, count).astype(np.uint8)
        images = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        _write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
        _write_idx(folder / f"{part}-images-idx3-ubyte", images)
    return folder


def _write_idx(path: Path, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    header = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.tobytes())
