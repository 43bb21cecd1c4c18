"""Arrays as the bytes of an .npz file."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from deploykit.npz import npz_bytes


def test_what_numpy_reads_is_what_was_written() -> None:
    arrays = {
        "empty": np.zeros((0, 3), np.int8),
        "scalar": np.int64(7),
        "a/b": np.arange(12.0).reshape(3, 4),
    }
    with np.load(io.BytesIO(npz_bytes(arrays)), allow_pickle=False) as read:
        assert sorted(read.files) == sorted(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
            assert read[name].dtype == np.asarray(array).dtype
    assert npz_bytes(arrays) == npz_bytes(dict(arrays))


def test_noise_is_stored_and_all_else_deflated() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=100_000).astype(np.float32)
    pixels = rng.integers(0, 256, 100_000).astype(np.float32) / np.float32(255)
    data = npz_bytes({"noise": noise, "pixels": pixels})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert found == {"noise.npy": zipfile.ZIP_STORED, "pixels.npy": zipfile.ZIP_DEFLATED}
    assert len(data) < 0.8 * (noise.nbytes + pixels.nbytes)
