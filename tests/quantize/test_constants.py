"""Constants of sums: those that hold a sum at an end of its range are no larger than that takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.quantize.constants import constant_operand, held_end
from deploykit.quantize.structure import build_structure
from deploykit.reference.binary import add
from deploykit.spec.arrays import AnyArray, Int8Array
from deploykit.spec.plan import ConstantPlan
from deploykit.spec.quantized import Quantization
from tests.quantize.graphs import float_network

EVERY = np.arange(-128, 128).astype(np.int8).reshape(256, 1)
SOURCE, DEAD = Quantization(0.04, 10), Quantization(1 / 255, -128)


def planned(terms: AnyArray, source: Quantization, into: Quantization) -> ConstantPlan:
    network = float_network(
        f"g (float[1,{terms.size}] x) => (float[1,{terms.size}] y) "
        "{ s = Add (x, k) y = Relu (s) }",
        k=terms.astype(np.float32),
    )
    (layer,) = build_structure(network)
    found = constant_operand(layer, [source], into)
    assert found is not None
    return found


def summed(terms: AnyArray, source: Quantization, into: Quantization) -> AnyArray:
    """The integers of every input plus each term, in float64. [256, terms]"""
    real = source.scale * (EVERY.astype(np.float64) - source.zero_point) + terms.reshape(1, -1)
    return np.asarray(np.clip(np.rint(real / into.scale) + into.zero_point, -128, 127))


def found_sums(held: ConstantPlan, source: Quantization, into: Quantization) -> Int8Array:
    wide = np.broadcast_to(EVERY, (256, held.values.size))
    return add(wide, source, held.values.reshape(1, -1), held.quantization, into)


@pytest.mark.parametrize(("scale", "kept"), [(0.02, True), (0.03, False)])
def test_a_constant_keeps_the_grid_that_it_is_on(scale: float, kept: bool) -> None:
    grid = Quantization(float(np.float32(0.02)), 101)
    numbers = np.array([-128, -3, 7, 127], np.int8)
    terms = grid.dequantize(numbers)
    stated = {"k": Quantization(float(np.float32(scale)), 101)}
    network = float_network(
        "g (float[1,4] x) => (float[1,4] y) { s = Add (x, k) y = Relu (s) }", k=terms
    )
    (layer,) = build_structure(network)
    found = constant_operand(layer, [SOURCE], SOURCE, stated)
    assert found is not None
    assert (found.quantization == grid) == kept
    assert np.array_equal(found.values.reshape(-1), numbers) == kept


@pytest.mark.parametrize("term", [-30.0, -1000.0, -1e9, 1e9])
def test_a_term_before_a_dead_relu_leaves_the_others_their_steps(term: float) -> None:
    held = planned(np.array([term, 0.0, 0.3]), SOURCE, DEAD)
    assert held.quantization.scale < 0.3
    expected = summed(np.array([term]), SOURCE, DEAD)
    assert np.array_equal(found_sums(held, SOURCE, DEAD)[:, :1], expected)


@settings(deadline=None, max_examples=60)
@given(
    terms=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4),
    scales=st.tuples(st.floats(1e-3, 10), st.floats(1e-3, 10)),
    zeros=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
)
def test_what_holds_a_sum_at_an_end_does_so_as_written(
    terms: list[float], scales: tuple[float, float], zeros: tuple[int, int]
) -> None:
    source, into = (Quantization(*one) for one in zip(scales, zeros, strict=True))
    stated = np.array(terms, np.float32).astype(np.float64)
    held = planned(stated, source, into)
    # By a step of the constant, so that its rounding does not decide.
    step = held.quantization.scale
    sides = [held_end(stated + way * step, source, into) for way in (-1, 0, 1)]
    ends = np.where((sides[0] == sides[1]) & (sides[1] == sides[2]), sides[1], 0)
    found, expected = found_sums(held, source, into), summed(stated, source, into)
    assert np.array_equal(found[:, ends != 0], expected[:, ends != 0])
    own = held.quantization.dequantize(held.values).astype(np.float64).reshape(-1)
    assert np.array_equal(held_end(own, source, into)[ends != 0], ends[ends != 0])


def test_which_end() -> None:
    low, high = SOURCE.ends
    terms = np.array([-high - 1e-6, -high + 0.1, 1.0 - low - 0.1, 1.0 - low + 1e-6])
    assert held_end(terms, SOURCE, DEAD).tolist() == [-1, 0, 0, 1]
