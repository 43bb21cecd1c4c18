"""Whether the network of torch layers runs, and if not, which layer was swapped for a wrong one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.forward import prepared, run
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.joined import named_outputs

GEOMETRY = ("stride", "padding", "dilation", "groups", "padding_mode")
"""Attributes from which a torch layer is built."""


def require_running(
    original: nn.Module, twin: nn.Module, inputs: GraphInputs, layers: Sequence[str]
) -> None:
    """Raise ArchitectureError where the twin does not run on the inputs.

    layers: of the original, that were swapped. Where the original runs, the error names the first
    of them that gives another shape than the torch layer in its place.
    """
    try:
        run(twin, inputs)
    except ArchitectureError as error:
        given = prepared(copy.deepcopy(original))
        found = _other_shape(given, twin, inputs, layers) if _runs(given, inputs) else None
        raise ArchitectureError(found or str(error)) from error


def _runs(module: nn.Module, inputs: GraphInputs) -> bool:
    try:
        run(module, inputs)
    except ArchitectureError:
        return False
    return True


def _other_shape(
    given: nn.Module, twin: nn.Module, inputs: GraphInputs, layers: Sequence[str]
) -> str | None:
    """What to say of the first layer of another shape; None where there is none."""
    own, other = (_output_shapes(module, layers, inputs) for module in (given, twin))
    for name, shape in own.items():
        if other.get(name) == shape:
            continue
        kind, placed = type(given.get_submodule(name)).__name__, twin.get_submodule(name)
        states = ", ".join(f"{key}={getattr(placed, key)}" for key in GEOMETRY if _has(placed, key))
        gives = f"gives {list(other[name])}" if name in other else "does not run"
        return (
            f"layer '{name}': its {kind} gives {list(shape)}, and the torch layer in its place "
            f"{gives}, with {states}: how the {kind} strides and pads was not found; let it hold "
            f"{', '.join(GEOMETRY[:4])} as attributes of these names, or give the deterministic "
            "network as --model"
        )
    return None


def _has(placed: nn.Module, key: str) -> bool:
    return getattr(placed, key, None) is not None


def _output_shapes(
    module: nn.Module, layers: Sequence[str], inputs: GraphInputs
) -> Mapping[str, tuple[int, ...]]:
    """Of each layer's last call, in the order of the first ones, up to where the network fails."""
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            first = next(iter(named_outputs(output).values()), None)
            if isinstance(first, torch.Tensor):
                shapes[name] = tuple(first.shape)

        return module.get_submodule(name).register_forward_hook(hook)

    handles = [keep(name) for name in layers]
    try:
        with suppress(ArchitectureError):
            run(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return shapes
