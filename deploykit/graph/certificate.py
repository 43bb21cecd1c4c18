"""The proof by evaluation that a pruned graph computes what the masked one did."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from deploykit.errors import GraphError
from deploykit.spec.arrays import AnyArray, Float64Array, Tensors
from deploykit.spec.network import FloatEvaluator, Network, static_shape
from deploykit.spec.removal import Certificate
from deploykit.spec.whole_numbers import row_counts

EXTREMES = (1e3, 1e2, 1e1, 1.0)
"""Magnitude of the extreme inputs: the first at which the masked network's outputs are finite."""

RestOf = Callable[[str, AnyArray], Float64Array]
"""Of an output by name and whole, what the pruned network has of it."""


def certify(
    masked: Network, exact: Network, rounded: Network, evaluate: FloatEvaluator, rest_of: RestOf
) -> Certificate:
    """Evaluate on random, zero, extreme and border-heavy inputs and compare all outputs.

    exact: pruned, with the numbers that changed in float64; rounded: as it will be stored. The
    difference is relative to the largest |value| of each of the masked network's outputs over one
    input kind.
    """
    relative: dict[str, float] = {}
    absolute, worst_rounded, count = 0.0, 0.0, 0
    names = [str(value.name) for value in masked.model.graph.outputs]
    same = _same_numbers(exact, rounded)
    untouched = same and same_graph(masked, rounded)
    for kind in certificate_inputs(masked):
        inputs, whole = _finite(masked, kind, evaluate, names)
        before = {name: rest_of(name, found) for name, found in whole.items()}
        after = before if untouched else _outputs(exact, inputs, evaluate, names)
        stored = after if same else _outputs(rounded, inputs, evaluate, names)
        scale = {name: _scale(values) for name, values in before.items()}
        apart = {name: _largest_difference(before[name], after[name]) for name in names}
        off = [_largest_difference(before[name], stored[name]) / scale[name] for name in names]
        relative[kind] = float(np.max([apart[name] / scale[name] for name in names]))
        absolute = float(np.maximum(absolute, np.max(list(apart.values()))))
        worst_rounded = float(np.maximum(worst_rounded, np.max(off)))
        count += len(next(iter(inputs.values())))
    return Certificate(
        count, absolute, float(np.max(list(relative.values()))), relative, worst_rounded
    )


def _finite(
    masked: Network, kind: str, evaluate: FloatEvaluator, names: list[str]
) -> tuple[Tensors, dict[str, Float64Array]]:
    """Inputs of a kind at which the masked network has finite outputs, and these.

    An exponential overflows on extreme inputs and a root has no negative ones, which would compare
    nothing with nothing.
    """
    for extreme in EXTREMES:
        drawn = certificate_inputs(masked, extreme)[kind]
        positive = {name: np.abs(values) for name, values in drawn.items()}
        for inputs in (drawn, positive):
            found = _outputs(masked, inputs, evaluate, names)
            if all(np.isfinite(values).all() for values in found.values()):
                return inputs, found
    raise GraphError(
        f"the network gives NaN or infinity on {kind} inputs, positive ones too, so that nothing "
        "can be proved about it; check the file, or leave out the operator that overflows"
    )


def _scale(values: Float64Array) -> float:
    """Largest magnitude, 1 where all is zero."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest if largest > 0 else 1.0


def _outputs(
    network: Network, inputs: Tensors, evaluate: FloatEvaluator, names: list[str]
) -> dict[str, Float64Array]:
    feed = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    found = evaluate(network, feed)
    return {name: np.asarray(found[name], dtype=np.float64) for name in names}


def same_graph(one: Network, other: Network) -> bool:
    """Whether nothing was removed at all: an evaluator then gives the same twice."""
    protos = [ir.to_proto(network.model).graph for network in (one, other)]
    return protos[0] == protos[1]


def _same_numbers(exact: Network, rounded: Network) -> bool:
    """Whether rounding changed no number at all."""
    for name, value in exact.model.graph.initializers.items():
        other = rounded.model.graph.initializers[name]
        assert value.const_value is not None and other.const_value is not None
        if not np.array_equal(value.const_value.numpy(), other.const_value.numpy()):
            return False
    return True


def _largest_difference(before: Float64Array, after: Float64Array) -> float:
    """Infinite where shapes differ; NaN where either holds one: that proves nothing.

    An output that no sample changes any more is there once, for all of them.
    """
    if after.shape[:1] == (1,) and before.shape[1:] == after.shape[1:]:
        after = np.broadcast_to(after, before.shape)
    if before.shape != after.shape:
        return float("inf")
    return float(np.abs(before - after).max(initial=0.0))


def certificate_inputs(
    network: Network, extreme: float = EXTREMES[0]
) -> Mapping[str, Mapping[str, AnyArray]]:
    """Inputs by kind and name, each [N, ...] for the input's shape; seeded, so equal every time.

    N is a multiple of the static batch. Numbers of rows of a table are drawn from those it has.
    border: zero but for a frame one pixel wide, where padding
    is what a kernel sees beside it.
    """
    generator = np.random.default_rng(0)
    kinds: dict[str, dict[str, AnyArray]] = {
        "random": {}, "zero": {}, "extreme": {}, "border": {},
    }  # fmt: skip
    rows = row_counts(network)
    for port in network.model.graph.inputs:
        if port.name in network.model.graph.initializers:
            continue
        shape = static_shape(port)
        if shape is None:
            raise GraphError(
                f"the graph's input {port.name} has no static shape; give --input-shape"
            )
        name, one = str(port.name), shape[1:]
        if port.dtype is not None and not port.dtype.is_floating_point():
            for kind, values in _ids(port, rows.get(name), one, generator).items():
                kinds[kind][name] = _whole_batches(values, shape[0] if shape else 1)
            continue
        border = generator.normal(size=(1, *one))
        if len(one) > 1:
            inside = (slice(1, -1),) * (len(one) - 1)
            border[:, :, *inside] = 0.0
        signs = generator.choice([-extreme, extreme], size=one)
        drawn = {
            "random": generator.normal(size=(2, *one)),
            "zero": np.zeros((1, *one)),
            "extreme": np.stack([signs, np.full(one, extreme), np.full(one, -extreme)]),
            "border": border,
        }
        for kind, values in drawn.items():
            kinds[kind][name] = _whole_batches(values, shape[0] if shape else 1)
    return kinds


def _ids(
    port: ir.Value, rows: int | None, one: tuple[int, ...], generator: np.random.Generator
) -> dict[str, AnyArray]:
    """As many of each kind as there are of floats; extreme: the last row, the first, any."""
    assert port.dtype is not None
    if rows is None:
        raise GraphError(
            f"the graph's input {port.name} holds {port.dtype.name}, and not every operator that "
            "reads it takes rows of a constant table: removal cannot tell which numbers are legal; "
            "cut the network off behind what makes floats of it"
        )
    element = port.dtype.numpy()

    def drawn(count: int) -> AnyArray:
        return generator.integers(0, rows, (count, *one)).astype(element)

    ends = np.stack([np.full(one, end, element) for end in (rows - 1, 0)])
    return {
        "random": drawn(2), "zero": np.zeros((1, *one), element),
        "extreme": np.concatenate([drawn(1), ends]), "border": drawn(1),
    }  # fmt: skip


def _whole_batches(values: AnyArray, batch: int) -> AnyArray:
    """As many samples as fill batches, the last one's rest filled from the start."""
    count = -(-len(values) // max(batch, 1)) * max(batch, 1)
    return np.resize(values, (count, *values.shape[1:]))
