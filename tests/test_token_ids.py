"""Networks that read token ids, from a checkpoint and from an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import deploykit
from deploykit.bundle import Bundle
from deploykit.runtime import litert, ort
from deploykit.spec.arrays import AnyArray
from deploykit.spec.parity import Verdict
from tests import small_models
from tests.cli.running import assert_refused, run
from tests.exported import mend, save
from tests.onnx_files import normal

MODEL = "tests.small_models:reader"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer's checkpoint and ids for it."""
    folder = tmp_path_factory.mktemp("tokens")
    small_models.save_random(small_models.reader(), folder / "net.pt")
    ids = np.random.default_rng(0).integers(0, 50, (40, 12))
    save(folder / "data.npz", inputs=ids)
    return folder


def words(folder: Path, out: Path, *more: str | Path) -> list[str | Path]:
    """A line of `export`."""
    return [
        "export", folder / "net.pt", "--model", MODEL, "--prune-rule", "none", "--align", "none",
        "--data", folder / "data.npz", "--input-shape", "tokens=1,12:int64", "--out", out, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    result = run(*words(folder, folder / "bundle"))
    assert result.exit_code == 0, result.stderr
    assert "model.tflite: input 'tokens' int32 [1, 12] (0 to 49), output" in result.stdout
    assert "model.onnx: input 'tokens' int64 [1, 12] (0 to 49), output" in result.stdout
    return folder / "bundle"


def test_a_transformer_is_exported_and_verified(bundle: Path, folder: Path) -> None:
    checked = run("verify", bundle)
    assert checked.exit_code == 0, checked.stdout
    ids = np.load(folder / "data.npz")["inputs"]
    network = small_models.reader()
    network.load_state_dict(torch.load(folder / "net.pt"))
    with torch.no_grad():
        real = network.eval()(torch.tensor(ids)).numpy()
    data = (bundle / "model.onnx").read_bytes()
    (ours,) = ort.run(data, {"tokens": ids}).values()
    (theirs,) = litert.run(
        (bundle / "model.tflite").read_bytes(), {"tokens": ids.astype(np.int32)}
    ).values()
    for found in (ours, theirs):
        assert np.square(found - real).mean() < np.square(real).mean() / 300
    manifest = run("inspect", bundle, "--json")
    assert manifest.exit_code == 0


def test_ids_measure_on_rows_that_exist(bundle: Path) -> None:
    measured = deploykit.bench_bundle(bundle, rounds=1, runs=2)
    assert len(measured.models) == 4


def test_its_table_is_int8_and_its_channels_are_its_columns(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    (gather,) = (node for node in model.graph.node if "tokens" in node.input)
    tables = {one.name: one for one in model.graph.initializer}
    assert tables[gather.input[0]].data_type == onnx.TensorProto.UINT8
    manifest = json.loads((bundle / "manifest.json").read_text())
    (layer,) = (one for one in manifest["layers"] if one["operator"] == "Embedding")
    assert (layer["channels_before"], layer["channels_after"]) == (16, 16)


GRU = """g (int32[1,9] words, float[1,6] speaker) => (float[1,5] scores) {
    ids = Cast <to=7> (words)
    e = Gather (table, ids)
    t = Transpose <perm=[0,2,1]> (e)
    c = Conv <kernel_shape=[3], pads=[1,1]> (t, w, b)
    r = Relu (c)
    s = Transpose <perm=[2,0,1]> (r)
    all, last = GRU <hidden_size=6, linear_before_reset=1> (s, wx, wh)
    h = Squeeze (last, zero)
    j = Add (h, speaker)
    scores = Gemm <transB=1> (j, v, vb)
}"""


def recurrent(folder: Path) -> Path:
    """Words through a convolution and a GRU, with a dead column of their table."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {GRU}')
    table, weight = normal(30, 8), normal(6, 8, 3, seed=1) / 4
    weight[:, 5] = 0
    arrays: dict[str, AnyArray] = {
        "table": table, "w": weight, "b": normal(6, seed=2), "wx": normal(1, 18, 6, seed=3) / 2,
        "wh": normal(1, 18, 6, seed=4) / 2, "zero": np.array([0]), "v": normal(5, 6, seed=5),
        "vb": normal(5, seed=6),
    }  # fmt: skip
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, folder / "gru.onnx")
    ids = np.random.default_rng(1).integers(0, 30, (32, 9))
    save(folder / "gru.npz", words=ids, speaker=normal(32, 6))
    return folder / "gru.onnx"


def exported(folder: Path, io: str = "float") -> Bundle:
    """A bundle of it."""
    path = recurrent(folder)
    return deploykit.export(path, data=folder / "gru.npz", out=folder / "b", align="none", io=io)


@pytest.mark.parametrize("io", ["float", "int8", "uint8"])
def test_a_convolution_and_a_gru_behind_ids_beside_floats(io: str, tmp_path: Path) -> None:
    bundle = exported(tmp_path, io)
    words, speaker = bundle.manifest["inputs"]
    assert (words["name"], words["dtype"], words["below"]) == ("words", "int32", 30)
    assert speaker["dtype"] == {"float": "float32"}.get(io, io)
    layers = {layer["name"]: layer for layer in bundle.manifest["layers"]}
    assert (layers["e"]["operator"], layers["c"]["operator"]) == ("Embedding", "Conv")
    assert (layers["e"]["channels_before"], layers["e"]["channels_after"]) == (8, 7)
    model = onnx.load(bundle.file("model.float.onnx"))
    (table,) = (one for one in model.graph.initializer if one.name == "table")
    assert list(table.dims) == [30, 7]
    assert {found["differing"] for found in bundle.manifest["parity"]} == {0}
    report = deploykit.verify_bundle(bundle.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]


def test_a_table_that_was_changed_is_named(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    model = onnx.load(bundle.file("model.onnx"))
    (table,) = (one for one in model.graph.initializer if one.name == "table")
    held = numpy_helper.to_array(table).copy()
    held[4, 2] ^= 1
    table.CopyFrom(numpy_helper.from_array(held, "table"))
    onnx.save(model, bundle.file("model.onnx"))
    mend(bundle.path)
    failed = [
        step
        for step in deploykit.verify_bundle(bundle.path).steps
        if step.verdict is Verdict.FAILED
    ]
    assert {step.operator for step in failed if "model.onnx" in step.compared} == {"e"}
    assert any("its table differs" in step.detail for step in failed)


def test_ids_that_no_table_has_are_refused(folder: Path, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 51, (40, 12))
    ids[0, 0] = 50
    line = words(folder, tmp_path / "b")
    line[line.index("--data") + 1] = save(tmp_path / "data.npz", inputs=ids)
    assert_refused(run(*line), 3, "each has to be one that the table has")
    path = recurrent(tmp_path)
    save(tmp_path / "gru.npz", words=np.full((8, 9), 30), speaker=normal(8, 6))
    line = ["export", path, "--data", tmp_path / "gru.npz", "--out", tmp_path / "b"]
    assert_refused(run(*line), 3, "--data: the input 'words' runs from 30 to 30", "0 to 29")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("m = Cast <to=1> (ids) y = Mul (m, k)", "m: operator Cast reads the whole numbers"),
        ("d = Add (ids, one) e = Gather (t, d) y = Mul (e, k)", "d: operator Add reads"),
        ("y = Mul (x, k)", "nothing reads the whole numbers of the input 'ids'; leave it out"),
    ],
)
def test_what_else_reads_ids_is_refused(text: str, told: str, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> '
        f"g (int64[1,4] ids, float[1,4] x) => (float[] y) {{ {text} }}"
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    arrays = {"k": normal(1, 4), "t": normal(9, 4), "one": np.array(1)}
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, tmp_path / "net.onnx")
    save(tmp_path / "data.npz", ids=np.ones((8, 4), int), x=normal(8, 4))
    line: list[str | Path] = ["export", tmp_path / "net.onnx", "--data", tmp_path / "data.npz"]
    assert_refused(run(*line, "--out", tmp_path / "b"), 3, told)


def test_prune_cuts_a_table_by_itself(tmp_path: Path) -> None:
    done = deploykit.prune(recurrent(tmp_path), tmp_path / "out.onnx")
    (entry,) = (one for one in done.removal.tensors if one.tensor == "e")
    assert (entry.channels_before, entry.channels_after) == (8, 7)
    assert [gone.channel for gone in entry.removed] == [5]
