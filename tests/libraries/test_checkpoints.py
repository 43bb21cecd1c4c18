"""Checkpoints that libraries wrote, read without them: through the deterministic twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deploykit
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.describe import inspect_checkpoint
from deploykit.posterior.families import family_named
from deploykit.posterior.family import TwinKind
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.recognise import recognise
from tests.libraries.frame import CHECKPOINTS, Library, Spread, libraries
from tests.libraries.images import SLICES, test_images
from tests.libraries.record import OUTPUTS, accuracy, stored_reference

EVERY = pytest.mark.parametrize("library", list(libraries()), ids=lambda library: library.name)
MASKED = pytest.mark.parametrize(
    "library",
    [library for library in libraries() if stored_reference(library).masked is not None],
    ids=lambda library: library.name,
)
LARGEST = 100_000
NONE = PruneSpec(PruneRule.NONE)

torch.set_num_threads(1)


@EVERY
def test_the_file_is_small(library: Library) -> None:
    assert (CHECKPOINTS / f"{library.name}.pt").stat().st_size <= LARGEST


@EVERY
def test_the_family_is_recognised(library: Library) -> None:
    found = recognise(library.checkpoint(CHECKPOINTS / f"{library.name}.pt"))
    assert {layer.family.name for layer in found.layers} == library.families


@EVERY
def test_the_folded_twin_is_the_library_s_mean(library: Library) -> None:
    images, expected = test_images(), stored_reference(library)
    checkpoint = library.checkpoint(CHECKPOINTS / f"{library.name}.pt")
    factory = load_factory(library.model("twin"))
    folded = fold_posterior(checkpoint, factory, images.inputs[:8], NONE)
    outputs = run(folded.module, images.inputs)
    largest = np.abs(expected.outputs).max()
    np.testing.assert_allclose(outputs[:OUTPUTS], expected.outputs, atol=1e-5 * largest, rtol=0)
    assert accuracy(outputs, images) == pytest.approx(expected.mean, abs=1e-3)
    gates_alone = all(
        family_named(name).twin is TwinKind.CHANNEL_SCALE for name in library.families
    )
    spread = any(values.any() for values in folded.variance.values())
    assert spread is (library.spread is not Spread.NONE and not gates_alone)


@MASKED
def test_the_rule_of_the_family_drops_what_the_library_drops(library: Library) -> None:
    images, expected = test_images(), stored_reference(library)
    checkpoint = library.checkpoint(CHECKPOINTS / f"{library.name}.pt")
    folded = fold_posterior(checkpoint, load_factory(library.model("twin")), images.inputs[:8])
    outputs = run(folded.module, images.inputs[:OUTPUTS])
    assert expected.masked is not None
    largest = np.abs(expected.masked).max()
    np.testing.assert_allclose(outputs, expected.masked, atol=1e-5 * largest, rtol=0)


@EVERY
def test_the_bundle_is_as_accurate(library: Library, tmp_path: Path) -> None:
    bundle = deploykit.export(
        CHECKPOINTS / f"{library.name}.pt",
        out=tmp_path / "bundle",
        model=library.model("twin"),
        input_shape=(1, 1, 28, 28),
        data=SLICES / "calibration.npz",
        eval_data=SLICES / "test-2000.npz",
        prune_rule="none",
    )
    found = bundle.manifest["accuracy"]
    expected = stored_reference(library)
    assert expected.mean > 0.7
    assert found["model.onnx"] == found["model.tflite"]
    assert found["model.onnx"] == pytest.approx(expected.mean, abs=0.01)
    assert not any(one["differing"] for one in bundle.manifest["parity"])


@pytest.mark.parametrize(
    ("name", "layers", "word"),
    [
        ("bayesian_torch_moped", ["0", "3", "7"], "MOPED"),
        ("blitz_layers", ["0", "2", "6"], "stale"),
        ("torch_uncertainty_layers", ["0", "2", "6"], "holds rho"),
    ],
)
def test_inspect_names_what_the_library_invites(name: str, layers: list[str], word: str) -> None:
    found = inspect_checkpoint(load_checkpoint(CHECKPOINTS / f"{name}.pt")).traps
    assert [trap.partition(":")[0] for trap in found if word in trap] == layers


@pytest.mark.parametrize("name", ["bayesian_torch_layers", "torchbnn_layers"])
def test_inspect_finds_no_mistake_where_there_is_none(name: str) -> None:
    found = inspect_checkpoint(load_checkpoint(CHECKPOINTS / f"{name}.pt")).traps
    assert not any(word in trap for trap in found for word in ("MOPED", "stale", "log sigma"))
