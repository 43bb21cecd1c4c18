"""One block learns integers, scales and biases that give the float network's output.

    minimise mean (B(z) - y)^2    W = s' clip(rint(u), -n, n),  s' = s exp(r)

z: the block's input in the quantized network, y: its output in the float network; u, r and the
biases are learned from where they stand, every activation of the block on its grid. The gradient
of rint is taken as 1. What is learned has to hold on samples that it was not learned on: scales and
biases alone are tried, and integers with them; what errs least there is taken, or nothing.
Source: Li et al. 2021, BRECQ, section 3.2 (blocks, their output as the target); Esser et al. 2020,
LSQ, section 2 (learned scales, straight-through gradients).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deploykit.quantize.learning.functions import Computes, quantized
from deploykit.quantize.structure import Layer
from deploykit.spec.arrays import Float32Array, Float64Array, Int8Array
from deploykit.spec.parallel import in_parallel
from deploykit.spec.quantized import Quantization

EPOCHS = 8
AT_ONCE = 8
"""Samples per step."""
PIECES = 2
"""Threads that share a step; the same number everywhere, so that sums come out the same."""
INTEGER_RATES = (0.0, 5e-3)
SCALE_RATE, BIAS_RATE = 1e-3, 1e-4
"""Of Adam: in steps of the scale, in its logarithm, in 64 steps of the output's grid."""
LEAST_GAIN = 0.03
"""Share of the error on held-out samples that has to go."""
NEAR = 0.45
"""Where an integer is not the nearest, so near to it its latent number begins."""


@dataclass(frozen=True)
class Learned:
    """The integers [O, ...], scale [O] and bias [O] (real units) of one layer."""

    values: Int8Array
    scale: Float32Array
    bias: Float64Array


@dataclass(frozen=True)
class Start:
    """What a layer with weights begins from. `free`: whether it learns.

    weight: [O, ...] in float. floor: [O], the smallest scales that runtimes take. reach: steps that
    an integer may lie from its weight.
    """

    weight: Float64Array
    found: Learned
    floor: Float64Array
    highest: int
    reach: float
    free: bool


@dataclass(frozen=True)
class Stretch:
    """A block to learn: its layers, what each computes, and the grid of each output."""

    layers: Sequence[Layer]
    computes: Mapping[str, Computes]
    grids: Mapping[str, Quantization]
    starts: Mapping[str, Start]


def learned_block(
    stretch: Stretch, rounded: Float32Array, wanted: Float32Array
) -> dict[str, Learned] | None:
    """By layer, of those that learned; None where held-out samples gain nothing.

    rounded: [N, rows, ...], the block's input in the quantized network; wanted: [N, rows, ...].
    The last quarter of the samples is held out.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _learned(stretch, torch.from_numpy(rounded), torch.from_numpy(wanted))
    finally:
        torch.set_num_threads(threads)


def _learned(stretch: Stretch, rounded: Tensor, wanted: Tensor) -> dict[str, Learned] | None:
    count = len(rounded)
    learning = count - count // 4
    if learning == count:
        return None
    variance = float(((wanted - wanted.mean(0, keepdim=True)) ** 2).mean())
    if not variance > 0:
        return None
    held_out = slice(learning, count)
    before = _error(stretch, _states(stretch), rounded[held_out], wanted[held_out])
    least, best = (1 - LEAST_GAIN) * before, None
    for rate in INTEGER_RATES:
        states = _states(stretch)
        _train(stretch, states, rounded[:learning], wanted[:learning], variance, rate)
        after = _error(stretch, states, rounded[held_out], wanted[held_out])
        if after < least:
            least = after
            best = {name: one.learned() for name, one in states.items() if one.start.free}
    return best


def _states(stretch: Stretch) -> dict[str, _State]:
    return {name: _State(start, stretch.grids[name]) for name, start in stretch.starts.items()}


def _train(
    stretch: Stretch,
    states: Mapping[str, _State],
    rounded: Tensor,
    wanted: Tensor,
    variance: float,
    integer_rate: float,
) -> None:
    free = [state for state in states.values() if state.start.free]
    rates = (integer_rate, SCALE_RATE, BIAS_RATE)
    kinds = zip(*(state.parameters() for state in free), strict=True)
    optimizer = torch.optim.Adam([{"params": list(parameters)} for parameters in kinds])
    draw = torch.Generator().manual_seed(0)
    batches = [
        order[start : start + AT_ONCE]
        for order in (torch.randperm(len(rounded), generator=draw) for _ in range(EPOCHS))
        for start in range(0, len(rounded), AT_ONCE)
    ]
    for step, batch in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * step / len(batches)))
        _descend(stretch, states, free, rounded[batch], wanted[batch], variance)
        optimizer.step()
    for state in free:
        state.settle()


def _descend(
    stretch: Stretch,
    states: Mapping[str, _State],
    free: Sequence[_State],
    rounded: Tensor,
    wanted: Tensor,
    variance: float,
) -> None:
    """Sets the gradients: of a fixed number of pieces, each on one core, added in their order."""
    parameters = [parameter for state in free for parameter in state.parameters()]

    def gradients(piece: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        error = (_output(stretch, states, piece[0]) - piece[1]) ** 2
        loss = error.sum() / (wanted.numel() * variance)
        return torch.autograd.grad(loss, parameters)

    pieces = zip(rounded.chunk(PIECES), wanted.chunk(PIECES), strict=True)
    for parameter, *parts in zip(parameters, *in_parallel(gradients, pieces), strict=True):
        parameter.grad = sum(parts[1:], start=parts[0])


def _error(
    stretch: Stretch, states: Mapping[str, _State], rounded: Tensor, wanted: Tensor
) -> float:
    def squares(piece: tuple[Tensor, Tensor]) -> float:
        with torch.no_grad():
            difference = _output(stretch, states, piece[0]).double() - piece[1]
            return float((difference**2).sum())

    starts = range(0, len(rounded), AT_ONCE // PIECES)
    pieces = [slice(start, start + AT_ONCE // PIECES) for start in starts]
    return sum(in_parallel(squares, [(rounded[piece], wanted[piece]) for piece in pieces]))


def _output(stretch: Stretch, states: Mapping[str, _State], rounded: Tensor) -> Tensor:
    """[n, rows, ...] of some samples."""
    first = stretch.layers[0].inputs[0]
    tensors = {first: rounded.flatten(0, 1)}
    for layer in stretch.layers:
        state = states.get(layer.name)
        weight, bias = (None, None) if state is None else (state.weight(), state.real_bias())
        read = [tensors[name] for name in layer.inputs]
        real = stretch.computes[layer.name](read, weight, bias)
        tensors[layer.output] = quantized(real, stretch.grids[layer.name])
    output = tensors[stretch.layers[-1].output]
    return output.reshape(len(rounded), -1, *output.shape[1:])


class _State:
    """Latent numbers of one layer's parameters."""

    def __init__(self, start: Start, output: Quantization) -> None:
        self.start = start
        shape = (-1,) + (1,) * (start.weight.ndim - 1)
        found = start.found
        self._scale = torch.from_numpy(found.scale.reshape(shape))
        steps = start.weight / found.scale.astype(np.float64).reshape(shape)
        integers = found.values.astype(np.float64)
        near = np.abs(steps - integers) < 0.5
        latent = np.where(near, steps, integers + np.clip(steps - integers, -NEAR, NEAR))
        self.latent = torch.from_numpy(latent.astype(np.float32)).requires_grad_(start.free)
        self.growth = torch.zeros_like(self._scale).requires_grad_(start.free)
        # In units in which outputs are of the order of 1, so that one rate suits every layer.
        self._unit = output.scale * 64
        self._bias = torch.from_numpy(found.bias.astype(np.float32))
        self.bias = torch.zeros_like(self._bias).requires_grad_(start.free)

    def parameters(self) -> tuple[Tensor, ...]:
        return self.latent, self.growth, self.bias

    def weight(self) -> Tensor:
        steps = self.latent.clamp(-self.start.highest, self.start.highest)
        # The gradient of rint is taken as 1.
        integers = steps + (steps.round() - steps).detach()
        return integers * (self._scale * self.growth.exp())

    def real_bias(self) -> Tensor:
        return self._bias + self.bias * self._unit

    def settle(self) -> None:
        """Integers and scales as the plan may have them."""
        start = self.start
        shape = (-1,) + (1,) * (start.weight.ndim - 1)
        with torch.no_grad():
            scale = (self._scale * self.growth.exp()).numpy().reshape(-1)
            scale = np.maximum(scale, start.floor).astype(np.float32)
            steps = start.weight / scale.astype(np.float64).reshape(shape)
            steps = np.clip(steps, -start.highest, start.highest)
            integers = np.rint(self.latent.numpy().clip(-start.highest, start.highest))
            low, high = np.ceil(steps - start.reach), np.floor(steps + start.reach)
            self.latent.copy_(torch.from_numpy(np.clip(integers, low, high).astype(np.float32)))
            self._scale = torch.from_numpy(scale.reshape(shape))
            self.growth.zero_()

    def learned(self) -> Learned:
        with torch.no_grad():
            return Learned(
                self.latent.numpy().clip(-self.start.highest, self.start.highest).astype(np.int8),
                self._scale.numpy().reshape(-1).copy(),
                self.real_bias().numpy().astype(np.float64),
            )
