"""Running statistics at the posterior mean, against literal statistics and sampled training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from deploykit.errors import ConfigError, DataError
from deploykit.posterior.batchnorm import (
    batchnorm_layers,
    copy_running_statistics,
    reestimate_batchnorm,
    subtract_weight_noise,
)
from deploykit.posterior.group_normal_jeffreys import layer_posterior
from deploykit.spec.arrays import Float32Array
from tests.posterior.checkpoints import checkpoint_of
from tests.posterior.gnj_layers import LinearGNJ, images, randomised


def conv_bn(padding: int = 1) -> nn.Module:
    return randomised(nn.Sequential(nn.Conv2d(1, 4, 3, padding=padding), nn.BatchNorm2d(4))).eval()


def running(module: nn.Module, name: str = "1") -> tuple[Float32Array, Float32Array]:
    state = module.state_dict()
    return state[f"{name}.running_mean"].numpy(), state[f"{name}.running_var"].numpy()


def test_reestimate_is_the_mean_and_variance_of_the_data() -> None:
    network, data = conv_bn(), images(40)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    result = reestimate_batchnorm(network, data)
    with torch.no_grad():
        values = network.get_submodule("0")(torch.tensor(data)).transpose(0, 1).flatten(1)
    mean, variance = running(result)
    np.testing.assert_allclose(mean, values.mean(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(variance, values.var(1), rtol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(module.training for module in result.modules())
    assert next(iter(batchnorm_layers(result).values())).momentum == 0.1


def test_reestimate_streams() -> None:
    whole, pieces = (reestimate_batchnorm(conv_bn(), images(41), batch) for batch in (41, 10))
    np.testing.assert_allclose(running(whole)[0], running(pieces)[0], rtol=0.05, atol=0.02)
    np.testing.assert_allclose(running(whole)[1], running(pieces)[1], rtol=0.05)


def test_reestimate_reaches_every_batch_norm() -> None:
    network = randomised(
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2),
                      nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False)),
    ).eval()  # fmt: skip
    assert list(batchnorm_layers(network)) == ["1", "4"]
    data = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    result = reestimate_batchnorm(network, data)
    with torch.no_grad():
        read = torch.nn.Sequential(*list(result.children())[:4])(torch.tensor(data))
    np.testing.assert_allclose(running(result, "4")[0], read.mean(0), rtol=0.02)


def test_analytic_is_the_training_variance_without_the_noise() -> None:
    network = randomised(LinearGNJ(6, 5), seed=2)
    posterior = layer_posterior("0", checkpoint_of(network).tensors)
    twin = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).eval()
    data = np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        linear, norm = twin.get_submodule("0"), twin.get_submodule("1")
        for key in ("weight", "bias"):
            linear.get_parameter(key).copy_(torch.tensor(posterior.mean[key]))
        noisy = torch.cat([network(torch.tensor(data)) for _ in range(300)])
        norm.get_buffer("running_var").copy_(noisy.var(0))
        clean = linear(torch.tensor(data)).var(0).numpy()
    variance = {f"0.{key}": value for key, value in posterior.variance.items()}
    result = subtract_weight_noise(twin, variance, data, batch=64)
    np.testing.assert_allclose(running(result)[1], clean, rtol=0.1)
    assert (noisy.var(0).numpy() > 1.05 * clean).all()


@pytest.mark.parametrize("padding", [0, 1])
def test_analytic_equals_the_slow_loop(padding: int) -> None:
    network, data = conv_bn(padding), images(6)
    generator = np.random.default_rng(0)
    variance = {
        "0.weight": generator.random((4, 1, 3, 3)).astype(np.float32) * 0.01,
        "0.bias": generator.random(4).astype(np.float32) * 0.01,
    }
    squared = np.pad(data[:, 0].astype(np.float64) ** 2, ((0, 0), (padding,) * 2, (padding,) * 2))
    size = squared.shape[1] - 2
    expected = np.zeros(4)
    for channel in range(4):
        for row in range(size):
            for column in range(size):
                window = squared[:, row : row + 3, column : column + 3]
                noise = (window * variance["0.weight"][channel, 0]).sum((1, 2)).mean()
                expected[channel] += (noise + variance["0.bias"][channel]) / size**2
    result = subtract_weight_noise(network, variance, data, batch=4)
    np.testing.assert_allclose(running(network)[1] - running(result)[1], expected, rtol=1e-4)
    np.testing.assert_array_equal(running(network)[0], running(result)[0])


def test_analytic_stays_positive() -> None:
    network = conv_bn()
    noise = running(network)[1] / np.square(np.pad(images()[:, 0], ((0, 0), (1, 1), (1, 1)))).mean()
    shares = (noise * 1.2 / 9)[:, None, None, None] * np.ones((4, 1, 3, 3), np.float32)
    result = subtract_weight_noise(network, {"0.weight": shares.astype(np.float32)}, images())
    np.testing.assert_allclose(running(result)[1], 0.01 * running(network)[1], rtol=1e-6)


class Between(nn.Module):
    """Convolution and batch norm with something between them; their names say nothing."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.norm_a = nn.Conv2d(1, 3, 3)
        self.conv_b = nn.BatchNorm2d(3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_a(x)
        match self.between:
            case "nothing":
                pass
            case "in-place":
                functional.relu_(y)
            case _:
                y = functional.relu(y)
        output: Tensor = self.conv_b(y)
        return output


@pytest.mark.parametrize(
    ("between", "fed"), [("nothing", True), ("in-place", False), ("relu", False)]
)
def test_who_feeds_whom_is_observed(between: str, fed: bool) -> None:
    network = randomised(Between(between)).eval()
    variance = {"norm_a.weight": np.full((3, 1, 3, 3), 1e-3, np.float32)}
    if fed:
        result = subtract_weight_noise(network, variance, images())
        assert (running(result, "conv_b")[1] < running(network, "conv_b")[1]).all()
        return
    with pytest.raises(ConfigError, match="no batch norm directly follows"):
        subtract_weight_noise(network, variance, images())


def test_no_variance_to_subtract() -> None:
    variance = {"0.weight": np.zeros((4, 1, 3, 3), np.float32)}
    with pytest.raises(ConfigError, match="nothing to subtract; give --batchnorm keep"):
        subtract_weight_noise(conv_bn(), variance, images())


def test_no_batch_norm() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3))
    with pytest.raises(ConfigError, match="--batchnorm analytic: the network has no batch norm"):
        subtract_weight_noise(network, {}, images())
    with pytest.raises(ConfigError, match="--batchnorm reestimate: the network has no batch norm"):
        reestimate_batchnorm(network, images())


def test_one_input_is_too_few() -> None:
    with pytest.raises(DataError, match="needs at least 2 calibration inputs and got 1"):
        reestimate_batchnorm(conv_bn(), images(1))


def test_copied_statistics() -> None:
    source, target = reestimate_batchnorm(conv_bn(), images()), conv_bn()
    with torch.no_grad():
        target.get_submodule("1").get_parameter("weight").fill_(7.0)
    result = copy_running_statistics(source, target)
    np.testing.assert_array_equal(running(result), running(source))
    assert (result.state_dict()["1.weight"] == 7).all()


@pytest.mark.parametrize("padding", [0, 1])
def test_analytic_of_one_draw_a_batch_is_what_training_saw(padding: int) -> None:
    data = images(200) + np.float32(1.5)  # a mean of its own, which the noise multiplies
    network = conv_bn(padding)
    convolution = network.get_submodule("0")
    spread = torch.full((4, 1, 3, 3), 0.05)
    seen = torch.zeros(4)
    generator = torch.Generator().manual_seed(0)
    draws = 2000
    with torch.no_grad():
        mean = convolution.get_parameter("weight").clone()
        clean = convolution(torch.tensor(data)).transpose(0, 1).flatten(1).var(1)
        for _ in range(draws):
            noise = spread * torch.randn(spread.shape, generator=generator)
            convolution.get_parameter("weight").copy_(mean + noise)
            seen += convolution(torch.tensor(data)).transpose(0, 1).flatten(1).var(1) / draws
        convolution.get_parameter("weight").copy_(mean)
        network.get_submodule("1").get_buffer("running_var").copy_(seen)
    variance = {"0.weight": spread.square().numpy(), "0.bias": np.full(4, 0.01, np.float32)}
    network.requires_grad_(False)  # as folding hands it over
    result = subtract_weight_noise(network, variance, data, batch=64, together={"0"})
    np.testing.assert_allclose(running(result)[1], clean, rtol=0.05)
    alone = subtract_weight_noise(network, variance, data, batch=64)
    assert (running(alone)[1] < running(result)[1] - 0.01).all()


def test_noise_that_was_not_in_the_statistics_is_refused() -> None:
    variance = {"0.weight": np.full((4, 1, 3, 3), 1e6, np.float32)}
    with pytest.raises(ConfigError, match="to 4 of 4 channels in front of 1, so training did not"):
        subtract_weight_noise(conv_bn(), variance, images())
