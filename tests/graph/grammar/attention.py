"""Multi-head attention on tokens [1, T, D], with dead heads and dead dimensions in them."""

from __future__ import annotations

import numpy as np

from deploykit.spec.arrays import Float64Array
from tests.graph.grammar.growing import Growing, Step, ints
from tests.graph.grammar.layers import matmul


def attention(growing: Growing) -> None:
    """x + project(softmax(q k' / sqrt(d)) v), heads [1, h, T, d]."""
    if len(growing.shape) != 3 or growing.shape[1] > 12:
        return
    start, (_, tokens, width) = growing.last, growing.shape
    heads, depth = growing.count(1, 3), growing.count(1, 3)
    if growing.chance(0.3):
        depth = max(1, width // heads)
    if not growing.fits((tokens, 3 * heads * depth)) or not growing.fits((heads, tokens, tokens)):
        return
    kernels = [_projection(growing, heads, depth, width) for _ in range(3)]
    _same_dead_dimensions(growing, kernels, heads, depth)
    biased = growing.chance(0.6)
    biases = [_bias(growing, kernel) if biased else None for kernel in kernels]
    q, k, v = (_fused if growing.chance(0.5) else _apart)(growing, kernels, biases, heads, depth)
    growing.last = k
    keys = growing.put("Transpose", (1, heads, depth, tokens), perm=[0, 1, 3, 2])
    scores = (1, heads, tokens, tokens)
    growing.join("MatMul", scores, [q, keys])
    growing.put("Mul", scores, np.array(1.0 / np.sqrt(depth)))
    growing.put("Softmax", scores, axis=-1)
    growing.join("MatMul", (1, heads, tokens, depth), [growing.last, v])
    growing.put("Transpose", (1, tokens, heads, depth), perm=[0, 2, 1, 3])
    joined = (1, tokens, heads * depth)
    growing.put("Reshape", joined, ints(*growing.pick(joined, (1, tokens, -1), (0, 0, -1))))
    outputs = width if growing.chance(0.8) else growing.count(1, 4)
    kernel = growing.kernels(outputs, heads * depth)
    if growing.chance(0.4):
        kernel.reshape(outputs, heads, depth)[:, growing.count(0, heads - 1)] = 0.0
    matmul(growing, kernel, growing.biases(outputs) if growing.chance(0.7) else None)
    if outputs == width:
        growing.join("Add", growing.shape, [start, growing.last])


def _projection(growing: Growing, heads: int, depth: int, width: int) -> Float64Array:
    """[h*d, D]; perhaps a head is dead, or a dimension of every head, or any rows at all."""
    kernel = np.asarray(growing.rng.normal(size=(heads * depth, width)) / np.sqrt(width))
    by_head = kernel.reshape(heads, depth, width)
    match growing.pick("none", "none", "head", "dimension", "rows"):
        case "head":
            by_head[growing.count(0, heads - 1)] = 0.0
        case "dimension":
            by_head[:, growing.count(0, depth - 1)] = 0.0
        case "rows":
            kernel[growing.rng.random(heads * depth) < 0.4] = 0.0
        case _:
            pass
    return kernel


def _same_dead_dimensions(
    growing: Growing, kernels: list[Float64Array], heads: int, depth: int
) -> None:
    """Queries and keys whose dead dimensions match in every head, one each, not the same one."""
    if depth > 1 and growing.chance(0.3):
        for kernel in kernels[:2]:
            by_head = kernel.reshape(heads, depth, -1)
            for head in range(heads):
                by_head[head, growing.count(0, depth - 1)] = 0.0


def _bias(growing: Growing, kernel: Float64Array) -> Float64Array:
    """Mostly nothing where the kernel is dead, so that dead queries are zero."""
    dead = ~kernel.any(axis=1) & (growing.rng.random(len(kernel)) < 0.8)
    return np.asarray(np.where(dead, 0.0, growing.biases(len(kernel))))


def _apart(
    growing: Growing,
    kernels: list[Float64Array],
    biases: list[Float64Array | None],
    heads: int,
    depth: int,
) -> tuple[str, str, str]:
    start, tokens = growing.last, growing.shape[1]
    made = []
    for kernel, bias in zip(kernels, biases, strict=True):
        growing.last = start
        matmul(growing, kernel, bias)
        made.append(_by_head(growing, tokens, heads, depth))
    return made[0], made[1], made[2]


def _by_head(growing: Growing, tokens: int, heads: int, depth: int) -> str:
    target = growing.pick((1, tokens, heads, depth), (1, tokens, heads, -1), (0, 0, heads, depth))
    growing.put("Reshape", (1, tokens, heads, depth), ints(*target))
    return growing.put("Transpose", (1, heads, tokens, depth), perm=[0, 2, 1, 3])


def _fused(
    growing: Growing,
    kernels: list[Float64Array],
    biases: list[Float64Array | None],
    heads: int,
    depth: int,
) -> tuple[str, str, str]:
    """One linear for all three, taken apart by Split, or by a view and three Gathers."""
    tokens, width = growing.shape[1], heads * depth
    given = [bias for bias in biases if bias is not None]
    matmul(growing, np.concatenate(kernels), np.concatenate(given) if given else None)
    if growing.chance(0.5):
        shapes = [(1, tokens, width)] * 3
        sizes = ints(width, width, width)
        parts = growing.several("Split", shapes, [growing.last, sizes], axis=2)
        made = []
        for part in parts:
            growing.last = part
            made.append(_by_head(growing, tokens, heads, depth))
        return made[0], made[1], made[2]
    whole = (1, tokens, 3, heads, depth)
    growing.put("Reshape", whole, ints(*whole))
    turned = growing.put("Transpose", (3, 1, heads, tokens, depth), perm=[2, 0, 3, 1, 4])
    one = (1, heads, tokens, depth)
    q, k, v = (
        growing.join("Gather", one, [turned], np.array(index, np.int64), axis=0)
        for index in range(3)
    )
    return q, k, v


def class_token(growing: Growing) -> None:
    """A constant token before the others, perhaps with constants added at every position."""
    if len(growing.shape) != 3:
        return
    _, tokens, width = growing.shape
    if not growing.fits((tokens + 1, width)):
        return
    token = growing.rng.choice([0.0, 0.5, 1.0], size=(1, 1, width))
    growing.read("Concat", (1, tokens + 1, width), [token, growing.last], axis=1)
    if growing.chance(0.6):
        positions = growing.rng.normal(size=(1, tokens + 1, width))
        positions[..., growing.rng.random(width) < 0.5] = growing.pick(0.0, 1.0)
        growing.put("Add", growing.shape, positions)


def first_token(growing: Growing) -> None:
    """[1, T, D] to [1, D], as a classifier reads the class token."""
    if len(growing.shape) == 3:
        growing.put("Gather", (1, growing.shape[2]), np.array(0, np.int64), axis=1)


STEPS: dict[str, Step] = {
    "attention": attention,
    "class_token": class_token,
    "first_token": first_token,
}
