"""What a library's example is, and the little network that most of them train.

`make test-libraries` installs every library of `examples/` into build/libraries (pinned, without
their dependencies but those that an import asks for), trains each example on Fashion-MNIST, saves
it as the library's users do, and exports it. `make test` reads the committed checkpoints, without
any library.

To add a library, write examples/NAME.py, where NAME is the example's own, and not the library's:
the file's folder leads sys.path while deploykit loads a factory from it. It holds

    def bayesian() -> nn.Module   the network as the library's users build it; imports the library
                                  by `imported("package")`, so that the file loads without it
    def twin() -> nn.Module       the same of torch layers under the same names
    def train(images) -> Trained  trains in seconds (`descend` is a loop for it)
    LIBRARY = Library(...)

and, once it is installed (`.venv/bin/python -m tests.libraries.environment`),

    PYTHONPATH=build/libraries .venv/bin/python -m tests.libraries.record NAME

writes checkpoints/NAME.pt, at most 100 kB, and NAME.npz: the mean forward that the example computes
with the library's own tensors, and accuracies. Commit both.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.flat import laid_out
from deploykit.spec.posterior import Checkpoint
from tests.libraries.images import Images

EXAMPLES = Path(__file__).parent / "examples"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
FOLDER = Path("build/libraries")
"""Where `make test-libraries` installs; it leads sys.path there."""
BATCH = 100


@dataclass(frozen=True)
class Trained:
    """A trained network.

    state: what the library's users hand to torch.save. mean: inputs -> outputs at the posterior
    mean, written with the library's own tensors and nothing of deploykit. draw: inputs -> outputs
    of one random network, by the library's own forward. masked: inputs -> outputs without what the
    library itself drops at its published threshold; None where it drops nothing. rounded: inputs ->
    outputs of the library's evaluation, where that rounds activations and is not the mean.
    """

    state: object
    mean: Callable[[Tensor], Tensor]
    draw: Callable[[Tensor], Tensor]
    masked: Callable[[Tensor], Tensor] | None = None
    rounded: Callable[[Tensor], Tensor] | None = None


class Spread(Enum):
    """What a draw of a library is, beside deploykit's, which draws every weight once, by itself."""

    INDEPENDENT = auto()
    """The same."""
    OTHERWISE = auto()
    """Not that: weights drawn together, drawn several times, or batch norms measured anew."""
    NONE = auto()
    """The network that is saved is not random."""


@dataclass(frozen=True)
class Library:
    """An example of what a library trains.

    package: what is imported. requirements: pinned, for pip, with all that importing it asks for.
    families: of deploykit, that its layers are recognised as.
    factory: the file's function that builds the network as it was trained: "bayesian", or "twin"
    where the library trains a plain network. spread: what its draws are.
    """

    name: str
    package: str
    requirements: tuple[str, ...]
    train: Callable[[Images], Trained]
    families: frozenset[str]
    factory: str = "bayesian"
    spread: Spread = Spread.INDEPENDENT

    def checkpoint(self, path: Path) -> Checkpoint:
        """The file as `deploykit export` reads it: laid out by the parameters of the twin."""
        return laid_out(load_checkpoint(path), load_factory(self.model("twin"))())

    def model(self, factory: str) -> str:
        """The factory as deploykit's --model takes it."""
        return f"{EXAMPLES / self.name}.py:{factory}"

    def installed(self) -> bool:
        """Whether it trains here: its package is found, and `make test-libraries` runs.

        Restated layers ask for no package; they would train in every `make test` otherwise.
        """
        found = importlib.util.find_spec(self.package) is not None
        return found and (asked() or bool(self.requirements))


def asked() -> bool:
    """Whether `make test-libraries` runs: its folder is on the path."""
    return FOLDER.resolve() in (Path(entry).resolve() for entry in sys.path)


def libraries() -> Iterator[Library]:
    """Every example, by name."""
    for path in sorted(EXAMPLES.glob("*.py")):
        if path.stem != "__init__":
            module = importlib.import_module(f"tests.libraries.examples.{path.stem}")
            assert module.LIBRARY.name == path.stem, f"{path.name} calls itself otherwise"
            yield module.LIBRARY


def imported(name: str) -> Any:
    """A module of a library that mypy does not find in the project's own environment."""
    return importlib.import_module(name)


def small(
    conv: Callable[[int, int, int, int, int], nn.Module],
    linear: Callable[[int, int], nn.Module],
) -> nn.Sequential:
    """Two convolutions and a linear layer: [N, 1, 28, 28] -> [N, 10].

    conv: (in, out, kernel, stride, padding) -> layer; linear: (in, out) -> layer.
    """
    return nn.Sequential(
        conv(1, 8, 5, 2, 2),
        nn.ReLU(),
        conv(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        linear(144, 10),
    )


def small_twin() -> nn.Module:
    """`small` of torch layers."""
    return small(nn.Conv2d, nn.Linear)


def small_forward(
    x: Tensor, weights: tuple[Tensor, Tensor, Tensor], biases: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """What `small` computes with these tensors, layer by layer."""
    x = functional.conv2d(x, weights[0], biases[0], stride=2, padding=2).relu()
    x = functional.conv2d(x, weights[1], biases[1], stride=2, padding=1).relu()
    return functional.linear(functional.max_pool2d(x, 2).flatten(1), weights[2], biases[2])


def small_mean(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The same of weights and biases in the order of the network's parameters."""
    conv1, bias1, conv2, bias2, linear, bias3 = parameters
    return small_forward(x, (conv1, conv2, linear), (bias1, bias2, bias3))


def descend(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    images: Images,
    epochs: int = 4,
    rate: float = 5e-3,
    rates: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Adam on loss(inputs, labels), in place.

    rates: of parameters by the last part of their name, where they have another one.
    """
    groups = [
        {"params": [parameter], "lr": rates.get(name.rpartition(".")[2], rate)}
        for name, parameter in network.named_parameters()
    ]
    optimizer = torch.optim.Adam(groups)
    for inputs, labels in batches(images, epochs):
        optimizer.zero_grad()
        loss(inputs, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def batches(images: Images, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels, 100 at a time; shuffled anew each epoch by torch's own generator."""
    inputs, labels = torch.tensor(images.inputs), torch.tensor(images.labels)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), BATCH):
            piece = order[start : start + BATCH]
            yield inputs[piece], labels[piece]
