"""Data that bits are chosen on, which calibration may not have seen."""

from __future__ import annotations

from deploykit.errors import DataError
from deploykit.exporting.options import ExportOptions
from deploykit.spec.allocation import MaxAccuracyDrop
from deploykit.spec.samples import Samples

SHARED = 0.01
"""Of the samples of either, that may be in both: stray duplicates of a data set; one always may."""


def check_held_out(
    options: ExportOptions, samples: Samples, labelled: Samples, shared: int
) -> None:
    """Raise DataError where accuracy is the limit and its samples are unlabelled, or calibrate.

    shared: how many of them are calibration's.
    """
    target = None if options.auto is None else options.auto.target
    if not isinstance(target, MaxAccuracyDrop):
        return
    path, other = options.eval_data, options.data
    assert path is not None
    if labelled.labels is None:
        raise DataError(f"{target}: {path} holds no `labels` [N]; give them, or another limit")
    if path.resolve() == other.resolve():
        raise DataError(
            f"{target} is measured on data that calibration has not seen, and --eval-data and "
            f"--data are both {path}; give other samples"
        )
    if shared > max(1.0, SHARED * min(len(labelled), len(samples))):
        raise DataError(
            f"{target} is measured on data that calibration has not seen, and {shared} of the "
            f"{len(labelled)} samples in {path} are in {other} too; give other samples"
        )
