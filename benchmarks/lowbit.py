"""Below eight bits: what each step of rounding is worth on the pretrained EfficientNet-Lite0.

    python benchmarks/lowbit.py --images DIR [--seeds 5] [--bits 4] [--ladder-seeds 1] [--json FILE]

DIR and splits: as in pretrained_int8.py; 64 images calibrate, the others test. Every convolution and
linear has --bits weights, activations 8. The ladder shows each step on the first seeds; the bounds are on
the last step, on all seeds, with the mean of 8 bits beside it. Both runtimes compute the same integers;
every logit is compared. Needs Pillow.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from bounds import Bound, print_bounds
from pretrained_int8 import Images, Row, measure
from removal_pretrained import read_images

FULL_BITS = 8
MIN_TOP1: Mapping[int, float] = {8: 0.795, 4: 0.76}
"""Mean of all seeds, by bits of the weights; other bits are shown without a bound."""
MOST_SECONDS = 600.0


@dataclass(frozen=True)
class Rung:
    """One step of the ladder, and all below it."""

    title: str
    rounding: str
    weight_range: str


LADDER = (
    Rung("nearest", "nearest", "largest"),
    Rung("+ clipping", "nearest", "least-error"),
    Rung("+ compensated", "compensated", "least-error"),
    Rung("+ sequential", "sequential", "least-error"),
)


@dataclass(frozen=True)
class Found:
    """One export at so many bits."""

    title: str
    bits: int
    row: Row


def measured(rung: Rung, bits: int, seed: int, images: Images) -> Found:
    """Export and run; prints its line."""
    options = {"bits": bits, "rounding": rung.rounding, "weight_range": rung.weight_range}
    found = Found(rung.title, bits, measure(images, seed, options))
    row = found.row
    print(
        f"{found.title:<16}{bits:>5}{seed:>6}{row.float_top1:>8.4f}{row.top1:>8.4f}"
        f"{row.agreement:>8.4f}{row.sqnr_db:>9.2f}{row.differing_logits:>8}{row.seconds:>8.1f}",
        flush=True,
    )
    return found


def climbed(images: Images, options: argparse.Namespace) -> Iterator[Found]:
    """The ladder on its seeds, then its last step on the others, and 8 bits on all."""
    for seed in range(1, options.seeds + 1):
        full = Rung("compensated", "compensated", "least-error")
        yield measured(full, FULL_BITS, seed, images)
        for rung in LADDER if seed <= options.ladder_seeds else LADDER[-1:]:
            yield measured(rung, options.bits, seed, images)


def main() -> int:
    """One line per export, the means, then the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ladder-seeds", type=int, default=1)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    images = Images(*read_images(options.images))
    print(
        f"{'rounding':<16}{'bits':>5}{'seed':>6}{'float':>8}{'top-1':>8}{'agree':>8}"
        f"{'SQNR dB':>9}{'differ':>8}{'s':>8}"
    )
    found = list(climbed(images, options))
    bounds = [Bound("logits that differ between the files", differing(found), 0)]
    for bits, title in ((FULL_BITS, "compensated"), (options.bits, LADDER[-1].title)):
        rows = [one.row for one in found if (one.bits, one.title) == (bits, title)]
        means = {
            name: float(np.mean([getattr(row, name) for row in rows]))
            for name in ("float_top1", "top1", "agreement", "sqnr_db")
        }
        print(f"mean of {bits} bits: {json.dumps(means)}")
        if bits in MIN_TOP1:
            bounds.append(Bound(f"{bits} bits, top-1", means["top1"], MIN_TOP1[bits], "at least"))
        slowest = max(row.seconds for row in rows)
        bounds.append(Bound(f"{bits} bits, slowest export, s", slowest, MOST_SECONDS))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return print_bounds(bounds)


def differing(found: list[Found]) -> int:
    """Logits, over all exports."""
    return sum(one.row.differing_logits for one in found)


if __name__ == "__main__":
    sys.exit(main())
