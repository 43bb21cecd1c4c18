"""A file under test has to equal the recorded plan in every constant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.spec.operators import Conv, IntegerWeight, Window
from deploykit.spec.quantized import ActivationTensor, Port, Quantization, QuantizedNetwork
from deploykit.spec.record import digest, first_difference, record_network

NETWORK = QuantizedNetwork(
    {
        "x": ActivationTensor("x", (1, 1, 4, 4), Quantization(0.5, 0)),
        "y": ActivationTensor("y", (1, 2, 4, 4), Quantization(0.25, -3)),
    },
    (
        Conv(
            "conv", "x", "y",
            IntegerWeight("w", np.ones((2, 1, 1, 1), np.int8), np.full(2, 0.5, np.float32)),
            np.zeros(2, np.int32), Window((1, 1)),
        ),
    ),
    (Port("input", "x"),),
    (Port("output", "y"),),
)  # fmt: skip


def changed(**fields: object) -> QuantizedNetwork:
    (conv,) = NETWORK.operators
    return replace(NETWORK, operators=(replace(conv, **fields),))  # type: ignore[arg-type]


WEIGHT = NETWORK.operators[0].weight  # type: ignore[union-attr]
ONE_WEIGHT = np.array([1, 2], np.int8).reshape(2, 1, 1, 1)


@pytest.mark.parametrize(
    ("network", "phrase"),
    [
        (changed(weight=replace(WEIGHT, values=ONE_WEIGHT)), "its weight differs"),
        (changed(weight=replace(WEIGHT, scale=np.ones(2, np.float32))), "its weight differs"),
        (changed(bias=np.ones(2, np.int32)), "its bias differs"),
        (changed(window=Window((1, 1), strides=(2, 2))), "its window differs"),
        (changed(groups=2), "its groups differs"),
        (changed(output="z"), "no operator computes it"),
    ],
)
def test_a_changed_constant_names_the_tensor_it_is_for(
    network: QuantizedNetwork, phrase: str
) -> None:
    found = first_difference(record_network(NETWORK), record_network(network))
    assert found == ("y", phrase)


def test_a_changed_scale_names_the_first_operator_that_uses_it() -> None:
    tensors = {
        **NETWORK.tensors,
        "x": replace(NETWORK.tensors["x"], quantization=Quantization(1, 0)),
    }
    found = first_difference(
        record_network(NETWORK), record_network(replace(NETWORK, tensors=tensors))
    )
    assert found == ("y", "the quantization or shape of x differs")


def test_equal_networks_have_no_difference() -> None:
    assert first_difference(record_network(NETWORK), record_network(NETWORK)) is None


def test_a_renamed_port_is_a_difference() -> None:
    other = replace(NETWORK, inputs=(Port("image", "x"),))
    found = first_difference(record_network(NETWORK), record_network(other))
    assert found == ("inputs", "the graph's own inputs or outputs differ")


def test_digest_tells_shape_and_type_apart() -> None:
    flat = np.zeros(4, np.int8)
    assert len({digest(flat), digest(flat.reshape(2, 2)), digest(flat.astype(np.int32))}) == 3
    assert digest(flat) == digest(flat.copy())
