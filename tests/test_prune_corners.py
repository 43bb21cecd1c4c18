"""Files that `prune` once wrote wrongly, refused without a reason, or made slower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import deploykit
from deploykit.errors import ConfigError, UnsupportedOperatorError
from deploykit.spec.arrays import AnyArray

make = helper.make_node


def drawn(*shape: int) -> AnyArray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def save(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    source: list[int],
    target: list[int],
) -> Path:
    """A checked file that takes x and gives z."""
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", source), ("z", target))
    ]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ports[:1], ports[1:], held),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=9,
    )  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "in.onnx")
    return folder / "in.onnx"


def prune(path: Path, **options: Any) -> dict[str, Any]:
    """The report; the file that was written is legal."""
    out, report = path.parent / "out.onnx", path.parent / "report.json"
    deploykit.prune(path, out, report=report, **options)
    onnx.checker.check_model(onnx.load(out), full_check=True)
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def assert_same_outputs(path: Path) -> None:
    sessions = [
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for file in (path, path.parent / "out.onnx")
    ]
    (port,) = sessions[0].get_inputs()
    values = drawn(*port.shape)
    before, after = (session.run(None, {"x": values})[0] for session in sessions)
    np.testing.assert_allclose(after, before, atol=1e-4, rtol=1e-4)


def uneven(groups: int, width: int) -> AnyArray:
    """[C, width, 1, 1] of which every group but the last keeps one channel in and out."""
    weight = drawn(groups * width, width, 1, 1)
    for group in range(groups - 1):
        own = weight[group * width : (group + 1) * width]
        own[1:] = 0
        own[:, 1:] = 0
    return weight


@pytest.mark.parametrize("options", [{"target": "ort-x86-avx512-float32"}, {"align": "8"}])
def test_a_wider_block_beside_a_grouped_transposed_convolution(
    options: dict[str, str], tmp_path: Path
) -> None:
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1", "b1"], ["a"], pads=[1] * 4), make("Relu", ["a"], ["ar"]),
         make("Conv", ["ar", "w2", "b2"], ["c"], pads=[1] * 4),
         make("ConvTranspose", ["c", "w3", "b3"], ["z"], group=2)],
        {"w1": drawn(29, 3, 3, 3), "b1": drawn(29), "w2": drawn(8, 29, 3, 3), "b2": drawn(8),
         "w3": drawn(8, 4, 1, 1), "b3": drawn(8)},
        [1, 3, 32, 32], [1, 8, 32, 32],
    )  # fmt: skip
    prune(path, **options)
    assert_same_outputs(path)


def test_splitting_never_leaves_more_macs_than_equal_groups(tmp_path: Path) -> None:
    second, third = drawn(4, 2, 1), drawn(4, 4, 1)
    second[0] = second[1, 0] = 0
    third[:, 2:] = 0
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1", "b1"], ["a"]), make("Conv", ["a", "w2", "b2"], ["c"], group=4),
         make("Conv", ["c", "w3"], ["z"])],
        {"w1": drawn(8, 3, 1), "b1": drawn(8), "w2": second, "b2": drawn(4), "w3": third},
        [1, 3, 14], [1, 4, 14],
    )  # fmt: skip
    macs = [prune(path, groups=way, align="none")["macs_after"] for way in ("equal", "split")]
    assert macs[1] <= macs[0]


def test_many_narrow_groups_stay_one_convolution(tmp_path: Path) -> None:
    """Sixty-four convolutions of one or two channels would take longer than the one."""
    weight = drawn(128, 2, 3, 3)
    for group in range(1, 64, 2):
        weight[2 * group + 1] = 0
        weight[2 * group : 2 * group + 2, 1] = 0
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1"], ["a"]), make("Relu", ["a"], ["ar"]),
         make("Conv", ["ar", "w2"], ["c"], pads=[1] * 4, group=64), make("Relu", ["c"], ["cr"]),
         make("Conv", ["cr", "w3"], ["z"])],
        {"w1": drawn(128, 16, 1, 1), "w2": weight, "w3": drawn(16, 128, 1, 1)},
        [1, 16, 14, 14], [1, 16, 14, 14],
    )  # fmt: skip
    assert prune(path)["split_groups"] == []
    assert len(onnx.load(tmp_path / "out.onnx").graph.node) == 5


def in_double(groups: int) -> tuple[list[onnx.NodeProto], dict[str, AnyArray]]:
    nodes = [
        make("Cast", ["x"], ["xd"], to=onnx.TensorProto.DOUBLE),
        make("Conv", ["xd", "w1"], ["a"]),
        make("Conv", ["a", "w2"], ["c"], group=groups),
        make("Conv", ["c", "w3"], ["y"]),
        make("Cast", ["y"], ["z"], to=onnx.TensorProto.FLOAT),
    ]
    constants = {
        "w1": drawn(8, 3, 3, 3), "w2": np.repeat(uneven(2, 4), 9, 3).reshape(8, 4, 3, 3),
        "w3": drawn(4, 8, 1, 1),
    }  # fmt: skip
    return nodes, {name: array.astype(np.float64) for name, array in constants.items()}


def test_a_network_that_computes_in_double_keeps_its_element_type(tmp_path: Path) -> None:
    nodes, constants = in_double(2)
    path = save(tmp_path, nodes, constants, [1, 3, 32, 32], [1, 4, 28, 28])
    report = prune(path, align="none")
    assert report["split_groups"] == ["c"]


def test_a_gate_in_double_that_is_constant(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [make("Cast", ["x"], ["xd"], to=onnx.TensorProto.DOUBLE),
         make("Gemm", ["xd", "w", "b"], ["a"], transB=1),
         make("Gemm", ["xd", "v", "c"], ["g0"], transB=1), make("Sigmoid", ["g0"], ["g"]),
         make("Mul", ["a", "g"], ["y"]), make("Tanh", ["y"], ["t"]),
         make("Cast", ["t"], ["z"], to=onnx.TensorProto.FLOAT)],
        {"w": drawn(4, 3).astype(float), "b": drawn(4).astype(float), "v": np.zeros((4, 3)),
         "c": drawn(4).astype(float)},
        [1, 3], [1, 4],
    )  # fmt: skip
    prune(path)
    assert_same_outputs(path)


@pytest.mark.parametrize("name", ["c.group0", "c.joined", "c.split.cut", "c.split"])
def test_names_that_splitting_would_give(name: str, tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1"], ["a"]), make("Relu", ["a"], [name]),
         make("Conv", [name, "w"], ["c"], group=2), make("Conv", ["c", "w3"], ["z"])],
        {"w1": drawn(8, 3, 1, 1), "w": uneven(2, 4), "w3": drawn(4, 8, 1, 1)},
        [1, 3, 96, 96], [1, 4, 96, 96],
    )  # fmt: skip
    assert prune(path, align="none")["split_groups"] == ["c"]
    assert_same_outputs(path)


def test_a_name_that_narrowing_would_give(tmp_path: Path) -> None:
    third = drawn(64, 8, 1, 1)
    third[8:] = 0
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1"], ["a"]), make("Relu", ["a"], ["c"]),
         make("Conv", ["c", "w3"], ["y"]), make("Conv", ["x", "wy"], ["y.spread"]),
         make("Relu", ["y.spread"], ["p"]), make("Add", ["y", "p"], ["s"]),
         make("Conv", ["s", "w4"], ["z"])],
        {"w1": drawn(8, 3, 1, 1), "w3": third, "wy": drawn(64, 3, 1, 1), "w4": drawn(4, 64, 1, 1)},
        [1, 3, 40, 40], [1, 4, 40, 40],
    )  # fmt: skip
    prune(path, narrow_layers=True, align="none", target="ort-x86-avx512-float32")
    assert_same_outputs(path)


def test_a_split_before_a_shuffle_is_reported(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1"], ["a"]), make("Conv", ["a", "w"], ["c"], group=2),
         make("Gather", ["c", "ix"], ["r"], axis=1), make("Relu", ["r"], ["e"]),
         make("Conv", ["e", "w3"], ["z"])],
        {"w1": drawn(8, 3, 1, 1), "w": uneven(2, 4), "w3": drawn(4, 8, 1, 1),
         "ix": np.array([0, 4, 1, 5, 2, 6, 3, 7])},
        [1, 3, 96, 96], [1, 4, 96, 96],
    )  # fmt: skip
    assert prune(path, align="none")["split_groups"] == ["c"]
    assert_same_outputs(path)


def test_groups_that_are_apart_are_not_aligned(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1"], ["a"]), make("Relu", ["a"], ["ar"]),
         make("Conv", ["ar", "w"], ["c"], group=4), make("Relu", ["c"], ["cr"]),
         make("Conv", ["cr", "w3"], ["z"])],
        {"w1": drawn(16, 3, 1, 1), "w": uneven(4, 4), "w3": drawn(4, 16, 1, 1)},
        [1, 3, 96, 96], [1, 4, 96, 96],
    )  # fmt: skip
    free, aligned = (prune(path, align=align) for align in ("none", "3"))
    assert free["split_groups"] == aligned["split_groups"] == ["c"]
    computed = {
        name for node in onnx.load(tmp_path / "out.onnx").graph.node for name in node.output
    }
    for block in aligned["alignment"]["blocks"]:
        assert set(block["tensors"]) <= computed
    assert aligned["macs_after"] == free["macs_after"]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("operator", ["Add", "Sub"])
def test_a_tensor_and_its_own_shuffle(batch: int, operator: str, tmp_path: Path) -> None:
    first, second = drawn(12, 2, 1, 1), np.zeros((2, 12, 1, 1), np.float32)
    first[[4, 6, 7, 10]] = 0
    second[:, [4, 9, 10, 11]] = drawn(2, 4, 1, 1)
    path = save(
        tmp_path,
        [make("Conv", ["x", "w", "b"], ["y"]), make("Reshape", ["y", "s1"], ["p"]),
         make("Transpose", ["p"], ["q"], perm=[0, 2, 1, 3, 4]), make("Reshape", ["q", "s2"], ["s"]),
         make(operator, ["y", "s"], ["d"]), make("Conv", ["d", "w2"], ["z"])],
        {"w": first, "b": drawn(12), "w2": second, "s1": np.array([batch, 3, 4, 3, 3]),
         "s2": np.array([batch, 12, 3, 3])},
        [batch, 2, 3, 3], [batch, 2, 3, 3],
    )  # fmt: skip
    prune(path)
    assert_same_outputs(path)


def test_a_constant_that_spreads_one_map_over_channels(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [make("Conv", ["x", "w"], ["y"]), make("ReduceMean", ["y", "ax"], ["p"], keepdims=1),
         make("Mul", ["c", "p"], ["q"]), make("Conv", ["q", "w2"], ["z"])],
        {"w": drawn(4, 2, 1, 1), "w2": drawn(3, 4, 1, 1), "c": drawn(1, 4, 1, 1),
         "ax": np.array([1])},
        [1, 2, 3, 3], [1, 3, 3, 3],
    )  # fmt: skip
    prune(path)
    assert_same_outputs(path)


@pytest.mark.parametrize("align", ["9" * 23, "9" * 5000, "1025"])
def test_a_step_wider_than_any_kernel_is_refused(align: str, tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [make("Conv", ["x", "w1"], ["a"]), make("Relu", ["a"], ["r"]),
         make("Conv", ["r", "w2"], ["z"])],
        {"w1": drawn(29, 3, 1, 1), "w2": drawn(4, 29, 1, 1)}, [1, 3, 8, 8], [1, 4, 8, 8],
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"^--align \d{4,20}(\.\.\.)?: .* at most 1024$"):
        prune(path, align=align)


def test_control_flow_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def branch(operator: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([make(operator, ["r"], ["y"])], "branch", [], [made])

    path = save(
        tmp_path,
        [make("Conv", ["x", "w"], ["r"]), make("ReduceMax", ["r"], ["m"], keepdims=0),
         make("Greater", ["m", "zero"], ["c"]),
         make("If", ["c"], ["z"], then_branch=branch("Relu"), else_branch=branch("Identity"))],
        {"w": drawn(4, 3, 1, 1), "zero": np.float32(0)}, [1, 3, 4, 4], [1, 4, 4, 4],
    )  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match="If 'z' chooses between graphs"):
        prune(path)
