"""The forms whose cost is measured: each is a network, and its files compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kernels import write_files
from kernels_forms import FORMS, Form

from deploykit.reference.float import evaluate
from deploykit.runtime import litert, ort
from deploykit.spec.network import static_shape


@pytest.mark.parametrize("form", [one for one in FORMS if one.side < 100], ids=lambda one: one.name)
def test_every_form_is_a_network(form: Form) -> None:
    network = form.network()
    shape = static_shape(network.model.graph.inputs[0])
    assert shape is not None
    (mean,) = (evaluate(network, np.ones(shape, np.float32))[str(port.name)]
               for port in network.model.graph.outputs)  # fmt: skip
    assert mean.shape == (1, shape[1], 1, 1)


@pytest.mark.parametrize(
    "form",
    [one for one in FORMS if one.operator in ("hard-swish", "average pool 2x2")],
    ids=lambda one: one.name,
)
def test_int8_files_compute_what_the_float_ones_do(form: Form, tmp_path: Path) -> None:
    files = write_files(form, tmp_path)
    values = np.random.default_rng(1).normal(size=(1, 8, 56, 56)).astype(np.float32)
    (expected,) = ort.run(files["onnxruntime float"].read_bytes(), {"input": values}).values()
    (found,) = ort.run(files["onnxruntime int8"].read_bytes(), {"input": values}).values()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    (lite,) = litert.run(
        files["litert float"].read_bytes(), {"input": values.transpose(0, 2, 3, 1)}
    ).values()
    assert np.abs(lite.transpose(0, 3, 1, 2) - expected).max() < 1e-3 * np.abs(expected).max()
