"""Checkpoints in several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from deploykit.errors import CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint

FIRST, SECOND = torch.arange(6.0).reshape(2, 3), torch.ones(4)


def sharded(folder: Path, index: Any) -> Path:
    """Two shards and an index."""
    save_file({"a.weight": FIRST}, folder / "model-1.safetensors")
    torch.save({"b.weight": SECOND}, folder / "model-2.bin")
    path = folder / "model.safetensors.index.json"
    path.write_text(index if isinstance(index, str) else json.dumps(index), encoding="utf-8")
    return path


def placed(**files: str) -> dict[str, Any]:
    """An index of these tensors."""
    return {"weight_map": {name.replace("__", "."): file for name, file in files.items()}}


WHOLE = placed(a__weight="model-1.safetensors", b__weight="model-2.bin")


def test_every_shard_is_read(tmp_path: Path) -> None:
    tensors = load_checkpoint(sharded(tmp_path, WHOLE)).tensors
    np.testing.assert_array_equal(tensors["a.weight"], FIRST.numpy())
    np.testing.assert_array_equal(tensors["b.weight"], SECOND.numpy())


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("no json", "is no index of shards"),
        ({"metadata": {}}, "is no index of shards"),
        ({"weight_map": [1]}, "is no index of shards"),
        (placed(a__weight="../model-1.safetensors"), "not in its own folder"),
        (placed(c__weight="model-2.bin"), "places 'c.weight' in model-2.bin, which does not hold"),
        (placed(a__weight="model-3.bin"), "model-3.bin: there is no such file"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(index: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(sharded(tmp_path, index))


@pytest.mark.parametrize("shard", ["model-1.safetensors", "model-2.bin"])
def test_one_shard_alone_points_to_the_index_beside_it(shard: str, tmp_path: Path) -> None:
    index = sharded(tmp_path, WHOLE)
    with pytest.raises(CheckpointError, match=r"one of the 2 shards .*give .*index\.json, which"):
        load_checkpoint(tmp_path / shard)
    assert load_checkpoint(index).tensors.keys() == {"a.weight", "b.weight"}


@pytest.mark.parametrize(
    "index", ["no json", placed(a__weight="model-1.safetensors"), placed(a__weight="other.bin")]
)
def test_a_file_that_is_whole_by_the_index_beside_it_is_read(index: Any, tmp_path: Path) -> None:
    sharded(tmp_path, index)
    assert load_checkpoint(tmp_path / "model-1.safetensors").tensors.keys() == {"a.weight"}
