"""`verify --eval-data`: the data that a bundle's accuracy was measured on, read for its inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploykit.bundle import MANIFEST, read_bundle
from deploykit.errors import IntegrityError
from deploykit.exporting.data import load_samples
from deploykit.spec.inputs import InputSpec
from deploykit.spec.parity import ParityReport
from deploykit.verify.ladder import verify_bundle


def verify_on_data(
    path: Path, eval_data: Path | None, announce: Callable[[str], None]
) -> ParityReport:
    """The ladder, with accuracy and confidence where labelled data are given.

    Raises a DeploykitError where it is no whole bundle, or the data are not of its inputs.
    """
    if eval_data is None:
        return verify_bundle(path, announce)
    manifest = read_bundle(path).manifest
    try:
        specs = [
            InputSpec(
                str(port["name"]),
                tuple(map(int, port["shape"])),
                str(port["dtype"]) if "below" in port else "float32",
            )
            for port in manifest["inputs"]
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{path / MANIFEST} does not say what the inputs are; export the bundle again"
        ) from error
    return verify_bundle(path, announce, load_samples(eval_data, specs))
