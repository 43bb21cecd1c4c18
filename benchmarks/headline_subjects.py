"""The networks that headline.py compares: one subject for each sample, width and seed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import SAMPLE as LENET5

RESNET18 = LENET5.parent / "resnet18"
DENSE = "dense"
BAYESIAN = "Bayesian"
RIVAL = "magnitude"
RIVALS = {
    "": RIVAL,
    "-macs": f"{RIVAL}, same MACs",
    "-inner": f"{RIVAL}, in blocks",
}
"""By how their files end: of as many weights, of as many MACs, of as many weights by removing what
gates could."""
_RIVAL_FILE = re.compile(r"magnitude(\d+)-(\d+)(-\w+)?\.pt")


@dataclass(frozen=True)
class Network:
    """A checkpoint and what `export` takes beside it. full: whether in every form."""

    name: str
    checkpoint: Path
    options: Mapping[str, Any]
    full: bool = True


@dataclass(frozen=True)
class Subject:
    """Networks of one architecture, trained alike."""

    name: str
    networks: tuple[Network, ...]
    width: int = 0
    seed: int = 0


def lenet5() -> Subject:
    """Gates by group normal-Jeffreys; the committed posterior is tempered, the other is not."""
    model = LENET5 / "model.py"
    plain = {"model": f"{model}:lenet5", "input_shape": (1, 1, 28, 28), "prune_rule": "none"}
    networks = [
        Network(DENSE, LENET5 / "dense.pt", plain),
        Network(f"{BAYESIAN}, KL weight 0.1", LENET5 / "bayesian.pt",
                {"config": LENET5 / "export.toml"}),
        Network(f"{BAYESIAN}, KL weight 1", LENET5 / "bayesian-kl1.pt",
                {"config": LENET5 / "export-kl1.toml"}),
    ]  # fmt: skip
    return Subject("LeNet-5", tuple(one for one in networks if one.checkpoint.is_file()))


def resnet18(width: int, seed: int, factories: Path) -> Subject:
    """What sample_models/resnet18 has of one width and seed; factories: a folder to write into.

    Without alignment, so that files are the same on every processor.
    """
    folder = RESNET18 / "checkpoints"
    shape = {"input_shape": (1, 1, 28, 28), "align": "none"}
    model = RESNET18 / "model.py"
    networks = [
        Network(DENSE, folder / f"dense{width}-{seed}.pt",
                {"model": f"{model}:dense{width}", "prune_rule": "none", **shape}),
        Network(BAYESIAN, folder / f"bayesian{width}-{seed}.pt",
                {"model": f"{model}:gated{width}", "prune_rule": "family", **shape}),
    ]  # fmt: skip
    for path in sorted(folder.glob(f"magnitude{width}-{seed}*.pt"), key=lambda one: len(one.name)):
        found = _RIVAL_FILE.fullmatch(path.name)
        assert found is not None, path
        ending = found[3] or ""
        name = RIVALS.get(ending, f"{RIVAL} {ending[1:]} %")
        options = {"model": _factory(path, factories), "prune_rule": "none", **shape}
        networks.append(Network(name, path, options, full=not ending))
    return Subject(f"ResNet-18, width {width}, seed {seed}", tuple(networks), width, seed)


def resnets() -> tuple[tuple[int, int], ...]:
    """(width, seed) of every gated network that is committed, narrow ones first."""
    found = (RESNET18 / "checkpoints").glob("bayesian*-*.pt")
    pairs = (re.fullmatch(r"bayesian(\d+)-(\d+)", path.stem) for path in found)
    return tuple(sorted((int(one[1]), int(one[2])) for one in pairs if one is not None))


def _factory(checkpoint: Path, folder: Path) -> str:
    """A file that builds a network as wide as a checkpoint's, named as `export` takes it."""
    path = folder / f"{checkpoint.stem.replace('-', '_')}.py"
    path.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(RESNET18)!r})\n"
        "import torch\n"
        "from model import Widths, plain\n\n\n"
        "def network():\n"
        f"    return plain(Widths.of(torch.load({str(checkpoint)!r}, weights_only=True)))\n"
    )
    return f"{path}:network"
