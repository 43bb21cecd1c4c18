"""equalize: the pass, its checks and its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from deploykit.errors import GraphError
from deploykit.graph.edit import constant, output_names
from deploykit.graph.equalize.chains import Chain, Channels, find_channels
from deploykit.graph.equalize.factors import chosen_exponents
from deploykit.graph.equalize.measured import AT_ONCE, channel_ranges
from deploykit.graph.equalize.noise import noise_model, watched_tensors
from deploykit.graph.passes.affine import Affine
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.spec.arrays import Float64Array, IntArray
from deploykit.spec.equalization import EqualizationReport, EqualizedChain
from deploykit.spec.inputs import GraphInputs, count_samples, some_samples
from deploykit.spec.network import FloatEvaluator, Network

SAMPLES = 32
"""Calibration samples that are looked at."""


def equalize(
    network: Network, inputs: GraphInputs, evaluate: FloatEvaluator, levels: Callable[[str], int]
) -> tuple[Network, EqualizationReport]:
    """The same float network, its channels scaled by powers of two so that it rounds better.

    Rows that make a channel and their bias times 2^k, columns that read it times 2^-k: as long as
    no number is denormal or infinite, float32 computes the same outputs to the bit.

    inputs: calibration samples [N, ...]. levels: the largest integer of a layer's weights, by name.

    Raises GraphError where a number is not exactly scaled, or an output changed on the samples.
    """
    channels = find_channels(network)
    some = some_samples(inputs, slice(SAMPLES))
    seen = channel_ranges(network, watched_tensors(channels.chains), some, evaluate)
    exponents = np.zeros(channels.count, dtype=np.int64)
    told = []
    for chain in channels.chains:
        weights = {layer.name: layer.rows(_array(network, layer.weight)) for layer in chain.readers}
        steps = {layer.name: levels(layer.name) for layer in chain.readers}
        model = noise_model(chain, channels.labels, weights, seen, steps)
        found = chosen_exponents(chain, model)
        exponents[chain.atoms] = found
        before = model.predicted(np.zeros_like(found))
        told.append(_told(chain, found, model.predicted(found) / before if before > 0 else 1.0))
    after = scaled(network, channels, exponents)
    if exponents.any():
        _check_outputs(network, after, some_samples(some, slice(AT_ONCE)), evaluate)
    return after, EqualizationReport(count_samples(some), tuple(told))


def scaled(network: Network, channels: Channels, exponents: IntArray) -> Network:
    """Channels times 2^exponents, by atom: rows of what makes them, columns of what reads them.

    Raises GraphError where a number is not exactly scaled.
    """

    def rewrite(before: Network) -> Rewritten:
        model = before.model.clone()
        affine = Affine(model.graph, dict(before.variance))
        for name, factor in _factors(channels, exponents):
            affine.scale(name, factor)
        return affine.finish(before, model)

    if not exponents.any():
        return network
    after = apply_pass("equalize", rewrite, network)
    for name, factor in _factors(channels, exponents):
        was, found = (_array(one, name).astype(np.float64) for one in (network, after))
        if not np.array_equal(was * factor, found) or not np.isfinite(found).all():
            raise GraphError(
                f"scaling the channels of {name} by powers of two is not exact; this is a defect "
                "of deploykit: please report it, and export with --equalization none meanwhile"
            )
    return after


def _factors(channels: Channels, exponents: IntArray) -> Iterator[tuple[str, Float64Array]]:
    """By initializer, of those that change; each broadcasts to its initializer."""
    for layer in channels.layers:
        into = exponents[channels.labels[layer.output]]
        apart = into[:, None] - exponents[channels.labels[layer.source]][layer.columns]
        if apart.any():
            yield layer.weight, layer.as_stored(np.exp2(apart.astype(np.float64)))
        if layer.bias is not None and into.any():
            yield layer.bias, np.exp2(into.astype(np.float64))


def _check_outputs(
    before: Network, after: Network, inputs: GraphInputs, evaluate: FloatEvaluator
) -> None:
    was, found = evaluate(before, inputs), evaluate(after, inputs)
    for name in output_names(before):
        if not np.array_equal(was[name], found[name]):
            raise GraphError(
                f"scaling channels by powers of two changes the output {name} on the calibration "
                "samples: numbers in between are so small or so large that float32 loses bits of "
                "them; export with --equalization none"
            )


def _array(network: Network, name: str) -> np.ndarray:
    return np.asarray(constant(network.model.graph.initializers[name]))


def _told(chain: Chain, exponents: IntArray, noise: float) -> EqualizedChain:
    return EqualizedChain(
        tuple(layer.name for layer in chain.makers),
        tuple(layer.name for layer in chain.readers),
        len(exponents),
        int(np.count_nonzero(exponents)),
        int(exponents.min(initial=0)),
        int(exponents.max(initial=0)),
        noise,
        chain.pinned,
    )
