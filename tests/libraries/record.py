"""Train examples and write what `make test` reads: NAME.pt and NAME.npz in checkpoints/.

PYTHONPATH=build/libraries .venv/bin/python -m tests.libraries.record [NAME ...]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deploykit.spec.arrays import Float32Array, Float64Array
from tests.libraries.frame import CHECKPOINTS, Library, Trained, libraries
from tests.libraries.images import Images, test_images, training_images

DRAWS = 16
OUTPUTS = 64


@dataclass(frozen=True)
class Reference:
    """What the library says of its network, on the first test images.

    outputs: [64, 10] of the mean forward. mean, predictive: accuracy over 2,000 images of the mean
    forward and of class probabilities averaged over 16 draws. masked: [64, 10] without what the
    library drops, where it drops anything. rounded, evaluation: outputs and accuracy of its
    evaluation, where that rounds activations and is not the mean.
    """

    outputs: Float32Array
    mean: float
    predictive: float
    masked: Float32Array | None = None
    rounded: Float32Array | None = None
    evaluation: float | None = None


def trained(library: Library, seed: int = 0) -> Trained:
    """The example's network, trained from a fixed seed on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return library.train(training_images())


def reference(network: Trained) -> Reference:
    """The mean forward and the Monte-Carlo predictive."""
    images = test_images()
    inputs = torch.tensor(images.inputs)
    with torch.no_grad():
        outputs = network.mean(inputs)
        masked = None if network.masked is None else network.masked(inputs[:OUTPUTS]).numpy()
        draws = torch.stack([network.draw(inputs).softmax(-1) for _ in range(DRAWS)]).mean(0)
        rounded = None if network.rounded is None else network.rounded(inputs).numpy()
    return Reference(
        outputs[:OUTPUTS].numpy(),
        accuracy(outputs.numpy(), images),
        accuracy(draws.numpy(), images),
        masked,
        None if rounded is None else rounded[:OUTPUTS],
        None if rounded is None else accuracy(rounded, images),
    )


def accuracy(outputs: Float32Array | Float64Array, images: Images) -> float:
    """Share of images whose largest output is their class."""
    return float((outputs.argmax(axis=1) == images.labels).mean())


def stored_reference(library: Library) -> Reference:
    """What is committed for an example."""
    with np.load(CHECKPOINTS / f"{library.name}.npz") as stored:
        masked = stored.get("masked")
        mean, predictive = float(stored["mean"]), float(stored["predictive"])
        rounded = stored.get("rounded")
        evaluation = None if rounded is None else float(stored["evaluation"])
        return Reference(stored["outputs"], mean, predictive, masked, rounded, evaluation)


def record(library: Library, folder: Path = CHECKPOINTS) -> Reference:
    """Train, and write both files."""
    network = trained(library)
    torch.save(network.state, folder / f"{library.name}.pt")
    found = reference(network)
    own = {"masked": found.masked, "rounded": found.rounded, "evaluation": found.evaluation}
    np.savez_compressed(
        folder / f"{library.name}.npz",
        allow_pickle=False,
        outputs=found.outputs,
        mean=np.float64(found.mean),
        predictive=np.float64(found.predictive),
        **{key: np.asarray(value) for key, value in own.items() if value is not None},
    )
    return found


def main(names: list[str]) -> int:
    """Record the named examples, or all."""
    known = {library.name: library for library in libraries()}
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no example is called {', '.join(unknown)}; there are {', '.join(known)}")
        return 2
    for name in names or known:
        found = record(known[name])
        size = (CHECKPOINTS / f"{name}.pt").stat().st_size
        print(
            f"{name:<30} mean {found.mean:.4f}  {DRAWS} draws {found.predictive:.4f}  "
            f"{size:,} bytes"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
