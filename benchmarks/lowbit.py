"""Below eight bits: what each step of rounding is worth on the pretrained EfficientNet-Lite0.

    python benchmarks/lowbit.py --images DIR [--seeds 5] [--bits 4] [--ladder-seeds 1]
        [--peers-python PYTHON | --no-peers] [--json FILE]

DIR and splits: as in pretrained_int8.py; 64 images calibrate, the others test. Every convolution and
linear has --bits weights, activations 8; `auto` has 5 bits on average. The ladder shows each step on the
first seeds; the bounds are on the first split, and on the mean of all seeds beside float's, of 8 bits, of
the last step but learned rounding, and of auto. Both runtimes compute the same integers; every logit is
compared. onnxruntime.quantization and ai-edge-quantizer, on the first seed, are shown beside; the latter in
its own environment. Needs Pillow.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from lowbit_peers import PeerRow, peer_rows
from peers_environment import peer_python
from pretrained_int8 import Images, Row, measure
from removal_pretrained import read_images

FULL_BITS = 8
AUTO_BITS = 5
MIN_TOP1: Mapping[str, float] = {"8": 0.795, "4": 0.76, "auto": 0.785}
"""By bits of the weights, on the first split; other bits are shown without a bound."""
FLOAT_TOP1 = 0.8005
"""On the first split. The mean of five is under 0.795 in float already: there the bound is on how
far integers lie under float, which is what MIN_TOP1 leaves on the first."""
MOST_SECONDS = 600.0


@dataclass(frozen=True)
class Rung:
    """One step of the ladder, and all below it. options: of the export."""

    title: str
    options: Mapping[str, Any]


KEPT = {"bias_correction": "none"}
LARGEST = {"weight_range": "largest"}
LADDER = (
    Rung("nearest", {"rounding": "nearest", **LARGEST, **KEPT}),
    Rung("+ bias correction", {"rounding": "nearest", **LARGEST}),
    Rung("+ clipping", {"rounding": "nearest"}),
    Rung("+ equalization", {"rounding": "nearest", "equalization": "cross-layer"}),
    Rung("+ compensated", {"rounding": "compensated"}),
    Rung("+ sequential", {"rounding": "sequential"}),
    Rung("+ learned", {"rounding": "learned"}),
)
"""Equalization is not kept by the steps behind it: Relu6 pins all channels but the residual streams'."""  # noqa: E501
TAKEN = LADDER[-2]
FULL = Rung("compensated", {"rounding": "compensated", "bits": FULL_BITS})
AUTO = Rung("auto", {"rounding": "sequential", "bits": "auto", "target_bits": AUTO_BITS})


@dataclass(frozen=True)
class Found:
    """One export. bits: as asked for."""

    title: str
    bits: str
    row: Row


def measured(rung: Rung, bits: int, seed: int, images: Images) -> Found:
    """Export and run; prints its line."""
    options = {"bits": bits, **rung.options}
    found = Found(rung.title, str(options["bits"]), measure(images, seed, options))
    row = found.row
    print(
        f"{found.title:<20}{found.bits:>5}{seed:>6}{row.float_top1:>8.4f}{row.top1:>8.4f}"
        f"{row.agreement:>8.4f}{row.sqnr_db:>9.2f}{row.differing_logits:>8}{row.seconds:>8.1f}",
        flush=True,
    )
    return found


def climbed(images: Images, options: argparse.Namespace) -> Iterator[Found]:
    """The ladder on its seeds, then its taken step on the others; 8 bits and auto on all."""
    for seed in range(1, options.seeds + 1):
        yield measured(FULL, FULL_BITS, seed, images)
        for rung in LADDER if seed <= options.ladder_seeds else (TAKEN,):
            yield measured(rung, options.bits, seed, images)
        yield measured(AUTO, options.bits, seed, images)


def main() -> int:
    """One line per export, the means, the peers, then the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ladder-seeds", type=int, default=1)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--peers-python", type=Path, help="where litert-torch is installed")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    images = Images(*read_images(options.images))
    print(
        f"{'rounding':<20}{'bits':>5}{'seed':>6}{'float':>8}{'top-1':>8}{'agree':>8}"
        f"{'SQNR dB':>9}{'differ':>8}{'s':>8}"
    )
    peers: Sequence[PeerRow] = ()
    if not options.no_peers:
        peers = tuple(peer_rows(images, peer_python(options.peers_python)))
    found = list(climbed(images, options))
    bounds = [Bound("logits that differ between the files", differing(found), 0)]
    asked = str(options.bits)
    for bits, title in ((str(FULL_BITS), FULL.title), (asked, TAKEN.title), ("auto", AUTO.title)):
        rows = [one.row for one in found if (one.bits, one.title) == (bits, title)]
        means = {
            name: float(np.mean([getattr(row, name) for row in rows]))
            for name in ("float_top1", "top1", "agreement", "sqnr_db")
        }
        print(f"mean of {bits} bits: {json.dumps(means)}")
        if bits in MIN_TOP1:
            least = MIN_TOP1[bits]
            under = 100 * (means["float_top1"] - means["top1"])
            bounds += [
                Bound(f"{bits} bits, top-1 on the first split", rows[0].top1, least, "at least"),
                Bound(f"{bits} bits, points under float, mean", under, 100 * (FLOAT_TOP1 - least)),
            ]
        slowest = max(row.seconds for row in rows)
        bounds.append(Bound(f"{bits} bits, slowest export, s", slowest, MOST_SECONDS))
    if options.json:
        written = {"rows": [asdict(one) for one in found], "peers": [asdict(one) for one in peers]}
        options.json.write_text(json.dumps(written, indent=1) + "\n")
    return print_bounds(bounds)


def differing(found: list[Found]) -> int:
    """Logits, over all exports."""
    return sum(one.row.differing_logits for one in found)


if __name__ == "__main__":
    sys.exit(main())
