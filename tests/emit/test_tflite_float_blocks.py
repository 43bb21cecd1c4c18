"""Blocks of real architectures: the file computes the network, whole in XNNPACK, without turning.

A convolutional block keeps [N, H, W, C] from its input to its output.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.emit.tflite_float import write_float_tflite
from deploykit.graph.capture import capture
from deploykit.graph.normalize import normalize
from deploykit.runtime import litert
from deploykit.spec.network import Network
from tests.emit.float_blocks import BLOCKS, TRANSPOSES
from tests.emit.float_checking import TOLERANCE, difference, operators, outside_xnnpack

pytestmark = pytest.mark.skipif(litert.version() is None, reason="LiteRT is not installed")


@cache
def block(name: str) -> Network:
    make, shape = BLOCKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().eval()
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2.0)
    return normalize(capture(module, {}, np.zeros(shape, np.float32)))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_file_computes_what_the_block_does(name: str) -> None:
    assert difference(block(name)) < TOLERANCE


@pytest.mark.parametrize("name", BLOCKS)
def test_xnnpack_takes_the_whole_block(name: str) -> None:
    data = write_float_tflite(block(name))
    assert outside_xnnpack(data) == []
    assert litert.partitions(data) == 1


@pytest.mark.parametrize("name", BLOCKS)
def test_axes_change_places_only_where_they_have_to(name: str) -> None:
    codes = operators(write_float_tflite(block(name)))
    assert codes.count("TRANSPOSE") == TRANSPOSES.get(name, 0)


def test_what_a_dense_block_joins_is_joined_once() -> None:
    codes = operators(write_float_tflite(block("dense")))
    assert codes.count("CONCATENATION") == 7
