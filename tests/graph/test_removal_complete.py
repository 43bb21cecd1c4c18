"""Brute force on a small grammar: no channel is left that could be taken away by hand.

The oracle knows nothing of the analysis. On the pruned network it couples channels by itself
(through relu, sums and concatenations of convolutions), zeroes every kernel that reads one, and
compares. What changes nothing, whatever the non-zero weights are, should have gone. A channel of a
sum that stays because some of its tensors need it counts as heard in all of them, like an output:
the analysis decides about coupled channels together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from deploykit.graph.edit import set_initializer
from deploykit.graph.options import RemovalOptions
from deploykit.graph.removal import cut_channels
from deploykit.reference.float import evaluate
from deploykit.spec.arrays import AnyArray
from deploykit.spec.network import Network, static_shape
from tests.graph.random_graphs import Recipe, build
from tests.graph.test_removal_properties import EXAMPLES, FIXED, SHARDS
from tests.graph.text import values

STEPS = ("conv", "conv", "relu", "relu", "add", "behind", "branch", "skip")

REDRAWS = 32
"""Networks with other weights: a channel that happens to be silent (behind relu, say) is heard in
one of them."""

Channel = tuple[str, int]


def recipes() -> st.SearchStrategy[Recipe]:
    """Convolutions, relu, sums and concatenations."""
    shapes = st.tuples(st.just(1), st.integers(1, 3), st.integers(4, 6), st.integers(4, 6))
    steps = st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 2**16)), min_size=4, max_size=12
    )
    return st.builds(Recipe, shapes, steps.map(tuple))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_channel_is_left_that_can_be_taken_away_by_hand(shard: int) -> None:
    @seed(shard)
    @settings(FIXED, max_examples=EXAMPLES // SHARDS)
    @given(recipes())
    def holds(recipe: Recipe) -> None:
        pruned = cut_channels(build(recipe), RemovalOptions()).exact
        assert not list(removable(pruned))

    holds()


def removable(network: Network) -> Iterator[frozenset[Channel]]:
    """Coupled channels that nobody hears, in tensors that would not be left empty.

    None in a network that does not hear its input: of that only constants are left.
    """
    graph = network.model.graph
    shapes = {str(out.name): static_shape(out) or () for node in graph for out in node.outputs}
    port = graph.inputs[0]
    image = np.random.default_rng(0).normal(size=static_shape(port))
    feed = np.concatenate([image, 30.0 * image, -30.0 * image])
    sums = {str(node.outputs[0].name) for node in graph if node.op_type == "Add"}
    ears = sorted({str(graph.outputs[0].name)} | sums)
    heard = evaluate(network, feed)
    told = heard[str(graph.outputs[0].name)]
    if np.allclose(told[:1], told[1:], rtol=1e-12):
        return
    fixed = {str(port.name), *(str(value.name) for value in graph.outputs)}
    for channels in _coupled(graph, shapes):
        tensors = {tensor for tensor, _ in channels}
        if tensors & fixed or any(_channel_count(shapes, channels, t) < 1 for t in tensors):
            continue
        draws = (_redrawn(network, number) for number in range(REDRAWS))
        if _equal(evaluate(_unread(network, channels), feed), heard, ears) and all(
            _equal(evaluate(_unread(draw, channels), feed), evaluate(draw, feed), ears)
            for draw in draws
        ):
            yield channels


def _channel_count(
    shapes: Mapping[str, tuple[int, ...]], channels: frozenset[Channel], tensor: str
) -> int:
    """How many channels a tensor would have left."""
    return shapes[tensor][1] - sum(name == tensor for name, _ in channels)


def _equal(left: Mapping[str, AnyArray], right: Mapping[str, AnyArray], names: list[str]) -> bool:
    return all(
        np.abs(left[name] - right[name]).max() <= 1e-12 * max(1.0, np.abs(right[name]).max())
        for name in names
    )


def _coupled(graph: ir.Graph, shapes: Mapping[str, tuple[int, ...]]) -> list[frozenset[Channel]]:
    """Classes of channels that relu, sums and concatenations tie together."""
    inputs = {str(port.name): static_shape(port) or () for port in graph.inputs}
    group: dict[Channel, set[Channel]] = {
        (name, k): {(name, k)}
        for name, size in {**inputs, **shapes}.items()
        for k in range(size[1])
    }

    def tie(a: Channel, b: Channel) -> None:
        if group[a] is not group[b]:
            group[a] |= group[b]
            for member in group[b]:
                group[member] = group[a]

    for node in graph:
        output, start = str(node.outputs[0].name), 0
        for value in node.inputs if node.op_type != "Conv" else ():
            if value is None or value.const_value is not None:
                continue
            source = str(value.name)
            width = {**inputs, **shapes}[source][1]
            for k in range(width):
                tie((source, k), (output, start + k))
            start += width if node.op_type == "Concat" else 0
    return list({id(members): frozenset(members) for members in group.values()}.values())


def _unread(network: Network, channels: frozenset[Channel]) -> Network:
    """Every kernel that reads one of the channels set to zero."""
    model = network.model.clone()
    for node in model.graph:
        if node.op_type == "Conv":
            source, weight = (str(value.name) for value in node.inputs[:2] if value is not None)
            kernel = _weight(model, weight)
            kernel[:, [k for name, k in channels if name == source]] = 0.0
            set_initializer(model.graph, weight, kernel)
    return Network(model, {})


def _redrawn(network: Network, number: int) -> Network:
    """Other weights where they are not zero, some softer than the biases and some louder."""
    rng, model = np.random.default_rng(number), network.model.clone()
    loudness = 2.0 ** (number % 5)
    for node in model.graph:
        if node.op_type == "Conv":
            weight = str(node.inputs[1].name) if node.inputs[1] is not None else ""
            kernel = _weight(model, weight)
            drawn = rng.normal(size=kernel.shape) * loudness / np.sqrt(kernel[0].size)
            set_initializer(model.graph, weight, np.where(kernel != 0, drawn, 0.0))
    return Network(model, {})


def _weight(model: ir.Model, name: str) -> AnyArray:
    return values(Network(model, {}))[name].copy()
