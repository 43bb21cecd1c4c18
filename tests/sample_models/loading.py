"""Modules of a sample's folder, imported as its scripts do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


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
