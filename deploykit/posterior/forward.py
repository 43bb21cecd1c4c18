"""Run a network on numpy inputs, in batches, with failures told as sentences."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import GraphInputs, count_samples, repeated_samples, some_samples
from deploykit.spec.joined import joined_outputs, named_outputs

BATCH = 256
MAYBE_KL = (
    ", perhaps the KL divergence (how far the posterior is from the prior), which only the "
    "training's loss needs"
)

TorchInputs = torch.Tensor | Mapping[str, torch.Tensor]
"""What a network is called with: its only argument, or arguments by name."""


def prepared(module: nn.Module) -> nn.Module:
    """The same module in float32 and eval mode, with gradients off."""
    return module.float().eval().requires_grad_(False)


def require_arguments(module: nn.Module, inputs: GraphInputs) -> None:
    """Refuse inputs that the network's forward has no argument for, and arguments left out."""
    parameters = inspect.signature(module.forward).parameters.values()
    plain = [one for one in parameters if one.kind not in {one.VAR_POSITIONAL, one.VAR_KEYWORD}]
    needed = [one.name for one in plain if one.default is one.empty]
    listed = ", ".join(one.name for one in plain) or "nothing"
    if not isinstance(inputs, Mapping):
        if len(needed) > 1:
            raise ArchitectureError(
                f"the network's forward takes {listed}, and --input-shape gives one shape without "
                "a name; give --input-shape NAME=SIZES once for each"
            )
        return
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return
    unknown = [name for name in inputs if name not in {one.name for one in plain}]
    missing = [name for name in needed if name not in inputs]
    if unknown or missing:
        what = f"no argument {unknown[0]!r}" if unknown else f"an argument {missing[0]!r} too"
        raise ArchitectureError(
            f"--input-shape names {', '.join(inputs)}, and the network's forward has {what}: it "
            f"takes {listed}; give --input-shape NAME=SIZES once for each"
        )


def batches(inputs: GraphInputs, batch: int = BATCH) -> Iterator[TorchInputs]:
    """Inputs [N, ...] in pieces of nearly equal size, none above `batch`; floats in float32."""
    count = count_samples(inputs)
    for piece in np.array_split(np.arange(count), max(1, -(-count // batch))):
        yield tensors(some_samples(inputs, piece))


def tensors(inputs: GraphInputs) -> TorchInputs:
    """The same values for torch."""
    if isinstance(inputs, Mapping):
        return {name: _tensor(values) for name, values in inputs.items()}
    return _tensor(inputs)


def run_batch(module: nn.Module, inputs: TorchInputs) -> dict[str, torch.Tensor]:
    """One forward pass without gradients: the tensors that the network returns, by name."""
    try:
        with torch.no_grad():
            output = module(**inputs) if isinstance(inputs, Mapping) else module(inputs)
    except IndexError as error:
        raise ArchitectureError(
            f"the network does not run on the inputs: {error}; where they are numbers of rows of a "
            "table (token ids), each has to be one that the table has"
        ) from error
    except Exception as error:
        raise ArchitectureError(
            f"the network does not run on an input of shape {_shapes(inputs)}: "
            f"{type(error).__name__}: {error}; check --input-shape and the factory"
        ) from error
    found: dict[str, torch.Tensor] = {}
    for name, value in named_outputs(output).items():
        if not isinstance(value, torch.Tensor):
            number = isinstance(value, int | float)
            what = f"a single number ({value})" if number else f"a {type(value).__name__}"
            raise ArchitectureError(
                f"the network returns {what} as {name!r}{MAYBE_KL if number else ''}; deploykit "
                "exports networks that return a tensor, or a tuple or dict of tensors, so let the "
                "factory build one that returns only that"
            )
        found[name] = value
    if not found:
        raise ArchitectureError("the network returns no tensor; build one that does")
    return found


def run(module: nn.Module, inputs: GraphInputs, batch: int = BATCH) -> AnyArray:
    """Outputs for inputs [N, ...], computed `batch` at a time; several as one [N, F].

    float32, or whole numbers where the network's only output holds such.
    """
    parts = [run_batch(module, piece) for piece in batches(inputs, batch)]
    whole = {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}
    joined = joined_outputs(whole, list(whole), count_samples(inputs))
    return joined if joined.dtype.kind in "iu" else joined.astype(np.float32)


def at_a_time(module: nn.Module, inputs: GraphInputs, static: int) -> int:
    """How many samples `run` can give the network: BATCH where outputs hold them along axis 0.

    Else `static`, the batch of the exported graph, which is then one: several batches are joined
    along axis 0, as the files' callers do, and there several samples are not told apart.

    Raises ArchitectureError where it is more.
    """
    few = {
        count: run_batch(module, tensors(repeated_samples(inputs, count)))
        for count in (static, 2 * static)
    }
    for name, once in few[static].items():
        if once.ndim and len(few[2 * static][name]) == 2 * len(once):
            continue
        if static == 1:
            return static
        raise ArchitectureError(
            f"output {name!r} is {list(once.shape)} for {static} samples and "
            f"{list(few[2 * static][name].shape)} for {2 * static}: its first axis does not hold "
            "them, as that of a fixed batch of several has to; give --input-shape a batch of one, "
            "or return it with the samples in front"
        )
    return BATCH


def output_types(module: nn.Module, inputs: GraphInputs) -> dict[str, torch.dtype]:
    """Element type of each output by name, from the first sample."""
    first = tensors(some_samples(inputs, slice(1)))
    return {name: value.dtype for name, value in run_batch(module, first).items()}


def _tensor(values: AnyArray) -> torch.Tensor:
    whole = values.dtype.kind in "iu"
    return torch.tensor(values, dtype=None if whole else torch.float32)


def _shapes(inputs: TorchInputs) -> str:
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items())
    return str(tuple(inputs.shape))
