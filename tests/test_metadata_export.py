"""--labels, --mean and --std: what the files carry, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import onnx
import pytest

import deploykit
from deploykit.bundle import Bundle
from deploykit.emit.tflite_metadata import NAME
from deploykit.emit.tflite_tables import root_table
from deploykit.errors import ConfigError, DataError
from deploykit.quantize import planning
from tests import onnx_files
from tests.exported import save
from tests.onnx_files import normal

LABELS = ("cat", "dog", "bird", "fish", "ant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described")
    onnx_files.save(onnx_files.classifier(13), folder / "net.onnx")
    save(folder / "data.npz", inputs=normal(8, 3, 8, 8))
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    return folder


def exported(folder: Path, name: str, **options: object) -> Bundle:
    return deploykit.export(
        folder / "net.onnx", data=folder / "data.npz", out=folder / name, **options,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return exported(folder, "bundle", labels=folder / "labels.txt", mean=127.5, std=[64, 64.5, 65])


def test_tflite_carries_normalization_and_labels_where_its_tools_look(bundle: Bundle) -> None:
    data = bundle.file("model.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("labels.txt").decode().split() == list(LABELS)
    model = root_table(data, b"TFL3")
    (place,) = (one.integer(1, "<I") for one in model.tables(6) if one.text(0) == NAME)
    stored = model.tables(4)[place].array(0, "|u1")
    assert stored is not None
    described = root_table(stored.tobytes(), b"M001")
    (subgraph,) = described.tables(3)
    (source,), (target,) = subgraph.tables(2), subgraph.tables(3)
    (unit,) = source.tables(4)
    options = unit.table(1)
    assert options is not None
    assert [options.array(slot, "<f4").tolist() for slot in (0, 1)] == [  # type: ignore[union-attr]
        [127.5], [64.0, 64.5, 65.0],
    ]  # fmt: skip
    (file,) = target.tables(6)
    assert (file.text(0), file.integer(2, "<b")) == ("labels.txt", 2)


def test_onnx_carries_them_as_metadata(bundle: Bundle) -> None:
    found = {
        entry.key: entry.value for entry in onnx.load(bundle.file("model.onnx")).metadata_props
    }
    assert found["labels"].split("\n") == list(LABELS)
    assert (found["mean"], found["std"]) == ("127.5", "64.0,64.5,65.0")


def test_the_bundle_verifies_and_says_so(bundle: Bundle) -> None:
    assert not deploykit.verify_bundle(bundle.path).failed
    stated = bundle.manifest["metadata"]
    assert stated == {"labels": 5, "mean": [127.5], "std": [64, 64.5, 65]}


def test_without_them_nothing_is_added(folder: Path) -> None:
    data = exported(folder, "plain").file("model.tflite").read_bytes()
    assert NAME.encode() not in data


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mean": 127}, "belong together"),
        ({"mean": 127, "std": 0}, "must be positive"),
        ({"mean": "a,b", "std": 1}, "--mean a,b is no number"),
        ({"mean": float("nan"), "std": 1}, "is no number"),
        (
            {"labels": "missing.txt"},
            "missing.txt: No such file or directory; give .*one label a line",
        ),
    ],
)
def test_a_wrong_option_is_refused(folder: Path, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        exported(folder, "none", **options)
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mean": [1, 2], "std": [1, 2]}, "2 numbers for 3 channels"),
        ({"labels": ["a", "b"]}, "2 labels for outputs of the shapes"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, object],
    reason: str,
) -> None:
    monkeypatch.setattr(planning, "plan_quantization", None)  # refused before it would be called
    if "labels" in options:
        file = tmp_path / "few.txt"
        file.write_text("a\nb\n")
        options = {"labels": file}
    with pytest.raises(DataError, match=reason):
        exported(folder, "none", **options)
    assert not (folder / "none").exists()


def test_an_empty_line_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n\ndog\n")
    with pytest.raises(ConfigError, match="holds an empty line"):
        exported(folder, "none", labels=tmp_path / "labels.txt")
