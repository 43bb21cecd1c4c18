"""Which layers of a network compute what another one reads, observed on an example.

Every tensor carries the names of the layers whose parameters went into it: those of an operator's
inputs go on to its outputs, storage by storage, whatever the network's Python does in between.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from deploykit.posterior.forward import prepared, run_batch, tensors
from deploykit.spec.inputs import GraphInputs, some_samples

Layers = frozenset[str]


class Source(Enum):
    """What a tensor carries that is no layer."""

    INPUT = auto()


@dataclass(frozen=True)
class DataFlow:
    """upstream: by layer, the layers that compute what it reads.

    channels: of each nn.Identity's output, [N, channels, ...].
    """

    upstream: Mapping[str, Layers]
    channels: Mapping[str, int]

    def downstream(self) -> Mapping[str, Layers]:
        """By layer, the layers that read what it computes."""
        return {
            name: frozenset(other for other, above in self.upstream.items() if name in above)
            for name in self.upstream
        }


def data_flow(network: nn.Module, inputs: GraphInputs, owner: Mapping[str, str]) -> DataFlow:
    """Run a copy of the network on the first of `inputs`.

    owner: the layer that each entry of the network's state dict belongs to. Of layers that share
    a tensor the first one counts. Raises ArchitectureError where the network does not run.
    """
    copied = prepared(copy.deepcopy(network))
    given = tensors(some_samples(inputs, slice(1)))
    following = _Following()
    for name, tensor in copied.state_dict(keep_vars=True).items():
        following.seed(owner[name], tensor)
    for tensor in _tensors(given):
        following.seed(Source.INPUT, tensor)
    channels: dict[str, int] = {}

    def mark(name: str, output: torch.Tensor) -> torch.Tensor:
        channels[name] = output.shape[1] if output.ndim > 1 else 0
        return following.passed(name, output)

    for name, module in copied.named_modules():
        if isinstance(module, nn.Identity):
            module.register_forward_hook(lambda _module, _in, out, name=name: mark(name, out))
    with following:
        run_batch(copied, given)
    names = dict.fromkeys((*owner.values(), *channels))
    return DataFlow({name: frozenset(following.upstream.get(name, ())) for name in names}, channels)


class _Following(TorchDispatchMode):
    """Passes the names of layers on from the inputs of every operator to its outputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.upstream: dict[str, set[str]] = {}
        self._carried: dict[int, set[str | Source]] = {}
        self._alive: list[torch.UntypedStorage] = []

    def seed(self, source: str | Source, tensor: torch.Tensor) -> None:
        """Say where a tensor comes from."""
        self._carried.setdefault(self._key(tensor), {source})

    def passed(self, layer: str, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of what a layer without parameters gives on."""
        carried = self._of(tensor)
        self.upstream.setdefault(layer, set()).update(_names(carried))
        made = tensor.clone()
        self._carried[self._key(made)] = carried | {layer}
        return made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator."""
        result = func(*args, **(kwargs or {}))
        given = [self._of(tensor) for tensor in _tensors((args, kwargs))]
        every = set().union(*given)
        for carried in given:
            # Without the input in it, it is a layer's weight; the layer reads the rest.
            if Source.INPUT not in carried:
                for layer in _names(carried):
                    self.upstream.setdefault(layer, set()).update(_names(every) - {layer})
        for tensor in _tensors(result):
            self._carried.setdefault(self._key(tensor), set()).update(every)
        return result

    def _of(self, tensor: torch.Tensor) -> set[str | Source]:
        return set(self._carried.get(self._key(tensor), ()))

    def _key(self, tensor: torch.Tensor) -> int:
        """The storage, kept alive: a freed one's address would be given to another tensor."""
        storage = tensor.untyped_storage()
        self._alive.append(storage)
        return int(storage._cdata)


def _names(carried: set[str | Source]) -> set[str]:
    return {one for one in carried if isinstance(one, str)}


def _tensors(values: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(values)[0] if isinstance(leaf, torch.Tensor)]
