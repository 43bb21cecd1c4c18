"""Gates that published float32 code gets wrong: told, right by default, reproduced on request."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import deploykit
from deploykit.posterior.families import FAMILIES, families_in
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import Numerics
from deploykit.report.warnings import warnings_of
from deploykit.spec.posterior import ArithmeticDifference
from tests.exported import save
from tests.posterior.checkpoints import checkpoint_of
from tests.posterior.gate_layers import sbp_net
from tests.posterior.gnj_layers import images
from tests.posterior.trained import trained

LOST = (0, 2)
"""Gates of the first layer with mu = -0.1 and log sigma = -5: the published SNR is 0."""


def with_lost_gates() -> nn.Module:
    network = trained(sbp_net())
    with torch.no_grad():
        first = network[0]  # type: ignore[index]
        first.mu[list(LOST)], first.log_sigma[list(LOST)] = -0.1, -5.0
    return network


def test_right_gates_are_folded_and_the_published_forward_is_still_recognised() -> None:
    network = with_lost_gates()
    folded = fold_posterior(checkpoint_of(network), sbp_net, images())
    # Compared with the forward as published, which loses two gates.
    assert folded.report.mean_difference is not None
    assert folded.report.mean_difference < 1e-5
    assert folded.report.arithmetic == (ArithmeticDifference("0", 6, 2, 2),)
    first = next(layer for layer in folded.report.pruning if layer.layer == "0")
    assert np.flatnonzero(first.closed).tolist() == [1, 4]
    expected = 0.90486 * network[0].weight[0].detach().numpy()  # type: ignore[index]
    np.testing.assert_allclose(folded.module[0].weight[0], expected, rtol=1e-4)


def test_published_network_on_request() -> None:
    network = with_lost_gates()
    families = families_in(Numerics.REFERENCE)
    folded = fold_posterior(checkpoint_of(network), sbp_net, images(), families=families)
    expected = run(network, images())
    difference = np.abs(run(folded.module, images()) - expected).max() / np.abs(expected).max()
    assert difference < 1e-5
    first = next(layer for layer in folded.report.pruning if layer.layer == "0")
    assert np.flatnonzero(first.closed).tolist() == [0, 1, 2, 4]
    assert folded.report.arithmetic == (ArithmeticDifference("0", 6, 2, 2),)


def test_where_both_agree_nothing_is_told() -> None:
    folded = fold_posterior(checkpoint_of(trained(sbp_net())), sbp_net, images())
    assert folded.report.arithmetic == ()
    assert families_in(Numerics.EXACT) == FAMILIES


@pytest.mark.parametrize(("numerics", "closed"), [("exact", 2), ("reference", 4)])
def test_export(tmp_path: Path, numerics: str, closed: int) -> None:
    torch.save(with_lost_gates().state_dict(), tmp_path / "net.pt")
    bundle = deploykit.export(
        tmp_path / "net.pt", model="tests.posterior.gate_layers:sbp_net", numerics=numerics,
        input_shape=(1, 1, 8, 8), data=save(tmp_path / "data.npz", inputs=images(32)),
        out=tmp_path / "b",
    )  # fmt: skip
    manifest = json.loads(bundle.file("manifest.json").read_text(encoding="utf-8"))
    assert manifest["fold"]["numerics"] == numerics
    assert manifest["fold"]["gates"][0]["closed"] == closed
    told = [text for text in warnings_of(manifest) if "published float32 code" in text]
    assert len(told) == 1
    assert told[0].startswith("0: of 6 gates, published float32 code gets 2 means wrong")
    assert ("exported are the right ones" in told[0]) == (numerics == "exact")
