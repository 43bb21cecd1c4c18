"""The same elements in other shapes: views, transposes, resizing, depth to space."""

from __future__ import annotations

import numpy as np

from tests.graph.grammar.elementwise import activation
from tests.graph.grammar.growing import Growing, Shape, Step, ints


def _reshape(growing: Growing, shape: Shape) -> None:
    growing.put("Reshape", shape, ints(*shape))


def flatten(growing: Growing) -> None:
    """To a vector, and perhaps back after an activation."""
    shape = growing.shape
    features = int(np.prod(shape[1:]))
    growing.put("Flatten", (1, features))
    if growing.chance(0.4):
        if growing.chance(0.5):
            activation(growing)
        _reshape(growing, shape)


def view(growing: Growing) -> None:
    """Split an axis in two or merge two, perhaps an activation there, perhaps back."""
    shape = growing.shape
    axis = 1 if growing.chance(0.7) else growing.count(1, len(shape) - 1)
    if growing.chance(0.6) and len(shape) < 6:
        first = growing.divisor(shape[axis])
        target = (*shape[:axis], first, shape[axis] // first, *shape[axis + 1 :])
    elif axis + 1 < len(shape):
        target = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    else:
        return
    _reshape(growing, target)
    if growing.chance(0.4):
        activation(growing)
    if growing.chance(0.7):
        _reshape(growing, shape)


def transpose(growing: Growing) -> None:
    """Any order of the axes behind the batch, perhaps undone after an activation."""
    shape = growing.shape
    if len(shape) < 3:
        return
    perm = [0, *(int(k) + 1 for k in growing.rng.permutation(len(shape) - 1))]
    growing.put("Transpose", tuple(shape[k] for k in perm), perm=perm)
    if growing.chance(0.5):
        activation(growing)
        growing.put("Transpose", shape, perm=np.argsort(perm).tolist())


def unit_axes(growing: Growing) -> None:
    """Unsqueeze and perhaps back, or Squeeze what is 1."""
    shape = growing.shape
    ones = [k for k, size in enumerate(shape) if size == 1 and k > 0]
    if ones and len(shape) > 2 and growing.chance(0.5):
        axis = growing.pick(*ones)
        growing.put("Squeeze", (*shape[:axis], *shape[axis + 1 :]), ints(axis))
    elif len(shape) < 5:
        axis = growing.count(1, len(shape))
        growing.put("Unsqueeze", (*shape[:axis], 1, *shape[axis:]), ints(axis))
        if growing.chance(0.5):
            activation(growing)
        if growing.chance(0.6):
            growing.put("Squeeze", shape, ints(axis))


def resize(growing: Growing) -> None:
    """Twice as large by scales, or to any size by sizes."""
    if not growing.is_image:
        return
    shape = growing.shape
    mode = growing.pick("nearest", "linear")
    if growing.chance(0.5):
        whole = (*shape[:2], 2 * shape[2], 2 * shape[3])
        operands = [None, np.array([1.0, 1.0, 2.0, 2.0], np.float32)]
    else:
        whole = (*shape[:2], growing.count(1, 6), growing.count(1, 6))
        operands = [None, None, ints(*whole)]
    if growing.fits(whole):
        transformation = growing.pick("asymmetric", "half_pixel")
        growing.put(
            "Resize", whole, *operands, mode=mode, coordinate_transformation_mode=transformation
        )


def blocks(growing: Growing) -> None:
    """DepthToSpace where four channels make one, else SpaceToDepth."""
    if not growing.is_image:
        return
    _, count, height, width = growing.shape
    if count % 4 == 0 and growing.chance(0.7):
        whole = (1, count // 4, 2 * height, 2 * width)
        growing.put("DepthToSpace", whole, blocksize=2, mode=growing.pick("DCR", "CRD"))
    elif height % 2 == 0 and width % 2 == 0 and count <= 4:
        growing.put("SpaceToDepth", (1, 4 * count, height // 2, width // 2), blocksize=2)


def pixel_shuffle(growing: Growing) -> None:
    """A convolution to 4 k channels, then DepthToSpace in either mode."""
    if not growing.is_image:
        return
    _, count, height, width = growing.shape
    made = growing.count(1, 3)
    if growing.fits((4 * made, height, width)):
        kernel, bias = growing.kernels(4 * made, count, 1, 1), growing.biases(4 * made)
        growing.put("Conv", (1, 4 * made, height, width), kernel, bias)
        whole = (1, made, 2 * height, 2 * width)
        growing.put("DepthToSpace", whole, blocksize=2, mode=growing.pick("DCR", "CRD"))


def to_tokens(growing: Growing) -> None:
    """[1, C, H, W] to [1, H*W, C]; a vector [1, a*b] to [1, a, b]."""
    if len(growing.shape) == 2:
        first = growing.divisor(growing.shape[1])
        _reshape(growing, (1, first, growing.shape[1] // first))
    elif growing.is_image:
        _, count, height, width = growing.shape
        _reshape(growing, (1, count, height * width))
        growing.put("Transpose", (1, height * width, count), perm=[0, 2, 1])


def to_image(growing: Growing) -> None:
    """[1, T, D] to [1, D, T, 1] or [1, D, h, w]; a vector to one pixel."""
    shape = growing.shape
    if len(shape) == 2:
        growing.put("Unsqueeze", (*shape, 1, 1), ints(2, 3))
    elif len(shape) == 3:
        growing.put("Transpose", (1, shape[2], shape[1]), perm=[0, 2, 1])
        height = growing.divisor(shape[1])
        _reshape(growing, (1, shape[2], height, shape[1] // height))
    elif len(shape) > 4:
        _reshape(growing, (1, shape[1], shape[2], int(np.prod(shape[3:]))))


STEPS: dict[str, Step] = {
    "flatten": flatten,
    "view": view,
    "transpose": transpose,
    "unit_axes": unit_axes,
    "resize": resize,
    "blocks": blocks,
    "pixel_shuffle": pixel_shuffle,
    "to_tokens": to_tokens,
    "to_image": to_image,
}
