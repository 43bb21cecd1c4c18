"""What may be asked of channel removal, and what is said to what may not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from deploykit.errors import ConfigError
from deploykit.exporting import removing
from deploykit.exporting.removing import removal_options, zero_hidden
from deploykit.graph.options import DeadOutputs, Measured, MultipleOf, RemovalOptions, Tolerance
from deploykit.graph.widths.host import Element, Runtime
from deploykit.graph.widths.table import WidthTable
from deploykit.spec.negligible import Outcome
from tests.graph.text import graph

TABLE = "ort-x86-avx512-float32"


def options(**values: Any) -> RemovalOptions:
    return removal_options(values, [Runtime.ORT], Element.FLOAT32)


def test_defaults_hide_what_float32_hides_and_keep_outputs() -> None:
    found = options(align="none")
    assert found == RemovalOptions(DeadOutputs.KEEP, Tolerance.FLOAT32, math.inf, None, "")
    assert removal_options({}, [Runtime.LITERT], Element.INT8).max_growth == 1.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"exact": True}, RemovalOptions(DeadOutputs.KEEP, Tolerance.EXACT, math.inf)),
        ({"exact": None, "drop_dead_outputs": True},
         RemovalOptions(DeadOutputs.DROP, Tolerance.FLOAT32, math.inf)),
    ],
)  # fmt: skip
def test_switches(values: Mapping[str, Any], expected: RemovalOptions) -> None:
    assert options(align="none", **values) == expected


def test_alignment_by_multiples() -> None:
    assert options(align="8").align == MultipleOf(8)
    assert options(align=16).align == MultipleOf(16)


def test_alignment_by_a_named_table() -> None:
    for align in (None, "auto"):
        found = options(align=align, target=TABLE)
        assert isinstance(found.align, Measured)
        assert found.align.table.target == TABLE


def test_both_formats_have_widths_that_both_runtimes_like(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(runtime: Runtime, element: Element) -> str:
        return f"{runtime.value}-x86-avx512vnni-{element.value}"

    monkeypatch.setattr(removing, "host_target", target)
    one, both = "litert-x86-avx512vnni-int8", "ort-x86-avx512vnni-int8, litert-x86-avx512vnni-int8"
    targets = []
    for runtimes in ((Runtime.ORT, Runtime.LITERT), (Runtime.LITERT,)):
        found = removal_options({}, runtimes, Element.INT8).align
        assert isinstance(found, Measured)
        targets.append(found.table.target)
    assert targets == [both, one]


def test_the_default_on_an_unknown_processor_is_said_and_not_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(runtime: Runtime, element: Element) -> str:
        raise ConfigError("no table fits")

    monkeypatch.setattr(removing, "host_target", unknown)
    found = options()
    assert found.align is None
    assert found.note == "widths are as removal left them: no table fits"
    for asked in ({"align": "auto"}, {"target": "host"}):
        with pytest.raises(ConfigError, match="no table fits"):
            options(**asked)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"align": "wide"}, "--align wide: give auto, none, or a number of channels"),
        ({"align": "0"}, "--align 0: give auto, none"),
        ({"align": "-8"}, "--align -8: give auto, none"),
        ({"align": "none", "target": TABLE}, "leave one out"),
        ({"target": "phone"}, f"no width table for the target 'phone'; there are .*{TABLE}"),
        ({"max_growth": 0.5, "align": "none"}, "--max-growth 0.5: give a number from 1"),
        ({"max_growth": float("nan"), "align": "none"}, "--max-growth nan: give a number"),
        ({"exact": "yes", "align": "none"}, "exact = 'yes': write true or false"),
    ],
)
def test_what_makes_no_sense_is_refused(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(**values)


def test_every_table_can_be_named() -> None:
    for name in WidthTable.names():
        assert isinstance(options(target=name).align, Measured)


def test_exact_leaves_small_weights_alone_and_the_default_does_not() -> None:
    weight = np.ones((2, 2, 1, 1))
    weight[:, 1] *= 1e-12
    network = graph(
        """
        (float[1,2,3,3] input) => (float[1,2,3,3] output) {
            a = Conv(input, wa, ba)
            output = Conv(a, w, b)
        }
        """,
        {"wa": np.ones((2, 2, 1, 1)), "ba": np.zeros(2), "w": weight, "b": np.ones(2)},
    )
    inputs = np.random.default_rng(0).normal(size=(4, 2, 3, 3))
    assert zero_hidden(network, inputs, Tolerance.EXACT) == (network, None)
    quiet, hidden = zero_hidden(network, inputs, Tolerance.FLOAT32)
    assert hidden is not None and hidden.outcome is Outcome.ZEROED
    held = quiet.model.graph.initializers["w"].const_value
    assert held is not None and not held.numpy()[:, 1].any()
