"""The range and the slope of every elementwise function, against ONNX Runtime on a fine grid."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.graph.ranges.curves import CURVES
from deploykit.graph.ranges.span import Span
from deploykit.runtime import ort
from deploykit.spec.arrays import Float64Array
from deploykit.spec.network import Network
from tests.graph.text import graph

ATTRIBUTES = {"Gelu": ["", '<approximate="tanh">'], "LeakyRelu": ["", "<alpha=-1.5>"]}
FORMS = [(kind, form) for kind in sorted(CURVES) for form in ATTRIBUTES.get(kind, [""])]


def applied(kind: str, form: str) -> tuple[Network, Float64Array]:
    """The function on a grid from -8 to 8, as a network and as ONNX Runtime computes it."""
    bounds = ", low, high" if kind == "Clip" else ""
    node = f"output = {kind}{form}(input{bounds})"
    network = graph(
        f"(float[1,4001] input) => (float[1,4001] output) {{ {node} }}",
        {"low": np.array(-0.5), "high": np.array(1.5)} if bounds else {},
    )
    grid = np.linspace(-8, 8, 4001, dtype=np.float32)[None]
    return network, ort.evaluate(network, grid)["output"][0].astype(np.float64)


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_ranges_hold_every_value_and_no_more(kind: str, form: str) -> None:
    network, seen = applied(kind, form)
    curve = CURVES[kind](network.model.graph[0])
    assert curve is not None
    grid = np.linspace(-8, 8, 4001)
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 4001, size=(200, 2)), axis=1)
    span = curve.over(Span(grid[ends[:, 0]], grid[ends[:, 1]], np.ones((200, 1))))
    for (start, stop), low, high in zip(ends, span.low, span.high, strict=True):
        part = seen[start : stop + 1]
        assert low <= part.min() + 2e-6 and part.min() <= low + 2e-5
        assert high >= part.max() - 2e-6 and part.max() >= high - 2e-5


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_no_slope_is_steeper_than_stated(kind: str, form: str) -> None:
    network, seen = applied(kind, form)
    curve = CURVES[kind](network.model.graph[0])
    assert curve is not None
    steepest = np.abs(np.diff(seen)).max() / (16 / 4000)
    assert steepest <= curve.slope * (1 + 1e-3) + 1e-4
    assert steepest >= 0.9 * curve.slope


def test_a_clip_whose_bounds_are_computed_has_no_curve() -> None:
    network = graph(
        """
        (float[1,4] input, float low) => (float[1,4] output) {
            output = Clip(input, low)
        }
        """,
        {},
    )
    assert CURVES["Clip"](network.model.graph[0]) is None
