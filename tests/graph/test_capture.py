"""A torch module becomes a graph with its parameters' names, or a sentence that says why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploykit.errors import ArchitectureError, GraphError
from deploykit.graph.capture import capture
from deploykit.graph.normalize import normalize
from deploykit.reference.float import evaluate
from deploykit.spec.network import static_shape
from tests.graph.text import expected, values, written


class Both(nn.Module):
    """Two results."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x * 2


class Named(nn.Module):
    """The same by name."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"zeta": x + 1, "alpha": x * 2}


class Twice(nn.Module):
    """One result as two outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        doubled = x * 2
        return doubled, doubled


class Half(nn.Module):
    """Never uses its second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.used(x))


class Silent(nn.Module):
    """Fails without a word."""

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError


class Two(nn.Module):
    """Needs a second input."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Branching(nn.Module):
    """Control flow that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if bool(x.sum() > 0) else -x


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    ).eval()


def test_initializers_keep_the_parameters_names_values_and_variances() -> None:
    module = plain()
    variance = {
        name: np.full(tuple(parameter.shape), 0.5, np.float32)
        for name, parameter in module.named_parameters()
    }
    network = capture(module, variance, np.zeros((1, 1, 4, 4), np.float32))
    held = values(network)
    for name, parameter in module.named_parameters():
        np.testing.assert_array_equal(held[name], parameter.detach().numpy())
        np.testing.assert_array_equal(network.variance[name], variance[name])
    assert [str(value.name) for value in network.model.graph.inputs] == ["input"]
    assert [str(value.name) for value in network.model.graph.outputs] == ["output"]


def test_the_graph_computes_what_the_module_does() -> None:
    module = plain()
    network = normalize(capture(module, {}, np.zeros((1, 1, 4, 4), np.float32)))
    inputs = np.random.default_rng(0).normal(size=(5, 1, 4, 4))
    with torch.no_grad():
        told = module(torch.from_numpy(inputs).float()).numpy()
    np.testing.assert_allclose(evaluate(network, inputs)["output"], told, atol=1e-6)


def test_the_graph_does_not_follow_the_module_afterwards() -> None:
    module = plain()
    network = capture(module, {}, np.zeros((1, 1, 4, 4), np.float32))
    before = values(network)["0.weight"].copy()
    with torch.no_grad():
        module.get_parameter("0.weight").zero_()
    np.testing.assert_array_equal(values(network)["0.weight"], before)


def test_a_linear_without_bias_is_captured() -> None:
    network = capture(nn.Linear(3, 2, bias=False).eval(), {}, np.zeros((1, 3), np.float32))
    assert written(normalize(network)) == expected(
        """
        output[1,2] = Gemm<transB=1>(input, weight[2,3], weight.bias[2])
        """
    )


@pytest.mark.parametrize(
    ("module", "shape", "said"),
    [
        (plain(), (1, 2, 4, 4), r"\[1, 2, 4, 4\] does not fit.*--input-shape"),
        (plain(), (1, 1, 9, 9), r"\[1, 1, 9, 9\] does not fit"),
        (plain(), (1, 1, 2, 2), "does not fit"),
        (Silent(), (1, 3), "does not fit the network: ValueError;"),
        (Two(), (1, 3), "does not fit the network: .*'y'"),
    ],
)
def test_a_shape_that_does_not_fit_is_one_sentence(
    module: nn.Module, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ArchitectureError, match=said) as caught:
        capture(module, {}, np.zeros(shape, np.float32))
    assert "\n" not in str(caught.value)


def test_a_tuple_and_a_dict_of_outputs_are_named() -> None:
    for module, names in ((Both(), ["output_0", "output_1"]), (Named(), ["zeta", "alpha"])):
        network = capture(module.eval(), {}, np.zeros((1, 3), np.float32))
        assert [str(value.name) for value in network.model.graph.outputs] == names


class Weighted(nn.Module):
    """Arguments of different shapes, which the caller names in another order."""

    def forward(self, image: Tensor, factor: Tensor, shift: Tensor | None = None) -> Tensor:
        return image.mean((2, 3)) * factor + (0.0 if shift is None else shift)


def test_inputs_have_the_names_of_the_arguments() -> None:
    given = {
        "factor": np.full((1, 5), 2, np.float32), "shift": np.full((1, 1), 3, np.float32),
        "image": np.ones((1, 5, 4, 4), np.float32),
    }  # fmt: skip
    network = capture(Weighted().eval(), {}, given)
    shapes = {str(value.name): static_shape(value) for value in network.model.graph.inputs}
    assert list(shapes) == ["image", "factor", "shift"]
    assert shapes == {name: values.shape for name, values in given.items()}
    np.testing.assert_array_equal(evaluate(network, given)["output"], np.full((1, 5), 5.0))


def test_a_tensor_that_comes_back_twice_is_refused() -> None:
    with pytest.raises(GraphError, match="a tensor that it returns twice"):
        capture(Twice().eval(), {}, np.zeros((1, 3), np.float32))


def test_control_flow_on_values_is_refused_with_a_reason() -> None:
    with pytest.raises(GraphError, match=r"could not trace the network: .*control flow"):
        capture(Branching().eval(), {}, np.zeros((1, 3), np.float32))


class Chosen(Half):
    """Gives whole numbers, which do not move with any parameter."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


def test_a_parameter_that_no_output_depends_on_is_left_out() -> None:
    uncertain = dict.fromkeys(("used.weight", "unused.weight"), np.ones((2, 3), np.float32))
    network = capture(Half().eval(), uncertain, np.zeros((1, 3), np.float32))
    assert set(network.variance) == {"used.weight"}


def test_a_parameter_that_may_be_used_is_refused_by_name() -> None:
    uncertain = np.ones((2, 3), np.float32)
    with pytest.raises(GraphError, match=r"no initializer named unused\.weight"):
        capture(Chosen().eval(), {"unused.weight": uncertain}, np.zeros((1, 3), np.float32))


def test_an_unused_parameter_that_is_certain_is_none_of_our_business() -> None:
    network = capture(
        Half().eval(), {"unused.weight": np.zeros((2, 3), np.float32)}, np.zeros((1, 3), np.float32)
    )
    assert network.variance == {}


class UsedTwice(nn.Module):
    """One layer under two names, of which the last is the one that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.again(torch.relu(self.again(x))))


def test_a_variance_goes_to_the_name_that_the_graph_uses() -> None:
    module = UsedTwice().eval()
    spread = np.full((3, 3), 0.5, np.float32)
    for name in ("first.weight", "again.weight"):
        captured = capture(module, {name: spread}, np.zeros((1, 3), np.float32))
        (stored,) = captured.variance
        np.testing.assert_array_equal(captured.variance[stored], spread)
        weight = captured.model.graph.initializers[stored].const_value
        assert weight is not None
        np.testing.assert_array_equal(weight.numpy(), module.first.weight.detach().numpy())
