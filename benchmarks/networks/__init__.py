"""The architectures that people ship, in plain torch: one file per family, one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from networks.crnn import crnn
from networks.densenet import densenet121
from networks.ds_cnn import ds_cnn
from networks.encoder import encoder
from networks.inception import inception_v3
from networks.mobilenet_v2 import mobilenet_v2
from networks.mobilenet_v3 import mobilenet_v3_large
from networks.resnet import resnet18, resnet50
from networks.resnext import resnext50
from networks.shufflenet_v2 import shufflenet_v2
from networks.unet import unet
from networks.vgg import vgg16_bn
from networks.vit import vit, vit_mha
from networks.yolo import yolo


@dataclass(frozen=True)
class Architecture:
    """build: the network, weights not set yet; input_shape: [1, C, H, W] or [1, T, F]."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


ARCHITECTURES: Mapping[str, Architecture] = {
    "resnet18": Architecture(resnet18, (1, 3, 224, 224)),
    "resnet50": Architecture(resnet50, (1, 3, 224, 224)),
    "resnext50": Architecture(resnext50, (1, 3, 224, 224)),
    "vgg16-bn": Architecture(vgg16_bn, (1, 3, 224, 224)),
    "mobilenet-v2": Architecture(mobilenet_v2, (1, 3, 224, 224)),
    "mobilenet-v3-large": Architecture(mobilenet_v3_large, (1, 3, 224, 224)),
    "densenet121": Architecture(densenet121, (1, 3, 224, 224)),
    "shufflenet-v2": Architecture(shufflenet_v2, (1, 3, 224, 224)),
    "inception-v3": Architecture(inception_v3, (1, 3, 299, 299)),
    "unet": Architecture(unet, (1, 3, 128, 128)),
    "yolo": Architecture(yolo, (1, 3, 320, 320)),
    "ds-cnn": Architecture(ds_cnn, (1, 1, 49, 10)),
    "vit": Architecture(vit, (1, 3, 224, 224)),
    "vit-mha": Architecture(vit_mha, (1, 3, 224, 224)),
}
"""EfficientNet-Lite0 is not here: it comes with its own weights (networks.efficientnet_lite)."""

SEQUENCES: Mapping[str, Architecture] = {
    "encoder": Architecture(encoder, (1, 98, 40)),
    "crnn": Architecture(crnn, (1, 1, 32, 128)),
}
"""Networks over sequences, whose channels no benchmark of removal masks."""
