"""A pruned network with its open sizes back, proved against the file that came in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from deploykit.errors import GraphError
from deploykit.exporting.dropped_outputs import kept_channels, without_dropped
from deploykit.exporting.file_inputs import FileDifference, RunOnce, difference, draw, with_outputs
from deploykit.graph.onnx_source import OnnxSource
from deploykit.graph.ports import Shape
from deploykit.graph.symbolic import TwoSizes, UnrestorableError, restore_symbols
from deploykit.spec.arrays import AnyArray

BATCH = 3
MAX_RELATIVE, MAX_ABSOLUTE = 1e-4, 1e-6
"""Differences that float32 kernels make at other sizes: either of the two is rounding.

The absolute one is for outputs that saturate: a sigmoid near 0 carries the rounding of 1.
"""


@dataclass(frozen=True)
class Restored:
    """The model to write. symbols: sizes that are open again.

    fixed: by symbol, the size that the model now has for good; reasons: why, by symbol.
    """

    model: onnx.ModelProto
    symbols: tuple[str, ...]
    fixed: Mapping[str, int]
    reasons: Mapping[str, str]


def restore(source: OnnxSource, static: onnx.ModelProto, run: RunOnce) -> Restored:
    """Open every size that the file left open, or as many as can be proved.

    Each try is proved by running it: at other sizes it gives what the file that came in gives, and
    at batch 3 what three single runs of `static` give.
    """
    symbols = source.symbols()
    reasons: dict[str, str] = {}
    model = static if not symbols else _attempt(source, static, frozenset(symbols), run)
    if isinstance(model, onnx.ModelProto):
        return Restored(model, tuple(sorted(symbols)), {}, {})
    single: dict[str, onnx.ModelProto] = {}
    for symbol in symbols:
        tried = model if len(symbols) == 1 else _attempt(source, static, frozenset({symbol}), run)
        if isinstance(tried, onnx.ModelProto):
            single[symbol] = tried
        else:
            reasons[symbol] = tried
    opened = frozenset(single)
    together = _attempt(source, static, opened, run) if len(opened) > 1 else None
    if isinstance(together, str):
        kept = next((name for name in single if name in batch_symbols(source)), min(single))
        reasons.update({name: together for name in single if name != kept})
        opened = frozenset({kept})
    found = together if isinstance(together, onnx.ModelProto) else static
    found = single[min(opened)] if len(opened) == 1 else found
    fixed = {name: size for name, size in symbols.items() if name not in opened}
    return Restored(found, tuple(sorted(opened)), fixed, reasons)


def batch_symbols(source: OnnxSource) -> frozenset[str]:
    """The open sizes that stand first in an input."""
    return frozenset(
        str(port.axes[0])
        for port in source.inputs
        if port.axes is not None and 0 in port.open_axes()
    )


def _attempt(
    source: OnnxSource, static: onnx.ModelProto, symbols: frozenset[str], run: RunOnce
) -> onnx.ModelProto | str:
    """The model with `symbols` open, or the reason why not."""
    try:
        model = _restored(source, static, symbols, run)
        _prove_batch(source, static, model, symbols & batch_symbols(source), run)
    except (UnrestorableError, GraphError) as error:
        return str(error)
    return model


def _restored(
    source: OnnxSource, static: onnx.ModelProto, symbols: frozenset[str], run: RunOnce
) -> onnx.ModelProto:
    """`static` with `symbols` open, equal to the file that came in at other sizes."""
    other = _other_shapes(source, symbols)
    inputs = draw(source.inputs, other)
    try:
        expected = run(source.model.SerializeToString(), inputs)
    except GraphError as error:
        raise UnrestorableError("the file itself does not run at other sizes") from error
    shown, names = with_outputs(source.modern)
    data = shown.SerializeToString()
    sizes = TwoSizes(
        source.inputs,
        source.outputs,
        _shapes(source.shapes, run(data, draw(source.inputs, source.shapes), names)),
        _shapes(other, run(data, inputs, names)),
    )
    model = restore_symbols(static, sizes)
    _check(model)
    found = run(model.SerializeToString(), inputs)
    left = without_dropped(expected, kept_channels([expected], [found]))
    _hold(difference([(left, found)]), "at other sizes than it was pruned at")
    return model


def _prove_batch(
    source: OnnxSource,
    static: onnx.ModelProto,
    model: onnx.ModelProto,
    batch: frozenset[str],
    run: RunOnce,
) -> None:
    """Raise UnrestorableError where a batch of three is not three single runs."""
    if not batch:
        return
    split = [port.name for port in source.inputs if port.axes and port.axes[0] in batch]
    single = draw(source.inputs, source.shapes)
    singles = [
        {**single, **{name: draw(source.inputs, source.shapes, seed)[name] for name in split}}
        for seed in range(BATCH)
    ]
    joined = {name: np.concatenate([one[name] for one in singles]) for name in split}
    data = static.SerializeToString()
    apart = [run(data, one) for one in singles]
    together = run(model.SerializeToString(), {**single, **joined})
    expected: dict[str, AnyArray] = {}
    for name, whole in together.items():
        parts = [one[name] for one in apart]
        axes = [axis for axis, size in enumerate(parts[0].shape) if whole.shape[axis] != size]
        expected[name] = np.concatenate(parts, axes[0]) if axes else parts[0]
    apart_by = difference([(expected, together)])
    _hold(apart_by, f"between a batch of {BATCH} and {BATCH} single runs")


def _hold(found: FileDifference, where: str) -> None:
    if not is_rounding(found):
        raise UnrestorableError(f"its outputs differ by {found.max_relative:.1e} {where}")


def is_rounding(found: FileDifference) -> bool:
    """Whether a difference is what float32 kernels make of one function."""
    return found.max_relative <= MAX_RELATIVE or found.max_absolute <= MAX_ABSOLUTE


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise UnrestorableError(str(error).strip().splitlines()[0]) from error


def _other_shapes(source: OnnxSource, symbols: frozenset[str]) -> dict[str, Shape]:
    """Input shapes with three times the batch, and twice every other open size."""
    shapes = {}
    for port in source.inputs:
        axes: Iterable[int | str] = port.axes or source.shapes[port.name]
        shapes[port.name] = tuple(
            size * (BATCH if index == 0 else 2) if axis in symbols else size
            for index, (axis, size) in enumerate(zip(axes, source.shapes[port.name], strict=True))
        )
    return shapes


def _shapes(inputs: Mapping[str, Shape], tensors: Mapping[str, AnyArray]) -> dict[str, Shape]:
    return {**inputs, **{name: values.shape for name, values in tensors.items()}}
