"""bayesian-torch 0.5.0: an LSTM over the rows of an image, then a linear layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from tests.libraries.frame import Library, Spread, Trained, descend, imported
from tests.libraries.images import Images

ROWS, STATES = 14, 16


class Network(nn.Module):
    """The library's layers: (outputs, states, KL) and (output, KL)."""

    def __init__(self, lstm: nn.Module, fc: nn.Module) -> None:
        super().__init__()
        self.lstm, self.fc = lstm, fc
        self.kl: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        outputs, _, first = self.lstm(rows(x))
        output: Tensor
        output, second = self.fc(outputs[:, -1])
        self.kl = first + second
        return output


class Twin(nn.Module):
    """The same of torch layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(ROWS, STATES, batch_first=True)
        self.fc = nn.Linear(STATES, 10)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(self.lstm(rows(x))[0][:, -1])
        return output


def rows(x: Tensor) -> Tensor:
    """[N, 1, 28, 28] -> [N, 14, 14], a step per two rows."""
    return functional.avg_pool2d(x, 2).flatten(1, 2)


def bayesian() -> nn.Module:
    """The network of the library's layers."""
    layers = imported("bayesian_torch.layers")
    return Network(
        layers.LSTMReparameterization(ROWS, STATES), layers.LinearReparameterization(STATES, 10)
    )


def twin() -> nn.Module:
    """The same of torch layers."""
    return Twin()


def train(images: Images) -> Trained:
    """Cross entropy plus KL over the number of images in a batch."""
    network: Any = bayesian()

    def loss(inputs: Tensor, labels: Tensor) -> Tensor:
        cost = functional.cross_entropy(network(inputs), labels)
        total: Tensor = cost + network.kl / len(labels)
        return total

    descend(network, loss, images)
    network.eval()
    return Trained(network.state_dict(), lambda x: mean_forward(network, x), network)


def mean_forward(network: Any, x: Tensor) -> Tensor:
    """The recurrence at the means, step by step."""
    ih, hh, x = network.lstm.ih, network.lstm.hh, rows(x)
    hidden = cell = x.new_zeros(len(x), STATES)
    for step in range(ROWS):
        gates = functional.linear(x[:, step], ih.mu_weight, ih.mu_bias)
        gates = gates + functional.linear(hidden, hh.mu_weight, hh.mu_bias)
        enter, forget, new, leave = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
    return functional.linear(hidden, network.fc.mu_weight, network.fc.mu_bias)


LIBRARY = Library(
    name="bayesian_torch_lstm",
    package="bayesian_torch",
    requirements=("bayesian-torch==0.5.0",),
    train=train,
    families=frozenset({"bayesian-torch LSTM", "bayesian-torch linear"}),
    # Its recurrence draws the weights anew at every step.
    spread=Spread.OTHERWISE,
)
