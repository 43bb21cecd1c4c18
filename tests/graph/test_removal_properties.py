"""On any network of the grammar: pruned equals masked, and nothing is left to remove.

DEPLOYKIT_EXAMPLES sets how many networks are tried.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, given, settings

from deploykit.graph.channels.liveness import analyse
from deploykit.graph.normalize import normalize
from deploykit.graph.passes.affine import along
from deploykit.graph.removal import remove_dead_channels
from deploykit.reference.float import evaluate
from deploykit.runtime import ort
from deploykit.spec.network import Network
from tests.graph.random_graphs import as_float32, networks
from tests.graph.removing import channels
from tests.graph.text import largest_difference, probes, values

EXAMPLES = int(os.environ.get("DEPLOYKIT_EXAMPLES", "200"))
FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(FIXED, max_examples=EXAMPLES)
@given(networks())
def test_removal_is_exact_complete_and_legal(network: Network) -> None:
    pruned, report = remove_dead_channels(network, evaluate)
    assert largest_difference(network, pruned) <= 1e-9
    assert report.certificate.max_relative <= 1e-9
    assert_tensors_agree(network, pruned)
    assert_variances_follow(pruned)
    assert_nothing_is_left(pruned)
    assert_legal(network, pruned)


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


def assert_variances_fit(network: Network) -> None:
    held = values(network)
    for name, variance in network.variance.items():
        assert variance.shape == held[name].shape


def assert_tensors_agree(network: Network, pruned: Network) -> None:
    """Every tensor holds the channels that stayed, and what is called constant is."""
    analysis = analyse(network.model.graph)
    for inputs in probes(network):
        before, after = evaluate(network, inputs), evaluate(pruned, inputs)
        for name, constants in analysis.constants.items():
            scale = max(1.0, float(np.abs(before[name]).max()))
            kept = before[name][:, analysis.kept(name)]
            np.testing.assert_allclose(after[name], kept, rtol=0, atol=1e-9 * scale)
            known = np.flatnonzero(~np.isnan(constants))
            spread = before[name][:, known] - along(constants[known], 1, before[name].ndim)
            assert np.abs(spread).max(initial=0.0) <= 1e-9 * scale


def assert_variances_follow(pruned: Network) -> None:
    held = values(pruned)
    assert {name: variance.shape for name, variance in pruned.variance.items()} == {
        name: value.shape for name, value in held.items() if value.ndim
    }


def assert_nothing_is_left(pruned: Network) -> None:
    again, report = remove_dead_channels(pruned, evaluate)
    assert channels(again) == channels(pruned)
    assert not any(removal.removed for removal in report.tensors)


def assert_legal(network: Network, pruned: Network) -> None:
    onnx.checker.check_model(ir.to_proto(pruned.model), full_check=True)
    inputs = probes(network)[0].astype(np.float32)
    output = str(network.model.graph.outputs[0].name)
    told = ort.evaluate(as_float32(network), inputs)[output]
    found = ort.evaluate(as_float32(pruned), inputs)[output]
    np.testing.assert_allclose(found, told, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(told).max()))
