"""Checkpoint files: what is read, what is refused, and that nothing in them runs."""

from __future__ import annotations

import argparse
import gzip
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deploykit.errors import CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.recipe import recipe


class CreatesFile:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)


WEIGHT = torch.arange(6.0).reshape(2, 3)


def saved(tmp_path: Path, content: object, name: str = "net.pt", **options: Any) -> Path:
    path = tmp_path / name
    torch.save(content, path, **options)
    return path


def test_tensors_become_numpy(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        {
            "weight": WEIGHT,
            "brain": WEIGHT.to(torch.bfloat16),
            "half": WEIGHT.half(),
            "double": WEIGHT.double(),
            "count": torch.tensor(3),
            "strided": WEIGHT.t(),
        },
    )
    tensors = load_checkpoint(path).tensors
    assert {name: str(array.dtype) for name, array in tensors.items()} == {
        "weight": "float32",
        "brain": "float32",
        "half": "float32",
        "double": "float64",
        "count": "int64",
        "strided": "float32",
    }
    np.testing.assert_array_equal(tensors["brain"], WEIGHT.numpy())
    np.testing.assert_array_equal(tensors["strided"], WEIGHT.t().numpy())


def test_tensors_survive_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, {"weight": WEIGHT})
    checkpoint = load_checkpoint(path)
    path.write_bytes(bytes(path.stat().st_size))
    np.testing.assert_array_equal(checkpoint.tensors["weight"], WEIGHT.numpy())


def test_file_of_old_torch(tmp_path: Path) -> None:
    path = saved(tmp_path, {"weight": WEIGHT}, _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(load_checkpoint(path).tensors["weight"], WEIGHT.numpy())


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"weight": WEIGHT, "brain": WEIGHT.to(torch.bfloat16)}, path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.unwrapped == ()
    for name in ("weight", "brain"):
        np.testing.assert_array_equal(checkpoint.tensors[name], WEIGHT.numpy())


@pytest.mark.parametrize(
    ("content", "unwrapped"),
    [
        ({"weight": WEIGHT}, ()),
        ({"state_dict": {"weight": WEIGHT}, "epoch": 3}, ("state_dict",)),
        ({"model_state_dict": {"weight": WEIGHT}, "optimizer": {}}, ("model_state_dict",)),
        ({"model_state": {"module.weight": WEIGHT}}, ("model_state", "module.")),
        ({"model": {"_orig_mod.module.weight": WEIGHT}}, ("model", "_orig_mod.", "module.")),
        ({"net": {"weight": WEIGHT}, "acc": 0.5}, ("net",)),
        ({"model": {"state_dict": {"weight": WEIGHT}}}, ("model", "state_dict")),
        ({"ema": {"weight": WEIGHT}, "step": 3}, ("ema",)),
        ({"n_averaged": torch.tensor(3), "module.weight": WEIGHT}, ("n_averaged", "module.")),
    ],
)
def test_containers(tmp_path: Path, content: object, unwrapped: tuple[str, ...]) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, content))
    assert checkpoint.unwrapped == unwrapped
    assert list(checkpoint.tensors) == ["weight"]


BOTH = {"model": {"weight": WEIGHT}, "ema": {"weight": 2 * WEIGHT}, "epoch": 3}


def test_of_weights_and_their_average_the_weights_are_taken_and_the_rest_is_told(
    tmp_path: Path,
) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, BOTH))
    assert (checkpoint.unwrapped, checkpoint.beside) == (("model",), ("ema",))
    np.testing.assert_array_equal(checkpoint.tensors["weight"], WEIGHT.numpy())


def test_lightning_s_average_is_taken_and_the_weights_are_told(tmp_path: Path) -> None:
    averaged = {"state_dict": {"w": WEIGHT}, "current_model_state": {"w": 2 * WEIGHT}}
    path = saved(tmp_path, averaged | {"averaging_state": {"n_averaged": torch.tensor(3)}})
    checkpoint = load_checkpoint(path)
    assert (checkpoint.unwrapped, checkpoint.beside) == (("state_dict",), ("current_model_state",))
    raw = load_checkpoint(path, "current_model_state")
    np.testing.assert_array_equal(raw.tensors["w"], 2 * WEIGHT.numpy())


def test_the_average_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, BOTH), "ema")
    assert (checkpoint.unwrapped, checkpoint.beside) == (("ema",), ())
    np.testing.assert_array_equal(checkpoint.tensors["weight"], 2 * WEIGHT.numpy())


@pytest.mark.parametrize(
    ("content", "told"),
    [(BOTH, "there is no such entry; it holds model, ema"), ({"weight": WEIGHT}, "one network")],
)
def test_an_entry_that_is_not_there(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(saved(tmp_path, content), "swa")


def test_prefix_that_only_some_keys_have_stays(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, {"module.a": WEIGHT, "b": WEIGHT}))
    assert (checkpoint.unwrapped, set(checkpoint.tensors)) == ((), {"module.a", "b"})


def test_a_layer_called_model_is_no_container(tmp_path: Path) -> None:
    assert list(load_checkpoint(saved(tmp_path, {"model": WEIGHT})).tensors) == ["model"]


def positions(payload: object) -> list[object]:
    return [
        payload,
        {"weight": payload},
        {"state_dict": {"weight": WEIGHT}, "extra": payload},
        {"state_dict": {"weight": payload}},
        {"model": {"state_dict": {"weight": WEIGHT, "x": [payload]}}},
        [WEIGHT, payload],
        {"model": {"w": WEIGHT}, "optimizer": {"state": {}, "param_groups": [{"hess": payload}]}},
        {"state_dict": {"w": WEIGHT}, "callbacks": {"best": payload}, "loops": [payload]},
        {"state_dict": {"w": WEIGHT}, "avg_params": [payload], "steps_ema": payload},
        {"params": {"guide.loc": WEIGHT}, "constraints": {"guide.loc": payload}},
        {"cls_name": "DiagLaplace", "mean": WEIGHT, "H": WEIGHT, "likelihood": payload},
        OrderedDict(module=OrderedDict(weight=WEIGHT, bias=payload)),
        {"state_dict": {"w": WEIGHT}, "hyper_parameters": {"act": payload}, "hparams_name": "x"},
        {"state_dict": {"w": WEIGHT}, "optimizer_states": [{"param_groups": [payload]}]},
        {"state_dict": {"w": WEIGHT}, "datamodule_hyper_parameters": argparse.Namespace(a=payload)},
        {"state_dict": {"w": WEIGHT}, payload: 1},
        {"state_dict": {"w": WEIGHT}, "args": argparse.Namespace(lr=1), "averaging_state": payload},
    ]


@pytest.mark.parametrize("position", range(17))
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "pickle-0"])
def test_code_in_a_pickle_never_runs(tmp_path: Path, position: int, form: str) -> None:
    canary = tmp_path / "ran"
    content = positions(CreatesFile(canary))[position]
    path = tmp_path / "evil.pt"
    match form:
        case "zip":
            torch.save(content, path)
        case "legacy":
            torch.save(content, path, _use_new_zipfile_serialization=False)
        case "pickle":
            path.write_bytes(pickle.dumps(content))
        case _:
            path.write_bytes(pickle.dumps(content, protocol=0))
    with pytest.raises(CheckpointError, match=r"posix\.system.*could run any code.*state_dict\(\)"):
        load_checkpoint(path)
    assert "torch.load(SOURCE" in recipe(path)
    assert not canary.exists()


def test_canary_would_sing(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(CreatesFile(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("new", [True, False])
def test_whole_network_is_refused(tmp_path: Path, new: bool) -> None:
    path = saved(tmp_path, {"model": TwoLayers()}, _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match=r"whole pickled network .*TwoLayers.*re-save"):
        load_checkpoint(path)


def test_harmless_looking_object_among_the_weights_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": {"w": WEIGHT, "args": argparse.Namespace(lr=1)}})
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace"):
        load_checkpoint(path)


def truncated(path: Path, keep: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.98])
@pytest.mark.parametrize("new", [True, False])
def test_cut_off(tmp_path: Path, keep: float, new: bool) -> None:
    path = saved(tmp_path, {"w": torch.ones(500)}, _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match=r"net\.pt: is cut off.*copy it again"):
        load_checkpoint(truncated(path, keep))


def flipped(path: Path, place: int) -> Path:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    return path


def test_a_byte_that_changed_on_the_way_never_changes_a_number(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": torch.arange(1.0, 41.0)})
    whole, reasons = path.read_bytes(), []
    for place in range(0, len(whole), 3):
        path.write_bytes(whole)
        try:
            read = load_checkpoint(flipped(path, place)).tensors["w"]
        except CheckpointError as error:
            reasons.append(str(error))
        else:
            np.testing.assert_array_equal(read, np.arange(1.0, 41.0))
    assert any("is damaged: its record net/data/0 is not what was" in told for told in reasons)
    assert all("copy it again" in told for told in reasons if "damaged" in told)


def test_the_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(9), "b": torch.full((9,), 3.0)})
    place = path.read_bytes().index(torch.full((9,), 3.0).numpy().tobytes())
    with pytest.raises(CheckpointError, match=r"net/data/1 .*CRC-32\); copy it again"):
        load_checkpoint(flipped(path, place + 5))


def test_a_file_that_was_written_without_crcs_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path, {"w": WEIGHT})
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(load_checkpoint(path).tensors["w"], WEIGHT.numpy())


@pytest.mark.parametrize("keep", [0.001, 0.01, 0.98])
def test_cut_off_safetensors(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"w": torch.ones(2000)}, path)
    with pytest.raises(CheckpointError, match="is cut off or not a safetensors file"):
        load_checkpoint(truncated(path, keep))


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def archive_of_numpy(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", weight=np.ones(3))
    return tmp_path / "data.npz"


def torchscript(tmp_path: Path) -> Path:
    module = torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2))  # type: ignore[no-untyped-call]
    torch.jit.save(module, tmp_path / "script.pt")
    return tmp_path / "script.pt"


def safetensors_with_nan(tmp_path: Path) -> Path:
    save_file({"w": torch.tensor([float("inf")])}, tmp_path / "inf.safetensors")
    return tmp_path / "inf.safetensors"


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "none.pt", r"none\.pt: there is no such file"),
    "directory": (lambda p: p, "is a directory; name the checkpoint file inside it"),
    "empty": (lambda p: written(p, "e.pt", b""), "is empty; copy it again"),
    "empty safetensors": (lambda p: written(p, "e.safetensors", b""), "is empty"),
    "text": (lambda p: written(p, "t.pt", b"hello world\n"), "is a text file; name the checkpoint"),
    "text that ends within a character": (
        lambda p: written(p, "t.pt", ("x" * 4095 + "é" * 9).encode()),
        "is a text file",
    ),
    "bytes": (
        lambda p: written(p, "b.pt", bytes(range(99))),
        "is cut off or not a checkpoint that torch.save wrote; copy it again",
    ),
    "git-lfs": (
        lambda p: written(p, "t.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n"),
        "is a git-lfs pointer, not the file that it stands for; run `git lfs pull`",
    ),
    "git-lfs safetensors": (
        lambda p: written(p, "t.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "is a git-lfs pointer",
    ),
    "gzip": (
        lambda p: written(p, "t.pt.gz", gzip.compress(b"anything")),
        "is compressed with gzip; unpack it first",
    ),
    "web page": (lambda p: written(p, "t.pt", b"<!DOCTYPE html><p>Sign in"), "is a web page"),
    "text safetensors": (
        lambda p: written(p, "t.safetensors", b"hello world, this is text\n"),
        "not a safetensors file",
    ),
    "npz": (archive_of_numpy, "is a zip archive but no checkpoint that torch.save wrote"),
    "script": (torchscript, "is a TorchScript archive"),
    "numpy": (lambda p: saved(p, {"w": np.float64(2)}), r"asks to import numpy.*numpy\.dtype"),
    "number": (lambda p: saved(p, 3), "its content is of type int where tensors by name"),
    "one tensor": (lambda p: saved(p, WEIGHT), "its content is of type Tensor where"),
    "no tensors": (lambda p: saved(p, {"epoch": 3}), "holds no tensors by name; save it as"),
    "nothing": (lambda p: saved(p, {}), "holds no tensors by name"),
    "unknown container": (
        lambda p: saved(p, {"generator": {"w": WEIGHT}, "epoch": 1}),
        "holds no tensors by name; the entry generator does: take one with --weights generator",
    ),
    "two networks": (
        lambda p: saved(p, {"model": {"w": WEIGHT}, "state_dict": {"w": WEIGHT}}),
        r"holds several networks \(state_dict, model\); say which",
    ),
    "mixed": (
        lambda p: saved(p, {"w": WEIGHT, "epoch": 3}),
        r"entries beside the tensors are not understood: epoch \(int\)",
    ),
    "nan": (
        lambda p: saved(p, {"fine": WEIGHT, "bad": torch.tensor([1.0, float("nan")])}),
        "NaN or infinity in bad; the training diverged",
    ),
    "inf": (safetensors_with_nan, "NaN or infinity in w"),
    "quantized": (
        lambda p: saved(p, {"w": torch.quantize_per_tensor(WEIGHT, 0.1, 0, torch.qint8)}),
        "tensor 'w' is quantized",
    ),
    "complex": (lambda p: saved(p, {"w": WEIGHT.to(torch.complex64)}), "tensor 'w' is complex"),
}


EXPANDED = torch.zeros(1).expand(3000, 100_000)


@pytest.mark.parametrize("content", [{"w": EXPANDED}, {"model": {"w": EXPANDED.t()}}])
def test_a_shape_that_the_stored_bytes_do_not_fill_is_refused(
    tmp_path: Path, content: object
) -> None:
    path = saved(tmp_path, content)
    assert path.stat().st_size < 5000
    with pytest.raises(CheckpointError, match=r"tensor 'w' .*1,200,000,000 bytes .* stores 4"):
        load_checkpoint(path)


def test_a_small_tensor_that_repeats_a_number_is_read(tmp_path: Path) -> None:
    read = load_checkpoint(saved(tmp_path, {"w": torch.ones(1).expand(4, 5)})).tensors["w"]
    np.testing.assert_array_equal(read, np.ones((4, 5)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tmp_path: Path, name: str) -> None:
    make, sentence = REFUSED[name]
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(make(tmp_path))


def test_sparse_tensor_is_made_dense(tmp_path: Path) -> None:
    path = saved(tmp_path, {"w": WEIGHT.to_sparse()})
    np.testing.assert_array_equal(load_checkpoint(path).tensors["w"], WEIGHT.numpy())


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {"w": WEIGHT})

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"net\.pt: cannot be read: Permission denied"):
        load_checkpoint(path)
