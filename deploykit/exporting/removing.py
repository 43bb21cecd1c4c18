"""What a user may ask of channel removal, checked; and the stage before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from deploykit.errors import ConfigError
from deploykit.exporting.data import load_samples
from deploykit.graph.options import (
    DeadOutputs,
    Groups,
    Measured,
    MultipleOf,
    RemovalOptions,
    Tolerance,
)
from deploykit.graph.passes.negligible import zero_negligible
from deploykit.graph.widths.host import Element, Runtime, host_target
from deploykit.graph.widths.joint import joint
from deploykit.graph.widths.table import WidthTable
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import Tensors
from deploykit.spec.inputs import GraphInputs, InputSpec, some_samples
from deploykit.spec.negligible import Negligible
from deploykit.spec.network import Network

KEYS = ("exact", "max_growth", "align", "target", "drop_dead_outputs")
"""Names of export's options: keys of export.toml, and flags with dashes for underscores."""

NARROW, GROUPS = "narrow_layers", "groups"
"""Options of prune alone: the integer operators have no Gather, Split and Concat yet."""

HIDING_INPUTS = 4
"""Samples on which magnitudes are measured that float32 may hide."""

MOST_ADDED: Mapping[Element, float] = {Element.FLOAT32: math.inf, Element.INT8: 1.25}
"""What is exported is small: no layer grows by more than a quarter for the width of a kernel."""

HOST = "host"
"""The target whose kernels this processor runs."""

WIDEST_STEP = 1024
"""Wider than any kernel's tile; a typing error would fill the memory with zeros."""


def removal_options(
    values: Mapping[str, Any], runtimes: Sequence[Runtime], element: Element
) -> RemovalOptions:
    """Options of KEYS, NARROW and GROUPS alone; what is missing or None has its default.

    runtimes, element: whose measured widths are meant by the target "host"; copies (NARROW) are
    those of the first.

    Raises ConfigError naming the option, its value and what it may be.
    """
    growth = _growth(values.get("max_growth"), element)
    target = values.get("target")
    narrow = _narrowing(target, runtimes[0], element) if _switch(values, NARROW) else None
    meant = target if narrow is None or values.get("align") in (None, "auto") else None
    align, note = _alignment(values.get("align"), meant, runtimes, element)
    return RemovalOptions(
        DeadOutputs.DROP if _switch(values, "drop_dead_outputs") else DeadOutputs.KEEP,
        Tolerance.EXACT if _switch(values, "exact") else Tolerance.FLOAT32,
        growth,
        align,
        note,
        narrow,
        _groups(values.get(GROUPS)),
    )


def few_inputs(data: Path, specs: Sequence[InputSpec]) -> GraphInputs:
    """The first samples of an .npz."""
    return some_samples(load_samples(data, specs).inputs, slice(HIDING_INPUTS))


def zero_hidden(
    network: Network, inputs: GraphInputs, tolerance: Tolerance
) -> tuple[Network, Negligible | None]:
    """Weights that float32 rounding hides become zeros, so that removal finds their channels.

    inputs: a few real ones, on which magnitudes are measured: what they leave idle by far counts as
    idle always. None with Tolerance.EXACT: not looked for.
    """
    match tolerance:
        case Tolerance.EXACT:
            return network, None
        case Tolerance.FLOAT32:
            in_float32 = partial(evaluate, dtype=np.float32)
            return zero_negligible(network, evaluate, inputs, in_float32)
        case _:
            assert_never(tolerance)


def largest_values(tensors: Tensors) -> dict[str, float]:
    """Largest magnitude of each tensor, by name."""
    return {name: float(np.abs(values).max(initial=0.0)) for name, values in tensors.items()}


def _switch(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ConfigError(f"{key} = {value!r}: write true or false")


def _groups(value: object) -> Groups:
    try:
        return Groups.EQUAL if value is None else Groups(value)
    except ValueError:
        raise ConfigError(f"--groups {value}: give split or equal") from None


def _growth(value: object, element: Element) -> float:
    """Unlimited by default where numbers stay float32, none where they become integers."""
    if value is None:
        return 1.0 if element is Element.INT8 else math.inf
    if isinstance(value, int | float) and value >= 1.0:
        return float(value)
    raise ConfigError(f"--max-growth {value}: give a number from 1 (no growth) up, or inf")


def _alignment(
    align: object, target: object, runtimes: Sequence[Runtime], element: Element
) -> tuple[MultipleOf | Measured | None, str]:
    """The rule, and a sentence where the default could not be had."""
    text = "auto" if align is None else str(align)
    if text != "auto" and target is not None:
        raise ConfigError(f"--target {target} says whose widths --align auto means; leave one out")
    if text == "none":
        return None, ""
    if text != "auto":
        return MultipleOf(_step(text)), ""
    if target is not None and str(target) != HOST:
        return Measured(WidthTable.load(str(target))), ""
    try:
        names = [host_target(runtime, element) for runtime in runtimes]
        table = joint([WidthTable.load(name) for name in names])
        return Measured(table, MOST_ADDED[element]), ""
    except ConfigError as error:
        if align is not None or target is not None:
            raise
        return None, f"widths are as removal left them: {error}"


def _narrowing(target: object, runtime: Runtime, element: Element) -> WidthTable:
    name = host_target(runtime, element) if target in (None, HOST) else str(target)
    table = WidthTable.load(name)
    if not table.moves:
        known = ", ".join(one for one in WidthTable.names() if WidthTable.load(one).moves)
        raise ConfigError(
            f"--narrow-layers: the table {name} does not say what copies cost; name one that does "
            f"with --target ({known}), or leave the option out"
        )
    return table


def _step(text: str) -> int:
    few = text.isdecimal() and len(text) <= len(str(WIDEST_STEP))
    if few and 0 < int(text) <= WIDEST_STEP:
        return int(text)
    shown = text if len(text) <= 20 else f"{text[:20]}..."
    raise ConfigError(
        f"--align {shown}: give auto, none, or a number of channels such as 8, "
        f"at most {WIDEST_STEP}"
    )
