"""Read a checkpoint file without ever running code from it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from deploykit.errors import CheckpointError
from deploykit.posterior.archive import COPY_AGAIN, RESAVE, require_whole_archive
from deploykit.posterior.containers import strip_prefixes, unwrap_containers
from deploykit.posterior.file_formats import named, take_flat
from deploykit.posterior.pickles import refused_globals
from deploykit.posterior.shards import is_index, load_shards, require_no_shard
from deploykit.posterior.stand_ins import (
    Kept,
    is_harmless,
    load_with_stand_ins,
    may_stand_in,
    without_stand_ins,
)
from deploykit.spec.arrays import AnyArray
from deploykit.spec.file_kinds import foreign_kind, is_text
from deploykit.spec.listing import listed
from deploykit.spec.posterior import Checkpoint

ZIP_MAGIC = b"PK\x03\x04"
RESAVE_LAPLACE = (
    "save its state and the weights where it was fitted: "
    "torch.save({'model': model.state_dict(), 'laplace': la.state_dict()}, 'weights.pt')"
)
RESAVE_GUIDE = (
    "save the guide's state where it was trained: torch.save(guide.state_dict(), 'weights.pt')"
)
CONSTRAINTS = ("pyro.distributions.", "torch.distributions.constraints.")
"""Of what a parameter store of Pyro is made, beside tensors."""
LARGEST_REPETITION = 1 << 26
"""Bytes of a tensor that repeats what is stored (a constant, expanded)."""
QUANTIZED_POSTERIOR = ("quantized_mu_", "quantized_sigma_")
"""How bayesian-torch calls int8 means and deviations; read as the floats that they stand for."""
NOISE = re.compile(r"(^|\.)eps_(w|weight|kernel|bias)$")
"""The last noise that a layer drew: uninitialised memory where it never ran, and read by nobody."""


def load_checkpoint(path: Path, weights: str | None = None) -> Checkpoint:
    """The tensors of a torch or safetensors file by name, as numpy arrays of their own memory.

    weights: the entry that holds the network, where the file has several.

    bfloat16, half and 8-bit floats become float32, everything else keeps its type.
    """
    if is_index(path):
        read = Kept(_load_sharded(path), ())
    else:
        _first_bytes(path)
        require_no_shard(path)
        read = _load_one(path)
    inside = take_flat(path, read.content, weights)
    if inside.flat is not None and not inside.content:
        return Checkpoint(path, {}, flat=inside.flat, unread=read.unread)
    found = unwrap_containers(path, inside.content, weights)
    stripped, prefixes = strip_prefixes(path, found.tensors)
    by_name = named(stripped)
    tensors = {name: _to_numpy(path, name, value) for name, value in by_name.tensors.items()}
    _require_finite(path, tensors)
    unwrapped = found.containers + prefixes
    return Checkpoint(
        path, tensors, unwrapped, found.beside, inside.flat, by_name.format, read.unread
    )


def _load_sharded(path: Path) -> object:
    _first_bytes(path)
    return load_shards(
        path, lambda shard: unwrap_containers(shard, _load_one(shard).content).tensors
    )


def _load_one(path: Path) -> Kept:
    magic = _first_bytes(path)
    foreign = foreign_kind(path)
    if foreign is not None:
        raise CheckpointError(f"{path}: {foreign}")
    if path.suffix == ".safetensors":
        return Kept(_load_safetensors(path), ())
    if magic == ZIP_MAGIC:
        require_whole_archive(path)
        return _load_torch(path, mmap=True)
    return _load_torch(path, mmap=False)


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path}: is a directory; name the checkpoint file inside it")
    try:
        with path.open("rb") as file:
            magic = file.read(len(ZIP_MAGIC))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: there is no such file; check the path of the checkpoint"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not magic:
        raise CheckpointError(f"{path}: is empty; {COPY_AGAIN}")
    return magic


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: is cut off or not a safetensors file; {COPY_AGAIN}"
        ) from error


def _load_torch(path: Path, mmap: bool) -> Kept:
    # torch warns about pickle protocols that it then refuses; the sentence below says it all.
    with warnings.catch_warnings(action="ignore"):
        try:
            return Kept(torch.load(path, map_location="cpu", weights_only=True, mmap=mmap), ())
        except Exception as error:
            kept = _without_objects(path, mmap)
            if kept is None:
                raise _refusal(path) from error
            return kept


def _without_objects(path: Path, mmap: bool) -> Kept | None:
    """What can be read of a pickle that asks for classes; None where that may not be all of it."""
    names = refused_globals(path)
    if not names or not may_stand_in(names):
        return None
    try:
        return without_stand_ins(load_with_stand_ins(path, names, mmap))
    except Exception:
        return None  # the first load says why


def _refusal(path: Path) -> CheckpointError:
    """Why torch did not load the file, as a sentence."""
    refused = sorted(refused_globals(path), key=is_harmless)
    script = f"or with the script that `deploykit convert-checkpoint {path}` prints"
    laplace = [name for name in refused if name.startswith("laplace.")]
    if laplace or any(name.startswith("torch.nn.modules.") for name in refused):
        what = "Laplace fit" if laplace else "network"
        return CheckpointError(
            f"{path}: holds a whole pickled {what} ({listed(laplace or refused)}), and unpickling "
            "that runs code from the file, which deploykit never does; "
            f"{RESAVE_LAPLACE if laplace else RESAVE}, {script}"
        )
    if refused:
        from_pyro = any(name.startswith(CONSTRAINTS) for name in refused)
        return CheckpointError(
            f"{path}: asks to import {listed(refused)} while loading; unpickling that could run "
            "any code, so deploykit refuses. Keep only tensors: "
            f"{RESAVE_GUIDE if from_pyro else RESAVE}, {script}"
        )
    if is_text(path):
        return CheckpointError(
            f"{path}: is a text file; name the checkpoint, a file that torch.save or safetensors "
            "wrote"
        )
    return CheckpointError(
        f"{path}: is cut off or not a checkpoint that torch.save wrote; {COPY_AGAIN}"
    )


def _to_numpy(path: Path, name: str, tensor: torch.Tensor) -> AnyArray:
    if tensor.is_quantized and name.rpartition(".")[2].startswith(QUANTIZED_POSTERIOR):
        tensor = tensor.dequantize()
    if tensor.is_quantized or tensor.is_meta or tensor.is_complex():
        kind = "quantized" if tensor.is_quantized else "meta" if tensor.is_meta else "complex"
        raise CheckpointError(
            f"{path}: tensor '{name}' is {kind}; deploykit reads real-valued dense tensors, so "
            "re-save the network before that conversion"
        )
    _require_stored(path, name, tensor)
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    if dense.is_floating_point() and dense.dtype not in (torch.float32, torch.float64):
        dense = dense.to(torch.float32)
    array: AnyArray = np.array(dense.numpy(), order="C")
    return array


def _require_stored(path: Path, name: str, tensor: torch.Tensor) -> None:
    """A stride of zero lets a file of some bytes declare a tensor of any size."""
    if tensor.layout != torch.strided:
        return
    declared, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if declared > max(stored, LARGEST_REPETITION):
        raise CheckpointError(
            f"{path}: tensor '{name}' of shape {tuple(tensor.shape)} would take {declared:,} bytes "
            f"where the file stores {stored:,}, repeated; no trained weights are saved so: "
            f"{RESAVE}"
        )


def _require_finite(path: Path, tensors: Mapping[str, AnyArray]) -> None:
    broken = [
        name
        for name, array in tensors.items()
        if np.issubdtype(array.dtype, np.floating)
        and not np.isfinite(array).all()
        and not NOISE.search(name)
    ]
    if broken:
        raise CheckpointError(
            f"{path}: NaN or infinity in {listed(broken)}; the training diverged, take an earlier "
            "checkpoint"
        )
