"""Convolution over any number of spatial axes, through matrix products on blocks.

The blocks are of a size that a core's caches hold; each core has blocks of its own, and reuses
their buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod

import numpy as np

from deploykit.reference.sliding import Sliding
from deploykit.reference.window import output_size
from deploykit.spec.arrays import FloatArray
from deploykit.spec.operators import Window
from deploykit.spec.parallel import in_parallel, workers

CHUNK_ELEMENTS = 1 << 23
"""Largest number of elements that a caller who works in chunks of a batch holds at a time."""

BLOCK_ELEMENTS = 1 << 18
"""Elements of one block of im2col columns: 2 MiB in float64."""

MERGED_ELEMENTS = 1 << 21
"""The same, where columns of several small images share one matrix product."""

FEW_POSITIONS = 256
"""Outputs per channel below which a matrix product per image is too narrow to be fast."""

PLANE_ELEMENTS = 1 << 15
"""Elements of one block of output planes of a depthwise convolution."""

SHARED_MACS = 1 << 22
"""Multiply-adds from which the work of a convolution is shared between cores."""

FEW_OUTPUTS = 4
"""Outputs per single-channel group below which multiply-adds beat matrix products."""


def convolve(images: FloatArray, weight: FloatArray, sliding: Sliding, groups: int) -> FloatArray:
    """[N, C, *lengths] with weight [O, C/groups, *kernel] -> [N, O, *sizes], padded with zeros."""
    sizes = sliding.sizes(images.shape[2:])
    sums: FloatArray = np.empty((len(images), len(weight), *sizes), dtype=images.dtype)
    if not sums.size:
        return sums
    if weight.shape[1] == 1 and len(weight) < FEW_OUTPUTS * images.shape[1]:
        _depthwise(images, weight, sliding, sums)
    else:
        _grouped(images, weight, sliding, groups, sums)
    return sums


def convolve_transposed(
    images: FloatArray,
    weight: FloatArray,
    sliding: Sliding,
    groups: int,
    sizes: tuple[int, ...],
) -> FloatArray:
    """[N, C, *lengths] with weight [C, O/groups, *kernel] -> [N, O, *sizes].

    The window slides over the output; each input is spread over it, and what falls on its
    begins is cropped.
    """
    lengths = images.shape[2:]
    spread = tuple(
        max(stride * (length - 1) + reach, begin + size)
        for stride, length, reach, begin, size in zip(
            sliding.strides, lengths, sliding.reach, sliding.begins, sizes, strict=True
        )
    )
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)
    outputs = groups * weight.shape[1]
    inside = tuple(
        slice(begin, begin + size) for begin, size in zip(sliding.begins, sizes, strict=True)
    )
    sums: FloatArray = np.empty((len(images), outputs, *sizes), dtype=images.dtype)
    for image, into in zip(images, sums, strict=True):
        columns = np.matmul(kernels, image.reshape(groups, kernels.shape[2], -1))
        parts = columns.reshape(outputs, *sliding.kernel, *lengths)
        whole: FloatArray = np.zeros((outputs, *spread), dtype=images.dtype)
        for position, seen in sliding.taps(whole, lengths):
            seen += parts[(slice(None), *position)]
        into[...] = whole[(slice(None), *inside)]
    return sums


def chunks(shape: tuple[int, ...], window: Window) -> Iterator[slice]:
    """Slices of a batch whose im2col stays within CHUNK_ELEMENTS, at least one image each.

    Of more than one image, as many as there are cores that can work on them.
    """
    rows, columns = output_size(shape, window)
    per_image = max(1, shape[1] * window.kernel[0] * window.kernel[1] * rows * columns)
    step = max(1, min(CHUNK_ELEMENTS // per_image, -(-shape[0] // workers())))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def _grouped(
    images: FloatArray, weight: FloatArray, sliding: Sliding, groups: int, sums: FloatArray
) -> None:
    """One matrix product per block and group: [O/G, K] @ [K, columns], K = C/G * kernel."""
    kernels = weight.reshape(groups, len(weight) // groups, -1)
    sizes = sums.shape[2:]
    depth = images.shape[1] * prod(sliding.kernel)
    pieces = workers() if sums.size * kernels.shape[2] >= SHARED_MACS else 1
    if depth * prod(sizes) > BLOCK_ELEMENTS and prod(sizes) >= FEW_POSITIONS:
        shares = max(1, pieces // len(images))
        in_parallel(
            lambda at: _by_rows(images[at[0]], kernels, sliding, sums[at[0]], at[1]),
            [(n, rows) for n in range(len(images)) for rows in _ranges(sizes[0], shares)],
        )
        return
    most = max(1, MERGED_ELEMENTS // (depth * prod(sizes)))
    shares = max(pieces, -(-len(images) // most))
    in_parallel(
        lambda part: _merged(images[part], kernels, sliding, sums[part]),
        _ranges(len(images), shares),
    )


def _ranges(length: int, shares: int) -> list[slice]:
    """So many nearly equal slices of a range, or one of each element where it has fewer."""
    ends = np.linspace(0, length, min(shares, length) + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _by_rows(
    image: FloatArray, kernels: FloatArray, sliding: Sliding, sums: FloatArray, rows: slice
) -> None:
    """Blocks of slices along the first spatial axis of one image [C, *lengths], within `rows`."""
    groups, _, depth = kernels.shape
    sizes = sums.shape[1:]
    per_row = prod(sizes[1:])
    into = sums.reshape(groups, kernels.shape[1], -1)
    patches = sliding.patches(sliding.pad(image, 0.0), sizes)
    if prod(sliding.kernel) == 1 and rows == slice(0, sizes[0]):
        np.matmul(kernels, patches.reshape(groups, depth, -1), out=into)
        return
    step = max(1, BLOCK_ELEMENTS // (groups * depth * per_row))
    axis = 1 + len(sizes)
    buffer: FloatArray = np.empty(groups * depth * step * per_row, dtype=image.dtype)
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        block = patches[(slice(None),) * axis + (slice(start, stop),)]
        columns = buffer[: block.size].reshape(block.shape)
        columns[...] = block
        np.matmul(
            kernels,
            columns.reshape(groups, depth, -1),
            out=into[:, :, start * per_row : stop * per_row],
        )


def _merged(images: FloatArray, kernels: FloatArray, sliding: Sliding, sums: FloatArray) -> None:
    """The columns of several images [n, C, *lengths] side by side where each has few."""
    groups, _, depth = kernels.shape
    sizes = sums.shape[2:]
    patches = sliding.patches(sliding.pad(images, 0.0), sizes)
    if len(images) == 1 or prod(sizes) >= FEW_POSITIONS:
        columns = patches.reshape(len(images), groups, depth, -1)
        np.matmul(kernels, columns, out=sums.reshape(*columns.shape[:2], kernels.shape[1], -1))
        return
    beside = np.moveaxis(patches, 0, 1 + len(sizes)).reshape(groups, depth, -1)
    products = np.matmul(kernels, beside)
    sums[...] = np.moveaxis(products.reshape(-1, len(images), *sizes), 1, 0)


def _depthwise(images: FloatArray, weight: FloatArray, sliding: Sliding, sums: FloatArray) -> None:
    """One multiply-add per kernel position; a channel feeds O/C consecutive outputs.

    Works on blocks of output planes, over all images and outputs in a row.
    """
    repeats = len(weight) // images.shape[1]
    sizes = sums.shape[2:]
    step = max(1, PLANE_ELEMENTS // prod(sizes))
    planes = images.reshape(-1, *images.shape[2:])
    into = sums.reshape(-1, *sizes)
    kernels = np.tile(np.moveaxis(weight[:, 0], 0, -1), len(images))
    factors = kernels.reshape(*kernels.shape, *(1,) * len(sizes))

    def share(part: slice) -> None:
        products = np.empty((min(step, part.stop - part.start), *sizes), dtype=images.dtype)
        for start in range(part.start, part.stop, step):
            stop = min(start + step, part.stop)
            block, held = into[start:stop], products[: stop - start]
            outputs = np.arange(start, stop)
            read = planes[outputs // repeats] if repeats > 1 else planes[start:stop]
            for position, seen in sliding.taps(sliding.pad(read, 0.0), sizes):
                factor = factors[position][start:stop]
                if any(position):
                    np.multiply(seen, factor, out=held)
                    block += held
                else:
                    np.multiply(seen, factor, out=block)

    pieces = workers() if sums.size * prod(sliding.kernel) >= SHARED_MACS else 1
    in_parallel(share, _ranges(len(into), pieces))
