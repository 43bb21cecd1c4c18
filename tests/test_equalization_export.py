"""A network that factors per channel spoiled, from the export to `verify`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import deploykit
from deploykit.bundle import Bundle
from deploykit.errors import UsageError
from deploykit.graph.equalize.chains import find_channels
from deploykit.graph.equalize.equalize import scaled
from deploykit.runtime import ort
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from deploykit.spec.parity import Verdict
from tests.exported import save
from tests.graph.text import graph, weights


def network() -> Network:
    """A stem, and twice an expansion, depthwise and projection with Relu, the input around it."""
    lines, constants, last = ["s = Conv<pads=[1,1,1,1]>(input, w0, b0)", "x0 = Relu(s)"], {}, "x0"
    shapes = {"0": (6, 3, 3, 3), "head": (5, 6)}
    for block in ("1", "2"):
        shapes |= {f"{block}e": (16, 6, 1, 1), f"{block}d": (16, 1, 3, 3)}
        shapes[f"{block}p"] = (6, 16, 1, 1)
        lines += [
            f"e{block} = Conv({last}, w{block}e, b{block}e)",
            f"f{block} = Relu(e{block})",
            f"d{block} = Conv<group=16, pads=[1,1,1,1]>(f{block}, w{block}d, b{block}d)",
            f"g{block} = Relu(d{block})",
            f"p{block} = Conv(g{block}, w{block}p, b{block}p)",
            f"x{block} = Add({last}, p{block})",
        ]
        last = f"x{block}"
    lines += [
        f"m = GlobalAveragePool({last})",
        "v = Flatten<axis=1>(m)",
        "output = Gemm<transB=1>(v, whead, bhead)",
    ]
    for seed, (name, shape) in enumerate(shapes.items()):
        fan = float(np.prod(shape[1:]))
        constants[f"w{name}"] = weights(*shape, seed=seed) * np.float32(np.sqrt(2 / fan))
        constants[f"b{name}"] = weights(shape[0], seed=50 + seed) / 4
    body = "\n".join(lines)
    return graph(f"(float[1,3,8,8] input) => (float[1,5] output) {{\n{body}\n}}", constants)


def spoiled(given: Network) -> Network:
    """The same function, its channels times 2^-4 to 2^4."""
    channels = find_channels(given)
    exponents = np.zeros(channels.count, dtype=np.int64)
    rng = np.random.default_rng(1)
    for chain in channels.chains:
        exponents[chain.atoms] = np.where(chain.free, rng.integers(-4, 5, len(chain.atoms)), 0)
    return scaled(given, channels, exponents)


def exported(folder: Path, given: Network, bits: int, equalization: str) -> Bundle:
    folder.mkdir()
    (folder / "net.onnx").write_bytes(ir.to_proto(given.model).SerializeToString())
    data = save(folder / "data.npz", inputs=inputs(0))
    return deploykit.export(
        folder / "net.onnx", data=data, out=folder / "b", bits=bits, equalization=equalization
    )


def inputs(seed: int) -> Float32Array:
    return np.random.default_rng(seed).normal(size=(40, 3, 8, 8)).astype(np.float32)


def outputs(bundle: Bundle, file: str) -> Float32Array:
    (found,) = ort.run(bundle.file(file).read_bytes(), {"input": inputs(1)}).values()
    return np.asarray(found)


def sqnr_db(bundle: Bundle) -> float:
    """Of the integers' outputs."""
    real = outputs(bundle, "model.float.onnx").astype(np.float64)
    error = outputs(bundle, "model.onnx") - real
    return float(10 * np.log10((real**2).sum() / (error**2).sum()))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_spoiled_network_rounds_as_the_one_that_it_was(tmp_path: Path, bits: int) -> None:
    whole = exported(tmp_path / "whole", network(), bits, "none")
    ill = exported(tmp_path / "ill", spoiled(network()), bits, "none")
    mended = exported(tmp_path / "mended", spoiled(network()), bits, "cross-layer")
    for bundle in (ill, mended):
        np.testing.assert_array_equal(
            outputs(bundle, "model.float.onnx"), outputs(whole, "model.float.onnx")
        )
    assert sqnr_db(ill) < sqnr_db(whole) - 6
    assert sqnr_db(mended) > sqnr_db(whole) - 2
    assert ill.manifest["equalization"] is None
    record = mended.manifest["equalization"]
    assert record["samples"] == 32
    makers = [chain["makers"] for chain in record["chains"]]
    assert makers == [["s", "p1", "p2"], ["e1"], ["d1"], ["e2"], ["d2"]]
    for chain in record["chains"]:
        assert chain["moved"] > 0 and chain["predicted_noise"] < 0.9 and chain["pinned"] == []
    report = deploykit.verify_bundle(mended.path)
    assert not report.failed, [step for step in report.steps if step.verdict is Verdict.FAILED]
    assert {found["differing"] for found in mended.manifest["parity"]} == {0}


def test_another_equalization_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--equalization all: choose one of none, cross-layer"):
        exported(tmp_path / "folder", network(), 8, "all")
    assert not (tmp_path / "folder" / "b").exists()
