"""Names of layers that differ: what shapes and order decide, and what they do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deploykit.errors import ArchitectureError, ConfigError
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.layer_map import DecidedBy, propose
from deploykit.posterior.layer_map_file import LayerMap, layer_map_text, read_layer_map
from deploykit.posterior.naming import mapped, names_fit, other_names
from deploykit.posterior.options import PruneRule, PruneSpec
from deploykit.posterior.recognise import join_key, layer_keys, recognise
from deploykit.spec.arrays import Float32Array
from deploykit.spec.posterior import Checkpoint
from tests.posterior.checkpoints import checkpoint_of
from tests.posterior.gate_layers import InformationBottleneck
from tests.posterior.gnj_layers import bayesian_net, plain_net, randomised

IMAGE = np.random.default_rng(0).standard_normal((2, 1, 12, 12)).astype(np.float32)
TOKENS = np.random.default_rng(0).standard_normal((2, 4, 8)).astype(np.float32)
NONE = PruneSpec(PruneRule.NONE)


class Attention(nn.Module):
    """Three parallel projections and one behind them, all of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1)
        sum_: torch.Tensor = x + self.out(weights @ self.v(x))
        return sum_


class Residual(nn.Module):
    """As in ResNets: bn2 and the shortcut's norm have one shape, and other layers before them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.shortcut = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.bn2(self.conv2(torch.relu_(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return y


def renamed(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """Its layers under other names, in the same order."""
    keys = layer_keys(recognise(checkpoint), checkpoint)
    tensors = {
        join_key(names.get(name, name), key): checkpoint.tensors[full]
        for full, (name, key) in keys.items()
    }
    return replace(checkpoint, tensors=tensors)


def numbered(checkpoint: Checkpoint) -> Checkpoint:
    """Layers called a0, a1, ..."""
    names = dict.fromkeys(
        name for name, _ in layer_keys(recognise(checkpoint), checkpoint).values()
    )
    return renamed(checkpoint, {name: f"a{place}" for place, name in enumerate(names)})


def decided(checkpoint: Checkpoint, network: nn.Module, inputs: Float32Array) -> LayerMap:
    """The proposal, which has to be whole."""
    matches = propose(checkpoint, network, inputs)
    assert matches
    assert all(len(match.candidates) == 1 for match in matches)
    return LayerMap("map.json", {match.layer.name: match.candidates[0] for match in matches})


layer_name = st.from_regex(r"[a-z]{1,6}[0-9]?", fullmatch=True)
names_of = st.lists(layer_name, min_size=5, max_size=5, unique=True).flatmap(
    lambda parts: st.permutations(["", "x.", "y.z.", "0.", "net."]).map(
        lambda fronts: [front + part for front, part in zip(fronts, parts, strict=True)]
    )
)


@settings(deadline=None, max_examples=40)
@given(names=names_of, build=st.sampled_from([bayesian_net, plain_net]))
def test_any_renaming_that_keeps_the_order_is_undone(
    names: list[str], build: Callable[[], nn.Module]
) -> None:
    checkpoint = checkpoint_of(randomised(bayesian_net()))
    other = renamed(checkpoint, dict(zip(["0", "1", "3", "7", "9"], names, strict=True)))
    back = mapped(other, build(), decided(other, build(), IMAGE))
    assert back.tensors.keys() == checkpoint.tensors.keys()
    expected = fold_posterior(checkpoint, build, IMAGE, NONE)
    found = fold_posterior(back, build, IMAGE, NONE)
    for key, value in expected.module.state_dict().items():
        torch.testing.assert_close(found.module.state_dict()[key], value, rtol=0, atol=0)
    assert expected.variance.keys() == found.variance.keys()


def test_order_decides_between_layers_that_run_one_behind_another() -> None:
    network = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    matches = propose(numbered(checkpoint_of(network)), network, TOKENS)
    assert [match.candidates for match in matches] == [("0",), ("1",), ("2",), ("3",)]
    assert {match.by for match in matches} == {DecidedBy.ORDER}


def test_a_residual_branch_is_no_parallel_one() -> None:
    checkpoint = checkpoint_of(Residual())
    found = decided(numbered(checkpoint), Residual(), IMAGE)
    assert list(found.targets.values()) == [
        "conv1", "bn1", "conv2", "bn2", "shortcut.0", "shortcut.1",
    ]  # fmt: skip


def test_parallel_layers_of_one_shape_are_told_with_their_candidates() -> None:
    network = nn.Sequential(Attention(), Attention())
    matches = propose(numbered(checkpoint_of(network)), network, TOKENS)
    first, second = (tuple(f"{place}.{name}" for name in "qkv") for place in (0, 1))
    assert [match.candidates for match in matches] == [
        first, first, first, ("0.out",), second, second, second, ("1.out",),
    ]  # fmt: skip
    assert json.loads(layer_map_text(matches))["a0"] == list(first)
    refusal = other_names(numbered(checkpoint_of(network)), network, TOKENS, "--model net.py:f")
    assert refusal is not None
    told = str(refusal)
    assert "nothing tells which of several equal layers 'a0', 'a1', 'a2', 'a4' and 2 more" in told
    assert "0.q or 0.k or 0.v" in told


def test_names_tell_parallel_layers_apart_where_they_differ_in_the_same_parts() -> None:
    checkpoint = checkpoint_of(nn.Sequential(Attention(), Attention()))
    layers = [f"{place}.{name}" for place in (0, 1) for name in ("q", "k", "v", "out")]
    other = renamed(checkpoint, {name: f"layers.{name[0]}.attn.{name[2:]}" for name in layers})
    swapped = {key: other.tensors[key] for key in sorted(other.tensors)}
    for one in (other, replace(other, tensors=swapped)):
        found = propose(one, nn.Sequential(Attention(), Attention()), TOKENS)
        by_name = {m.layer.name: m.candidates for m in found if m.by is DecidedBy.NAME}
        assert by_name["layers.1.attn.k"] == ("1.k",)


def test_a_file_that_is_sorted_by_name_keeps_no_order() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    checkpoint = replace(numbered(checkpoint_of(network)), path=Path("net.safetensors"))
    matches = propose(checkpoint, network, TOKENS)
    assert [match.candidates for match in matches] == [("0", "1"), ("0", "1"), ("2",)]


def gated() -> nn.Module:
    gates = InformationBottleneck
    return nn.Sequential(nn.Linear(8, 6), gates(6), nn.Linear(6, 6), gates(6), nn.Linear(6, 3))


def twin_of_gated() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 6), nn.Identity(), nn.Linear(6, 6), nn.Identity(), nn.Linear(6, 3)
    )


@pytest.mark.parametrize("build", [gated, twin_of_gated])
def test_gates_between_layers(build: Callable[[], nn.Module]) -> None:
    other = numbered(checkpoint_of(gated()))
    found = decided(other, build(), TOKENS[:, 0])
    assert list(found.targets.values()) == ["0", "1", "2", "3", "4"]
    assert names_fit(mapped(other, build(), found), build())


def test_an_identity_too_many_leaves_gates_open() -> None:
    other = numbered(checkpoint_of(gated()))
    network = twin_of_gated()
    assert isinstance(network, nn.Sequential)
    network.insert(2, nn.Identity())
    matches = propose(other, network, TOKENS[:, 0])
    assert matches[1].candidates == ("1", "2")
    assert matches[3].candidates == ("4",)


def test_other_shapes_are_no_match_and_the_first_is_told() -> None:
    network = plain_net()
    other = numbered(checkpoint_of(bayesian_net()))
    network.add_module("7", nn.Linear(6, 4))
    network.add_module("9", nn.Linear(4, 3))
    assert propose(other, network, IMAGE) == ()
    refusal = other_names(other, network, IMAGE, "")
    assert refusal is not None
    assert "no layer of the network has the shapes of 'a3' (" in str(refusal)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"a9": "9"}, r"map\.json: net\.pt has no layer 'a9'; there are a0, a1, a2"),
        ({"a0": "conv"}, r"map\.json: 'a0' is mapped to 'conv', and the network has no such layer"),
        ({"a0": "3"}, r"'a0' \(weight 4x1x3x3, bias 4\) does not fit '3' \(weight 6x4x3x3, bias 6"),
        ({"a0": "2"}, r"'a0' is mapped to '2', and the network has no such layer"),
        ({"a1": None}, r"does not map 'a1', and the network has no layer of that name; add it"),
    ],
)
def test_a_wrong_map_is_refused_by_name(change: dict[str, str | None], told: str) -> None:
    other = numbered(checkpoint_of(bayesian_net()))
    right = {**decided(other, plain_net(), IMAGE).targets, **change}
    wrong = LayerMap("map.json", {k: v for k, v in right.items() if v is not None})
    with pytest.raises(ArchitectureError, match=told):
        mapped(other, plain_net(), wrong)


def test_two_layers_on_one_are_refused() -> None:
    network = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    wrong = LayerMap("map.json", {"a0": "0", "a1": "0"})
    with pytest.raises(ArchitectureError, match="'a0' and 'a1' are both '0'"):
        mapped(numbered(checkpoint_of(network)), network, wrong)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no json", "is no map of layers"),
        ("[1]", "is no map of layers: write"),
        ('{"a": ["b", "c"]}', r"'a' is open: replace the list .*\(b, c\)"),
        ('{"a": 3}', "'a' is mapped to 3, which names no layer"),
        ('{"a": "b", "a": "c"}', "it maps 'a' twice"),
    ],
)
def test_a_file_that_is_no_map_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_layer_map(tmp_path / "map.json")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.json: No such file"):
        read_layer_map(tmp_path / "gone.json")


def test_the_written_file_is_read_back(tmp_path: Path) -> None:
    other = numbered(checkpoint_of(bayesian_net()))
    matches = propose(other, plain_net(), IMAGE)
    (tmp_path / "map.json").write_text(layer_map_text(matches))
    read = read_layer_map(tmp_path / "map.json")
    assert read.targets == decided(other, plain_net(), IMAGE).targets
