"""Train the posteriors of this folder on Fashion-MNIST, minutes each on one core.

    python benchmarks/posteriors/train.py NAME [--images DIR] [--epochs 4]

NAME: lenet5_ivon or separable_ivon (ivon-opt 0.1.3). The last 5,000 images of the training file are
left out. Weights and Hessians are stored as float16, the optimizer's momentum is not. The committed
files: lenet5_ivon --epochs 4, separable_ivon --epochs 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2] / "sample_models" / "lenet5"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from data import DEBIAN_FOLDER, training_images
from posteriors.small_networks import lenet5, separable

FOLDER = Path(__file__).parent

BATCH = 100
TRAINED = 55_000
FACTORIES = {"lenet5": lenet5, "separable": separable}


def batches(inputs: Tensor, labels: Tensor, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled anew in every epoch."""
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), BATCH):
            part = order[start : start + BATCH]
            yield inputs[part], labels[part]


def by_ivon(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> dict[str, Any]:
    """Shen et al. 2024: variational online Newton, from what Adam trained half as long."""
    from ivon import IVON  # type: ignore[import-not-found]

    by_adam(network, inputs, labels, epochs // 2)
    optimizer: Any = IVON(
        network.parameters(), lr=0.2, ess=TRAINED, hess_init=0.05, weight_decay=1e-4, beta2=0.9995
    )
    steps = epochs * -(-TRAINED // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for x, y in batches(inputs, labels, epochs):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["momentum"] = torch.zeros(1)
        group["hess"] = group["hess"].half()
    return {"model": halved(network), "optimizer": {"state": {}, **state}}


def by_adam(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """To a mode."""
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for x, y in batches(inputs, labels, epochs):
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def halved(network: nn.Module) -> dict[str, Tensor]:
    """The state in float16, counters as they are."""
    state = network.state_dict()
    return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


def main() -> None:
    """Train one and write NAME.pt beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[f"{kind}_ivon" for kind in FACTORIES])
    parser.add_argument("--images", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    kind = options.name.removesuffix("_ivon")
    images = training_images(options.images)
    inputs = torch.tensor(images.inputs[:TRAINED])
    labels = torch.tensor(images.labels[:TRAINED])
    start = perf_counter()
    network = FACTORIES[kind]()
    state = by_ivon(network, inputs, labels, options.epochs)
    torch.save(state, FOLDER / f"{options.name}.pt")
    print(f"{options.name}: {perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
