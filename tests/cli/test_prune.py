"""deploykit prune: what it prints and writes, and every refusal with nothing written."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import deploykit
from deploykit.runtime.single_pass import run_once
from tests import onnx_files
from tests.cli.running import assert_refused, run, start
from tests.onnx_files import Sizes, file, node, normal, save, save_beside

Words = list[str | Path]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A classifier of which two channels out of six are dead."""
    model = onnx_files.classifier(11)
    model.metadata_props.add(key="classes", value="a,b,c,d,e")
    return save(model, tmp_path / "net.onnx")


def outputs(path: Path, batch: int) -> np.ndarray:
    inputs = {"image": normal(batch, 3, 8, 8, seed=3)}
    found: np.ndarray = run_once(path.read_bytes(), inputs)["logits"]
    return found


def test_dead_channels_go_and_the_function_stays(net: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    result = run("prune", net, "-o", out, "--report", report, "--align", "none")
    assert result.exit_code == 0, result.stderr
    for batch in (1, 4):
        np.testing.assert_allclose(outputs(out, batch), outputs(net, batch), rtol=1e-4, atol=1e-5)
    pruned = onnx.load(out)
    onnx.checker.check_model(pruned, full_check=True)
    shapes = {tuple(tensor.dims) for tensor in pruned.graph.initializer}
    assert {(4, 3, 3, 3), (5, 64)} <= shapes
    assert [(p.key, p.value) for p in pruned.metadata_props] == [("classes", "a,b,c,d,e")]
    assert pruned.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"

    told = " ".join(result.stdout.split())
    assert "stem 6 → 4" in told
    assert "parameters 653 → 437" in told
    assert "MACs 10,848 → 7,232" in told
    assert f"{net.stat().st_size:,} → {out.stat().st_size:,} bytes" in told
    assert "difference, float64 at most" in told
    assert "difference, ONNX Runtime at most" in told
    assert "open sizes N" in told
    assert f"The pruned network is in {out}" in told
    assert f"Next: deploykit export {out} --data calibration.npz --out bundle" in told
    stages = [line.rsplit(maxsplit=2)[0] for line in result.stderr.splitlines()]
    assert stages == [
        "read ONNX file", "fold batch norm and scales", "remove channels", "open sizes again",
        "compare in ONNX Runtime", "write file",
    ]  # fmt: skip

    record = json.loads(report.read_bytes())
    assert record["input"]["opset"] == 11
    assert [entry["channel"] for entry in record["channels"]["stem"]] == [1, 4]
    assert record["output"]["open_sizes"] == ["N"]
    assert record["certificate"]["max_relative"] <= 1e-9
    assert record["onnxruntime"]["max_relative"] <= 1e-4


@pytest.fixture
def branches(tmp_path: Path) -> Path:
    """A residual sum whose branch has 3 of 32 channels live."""
    weight = normal(32, 32, 3, 3, seed=2)
    weight[3:] = 0.0
    nodes = [
        node("Conv", "image w0", "stem"), node("Relu", "stem", "x"),
        node("Conv", "x w1 b1", "branch", pads=[1, 1, 1, 1]), node("Add", "branch x", "sum"),
        node("GlobalAveragePool", "sum", "pooled"), node("Flatten", "pooled", "logits"),
    ]  # fmt: skip
    constants = {"w0": normal(32, 3, 1, 1), "w1": weight, "b1": np.ones(32, np.float32)}
    model = file(nodes, constants, {"image": ["N", 3, 28, 28]}, {"logits": ["N", 32]})
    return save(model, tmp_path / "branches.onnx")


def test_a_layer_computes_its_live_channels_alone_where_that_is_asked_and_faster(
    branches: Path, tmp_path: Path
) -> None:
    whole, out = tmp_path / "whole.onnx", tmp_path / "out.onnx"
    words: Words = ["--target", "ort-x86-avx512-float32"]
    assert run("prune", branches, "-o", whole, *words).exit_code == 0
    result = run("prune", branches, "-o", out, "--narrow-layers", *words, "--json")
    assert result.exit_code == 0, result.stderr
    (layer,) = json.loads(result.stdout)["narrowed_layers"]
    assert (layer["layer"], layer["channels"], layer["live"]) == ("branch", 32, 3)
    assert layer["predicted_speedup"] > 1
    assert out.stat().st_size < whole.stat().st_size / 2
    for batch in (1, 4):
        np.testing.assert_allclose(
            run_once(out.read_bytes(), {"image": normal(batch, 3, 28, 28)})["logits"],
            run_once(branches.read_bytes(), {"image": normal(batch, 3, 28, 28)})["logits"],
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip
    told = run("prune", branches, "-o", out, "--narrow-layers", *words, "--align", "none")
    assert "1 layer predicted to be faster on ort-x86-avx512-float32" in " ".join(
        told.stdout.split()
    )


def test_groups_are_split_unless_they_shall_stay_equal(tmp_path: Path) -> None:
    weight, first = normal(8, 4, 3, 3, seed=1), normal(8, 3, 1, 1)
    weight[[0, 1, 2]] = 0.0
    first[[1, 2, 3]] = 0.0
    nodes = [
        node("Conv", "image w0", "stem"), node("Relu", "stem", "x"),
        node("Conv", "x w1", "grouped", group=2), node("GlobalAveragePool", "grouped", "p"),
        node("Flatten", "p", "features"), node("Gemm", "features w2", "logits"),
    ]  # fmt: skip
    constants = {"w0": first, "w1": weight, "w2": normal(8, 5)}
    model = file(nodes, constants, {"image": ["N", 3, 64, 64]}, {"logits": ["N", 5]})
    source = save(model, tmp_path / "in.onnx")
    operators = {}
    for words in ((), ("--groups", "equal")):
        out = tmp_path / f"out{len(words)}.onnx"
        result = run("prune", source, "-o", out, "--align", "none", *words)
        assert result.exit_code == 0, result.stderr
        told = " ".join(result.stdout.split())
        assert ("groups 1 grouped convolution split by width" in told) is (not words)
        assert ("note: for a file to quantize with export" in told) is (not words)
        operators[words] = [held.op_type for held in onnx.load(out).graph.node]
        for batch in (1, 3):
            given = {"image": normal(batch, 3, 64, 64)}
            np.testing.assert_allclose(
                run_once(out.read_bytes(), given)["logits"],
                run_once(source.read_bytes(), given)["logits"], rtol=1e-4, atol=1e-4,
            )  # fmt: skip
    assert operators[()].count("Conv") == 3
    assert operators["--groups", "equal"].count("Conv") == 2
    refused = run("prune", source, "-o", tmp_path / "o.onnx", "--groups", "some")
    assert_refused(refused, 3, "--groups some: give split or equal")


def test_narrowing_needs_a_table_that_knows_what_copies_cost(
    branches: Path, tmp_path: Path
) -> None:
    target = "litert-x86-avx512vnni-int8"
    result = run(
        "prune", branches, "-o", tmp_path / "o.onnx", "--narrow-layers", "--target", target
    )
    assert_refused(result, 3, "--narrow-layers", target, "ort-x86-avx512-float32")
    assert not (tmp_path / "o.onnx").exists()


def test_json_is_the_report(net: Path, tmp_path: Path) -> None:
    result = run("prune", net, "-o", tmp_path / "o.onnx", "--report", tmp_path / "r.json", "--json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "r.json").read_bytes())


def test_pruning_the_result_removes_nothing_and_says_so(net: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.onnx", tmp_path / "twice.onnx"
    run("prune", net, "-o", once)
    result = run("prune", once, "-o", twice)
    assert "No channel is dead: the file is the same network, in one spelling." in result.stdout
    run("prune", once, "-o", twice)
    assert twice.read_bytes() == once.read_bytes()
    again = run("prune", once, "-o", twice)
    assert f"The pruned network is in {twice}, over the one before" in again.stdout


def test_a_fixed_size_is_told_with_its_reason(tmp_path: Path) -> None:
    model = onnx_files.classifier()
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "W"
    net = save(model, tmp_path / "net.onnx")
    result = run("prune", net, "-o", tmp_path / "o.onnx", "--input-shape", "1,3,8,8")
    assert result.exit_code == 0, result.stderr
    reason = "the file itself does not run at other sizes"
    assert f"warning: W is 8 in the file that was written: {reason}" in result.stdout


def test_dead_outputs_stay_unless_asked_and_are_named_then(tmp_path: Path) -> None:
    model = onnx_files.classifier()
    weight, bias = (t for t in model.graph.initializer if t.name.startswith("head"))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[[0, 3]] = 0.0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "head.weight"))
    net, out = save(model, tmp_path / "net.onnx"), tmp_path / "out.onnx"
    assert run("prune", net, "-o", out).exit_code == 0
    assert outputs(out, 2).shape == (2, 5)
    report = tmp_path / "report.json"
    result = run("prune", net, "-o", out, "--drop-dead-outputs", "--report", report)
    assert result.exit_code == 0, result.stderr
    assert "warning: output 'logits' has 3 channels now, these of before: 1, 2, 4" in result.stdout
    record = json.loads(report.read_bytes())
    assert record["output"]["kept_output_channels"] == {"logits": [1, 2, 4]}
    assert record["output"]["open_sizes"] == ["N"]
    left = outputs(net, 3)[:, [1, 2, 4]]
    np.testing.assert_allclose(outputs(out, 3), left, rtol=1e-4, atol=1e-5)
    assert bias.dims == [5]


def test_data_files_come_in_and_are_not_overwritten(tmp_path: Path) -> None:
    net = save_beside(onnx_files.classifier(), tmp_path / "net.onnx")
    before = (tmp_path / "net.data").read_bytes()
    assert_refused(run("prune", net, "-o", tmp_path / "net.data"), 3, "is the file", "itself")
    assert (tmp_path / "net.data").read_bytes() == before
    assert run("prune", net, "-o", tmp_path / "out.onnx").exit_code == 0
    assert not onnx.load(tmp_path / "out.onnx").graph.initializer[0].external_data


def test_the_function_is_the_verb(net: Path, tmp_path: Path) -> None:
    done = deploykit.prune(net, tmp_path / "out.onnx", input_shape=(1, 3, 8, 8))
    assert done.removal.parameters_after < done.removal.parameters_before
    named = deploykit.prune(net, tmp_path / "two.onnx", input_shape={"image": [1, 3, 8, 8]})
    assert named.out.read_bytes() == done.out.read_bytes()


def dynamic(folder: Path) -> Path:
    nodes = [node("GlobalAveragePool", "x", "p"), node("Conv", "p w", "y")]
    sizes: dict[str, Sizes] = {"x": ["N", 3, "H", "W"]}
    model = file(nodes, {"w": normal(2, 3, 1, 1)}, sizes, {"y": ["N", 2, 1, 1]})
    return save(model, folder / "dynamic.onnx")


REFUSED: dict[str, tuple[Callable[[Path, Path], Words], list[str]]] = {
    "out is in": (lambda net, _: [net, "-o", net], ["--out", "is the file", "itself"]),
    "report is in": (
        lambda net, folder: [net, "-o", folder / "out.onnx", "--report", net],
        ["--report", "is the file", "itself"],
    ),
    "report is out": (
        lambda net, folder: [net, "-o", folder / "o.onnx", "--report", folder / "o.onnx"],
        ["--report", "itself"],
    ),
    "no folder": (
        lambda net, folder: [net, "-o", folder / "gone" / "o.onnx"], ["there is no folder"],
    ),
    "missing file": (
        lambda net, folder: [folder / "no.onnx", "-o", folder / "out.onnx"],
        ["no.onnx: there is no such file"],
    ),
    "open sizes": (
        lambda net, folder: [dynamic(folder), "-o", folder / "out.onnx"],
        ["its input 'x' is [N,3,H,W]", "give --input-shape x=1,3,224,224"],
    ),
    "a shape of letters": (
        lambda net, folder: [net, "-o", folder / "out.onnx", "--input-shape", "1,a"],
        ["--input-shape 1,a is no shape"],
    ),
    "another shape": (
        lambda net, folder: [net, "-o", folder / "out.onnx", "--input-shape", "1,3,9,9"],
        ["--input-shape 1,3,9,9 does not fit", "[N,3,8,8]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_and_nothing_written(
    case: str, net: Path, tmp_path: Path
) -> None:
    words, told = REFUSED[case]
    before = net.read_bytes()
    assert_refused(run("prune", *words(net, tmp_path)), 3, *told)
    assert net.read_bytes() == before
    assert not (tmp_path / "out.onnx").exists()
    assert not [item for item in tmp_path.iterdir() if item.name.endswith(".partial")]


def test_an_interrupted_prune_leaves_nothing(net: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    stop = (
        "import os, signal, deploykit.pipeline as p\n"
        "p.compare_files = lambda *rest: os.kill(os.getpid(), signal.SIGINT)"
    )
    process = start("prune", net, "-o", out, before=stop)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "error: interrupted; nothing was left half written" in told
    assert [item.name for item in tmp_path.iterdir()] == ["net.onnx"]
