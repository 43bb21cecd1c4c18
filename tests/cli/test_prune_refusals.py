"""deploykit prune on networks that it cannot take: one sentence, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from deploykit.spec.arrays import AnyArray
from deploykit_cli.main import app


def model(
    nodes: list[onnx.NodeProto], constants: dict[str, AnyArray], kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """A network of an input [1, 2, 4, 4] to an output `y`."""
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", kind, [1, 2, 4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("acme", 1)],
        ir_version=10,
    )
    return onnx.shape_inference.infer_shapes(proto)


def conv(value: float = 1.0) -> dict[str, AnyArray]:
    kernel = np.ones((3, 2, 1, 1), np.float32)
    kernel[0, 0] = value
    return {"w": kernel}


def weight_of(value: float) -> onnx.ModelProto:
    return model([helper.make_node("Conv", ["x", "w"], ["y"])], conv(value))


def foreign() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("MyOp", ["a"], ["b"], domain="acme"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    return model(nodes, conv())


def integers() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["a", "w"], ["y"]),
    ]
    return model(nodes, conv(), TensorProto.INT64)


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "NaN": (lambda: weight_of(np.nan), "w holds NaN or infinity; the training diverged"),
    "infinity": (lambda: weight_of(np.inf), "w holds NaN or infinity; the training diverged"),
    "an operator of its own": (foreign, "MyOp"),
    "an integer input": (integers, "not every operator that reads it takes rows of a constant"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_a_sentence(case: str, tmp_path: Path) -> None:
    build, message = REFUSED[case]
    path, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(build(), path)
    result = CliRunner().invoke(app, ["prune", str(path), "-o", str(out)])
    assert result.exit_code == 3, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not out.exists()


def test_an_operator_across_the_batch_is_no_obstacle(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"], axis=0),
        helper.make_node("Conv", ["b", "v"], ["y"]),
    ]
    path, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(model(nodes, {**conv(), "v": np.ones((1, 3, 1, 1), np.float32)}), path)
    result = CliRunner().invoke(app, ["prune", str(path), "-o", str(out), "--align", "none"])
    assert result.exit_code == 0, result.output
    assert out.exists()
