"""Two small classifiers of 28x28 images, of which posteriors are trained: see train.py."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class LeNet5(nn.Module):
    """The network of LeCun et al. 1998 with Relu and max pooling; 61,706 weights and biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2).flatten(1)
        logits: Tensor = self.fc3(self.fc2(self.fc1(x).relu()).relu())
        return logits


def block(channels: int, outputs: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1 convolution, each with batch norm and Relu."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Separable(nn.Module):
    """Depthwise separable convolutions as in MobileNet (Howard et al. 2017); 13,610 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            block(16, 32, 1), block(32, 64, 2), block(64, 64, 1), block(64, 64, 1)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def lenet5() -> nn.Module:
    """For --model."""
    return LeNet5()


def separable() -> nn.Module:
    """For --model."""
    return Separable()
