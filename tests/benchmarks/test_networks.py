"""The benchmark's architectures have the published numbers of parameters."""

from __future__ import annotations

import pytest
import torch
from networks import ARCHITECTURES
from networks.efficientnet_lite import EfficientNetLite0

PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnext50": 25_028_904,
    "vgg16-bn": 138_365_992,
    "mobilenet-v2": 3_504_872,
    "mobilenet-v3-large": 5_483_032,
    "densenet121": 7_978_856,
    "shufflenet-v2": 2_278_604,
    "inception-v3": 23_834_568,
}
"""torchvision's tables, weights and biases, Inception without its auxiliary classifier."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        network = ARCHITECTURES[name].build()
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED[name]


def test_efficientnet_lite0_has_its_checkpoints_parameters() -> None:
    with torch.device("meta"):
        network = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
