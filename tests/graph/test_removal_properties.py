"""On any network of the grammar: pruned equals masked, and nothing is left to remove.

DEPLOYKIT_EXAMPLES sets how many networks are tried. A failing one prints as a Recipe; build(Recipe)
is the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, assume, given, seed, settings

from deploykit.graph import removal
from deploykit.graph.certificate import certify
from deploykit.graph.channels.operands import aligned, take
from deploykit.graph.cost import totals
from deploykit.graph.cut import Cut
from deploykit.graph.normalize import normalize
from deploykit.graph.options import Groups, MultipleOf, RemovalOptions
from deploykit.graph.passes.canonical import canonicalize
from deploykit.graph.removal import cut_channels, remove_dead_channels
from deploykit.graph.removal_report import describe
from deploykit.graph.tracking import apply_pass
from deploykit.graph.widths.table import Move, MoveCost, WidthTable
from deploykit.reference.float import evaluate
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Float64Array
from deploykit.spec.network import Network, static_shape
from deploykit.spec.removal import RemovalReport
from tests.graph.random_graphs import Recipe, as_float32, build, networks, recipes
from tests.graph.text import largest_difference, values
from tests.graph.widths.tables import staircase, table_of

EXAMPLES = int(os.environ.get("DEPLOYKIT_EXAMPLES", "200"))
SHARDS = 4
"""Tests that the networks are spread over, so that several cores can share them."""

LARGEST = 1e6
"""Of any number in a network: beyond it, float64 itself is no longer exact to 1e-9."""

FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Feed = Mapping[str, Float64Array]


@pytest.fixture(autouse=True, scope="module")
def calls_cost_nothing() -> Iterator[None]:
    """Small grouped convolutions are split as large ones would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(removal, "LEAST_SAVED", 0)
        yield


@pytest.mark.parametrize("shard", range(SHARDS))
def test_removal_is_exact_complete_and_legal(shard: int) -> None:
    @seed(shard)
    @settings(FIXED, max_examples=EXAMPLES // SHARDS)
    @given(recipes())
    def holds(recipe: Recipe) -> None:
        network = build(recipe)
        feeds = probes(network)
        assume(all(is_moderate(evaluate(network, feed)) for feed in feeds))
        assert_removal_holds(network, feeds)
        canonical = apply_pass("canonicalize", canonicalize, network)
        if [node.op_type for node in canonical.model.graph] != [
            node.op_type for node in network.model.graph
        ]:
            assert_removal_holds(canonical, feeds)

    holds()


@settings(FIXED, max_examples=EXAMPLES // 4)
@given(networks())
def test_passes_keep_the_function_and_removal_still_fits_behind_them(network: Network) -> None:
    given_ = as_float32(network)
    normalized = normalize(given_)
    assert largest_difference(given_, normalized) <= 1e-4
    assert set(normalized.variance) <= set(normalized.model.graph.initializers)
    assert_variances_fit(normalized)
    pruned, report = remove_dead_channels(normalized, evaluate)
    assert report.certificate.max_relative <= 1e-5
    assert_variances_fit(pruned)


@pytest.mark.parametrize("choice", ["narrowed", "aligned"])
def test_with_every_choice_it_is_the_same_function(choice: str) -> None:
    options = {
        "narrowed": RemovalOptions(groups=Groups.SPLIT, narrow=free_copies()),
        "aligned": RemovalOptions(groups=Groups.SPLIT, align=MultipleOf(3)),
    }[choice]

    @settings(FIXED, max_examples=EXAMPLES // 2)
    @given(networks())
    def holds(network: Network) -> None:
        feeds = probes(network)
        assume(all(is_moderate(evaluate(network, feed)) for feed in feeds))
        pruned, report = remove_dead_channels(network, evaluate, options)
        assert report.certificate.max_relative <= 1e-9
        assert_variances_fit(pruned)
        assert_legal(network, pruned, feeds[0])
        again, _ = remove_dead_channels(pruned, evaluate, options)
        if options.align is not None and hears_its_input(network, feeds):
            assert shapes_of(again) == shapes_of(pruned)

    holds()


def free_copies() -> WidthTable:
    """Time is proportional to MACs, and nothing else takes any: whatever can be narrowed is."""
    return replace(table_of(staircase(1)), moves=dict.fromkeys(Move, MoveCost(0.0, 0.0)))


def is_moderate(tensors: Mapping[str, AnyArray]) -> bool:
    """Whether every number is finite and within LARGEST."""
    return all(bool((np.abs(held) <= LARGEST).all()) for held in tensors.values())


def assert_removal_holds(network: Network, feeds: list[Feed]) -> None:
    """All properties at once; the analysis runs once for them."""
    made = cut_channels(network, RemovalOptions())
    assert_tensors_agree(network, made, feeds)
    certificate = certify(network, made.exact, made.pruned, evaluate, made.rest_of)
    assert certificate.max_relative <= 1e-9
    assert certificate.rounded <= 1e-9
    assert_report_counts(describe(network, made, certificate), network, made.pruned)
    assert_variances_fit(made.pruned)
    if hears_its_input(network, feeds):
        assert_nothing_is_left(made.pruned)
    assert_legal(network, made.pruned, feeds[0])


def probes(network: Network) -> list[Feed]:
    """Random twice, zeros, all of one large number, and a frame one element wide."""
    rng = np.random.default_rng(11)
    shapes = {str(port.name): static_shape(port) or () for port in network.model.graph.inputs}
    frame = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    for held in frame.values():
        if held.ndim > 2:
            held[(slice(None), slice(None), *(slice(1, -1),) * (held.ndim - 2))] = 0.0
    return [
        {name: rng.normal(size=shape) for name, shape in shapes.items()},
        {name: rng.normal(size=shape) for name, shape in shapes.items()},
        {name: np.zeros(shape) for name, shape in shapes.items()},
        {name: rng.choice([-1e3, 1e3]) * np.ones(shape) for name, shape in shapes.items()},
        frame,
    ]


def assert_tensors_agree(network: Network, made: Cut, feeds: list[Feed]) -> None:
    """Outputs are equal, and inside every tensor holds the channels that stayed.

    Inside, channels are exempt that nobody needs, and constants that were restated; products whose
    constants move to the Add behind them; and everything where a constant branch moved into a
    bias, or channels were put in another order. What is called constant is.
    """
    outputs = {str(value.name) for value in network.model.graph.outputs}
    products = {
        str(node.outputs[0].name) for node in network.model.graph if node.op_type == "MatMul"
    }
    simplified = made.moved or any(step.simplified for step in made.steps)
    constants = made.steps[0].found.constants_before
    for feed in feeds:
        before, after = evaluate(network, feed), evaluate(made.exact, feed)
        for name, given_ in constants.items():
            scale = max(1.0, float(np.abs(before[name]).max(initial=0.0)))
            spread = np.where(np.isnan(given_), 0.0, before[name] - given_)
            assert np.abs(spread).max(initial=0.0) <= 1e-9 * scale, name
            is_inside = name not in outputs
            if name not in after or (is_inside and (simplified or name in products)):
                continue
            kept = made.rest_of(name, before[name])
            assert after[name].shape == kept.shape, name
            off = np.abs(after[name] - kept)
            if is_inside:
                off = np.where(_exempt(made, name, kept.shape), 0.0, off)
            assert off.max(initial=0.0) <= 1e-9 * scale, name


def _exempt(made: Cut, name: str, shape: tuple[int, ...]) -> AnyArray:
    """By element of what stayed: nobody needs it, or its constant was restated."""
    (step,) = made.steps
    found, labels = step.found, step.found.structure.labels[name]
    before, after = found.constants_before[name], found.constants[name]
    restated = ~np.isnan(before) & (before != after)
    marks = (restated | ~found.needed[labels]).astype(np.float64)
    left = marks if labels.size == 1 else take(marks, labels, step.arranged[name])
    return np.asarray(np.broadcast_to(aligned(left, len(shape)) > 0, shape))


def assert_report_counts(report: RemovalReport, network: Network, pruned: Network) -> None:
    """Channels per layer, parameters and MACs are those of the two graphs."""
    held = {str(out.name): static_shape(out) for node in pruned.model.graph for out in node.outputs}
    makers = {str(out.name): node.op_type for node in network.model.graph for out in node.outputs}
    for entry in report.tensors:
        assert entry.channels_before - entry.channels_after == len(entry.removed)
        assert len({gone.channel for gone in entry.removed}) == len(entry.removed)
        shape = held.get(entry.tensor)
        axis = -1 if makers[entry.tensor] == "MatMul" else 1
        assert entry.channels_after == (0 if shape is None else shape[axis]), entry.tensor
    assert (report.parameters_after, report.macs_after) == totals(pruned.model)
    assert report.macs_after <= report.macs_before


def assert_variances_fit(network: Network) -> None:
    held = values(network)
    for name, variance in network.variance.items():
        assert variance.shape == held[name].shape
        assert (variance >= 0).all()


def hears_its_input(network: Network, feeds: list[Feed]) -> bool:
    """Whether every output depends on it. Where one does not, all before it is idle."""
    first, second = (evaluate(network, feed) for feed in feeds[:2])
    names = [str(value.name) for value in network.model.graph.outputs]
    return all(not np.allclose(first[name], second[name], rtol=1e-9, atol=0) for name in names)


def assert_nothing_is_left(pruned: Network) -> None:
    again, report = remove_dead_channels(pruned, evaluate)
    assert shapes_of(again) == shapes_of(pruned)
    assert not any(removal.removed for removal in report.tensors)


def shapes_of(network: Network) -> dict[str, tuple[int, ...] | None]:
    return {
        str(out.name): static_shape(out) for node in network.model.graph for out in node.outputs
    }


def assert_legal(network: Network, pruned: Network, feed: Feed) -> None:
    onnx.checker.check_model(ir.to_proto(pruned.model), full_check=True)
    told, found = (ort.evaluate(as_float32(given_), feed) for given_ in (network, pruned))
    for value in network.model.graph.outputs:
        name = str(value.name)
        scale = max(1.0, float(np.abs(told[name]).max()))
        np.testing.assert_allclose(found[name], told[name], rtol=1e-3, atol=1e-3 * scale)
