"""Reading calibration and evaluation data from .npz files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deploykit.errors import DataError
from deploykit.spec.arrays import AnyArray
from deploykit.spec.file_kinds import foreign_kind, is_text
from deploykit.spec.inputs import GraphInputs, InputSpec
from deploykit.spec.samples import Samples

INPUTS, LABELS = "inputs", "labels"
ZIP_MAGIC = b"PK\x03\x04"
FORM = "an .npz file holds `inputs` [N, C, H, W] float32 and, optionally, `labels` [N]"


def load_samples(path: Path, specs: Sequence[InputSpec]) -> Samples:
    """The samples of an .npz file, checked against what the network takes.

    One input reads the array `inputs`, or one of its own name; several read an array each, by name.
    Returned is an array for one input, one by name for several.

    Raises DataError naming the first offender: file, array, shape, type, or sample with NaN.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; {_form(specs)}")
    arrays = _read(path, _form(specs))
    keys = _keys(path, arrays, specs)
    found = {spec.name: _checked_inputs(path, keys[spec.name], arrays, spec) for spec in specs}
    counts = {name: len(values) for name, values in found.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"`{name}` {count}" for name, count in counts.items())
        raise DataError(
            f"{path}: the arrays hold different numbers of samples ({listed}); sample i of every "
            "array belongs together: give each as many"
        )
    inputs: GraphInputs = next(iter(found.values())) if len(found) == 1 else found
    count = next(iter(counts.values()))
    labels = None if LABELS in keys.values() else arrays.get(LABELS)
    return Samples(inputs, None if labels is None else _checked_labels(path, labels, count))


def _form(specs: Sequence[InputSpec]) -> str:
    """What a file for this network holds."""
    if len(specs) == 1 and not specs[0].whole:
        return FORM
    arrays = ", ".join(
        f"`{INPUTS if len(specs) == 1 else spec.name}` "
        f"[{', '.join(['N', *map(str, spec.shape[1:])])}] {spec.dtype}"
        for spec in specs
    )
    return f"an .npz file holds {arrays} and, optionally, `labels` [N]"


def _keys(path: Path, arrays: dict[str, AnyArray], specs: Sequence[InputSpec]) -> dict[str, str]:
    """By input the array that it reads."""
    if len(specs) == 1:
        (spec,) = specs
        key = INPUTS if INPUTS in arrays else spec.name
        if key not in arrays:
            raise DataError(f"{path} has no array `inputs` but {sorted(arrays)}; {_form(specs)}")
        return {spec.name: key}
    names = [spec.name for spec in specs]
    missing = [name for name in names if name not in arrays]
    unknown = sorted(set(arrays) - {*names, LABELS})
    if missing or unknown:
        if missing:
            what = f"has no array for the input {missing[0]!r}"
        else:
            what = f"holds {unknown[0]!r}, which is no input of the network"
        raise DataError(
            f"{path} {what}: it holds {', '.join(sorted(arrays))}, and the network's inputs are "
            f"{', '.join(names)}; {_form(specs)}"
        )
    return {name: name for name in names}


def _read(path: Path, form: str) -> dict[str, AnyArray]:
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.lib.npyio.NpzFile):
            with stored:
                return {name: stored[name] for name in stored.files}
    except MemoryError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each raise their own on damaged content
        raise DataError(f"{path} cannot be read as .npz: {_why_unread(path)}; {form}") from error
    raise DataError(
        f"{path} holds a single array; {form}: np.savez('calibration.npz', inputs=array)"
    )


def _why_unread(path: Path) -> str:
    """Why numpy does not load the file."""
    try:
        with path.open("rb") as file:
            start = file.read(len(ZIP_MAGIC))
        kind = foreign_kind(path)
    except OSError as error:
        return error.strerror or str(error)
    if kind is not None:
        return f"it {kind}"
    if not start:
        return "it is empty"
    if start == ZIP_MAGIC:
        return "it is damaged, encrypted, or holds Python objects, which are never unpickled"
    return "it is a text file" if is_text(path) else "it is no such archive"


def _checked_inputs(path: Path, key: str, arrays: dict[str, AnyArray], spec: InputSpec) -> AnyArray:
    inputs = arrays[key]
    if inputs.ndim != len(spec.shape) or inputs.shape[1:] != spec.shape[1:]:
        wanted = ", ".join(["N", *map(str, spec.shape[1:])])
        raise DataError(
            f"{path}: `{key}` has shape {list(inputs.shape)}, and --input-shape (or the ONNX file) "
            f"says [{wanted}]; {_shape_hint(inputs.shape, spec.shape)}"
        )
    if len(inputs) == 0:
        raise DataError(f"{path}: `{key}` holds no samples; give at least one")
    if spec.whole:
        return _checked_numbers(path, key, inputs, spec)
    if not np.issubdtype(inputs.dtype, np.floating):
        raise DataError(
            f"{path}: `{key}` is {inputs.dtype}; give float32, preprocessed as in training "
            "(for example images.astype('float32') / 255), or say that these are token ids: "
            "--input-shape NAME=SIZES:int64"
        )
    with np.errstate(over="ignore"):
        values = inputs.astype(np.float32)
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{path}: sample {int(np.argmin(finite))} of `{key}` holds NaN or infinity "
            f"({int((~finite).sum())} of {len(values)} samples do); leave it out, or mend the "
            "preprocessing"
        )
    return values


def check_varied(path: Path, samples: Samples) -> None:
    """Raise DataError where an input of real values is one number throughout: nothing to learn."""
    inputs = samples.inputs
    named: Mapping[str, AnyArray] = inputs if isinstance(inputs, Mapping) else {"inputs": inputs}
    for name, values in named.items():
        if values.dtype.kind == "f" and values.size > 1 and values.min() == values.max():
            raise DataError(
                f"{path}: every number of `{name}` is {values.flat[0]:g}, which says nothing about "
                "ranges; give samples as the network will see them"
            )


def _checked_numbers(path: Path, key: str, inputs: AnyArray, spec: InputSpec) -> AnyArray:
    """Whole numbers in the input's own type."""
    if not np.issubdtype(inputs.dtype, np.integer):
        raise DataError(
            f"{path}: `{key}` is {inputs.dtype}, and the network takes whole numbers (token ids) "
            f"there; give {spec.dtype}"
        )
    limits = np.iinfo(spec.dtype)
    if int(inputs.min()) < limits.min or int(inputs.max()) > limits.max:
        raise DataError(
            f"{path}: `{key}` runs from {inputs.min()} to {inputs.max()}, beyond {spec.dtype}"
        )
    return inputs.astype(spec.dtype)


def _shape_hint(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What most likely went wrong."""
    if len(wanted) == len(found) - 1 and found[1:] == wanted:
        return "--input-shape starts with the batch: " + ",".join(map(str, (1, *wanted)))
    if len(found) == 4 and (found[3], found[1], found[2]) == wanted[1:]:
        return "the data looks like NHWC: store inputs.transpose(0, 3, 1, 2)"
    own = ",".join(map(str, (wanted[0], *found[1:])))
    return f"give data of that shape, or, where the network takes the data's, --input-shape {own}"


def _checked_labels(path: Path, labels: AnyArray, count: int) -> AnyArray:
    if labels.shape != (count,):
        raise DataError(
            f"{path}: `labels` has shape {list(labels.shape)} for {count} inputs; give one each"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: `labels` is {labels.dtype}; give class numbers as integers")
    return labels.astype(np.int64)
