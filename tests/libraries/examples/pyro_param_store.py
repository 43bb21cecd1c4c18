"""pyro-ppl 1.9.2: `get_param_store().save(path)`, re-saved as `deploykit convert-checkpoint` says.

The store pickles objects of the library beside the tensors, so deploykit does not read it itself.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from deploykit.posterior.recipe import ENDING, recipe
from tests.libraries.examples.pyro_auto_normal import REQUIREMENTS, fitted
from tests.libraries.frame import Library, Trained, imported
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "train", "twin"]


def train(images: Images) -> Trained:
    """The store holds the guide's parameters alone: the network has none of its own."""
    found = fitted(images, imported("pyro.infer.autoguide").AutoNormal)
    with TemporaryDirectory() as folder:
        saved, script = Path(folder) / "parameters.store", Path(folder) / "resave.py"
        imported("pyro").get_param_store().save(str(saved))
        script.write_text(recipe(saved), encoding="utf-8")
        runpy.run_path(str(script))
        state: object = torch.load(saved.with_suffix(ENDING), weights_only=True)
    return Trained(state, found.mean, found.draw)


LIBRARY = Library(
    name="pyro_param_store",
    package="pyro",
    requirements=REQUIREMENTS,
    train=train,
    families=frozenset({"Pyro AutoNormal"}),
    factory="twin",
)
