"""Attention with masks of every size, as exporters and hand-written networks have it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

import deploykit
from deploykit.errors import QuantizationError
from deploykit.spec.arrays import AnyArray
from tests.heldout import assert_exact, export_and_compare, model_of

TOKENS, WIDTH = 7, 12
LOWEST = float(np.finfo(np.float32).min)
ENOUGH_DB = 28.0
"""The same networks without a mask reach 30 to 40 dB; with the scores in eight bits, 5 to 9."""

ATTENTION = """
    q = MatMul (x, w)
    t = Transpose <perm=[0,2,1]> (x)
    s = MatMul (q, t)
    {masked}
    p = Softmax <axis=-1> (a)
    y = MatMul (p, x)
"""


def masked_by(number: float) -> AnyArray:
    """[TOKENS, TOKENS]: the number wherever a token would see a later one."""
    return np.triu(np.full((TOKENS, TOKENS), number, np.float32), 1)


def attention(masked: str, **constants: AnyArray) -> onnx.ModelProto:
    """masked: from the scores `s` to `a`."""
    weight = np.random.default_rng(5).normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    return model_of(
        f"g (float[1,{TOKENS},{WIDTH}] x) => (float[1,{TOKENS},{WIDTH}] y) "
        f"{{ {ATTENTION.format(masked=masked)} }}",
        {"w": weight.astype(np.float32), **constants},
    )


def number(value: float) -> AnyArray:
    return np.array(value, np.float32)


@pytest.mark.parametrize(
    ("masked", "value"),
    [
        ("z = Mul (s, h) a = Add (z, k)", -1e4),
        ("z = Mul (s, h) a = Add (z, k)", -1e9),
        ("z = Mul (s, h) a = Add (z, k)", LOWEST),
        ("z = Mul (s, h) a = Add (z, k)", -np.inf),
        ("z = Div (s, d) a = Add (k, z)", -1e4),
        ("z = Div (s, d) a = Where (see, z, low)", -1e9),
        ("z = Div (s, d) a = Where (see, z, low)", LOWEST),
        ("z = Div (s, d) a = Where (hide, low, z)", -np.inf),
    ],
)
def test_a_mask_costs_no_accuracy(masked: str, value: float, tmp_path: Path) -> None:
    hide = masked_by(1.0) != 0
    model = attention(
        masked, h=number(0.3), d=number(3.3), k=masked_by(value), low=number(value),
        hide=hide, see=~hide,
    )  # fmt: skip
    bundle, found = export_and_compare(model, tmp_path)
    assert_exact(bundle)
    assert found > ENOUGH_DB
    kinds = [layer["operator"] for layer in bundle.manifest["layers"]]
    assert kinds == ["Rearrange", "Linear", "Island"]


def test_a_bundle_with_an_infinite_mask_verifies(tmp_path: Path) -> None:
    bundle, _ = export_and_compare(attention("a = Add (s, k)", k=masked_by(-np.inf)), tmp_path)
    assert not deploykit.verify_bundle(bundle.path).failed


def test_a_mask_over_a_layer_of_weights_goes_into_the_softmax_too(tmp_path: Path) -> None:
    weight = np.random.default_rng(5).normal(size=(WIDTH, TOKENS)) / WIDTH**0.5
    model = model_of(
        f"g (float[1,{TOKENS},{WIDTH}] x) => (float[1,{TOKENS},{TOKENS}] y) "
        "{ s = MatMul (x, w) a = Add (s, k) y = Softmax <axis=-1> (a) }",
        {"w": weight.astype(np.float32), "k": masked_by(-1e4)},
    )
    bundle, found = export_and_compare(model, tmp_path)
    assert_exact(bundle)
    assert found > ENOUGH_DB


class Attending(nn.Module):
    """how: who masks, and by what."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.enter, self.leave = nn.Linear(6, 16), nn.Linear(16, 4)
        self.heads = nn.MultiheadAttention(16, 2, batch_first=True)
        self.register_buffer("later", torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1))
        self.register_buffer("infinite", nn.Transformer.generate_square_subsequent_mask(TOKENS))

    def forward(self, x: torch.Tensor) -> Any:
        x = self.enter(x)
        match self.how:
            case "heads-bool":
                x, _ = self.heads(x, x, x, attn_mask=self.later)
            case "heads-causal":
                x, _ = self.heads(
                    x, x, x, attn_mask=self.infinite, is_causal=True, need_weights=False
                )
            case _:
                x = self._by_hand(x)
        return self.leave(x)

    def _by_hand(self, x: torch.Tensor) -> torch.Tensor:
        split = x.view(1, TOKENS, 2, 8).transpose(1, 2)
        match self.how:
            case "bool":
                seen = ~self.later  # type: ignore[operator]
                mixed = scaled_dot_product_attention(split, split, split, attn_mask=seen)
            case "causal":
                mixed = scaled_dot_product_attention(split, split, split, is_causal=True)
            case _:
                scores = split @ split.transpose(-1, -2) / 8**0.5
                filled = scores.masked_fill(self.later, LOWEST)  # type: ignore[arg-type]
                mixed = filled.softmax(-1) @ split
        return mixed.transpose(1, 2).reshape(1, TOKENS, 16)


@pytest.mark.parametrize("how", ["heads-bool", "heads-causal", "bool", "causal", "fill"])
def test_what_torch_writes_of_it_exports(how: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        program = torch.onnx.export(
            Attending(how).eval(), (torch.randn(1, TOKENS, 6),), dynamo=True, verbose=False
        )
    assert program is not None
    bundle, found = export_and_compare(program.model_proto, tmp_path)
    assert_exact(bundle)
    assert found > ENOUGH_DB


def test_numbers_that_runtimes_have_no_scale_for_are_an_error(tmp_path: Path) -> None:
    """LiteRT ends the process where a scale times 2^20 overflows float32."""
    model = model_of(
        "g (float[1,3,4,4] x) => (float[1,2,4,4] y) { c = Conv (x, w) y = Add (c, k) }",
        {
            "w": np.ones((2, 3, 1, 1), np.float32),
            "k": np.where(np.eye(4), LOWEST, 0.0).astype(np.float32),
        },
    )
    with pytest.raises(QuantizationError, match="tensor y: its scale would be"):
        export_and_compare(model, tmp_path)
