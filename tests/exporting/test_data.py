"""Samples from .npz files: what is accepted comes out as float32 and int64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import DataError
from deploykit.exporting.data import load_samples
from deploykit.spec.arrays import AnyArray
from deploykit.spec.inputs import InputSpec, only_input
from tests.exported import save

SHAPE = only_input((1, 3, 4, 4))
INPUTS = np.random.default_rng(0).standard_normal((5, 3, 4, 4))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_any_float_becomes_float32(kind: type, tmp_path: Path) -> None:
    samples = load_samples(save(tmp_path / "a.npz", inputs=INPUTS.astype(kind)), SHAPE)
    assert isinstance(samples.inputs, np.ndarray)
    assert samples.inputs.dtype == np.float32
    np.testing.assert_array_equal(samples.inputs, INPUTS.astype(kind).astype(np.float32))
    assert samples.labels is None


def test_labels_become_int64(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", inputs=INPUTS, labels=np.arange(5, dtype=np.uint8))
    labels = load_samples(path, SHAPE).labels
    assert labels is not None
    assert labels.dtype == np.int64


def test_the_batch_of_the_shape_does_not_count(tmp_path: Path) -> None:
    assert len(load_samples(save(tmp_path / "a.npz", inputs=INPUTS), only_input((4, 3, 4, 4)))) == 5


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


AUDIO, META = InputSpec("audio", (1, 3, 4, 4)), InputSpec("meta", (1, 8))
TOKENS = InputSpec("tokens", (1, 6), "int64")
VECTORS = np.ones((5, 8), np.float32)


def test_several_inputs_are_read_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", meta=VECTORS, audio=INPUTS, labels=np.arange(5))
    samples = load_samples(path, (AUDIO, META))
    assert isinstance(samples.inputs, dict)
    assert list(samples.inputs) == ["audio", "meta"]
    assert {values.dtype.name for values in samples.inputs.values()} == {"float32"}
    assert (len(samples), len(samples.head(2))) == (5, 2)
    assert samples.labels is not None


def test_an_only_input_may_be_called_by_its_own_name(tmp_path: Path) -> None:
    assert len(load_samples(save(tmp_path / "a.npz", meta=VECTORS), (META,))) == 5


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"audio": INPUTS}, r"no array for the input 'meta': it holds audio, .* audio, meta; an"),
        ({"inputs": INPUTS}, "no array for the input 'audio'"),
        (
            {"audio": INPUTS, "meta": VECTORS, "mood": VECTORS},
            "holds 'mood', which is no input of the network: it holds audio, meta, mood",
        ),
        (
            {"audio": INPUTS, "meta": VECTORS[:4]},
            r"different numbers of samples \(`audio` 5, `meta` 4\)",
        ),
        ({"audio": INPUTS, "meta": VECTORS[:, :7]}, r"`meta` has shape \[5, 7\]"),
        ({"audio": INPUTS, "meta": VECTORS.astype(int)}, "`meta` is int64; give float32"),
    ],
)
def test_what_does_not_fit_several_inputs_is_refused(
    arrays: dict[str, AnyArray], told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=told):
        load_samples(save(tmp_path / "a.npz", **arrays), (AUDIO, META))


def test_token_ids_stay_whole_numbers(tmp_path: Path) -> None:
    ids = np.arange(30, dtype=np.uint16).reshape(5, 6)
    samples = load_samples(save(tmp_path / "a.npz", inputs=ids), (TOKENS,))
    assert isinstance(samples.inputs, np.ndarray)
    assert samples.inputs.dtype == np.int64
    with pytest.raises(DataError, match=r"`inputs` is float32, .* \(token ids\) there; give int64"):
        load_samples(save(tmp_path / "b.npz", inputs=ids.astype(np.float32)), (TOKENS,))
    with pytest.raises(DataError, match="beyond int32"):
        wide = ids.astype(np.int64) + 2**40
        load_samples(save(tmp_path / "c.npz", t=wide), (InputSpec("t", (1, 6), "int32"),))
    with pytest.raises(DataError, match=r"an .npz file holds `inputs` \[N, 6\] int64"):
        load_samples(tmp_path / "none.npz", (TOKENS,))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git-lfs pointer.*pull"),
        (b"\x1f\x8b\x08\x00rest", "compressed with gzip; unpack it first"),
        (b"one,two\n1,2\n", "it is a text file"),
        (b"", "it is empty"),
        (b"PK\x03\x04 and no more", "it is damaged, encrypted, or holds Python objects"),
        (b"\x00\x01\x02", "it is no such archive"),
    ],
)
def test_a_file_of_another_kind_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot be read as \.npz: .*{told}") as refused:
        load_samples(path, SHAPE)
    assert "allow_pickle" not in str(refused.value)
