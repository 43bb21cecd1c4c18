"""Samples from .npz files: what is accepted comes out as float32 and int64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import DataError
from deploykit.exporting.data import load_samples
from tests.exported import save

SHAPE = (1, 3, 4, 4)
INPUTS = np.random.default_rng(0).standard_normal((5, 3, 4, 4))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_any_float_becomes_float32(kind: type, tmp_path: Path) -> None:
    samples = load_samples(save(tmp_path / "a.npz", inputs=INPUTS.astype(kind)), SHAPE)
    assert samples.inputs.dtype == np.float32
    np.testing.assert_array_equal(samples.inputs, INPUTS.astype(kind).astype(np.float32))
    assert samples.labels is None


def test_labels_become_int64(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", inputs=INPUTS, labels=np.arange(5, dtype=np.uint8))
    labels = load_samples(path, SHAPE).labels
    assert labels is not None
    assert labels.dtype == np.int64


def test_the_batch_of_the_shape_does_not_count(tmp_path: Path) -> None:
    assert len(load_samples(save(tmp_path / "a.npz", inputs=INPUTS), (4, 3, 4, 4))) == 5


def test_other_arrays_are_left_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", inputs=INPUTS, names=np.array(["a"]))
    assert len(load_samples(path, SHAPE)) == 5


def test_compressed_files_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", inputs=INPUTS)
    assert len(load_samples(tmp_path / "a.npz", SHAPE)) == 5


def test_pickled_content_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", inputs=np.array([{"run": "code"}], dtype=object))
    with pytest.raises(DataError, match="cannot be read as"):
        load_samples(tmp_path / "a.npz", SHAPE)


def test_damage_anywhere_is_an_error_about_the_file(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", inputs=INPUTS)
    data = (tmp_path / "a.npz").read_bytes()
    refused = 0
    for position in np.random.default_rng(1).integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        (tmp_path / "b.npz").write_bytes(damaged)
        try:
            load_samples(tmp_path / "b.npz", SHAPE)
        except DataError as error:
            refused += str(tmp_path / "b.npz") in str(error)
    assert refused > 40


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", inputs=INPUTS)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of the one entry in the directory
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read as"):
        load_samples(tmp_path / "a.npz", SHAPE)
