"""torch-uncertainty 0.13.0: its SWAG wrapper, diagonal, around a network with a batch norm.

Only methods/swa and methods/swag are imported: the package imports lightning, timm and torchvision.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tests.libraries.frame import BATCH, Library, Spread, Trained, batches, descend, imported
from tests.libraries.images import Images
from tests.libraries.record import DRAWS

NAME = "torch_uncertainty_methods"
EPOCHS, RATE = 4, 0.02


def methods() -> Any:
    """The library's methods/swag under a package of its own, whose __init__ imports nothing."""
    if NAME not in sys.modules:
        found = importlib.util.find_spec("torch_uncertainty")
        assert found is not None
        assert found.submodule_search_locations
        package = ModuleType(NAME)
        package.__path__ = [f"{found.submodule_search_locations[0]}/methods"]
        sys.modules[NAME] = package
    return imported(f"{NAME}.swag")


def twin() -> nn.Module:
    """The network that is wrapped."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def train(images: Images) -> Trained:
    """Two epochs of Adam, then SGD at a constant rate, a network taken in after each epoch."""
    network = twin()
    descend(network, lambda x, y: functional.cross_entropy(network(x), y), images, epochs=2)
    swag = methods().SWAG(network, 0, 1, diag_covariance=True, num_estimators=DRAWS)
    optimizer = torch.optim.SGD(network.parameters(), RATE)
    for epoch in range(1, EPOCHS + 1):
        for inputs, labels in batches(images, 1):
            optimizer.zero_grad()
            functional.cross_entropy(swag(inputs), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        swag.update_wrapper(epoch)
    data = torch.utils.data.TensorDataset(torch.tensor(images.inputs))
    swag.bn_update(torch.utils.data.DataLoader(data, BATCH), device="cpu")
    swag.eval()
    samples = itertools.cycle(swag.samples)

    def draw(x: Tensor) -> Tensor:
        output: Tensor = next(samples).eval()(x)
        return output

    return Trained(swag.state_dict(), lambda x: mean_forward(swag, x), draw)


def mean_forward(swag: Any, x: Tensor) -> Tensor:
    """The network of torch layers at the averages, under the statistics of the last weights."""
    means = {
        name: swag.swag_stats[f"{swag.prfx}{name}_mean"]
        for name, _ in swag.core_model.named_parameters()
    }
    output: Tensor = functional_call(swag.core_model, means, (x,))
    return output


LIBRARY = Library(
    name="torch_uncertainty_swag",
    package="torch_uncertainty",
    requirements=("torch-uncertainty==0.13.0",),
    train=train,
    families=frozenset({"SWAG"}),
    factory="twin",
    # Each draw has batch norm statistics of its own.
    spread=Spread.OTHERWISE,
)
