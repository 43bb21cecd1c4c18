"""pyro-ppl 1.9.2: AutoDiagonalNormal; the guide's state_dict, one vector in the order of sites."""

from __future__ import annotations

from tests.libraries.examples.pyro_auto_normal import REQUIREMENTS, fitted
from tests.libraries.frame import Library, Trained, imported
from tests.libraries.frame import small_twin as twin
from tests.libraries.images import Images

__all__ = ["LIBRARY", "train", "twin"]


def train(images: Images) -> Trained:
    """One Gaussian vector for all sites."""
    found = fitted(images, imported("pyro.infer.autoguide").AutoDiagonalNormal)
    return Trained(found.guide.state_dict(), found.mean, found.draw)


LIBRARY = Library(
    name="pyro_auto_diagonal_normal",
    package="pyro",
    requirements=REQUIREMENTS,
    train=train,
    families=frozenset({"Pyro AutoDiagonalNormal"}),
    factory="twin",
)
