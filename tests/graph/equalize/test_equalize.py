"""Which channels are scaled and which are pinned, by hand; and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from deploykit.errors import GraphError
from deploykit.graph.edit import set_initializer
from deploykit.graph.equalize import equalize as module
from deploykit.graph.equalize.chains import EXTREME, GRID, OUTPUT, TIED, find_channels
from deploykit.graph.equalize.equalize import equalize, scaled
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Float32Array, FloatArray
from deploykit.spec.equalization import EqualizedChain
from deploykit.spec.given import ActivationGrid, Given, WeightGrid
from deploykit.spec.inputs import GraphInputs
from deploykit.spec.network import Network
from tests.graph.text import graph, values, weights

SPOILING = np.array([16.0, 0.0625, 1.0, 8.0], np.float32)


def two(between: str, **constants: npt.ArrayLike) -> Network:
    """A 1x1 convolution to `a`, what is `between` up to `r`, a padded 3x3 one to the output."""
    return graph(
        f"""
        (float[1,2,6,6] input) => (float[1,3,6,6] output) {{
            a = Conv(input, w, b)
            {between}
            output = Conv<pads=[1,1,1,1]>(r, v, c)
        }}
        """,
        {
            "w": weights(4, 2, 1, 1), "b": weights(4, seed=1),
            "v": weights(3, 4, 3, 3, seed=2), "c": weights(3, seed=3), **constants,
        },
        ["w", "v"],
    )  # fmt: skip


def samples(channels: int = 2, count: int = 16) -> Float32Array:
    return np.random.default_rng(7).normal(size=(count, channels, 6, 6)).astype(np.float32)


def spoiled(network: Network, factors: Mapping[str, FloatArray]) -> Network:
    """Each named initializer times its factors, which broadcast to it."""
    model = network.model.clone()
    for name, factor in factors.items():
        set_initializer(model.graph, name, (values(network)[name] * factor).astype(np.float32))
    return network.rewritten(model)


def run(network: Network) -> tuple[Network, tuple[EqualizedChain, ...]]:
    """The equalized network, which computes the same, and its chains."""
    after, report = equalize(network, samples(), ort.evaluate, lambda layer: 127)
    told, found = (ort.evaluate(one, samples())["output"] for one in (network, after))
    np.testing.assert_array_equal(told, found)
    assert report.samples == len(samples())
    return after, report.chains


@pytest.mark.parametrize(
    ("between", "constants"),
    [
        ("r = Relu(a)", {}),
        ("r = LeakyRelu<alpha=0.1>(a)", {}),
        ("r = PRelu(a, s)", {"s": [[[0.1]], [[0.2]], [[0.3]], [[0.4]]]}),
        ("r = Clip(a, zero)", {"zero": 0.0}),
        ("p = Relu(a) r = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)", {}),
        ("p = Relu(a) r = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)", {}),
        ("p = Relu(a) d = Conv<group=4, pads=[1,1,1,1]>(p, dw, db) q = Relu(d) r = Add(p, q)",
         {"dw": weights(4, 1, 3, 3, seed=8), "db": weights(4, seed=9)}),
        ("p = Mul(a, half) r = Relu(p)", {"half": 0.5 * np.ones((1, 1, 1, 1))}),
    ],
)  # fmt: skip
def test_spoiled_channels_come_back(between: str, constants: Mapping[str, npt.ArrayLike]) -> None:
    network = two(between, **constants)
    rows, columns = SPOILING[:, None, None, None], SPOILING[None, :, None, None]
    ill = spoiled(network, {"w": rows, "b": SPOILING, "v": 1 / columns})
    after, (chain,) = run(ill)
    assert chain.moved > 0 and chain.noise < 0.2 and chain.pinned == ()
    # What was spread by 2^8 lies within 2^4 again.
    spread = [np.abs(ort.evaluate(one, samples())["a"]).max(axis=(0, 2, 3)) for one in (ill, after)]
    before, now = (float(largest.max() / largest.min()) for largest in spread)
    assert before > 64 > 16 > now


def test_variances_follow_their_weights_and_the_given_network_stays() -> None:
    network = two("r = Relu(a)")
    channels = find_channels(network)
    exponents = np.zeros(channels.count, dtype=np.int64)
    exponents[channels.labels["r"]] = [3, -2, 0, 1]
    held = {name: array.copy() for name, array in values(network).items()}
    after = scaled(network, channels, exponents)
    factor = np.array([8.0, 0.25, 1.0, 2.0], np.float32)
    moved = values(after)
    np.testing.assert_array_equal(moved["w"], held["w"] * factor[:, None, None, None])
    np.testing.assert_array_equal(moved["b"], held["b"] * factor)
    np.testing.assert_array_equal(moved["v"], held["v"] / factor[:, None, None])
    np.testing.assert_array_equal(
        after.variance["v"], network.variance["v"] / factor[:, None, None] ** 2
    )
    for name, array in values(network).items():
        np.testing.assert_array_equal(array, held[name])


@pytest.mark.parametrize(
    ("between", "constants", "why"),
    [
        ("r = Clip(a, zero, six)", {"zero": 0.0, "six": 6.0}, "Clip 'r' has a bound other than"),
        ("r = Sigmoid(a)", {}, "Sigmoid 'r' takes no factor through"),
        ("r = HardSwish(a)", {}, "HardSwish 'r' takes no factor through"),
        ("p = Relu(a) r = Mul(p, a)", {}, "Mul 'r' multiplies activations"),
        ("p = Relu(a) r = Add(p, one)", {"one": np.ones((1, 4, 1, 1))}, "Add 'r' has a constant"),
        ("p = Pad(a, sizes, one) r = Slice(p, from, to, axes)",
         {"sizes": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "one": 1.0, "from": np.array([1, 1]),
          "to": np.array([7, 7]), "axes": np.array([2, 3])}, "Pad 'p' pads with a value other"),
        ("r = Pad(a, sizes)", {"sizes": np.array([0, 1, 0, 0, 0, -1, 0, 0])},
         "Pad 'r' pads or cuts channels"),
        ("p = Pad(a, sizes, none, axis) r = Slice(p, one, five, axis)",
         {"sizes": np.array([1, 0]), "none": 0.0, "axis": np.array([1]), "one": np.array([1]),
          "five": np.array([5])}, "Pad 'p' pads or cuts channels"),
        ("r = Slice(a, last, first, axis, back)",
         {"last": np.array([-1]), "first": np.array([-9]), "axis": np.array([1]),
          "back": np.array([-1])}, "Slice 'r' turns the order of the channels"),
        ('r = Resize<mode="linear">(a, , scales)', {"scales": [1.0, 1.01, 1.0, 1.0]},
         "Resize 'r' mixes channels"),
    ],
)  # fmt: skip
def test_what_takes_no_factor_pins(
    between: str, constants: Mapping[str, npt.ArrayLike], why: str
) -> None:
    network = two(between, **constants)
    after, chains = run(network)
    assert after is network
    assert all(chain.moved == 0 for chain in chains)
    assert any(reason.startswith(why) for chain in chains for reason in chain.pinned), chains


def test_an_output_of_the_network_pins() -> None:
    network = graph(
        """
        (float[1,2,6,6] input) => (float[1,4,6,6] r, float[1,3,6,6] output) {
            a = Conv(input, w, b)
            r = Relu(a)
            output = Conv(r, v, c)
        }
        """,
        {
            "w": weights(4, 2, 1, 1) * SPOILING[:, None, None, None] + 1, "b": weights(4),
            "v": weights(3, 4, 1, 1), "c": weights(3),
        },
    )  # fmt: skip
    after, (chain,) = run(network)
    assert after is network and chain.pinned == (OUTPUT,)


def test_tied_weights_pin() -> None:
    shared = weights(4, 4, 1, 1)
    network = two("p = Relu(a) d = Conv(p, t1, db) r = Conv(d, t2, db2)", t1=shared, t2=shared,
                  db=weights(4), db2=weights(4, seed=4))  # fmt: skip
    _, chains = run(network)
    assert {chain.pinned for chain in chains} == {(TIED,)} and len(chains) == 3


def test_trained_grids_of_activations_and_columns_pin_and_rows_follow() -> None:
    network = spoiled(two("r = Relu(a)"), {"w": SPOILING[:, None, None, None]})
    columns = Given({"v": WeightGrid(4, np.ones(1, np.float32))})
    assert {c.pinned for c in run(replace(network, given=columns))[1]} == {(GRID,)}
    tensor = Given(activations={"r": ActivationGrid.unsigned(0.1, 4)})
    assert {c.pinned for c in run(replace(network, given=tensor))[1]} == {(GRID,)}
    rows = Given({"w": WeightGrid(4, np.full(1, 0.5, np.float32))})
    after, (chain,) = run(replace(network, given=rows))
    assert chain.moved > 0
    ratio = (values(after)["w"] / values(network)["w"])[:, 0, 0, 0]
    np.testing.assert_array_equal(after.given.weights["w"].scale, 0.5 * ratio)


@pytest.mark.parametrize("tiny", [1e-40, 1e-30])
def test_a_channel_of_numbers_near_the_end_of_float32_stays(tiny: float) -> None:
    network = two("r = Relu(a)")
    weight = values(network)["w"] * SPOILING[:, None, None, None]
    weight[2] = tiny
    ill = spoiled(network, {"w": weight / values(network)["w"]})
    channels = find_channels(ill)
    (chain,) = channels.chains
    assert chain.free.tolist() == [True, True, False, True] and chain.pinned == (EXTREME,)
    after, (told,) = run(ill)
    assert told.moved > 0
    np.testing.assert_array_equal(values(after)["w"][2], values(ill)["w"][2])


def test_a_channel_that_is_zero_or_never_active_breaks_no_factor() -> None:
    network = two("r = Relu(a)")
    rows = SPOILING[:, None, None, None].copy()
    bias = values(network)["b"].copy()
    rows[2], bias[2] = 0.0, -1.0
    after, (chain,) = run(spoiled(network, {"w": rows, "b": bias / values(network)["b"]}))
    assert chain.moved > 0 and np.isfinite(chain.noise)
    assert all(np.isfinite(array).all() for array in values(after).values())
    silent = spoiled(network, {"w": np.zeros((1, 1, 1, 1)), "b": np.zeros(1)})
    assert run(silent)[0] is silent


def test_numbers_whose_bits_get_lost_in_between_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ill = spoiled(two("r = Relu(a)"), {"w": SPOILING[:, None, None, None]})
    calls: list[Network] = []

    def otherwise(network: Network, inputs: GraphInputs) -> dict[str, AnyArray]:
        calls.append(network)
        found = ort.evaluate(network, inputs)
        return {**found, "output": found["output"] + np.float32(len(calls))}

    with pytest.raises(GraphError, match=r"changes the output output .* --equalization none"):
        equalize(ill, samples(), otherwise, lambda layer: 127)
    monkeypatch.setattr(module, "_factors", lambda *_: iter([("b", np.array([1 / 3]))]))
    with pytest.raises(GraphError, match="of b by powers of two is not exact"):
        equalize(ill, samples(), ort.evaluate, lambda layer: 127)
