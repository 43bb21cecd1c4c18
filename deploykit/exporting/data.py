"""Reading calibration and evaluation data from .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.samples import Samples

FORM = "an .npz file holds `inputs` [N, C, H, W] float32 and, optionally, `labels` [N]"


def load_samples(path: Path, input_shape: tuple[int, ...]) -> Samples:
    """The samples of an .npz file, checked against the network's input shape [batch, ...].

    Raises DataError naming the first offender: file, array, shape, type, or sample with NaN.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; {FORM}")
    arrays = _read(path)
    if "inputs" not in arrays:
        raise DataError(f"{path} has no array `inputs` but {sorted(arrays)}; {FORM}")
    inputs = _checked_inputs(path, arrays["inputs"], input_shape)
    labels = arrays.get("labels")
    return Samples(inputs, None if labels is None else _checked_labels(path, labels, len(inputs)))


def _read(path: Path) -> dict[str, AnyArray]:
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.lib.npyio.NpzFile):
            with stored:
                return {name: stored[name] for name in stored.files}
    except Exception as error:  # numpy, zipfile and zlib each raise their own on damaged content
        raise DataError(f"{path} cannot be read as .npz ({error}); {FORM}") from error
    raise DataError(
        f"{path} holds a single array; {FORM}: np.savez('calibration.npz', inputs=array)"
    )


def _checked_inputs(path: Path, inputs: AnyArray, input_shape: tuple[int, ...]) -> Float32Array:
    if inputs.ndim != len(input_shape) or inputs.shape[1:] != input_shape[1:]:
        wanted = ", ".join(["N", *map(str, input_shape[1:])])
        raise DataError(
            f"{path}: `inputs` has shape {list(inputs.shape)} where the network takes "
            f"[{wanted}]; {_shape_hint(inputs.shape, input_shape)}"
        )
    if len(inputs) == 0:
        raise DataError(f"{path}: `inputs` holds no samples; give at least one")
    if not np.issubdtype(inputs.dtype, np.floating):
        raise DataError(
            f"{path}: `inputs` is {inputs.dtype}; give float32, preprocessed as in training "
            "(for example images.astype('float32') / 255)"
        )
    with np.errstate(over="ignore"):
        values = inputs.astype(np.float32)
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{path}: sample {int(np.argmin(finite))} of `inputs` holds NaN or infinity "
            f"({int((~finite).sum())} of {len(values)} samples do); leave it out, or mend the "
            "preprocessing"
        )
    return values


def _shape_hint(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What most likely went wrong."""
    if len(wanted) == len(found) - 1 and found[1:] == wanted:
        return "--input-shape starts with the batch: " + ",".join(map(str, (1, *wanted)))
    if len(found) == 4 and (found[3], found[1], found[2]) == wanted[1:]:
        return "the data looks like NHWC: store inputs.transpose(0, 3, 1, 2)"
    return "give data of the network's input shape, or the shape of the data"


def _checked_labels(path: Path, labels: AnyArray, count: int) -> AnyArray:
    if labels.shape != (count,):
        raise DataError(
            f"{path}: `labels` has shape {list(labels.shape)} for {count} inputs; give one each"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: `labels` is {labels.dtype}; give class numbers as integers")
    return labels.astype(np.int64)
