"""Bayesian Bits: bits, integers and scales as restated layers have them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.errors import ArchitectureError, CheckpointError
from deploykit.posterior.activation_range import ACTIVATION, RANGE
from deploykit.posterior.bayesian_bits import folded_weight
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.describe import inspect_checkpoint
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.forward import run
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.predictive import compare_monte_carlo
from deploykit.posterior.recognise import recognise
from deploykit.posterior.trained_quantizer import CLOSED_AT, TrainedQuantizer, is_open
from deploykit.spec.arrays import Float32Array
from deploykit.spec.given import ActivationGrid, integers_on
from deploykit.spec.posterior import Checkpoint
from deploykit.spec.samples import Samples
from tests.posterior.bayesian_bits_layers import (
    GAMMAS,
    BitsQuantizer,
    Block,
    BNQConv2d,
    QConv2d,
    QLinear,
    probability_of_zero,
    quantizers,
)
from tests.posterior.checkpoints import checkpoint_of, with_tensor, without

NONE = PruneSpec(PruneRule.NONE)
BITS = (2, 4, 8, 16, 32)
STEP = np.float32(1e-6)


def read(quantizer: BitsQuantizer) -> TrainedQuantizer:
    state = {name: tensor.numpy() for name, tensor in quantizer.state_dict().items()}
    return TrainedQuantizer.of("q", state)


def evaluated(quantizer: nn.Module, values: Float32Array) -> Float32Array:
    with torch.no_grad():
        found: Float32Array = quantizer.eval()(torch.tensor(values)).numpy()
    return found


def hard(reach: float, signed: bool) -> Float32Array:
    """Values everywhere, beyond the range too, and ties of every width."""
    spread = np.random.default_rng(0).uniform(-1.5, 1.5, 4_000) * reach
    ties = [
        (k + 0.5) * (2 if signed else 1) * reach / (2**b - 1) for b in (2, 4, 8) for k in range(9)
    ]
    return np.array([*spread, *ties, 0.0, reach, -reach], np.float32)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("limits", ["range", "scale"])
def test_values_are_those_of_the_restated_quantizer_bit_by_bit(
    bits: int, signed: bool, limits: str
) -> None:
    restated = BitsQuantizer(GAMMAS[bits], 0.7371, signed, limits)
    values = hard(0.7371, signed)
    quantizer = read(restated)
    if limits == "scale":
        assert quantizer.signed is None
        quantizer = quantizer.for_values(values if signed else np.abs(values))
    assert (quantizer.bits, quantizer.signed) == (bits, signed)
    expected = evaluated(restated, values)
    np.testing.assert_array_equal(quantizer.quantized(values), expected)
    np.testing.assert_array_equal(quantizer.scale, restated.step().detach().numpy()[0])
    if bits <= 8:
        again = quantizer.codes(values).astype(np.float32) * quantizer.scale
        np.testing.assert_allclose(again, expected, rtol=4 * 2.0**-24, atol=1e-9)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integers_of_a_signed_range_are_symmetric(bits: int) -> None:
    quantizer = read(BitsQuantizer(GAMMAS[bits], 0.9, True, "range"))
    codes = quantizer.codes(hard(0.9, True))
    largest = 2 ** (bits - 1) - 1
    assert (codes.min(), codes.max()) == (-largest, largest)
    grid = quantizer.weight_grid(codes)
    assert grid is not None
    assert (grid.bits, grid.scale.tolist()) == (bits, [quantizer.scale])


@pytest.mark.parametrize(("bits", "held"), [(2, 4), (4, 8), (8, None), (16, None)])
def test_a_learned_scale_clips_signed_values_at_twice_the_range(
    bits: int, held: int | None
) -> None:
    values = hard(1.9, True)
    quantizer = read(BitsQuantizer(GAMMAS[bits], 0.9, True, "scale")).for_values(values)
    codes = quantizer.codes(values)
    assert codes.max() == 2**bits - 1
    grid = quantizer.weight_grid(codes)
    assert (None if grid is None else grid.bits) == held


def test_a_gate_closes_where_its_probability_of_zero_reaches_the_threshold() -> None:
    around = np.array([CLOSED_AT - 1e-4, CLOSED_AT + 1e-4], np.float32)
    assert is_open(around).tolist() == [False, True]
    assert (probability_of_zero(torch.tensor(around)) < 0.34).tolist() == [False, True]
    assert pytest.approx(-0.9353, abs=5e-5) == CLOSED_AT


@pytest.mark.parametrize(
    ("signed", "bits", "grid"),
    [
        (False, 8, ActivationGrid.unsigned),
        (False, 2, ActivationGrid.unsigned),
        (True, 8, ActivationGrid.symmetric),
        (True, 4, ActivationGrid.symmetric),
    ],
)
def test_activations_lie_on_a_grid_of_int8(signed: bool, bits: int, grid: Any) -> None:
    restated = BitsQuantizer(GAMMAS[bits], 2.3, signed, "range")
    held = read(restated).activation_range()
    assert held.grid is not None
    assert held.grid == grid(float(read(restated).scale), bits)
    values = hard(2.3, signed)[:4_000]  # a tie of one rounding may be none of rounded residuals
    values = values if signed else np.maximum(values, 0)
    np.testing.assert_allclose(held.grid.nearest(values), evaluated(restated, values), rtol=1e-6)


@pytest.mark.parametrize("signed", [True, False])
def test_activations_of_16_bits_have_a_range_and_no_grid(signed: bool) -> None:
    held = read(BitsQuantizer(GAMMAS[16], 2.5, signed, "range")).activation_range()
    assert held.grid is None
    assert (held.bits, held.low, held.high) == (16, -2.5 if signed else 0.0, 2.5)


def bayesian(limits: str = "range", given_bits: int | None = 4) -> Any:
    """A folded batch norm with pruning, a plain convolution, a block and a linear layer."""
    torch.manual_seed(1)
    # A learned scale clips signed values at twice its range: 1.2 holds all of these.
    more: dict[str, Any] = {"limits": limits, "weights": 0.4 if limits == "range" else 1.2}
    relu = nn.ReLU()
    network = nn.Sequential(
        BNQConv2d(1, 6, 3, bits=8, given_bits=given_bits, function=relu,
                  quantizers=more | {"pruning": True}),
        QConv2d(6, 6, 3, padding=1, bits=4, given_bits=8, function=relu, quantizers=more),
        Block(BNQConv2d(6, 6, 3, padding=1, bits=2, given_bits=None, quantizers=more), None, 8, 3.0,
              limits),
        nn.Flatten(),
        QLinear(96, 5, bits=8, given_bits=None, quantizers=more),
    )  # fmt: skip
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, BNQConv2d):
                layer.gamma.uniform_(0.5, 1.5)
                layer.beta.normal_(0.2, 0.3)
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
        first: Any = network[0]
        first.weight_quantizer.quantizer.gamma_2[[1, 4]] = -1.0
    return network.eval()


class TwinBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.features(x) + x)  # type: ignore[no-any-return]


def twin() -> Any:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()),
        TwinBlock(),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


def plain_twin() -> nn.Module:
    """Its layers alone: ranges that start at zero are Relus enough."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3, padding=1), TwinBlock(), nn.Flatten(),
        nn.Linear(96, 5),
    )  # fmt: skip


def images(count: int = 8) -> Float32Array:
    return np.random.default_rng(3).standard_normal((count, 1, 6, 6)).astype(np.float32)


def quantized_weights(network: nn.Module) -> dict[str, Float32Array]:
    found: dict[str, Float32Array] = {}
    with torch.no_grad():
        for name, layer in network.named_modules():
            if isinstance(layer, BNQConv2d):
                found[f"{name}.weight"] = layer.quantized_weight().numpy()
            elif isinstance(layer, QConv2d | QLinear):
                found[f"{name}.weight"] = layer.weight_quantizer(layer.weight).numpy()
    return found


@pytest.mark.parametrize("limits", ["range", "scale"])
@pytest.mark.parametrize("factory", [bayesian, twin])
def test_weights_are_folded_to_the_integers_of_training(factory: Any, limits: str) -> None:
    network = bayesian(limits)
    checkpoint = checkpoint_of(network)
    folded = fold_posterior(checkpoint, factory(), images())
    expected = quantized_weights(network)
    assert folded.given.weights.keys() == expected.keys()
    for name, weight in expected.items():
        own = folded.module.get_parameter(name).numpy()
        np.testing.assert_allclose(own, weight, rtol=4 * 2.0**-24, atol=1e-9)
        grid = folded.given.weights[name]
        held = integers_on(own, grid)
        assert held is not None
        np.testing.assert_array_equal(held.values.astype(np.float32) * grid.scale, own)
    assert not folded.module.get_parameter("0.weight")[[1, 4]].any()
    assert (folded.report.pruning[0].layer, folded.report.pruning[0].closed.sum()) == ("0", 2)


def test_the_batch_norm_is_folded_in_float32_before_the_weight_is_rounded() -> None:
    layer: Any = bayesian()[0]
    state = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    sigma = torch.sqrt(layer.running_var + 1e-5)
    with torch.no_grad():
        expected = (layer.weight.transpose(0, -1) * layer.gamma / sigma).transpose(0, -1)
    # torch's square root on a CPU is off by a unit in the last place, numpy's and a GPU's is not.
    np.testing.assert_allclose(folded_weight(state), expected.numpy(), rtol=2.0**-22)


@pytest.mark.parametrize("factory", [bayesian, twin, plain_twin])
def test_the_folded_network_holds_activations_to_their_ranges(factory: Any) -> None:
    network = bayesian(given_bits=16)
    folded = fold_posterior(checkpoint_of(network), factory(), images())
    with torch.no_grad():
        for held in quantizers(network):
            for bits in (4, 8, 16):  # activations as fine as float: only the clip is left
                if not hasattr(held, "gamma_2") and held.signed is False:
                    held.get_parameter(f"gamma_{bits}").fill_(6.0)
    expected = evaluated(network, images())
    outputs = run(folded.module, images())
    finest = 3.0 / 255  # pruned channels give numbers of the grid that training chose
    np.testing.assert_allclose(outputs, expected, atol=2 * finest * np.abs(expected).max())


def test_grids_of_activations_are_by_the_module_that_holds_them() -> None:
    folded = fold_posterior(checkpoint_of(bayesian()), twin(), images())
    found = {name: grid.bits for name, grid in folded.given.activations.items()}
    assert found == {f"0.{RANGE}": 4, f"1.{RANGE}": 8, f"2.{RANGE}": 8}
    assert [type(one) for one in folded.module[0].get_submodule(ACTIVATION)] == [nn.ReLU]
    bits = {name: held.weight_bits for name, held in folded.report.precision.items()}
    assert bits == {"0": 8, "1": 4, "2": None, "2.features": 2, "4": 8}


def test_what_a_pruned_channel_gives_is_a_number_of_the_grid() -> None:
    network = bayesian()
    folded = fold_posterior(checkpoint_of(network), twin(), images())
    with torch.no_grad():
        given = network[0](torch.tensor(images()))[:, [1, 4]].numpy()
        own = folded.module[0](torch.tensor(images()))[:, [1, 4]].numpy()
    np.testing.assert_allclose(own, given, rtol=1e-6)


def test_weights_of_16_bits_are_folded_and_have_no_grid() -> None:
    network = nn.Sequential(QLinear(6, 4, bits=16, given_bits=32), nn.ReLU()).eval()
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    folded = fold_posterior(checkpoint_of(network), nn.Sequential(nn.Linear(6, 4), nn.ReLU()), x,
                            NONE)  # fmt: skip
    assert not folded.given
    np.testing.assert_array_equal(
        folded.module.get_parameter("0.weight").numpy(), quantized_weights(network)["0.weight"]
    )
    told = inspect_checkpoint(checkpoint_of(network))
    assert [(layer.weight_bits, layer.activation_bits) for layer in told.layers] == [(16, 32)]
    assert len([trap for trap in told.traps if "16 or 32 bits" in trap]) == 2


def test_a_learned_scale_asks_the_network_for_the_sign() -> None:
    folded = fold_posterior(checkpoint_of(bayesian("scale")), twin(), images())
    assert {grid.low for grid in folded.given.activations.values()} == {-128}
    signed = twin()
    signed[0] = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Identity())
    folded = fold_posterior(checkpoint_of(bayesian("scale")), signed, images())
    assert folded.given.activations[f"0.{RANGE}"].low == -15
    with pytest.raises(ArchitectureError, match="not whether what it gives may be negative"):
        fold_posterior(checkpoint_of(bayesian("scale")), plain_twin(), images())


def test_draws_open_gates_as_training_does() -> None:
    layer: Any = QLinear(
        4, 3, bits=8, given_bits=None, quantizers={"pruning": True, "weights": 1.0}
    )
    with torch.no_grad():
        layer.weight_quantizer.quantizer.gamma_2.fill_(0.3)
        layer.weight_quantizer.quantizer.gamma_8.fill_(0.0)
    (found,) = recognise(checkpoint_of(nn.Sequential(layer))).layers
    generator = np.random.default_rng(0)
    own = np.stack([found.family.sample(found.tensors, generator)["weight"] for _ in range(4_000)])
    torch.manual_seed(0)
    with torch.no_grad():
        theirs = torch.stack([layer.train().weight_quantizer(layer.weight) for _ in range(4_000)])
    error = np.sqrt((own.var(0) + theirs.numpy().var(0)) / len(own)) + 1e-6
    assert (np.abs(own.mean(0) - theirs.numpy().mean(0)) < 5 * error).all()


def test_the_mean_that_draws_are_held_against_is_the_folded_network() -> None:
    checkpoint, inputs = checkpoint_of(bayesian(given_bits=2)), images(64)
    labels = np.random.default_rng(0).integers(0, 5, 64)
    folded = fold_posterior(checkpoint, twin(), inputs, NONE)
    metrics = compare_monte_carlo(folded, checkpoint, Samples(inputs, labels)).report.metrics
    assert metrics["mean"] == metrics["pruned"]


def test_inspect_says_bits_and_what_is_pruned() -> None:
    told = {layer.name: layer for layer in inspect_checkpoint(checkpoint_of(bayesian())).layers}
    assert set(told) == {"0", "1", "2", "2.features", "4"}
    assert (told["0"].weight_bits, told["0"].activation_bits) == (8, 4)
    assert (told["2"].weight_bits, told["2"].activation_bits) == (None, 8)
    assert told["0"].dead_share == pytest.approx(2 / 6)


def fixed_gates(checkpoint: Checkpoint) -> Checkpoint:
    kept = {k: v for k, v in checkpoint.tensors.items() if ".gamma_" not in k and "x_min" not in k}
    return Checkpoint(checkpoint.path, kept)


def rangeless(checkpoint: Checkpoint) -> Checkpoint:
    kept = {k: v for k, v in checkpoint.tensors.items() if ".x_m" not in k}
    return Checkpoint(checkpoint.path, kept)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (fixed_gates, "keeps x_max and neither its bits"),
        (rangeless, "train with --learned-scale=range"),
        (lambda c: without(c, "1.weight_quantizer.quantizer.gamma_8"), "is not understood"),
        (lambda c: without(c, "4.weight_quantizer.quantizer.gamma_8"), "no quantizer of"),
        (lambda c: without(c, "0.running_var"), "running_var"),
        (lambda c: without(c, "1.activation_quantizer.quantizer.gamma_8"), "gamma_8"),
        (lambda c: with_tensor(c, "1.weight_mu", np.zeros(3, np.float32)), "weight_mu"),
        (lambda c: with_tensor(c, "1.weight_quantizer.quantizer.gamma_4",
                               np.zeros(6, np.float32)), "a quantizer per channel"),
        (lambda c: with_tensor(c, "1.weight_quantizer.quantizer.x_max",
                               np.zeros(1, np.float32)), "its range ends at 0"),
        (lambda c: with_tensor(c, "0.weight_quantizer.quantizer.gamma_2",
                               np.zeros(5, np.float32)), "the checkpoint mixes two layers"),
    ],
)  # fmt: skip
def test_files_that_say_too_little_are_refused(changed: Any, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        fold_posterior(changed(checkpoint_of(bayesian())), twin(), images())


def test_a_file_of_their_training_script_is_unwrapped(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in bayesian().state_dict().items()}
    path = tmp_path / "epoch_3.pth"
    torch.save({"model_state": state, "param_optim": {"state": {}, "param_groups": []},
                "quant_params_optim": {"state": {}}}, path)  # fmt: skip
    checkpoint = load_checkpoint(path)
    assert checkpoint.unwrapped == ("model_state", "module.")
    folded = fold_posterior(checkpoint, twin(), images())
    assert len(folded.given.weights) == 4
