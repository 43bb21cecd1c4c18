"""Scaled by any powers of two, the outputs are equal to the bit; and the chosen ones are worth it.

DEPLOYKIT_EXAMPLES sets how many networks are tried; a failing one prints as its recipe.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deploykit.graph.equalize.chains import Channels, find_channels
from deploykit.graph.equalize.equalize import equalize, scaled
from deploykit.graph.equalize.factors import WORTH
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, IntArray
from deploykit.spec.network import Network, static_shape
from tests.graph.equalize import passing
from tests.graph.random_graphs import Recipe, as_float32, build, recipes

EXAMPLES = int(os.environ.get("DEPLOYKIT_EXAMPLES", "80"))
FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SEEDS = st.integers(0, 2**16)
NORMAL = 2.0**-100, 2.0**100
"""Where factors of 2^8 leave a number normal."""


@settings(FIXED, max_examples=EXAMPLES)
@given(recipes(), SEEDS)
def test_what_any_operator_pins_stays_pinned(recipe: Recipe, seed: int) -> None:
    network = as_float32(build(recipe))
    assume(is_normal(network))
    assert_any_factors_hold(network, seed)


@settings(FIXED, max_examples=EXAMPLES)
@given(st.lists(st.sampled_from(sorted(passing.STEPS)), max_size=6), st.booleans(), SEEDS)
def test_what_passes_factors_passes_all_of_them(
    steps: Sequence[str], pooled: bool, seed: int
) -> None:
    network = passing.network(steps, pooled, seed)
    assume(is_normal(network))
    assert_any_factors_hold(network, seed)
    feed = drawn(network, 8)
    after, report = equalize(network, feed, ort.evaluate, lambda layer: 127)
    assert_equal_outputs(network, after, feed)
    for chain in report.chains:
        assert (chain.noise <= WORTH) == (chain.moved > 0)
        assert chain.moved <= chain.channels


@settings(FIXED, max_examples=EXAMPLES // 2)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(sorted(passing.STOPPING)), st.sampled_from(sorted(passing.STEPS))
        ),
        max_size=6,
    ),
    st.booleans(),
    SEEDS,
)
def test_nothing_passes_what_stops_factors(steps: Sequence[str], pooled: bool, seed: int) -> None:
    network = passing.network(steps, pooled, seed)
    assume(is_normal(network))
    assert_any_factors_hold(network, seed)


@pytest.mark.parametrize("step", sorted(passing.STOPPING))
def test_every_stop_is_named(step: str) -> None:
    network = passing.network([step, "relu"], True, 5)
    assert_any_factors_hold(network, 5)
    assert any(chain.pinned for chain in find_channels(network).chains)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("step", sorted(passing.STEPS))
def test_every_step_leaves_the_channels_before_and_behind_it_free(step: str, pooled: bool) -> None:
    network = passing.network([step, "relu", step], pooled, 5)
    channels = find_channels(network)
    chains = channels.chains
    assert chains and all(chain.free.all() for chain in chains), [c.pinned for c in chains]
    assert assert_any_factors_hold(network, 5).any()


def assert_any_factors_hold(network: Network, seed: int) -> IntArray:
    """Random ones of 2^-4 to 2^4 on every channel that is free; what they are, by atom."""
    feed, channels = drawn(network, 2), find_channels(network)
    exponents = any_exponents(channels, seed)
    assert_equal_outputs(network, scaled(network, channels, exponents), feed)
    return exponents


def any_exponents(channels: Channels, seed: int) -> IntArray:
    rng = np.random.default_rng(seed)
    exponents = np.zeros(channels.count, dtype=np.int64)
    for chain in channels.chains:
        found = rng.integers(-4, 5, len(chain.atoms))
        exponents[chain.atoms] = np.where(chain.free, found, 0)
    return exponents


def assert_equal_outputs(before: Network, after: Network, feed: Mapping[str, AnyArray]) -> None:
    """In ONNX Runtime as it evaluates, and as it fuses."""
    for evaluate in (ort.evaluate, ort.OutputEvaluator()):
        told, found = (evaluate(network, feed) for network in (before, after))
        for value in before.model.graph.outputs:
            np.testing.assert_array_equal(found[str(value.name)], told[str(value.name)])


def is_normal(network: Network) -> bool:
    """Whether every number that it computes is zero, or finite and far from float32's ends."""
    tensors = ort.evaluate(network, drawn(network, 2)).values()
    sizes = [np.abs(values.astype(np.float64)) for values in tensors]
    return all(bool(((s == 0) | ((s > NORMAL[0]) & (s < NORMAL[1]))).all()) for s in sizes)


def drawn(network: Network, count: int) -> dict[str, AnyArray]:
    """Normal numbers for every input, `count` samples."""
    rng = np.random.default_rng(3)
    return {
        str(port.name): rng.normal(size=(count, *(static_shape(port) or (1,))[1:])).astype(
            np.float32
        )
        for port in network.model.graph.inputs
    }
