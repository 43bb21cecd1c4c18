"""Files of training frameworks whose settings ask for classes: the weights without any of them."""

from __future__ import annotations

import functools
from argparse import Namespace
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import CheckpointError
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.stand_ins import may_stand_in

WEIGHT = torch.arange(6.0).reshape(2, 3)


class Kind(Enum):
    FIRST = "first"


@dataclass
class Settings:
    width: int = 3


class Attributes(dict[str, object]):
    """As Lightning's own AttributeDict."""


class TouchesFile:
    """Unpickling this calls a function of a module that is not Python's own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return touch, (str(self.path),)


def touch(path: str) -> None:
    """What must not run."""
    Path(path).touch()


def lightning(settings: object, **more: object) -> dict[str, object]:
    """A file as pytorch-lightning 2.6 writes it, with `settings` among its hyper_parameters."""
    return {
        "epoch": 1, "global_step": 4, "pytorch-lightning_version": "2.6.6",
        "state_dict": OrderedDict({"model.weight": WEIGHT, "model.bias": torch.zeros(2)}),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.ones(())}},
        "optimizer_states": [{"state": {0: {"exp_avg": WEIGHT}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [{"last_epoch": 1}],
        "hparams_name": "kwargs", "hyper_parameters": {"width": 3, "settings": settings}, **more,
    }  # fmt: skip


LEGACY = ("enumeration", "numpy scalar", "path", "namespace", "user's object", "function", "set")
"""Of SETTINGS; legacy files hold classes of networks with their source, and are refused."""

SETTINGS: dict[str, object] = {
    "enumeration": Kind.FIRST,
    "numpy scalar": np.float64(0.5),
    "numpy array": np.arange(3),
    "path": Path("data"),
    "namespace": Namespace(lr=1, folder=Path("x")),
    "user's object": Settings(),
    "class": nn.ReLU,
    "partial": functools.partial(nn.Linear, 3),
    "function": nn.functional.relu,
    "network": nn.Linear(2, 2),
    "set": {1, Path("y")},
}


@pytest.mark.parametrize(
    ("name", "new"), [*((name, True) for name in SETTINGS), *((name, False) for name in LEGACY)]
)
def test_lightning_s_settings_are_left_unread(name: str, new: bool, tmp_path: Path) -> None:
    content = lightning(SETTINGS[name])
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
    found = load_checkpoint(tmp_path / "a.ckpt")
    np.testing.assert_array_equal(found.tensors["model.weight"], WEIGHT.numpy())
    assert len(found.tensors) == 2
    (unread,) = found.unread
    assert unread.startswith("hyper_parameters, which holds ")


def test_harmless_settings_need_nothing(tmp_path: Path) -> None:
    torch.save(lightning({"lr": 0.1, "betas": (0.9, 0.99)}), tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt").unread == ()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("entry", ["hyper_parameters", "callbacks", "loops", "args"])
def test_nothing_of_another_module_runs(entry: str, new: bool, tmp_path: Path) -> None:
    payload = {"x": TouchesFile(tmp_path / "ran")}
    content = lightning(None) | {entry: payload}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=new)
    found = load_checkpoint(tmp_path / "a.ckpt")
    assert found.unread == (f"{entry}, which holds tests.posterior.test_stand_ins.touch",)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_settings_beside_any_state_dict(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": WEIGHT}, "args": Namespace(lr=1)}, tmp_path / "a.pt")
    found = load_checkpoint(tmp_path / "a.pt")
    assert (list(found.tensors), found.unwrapped) == (["w"], ("state_dict",))
    assert found.unread == ("args, which holds argparse.Namespace",)


def ivon(rate: object) -> dict[str, object]:
    hess = torch.ones(6)
    group = {"hess": hess, "ess": 10.0, "weight_decay": 1e-3, "lr": rate, "params": [0]}
    return {"state": {}, "param_groups": [group]}


REFUSED: dict[str, object] = {
    "among the weights": {"state_dict": {"w": WEIGHT, "x": Settings()}},
    "as a weight": {"w": np.float64(2)},
    "a whole network": {"model": nn.Linear(2, 2), "args": Namespace()},
    "a whole network beside the weights": {"ema": nn.Linear(2, 2), "state_dict": {"w": WEIGHT}},
    "in IVON's state": {"model": {"w": WEIGHT}, "optimizer": ivon(np.float64(0.1))},
    "no weights at all": {"args": Namespace()},
    "in an entry with tensors": {"model": {"w": WEIGHT}, "extra": {"x": WEIGHT, "y": Settings()}},
    "constraints": {"params": {"w": WEIGHT}, "constraints": {"w": torch.distributions.Normal}},
    "a list": [WEIGHT, Settings()],
    "a user's class of dictionaries": lightning(Attributes(a=1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_objects_that_may_be_the_weights_are_refused(name: str, tmp_path: Path) -> None:
    torch.save(REFUSED[name], tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="deploykit convert-checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_an_optimizer_without_a_posterior_is_left_unread(tmp_path: Path) -> None:
    state = {"state": {0: {"exp_avg": WEIGHT}}, "param_groups": [{"lr": np.float64(0.1)}]}
    torch.save({"model": {"w": WEIGHT}, "optimizer": state}, tmp_path / "a.pt")
    (unread,) = load_checkpoint(tmp_path / "a.pt").unread
    assert unread.startswith("optimizer, which holds numpy.")


def test_ivon_s_state_in_lightning_s_list_of_optimizers(tmp_path: Path) -> None:
    torch.save(lightning(Kind.FIRST) | {"optimizer_states": [ivon(0.1)]}, tmp_path / "a.ckpt")
    found = load_checkpoint(tmp_path / "a.ckpt")
    assert found.flat is not None
    assert found.flat.format == "IVON"


def test_a_laplace_fit_needs_no_enumeration(tmp_path: Path) -> None:
    fit = {
        "cls_name": "DiagLaplace", "mean": torch.zeros(3), "H": torch.ones(3),
        "prior_precision": torch.ones(1), "likelihood": Kind.FIRST,
    }  # fmt: skip
    for content in (fit, {"la": fit, "model": {"w": WEIGHT}}):
        torch.save(content, tmp_path / "a.pt")
        found = load_checkpoint(tmp_path / "a.pt").flat
        assert found is not None
        assert found.variance is not None
        np.testing.assert_allclose(found.variance, 0.5)


@pytest.mark.parametrize(
    "name",
    [
        "posix.system", "os.system", "subprocess.Popen", "builtins.eval", "__builtin__.eval",
        "builtins.getattr", "importlib.import_module", "runpy.run_path", "pickle.loads",
        "copyreg.__newobj__", "torch.distributions.constraints._Real", "pyro.distributions.x",
    ],
)  # fmt: skip
def test_what_is_never_left_out(name: str) -> None:
    assert not may_stand_in(["argparse.Namespace", name])


@pytest.mark.parametrize("name", ["__builtin__.set", "copy_reg._reconstructor", "mine.Settings"])
def test_what_may_be_left_out(name: str) -> None:
    assert may_stand_in([name])
