"""Networks trained here by the libraries themselves: `make test-libraries`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import deploykit
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.predictive import monte_carlo
from deploykit.posterior.recognise import recognise
from deploykit.posterior.usage import as_used
from deploykit.spec.posterior import Checkpoint, Folded
from tests.libraries.frame import Library, Spread, Trained, libraries
from tests.libraries.images import FOLDER, SLICES, test_images
from tests.libraries.record import Reference, reference, trained
from tests.tools import require_path

ALL = list(libraries())
DRAWN = 48


@dataclass(frozen=True)
class Example:
    """A library's network as it left training here, and the file that it was saved to."""

    library: Library
    network: Trained
    reference: Reference
    path: Path

    def checkpoint(self) -> Checkpoint:
        return self.library.checkpoint(self.path)

    def folded(self, factory: str) -> Folded:
        built = load_factory(self.library.model(factory))
        inputs = test_images().inputs[:8]
        return fold_posterior(self.checkpoint(), built, inputs, PruneSpec(PruneRule.NONE))


@pytest.fixture(scope="module", params=ALL, ids=[library.name for library in ALL])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    library: Library = request.param
    if not library.installed():
        pytest.skip(f"{library.name} trains in make test-libraries, which brings {library.package}")
    require_path(FOLDER, "Debian's package dataset-fashion-mnist")
    network = trained(library)
    path = tmp_path_factory.mktemp(library.name) / "weights.pt"
    torch.save(network.state, path)
    return Example(library, network, reference(network), path)


def test_folded_is_the_mean_forward_of_the_library_s_own_tensors(example: Example) -> None:
    inputs = test_images().inputs[:256]
    with torch.no_grad():
        expected = example.network.mean(torch.tensor(inputs)).numpy()
    for factory in sorted({example.library.factory, "twin"}):
        outputs = run(example.folded(factory).module, inputs)
        largest = np.abs(expected).max()
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * largest, rtol=0)


def test_the_library_s_forward_agrees_once_it_is_silenced(example: Example) -> None:
    if example.library.factory == "twin":
        pytest.skip("the library trains a plain network, so no forward of its own is compared")
    difference = example.folded(example.library.factory).report.mean_difference
    assert difference is not None
    assert difference <= 1e-5


def test_the_rule_of_the_family_drops_what_the_library_drops(example: Example) -> None:
    if example.network.masked is None:
        pytest.skip("the library drops nothing")
    inputs = test_images().inputs[:256]
    with torch.no_grad():
        expected = example.network.masked(torch.tensor(inputs)).numpy()
    factory = load_factory(example.library.model(example.library.factory))
    outputs = run(fold_posterior(example.checkpoint(), factory, inputs[:8]).module, inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_draws_are_as_far_apart_as_the_library_s_own(example: Example) -> None:
    if example.library.spread is not Spread.INDEPENDENT:
        pytest.skip("the library does not draw every weight once, by itself")
    inputs, checkpoint = test_images().inputs[:64], example.checkpoint()
    mean = example.folded("twin").unpruned
    recognised = as_used(recognise(checkpoint), mean)
    found = np.stack([monte_carlo(mean, recognised, inputs, 1, seed) for seed in range(DRAWN)])
    with torch.no_grad():
        draws = [example.network.draw(torch.tensor(inputs)).softmax(-1) for _ in range(DRAWN)]
    expected = torch.stack(draws).double().numpy()
    ratio = np.sqrt(found.var(axis=0).mean() / expected.var(axis=0).mean())
    assert ratio == pytest.approx(1, abs=0.15)


def test_integers_are_as_accurate_as_the_predictive(
    example: Example, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    bundle = deploykit.export(
        example.path,
        out=tmp_path / "bundle",
        model=example.library.model(example.library.factory),
        input_shape=(1, 1, 28, 28),
        data=SLICES / "calibration.npz",
        eval_data=SLICES / "test-2000.npz",
        prune_rule="none",
    )
    found = bundle.manifest["accuracy"]["model.onnx"]
    expected = example.reference
    record_property("row", (example.library.name, expected.mean, expected.predictive, found))
    assert found >= expected.predictive - 0.03
    assert found == pytest.approx(expected.mean, abs=0.01)
