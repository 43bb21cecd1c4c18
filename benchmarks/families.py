"""Every posterior family, trained small on Fashion-MNIST: what folding, pruning and int8 cost.

    python benchmarks/families.py [--examples a,b] [--images FOLDER] [--json FILE]

Reads the checkpoints of tests/libraries, which the libraries themselves wrote, or layers restated
from the papers (its frame says how), and the samples LeNet-5 and ResNet-18 (width 16). Each is
folded, pruned by its family's published rule, or at signal-to-noise 1 where it has no gates, and
exported to int8 in both formats.
Beside the accuracies that the library reported of its own mean and of 16 draws stand those of the
folded mean, of 16 draws by deploykit, of the pruned network and of the integers, alike in both
runtimes. FOLDER holds the idx files of Fashion-MNIST (Debian: package dataset-fashion-mnist),
for all 10,000 test images instead of the first 2,000; the library's own figures are of the 2,000.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from bounds import Bound, print_bounds
from demo import SAMPLE

import deploykit
from deploykit.posterior.architecture import load_factory
from deploykit.posterior.checkpoint import load_checkpoint
from deploykit.posterior.flat import laid_out
from deploykit.posterior.fold import fold_posterior
from deploykit.posterior.options import PruneRule, PruneSpec, Threshold
from deploykit.posterior.predictive import DRAWS, compare_monte_carlo
from deploykit.posterior.recognise import recognise
from deploykit.spec.confidence import Predictive
from deploykit.spec.posterior import Checkpoint
from deploykit.spec.samples import Samples

sys.path.insert(0, str(SAMPLE.parent.parent))
sys.path.insert(0, str(SAMPLE))
from data import test_images as all_test_images

from tests.libraries.frame import CHECKPOINTS, libraries
from tests.libraries.images import Images, test_images
from tests.libraries.record import stored_reference

SNR = 1.0
"""Of a whole channel: below it the noise is larger than the signal."""
CHOSEN: Mapping[str, Threshold] = {
    "group_normal_jeffreys": -2.498,
    "group_horseshoe": -0.7569,
    "lenet5": {"conv1": -7.564, "conv2": -7.469, "fc1": -5.41, "fc2": -7.251},
}
"""Where the family publishes none that fits: by `export --dry-run` on images 12,000 to 14,000 of
the training file, which training did not see; the sample's README says how its own were chosen."""
MOVING = frozenset(("MaxPool", "Flatten", "Clamp"))
"""Operators whose channels are those of the layer before."""
UNPRUNED = frozenset(("bayesian_torch_lstm", "laplace_last_layer"))
"""Only recurrent layers and the output layer have a posterior, and of these no channel goes."""


@dataclass(frozen=True)
class Example:
    """A checkpoint, the factory of its deterministic twin, and what its library reported.

    mean, draws: accuracy of the library's own mean forward and of 16 of its draws; None for the
    samples, whose training is ours. evaluation: of its evaluation, where that rounds activations.
    """

    name: str
    path: Path
    model: str
    mean: float | None = None
    draws: float | None = None
    evaluation: float | None = None

    def checkpoint(self) -> Checkpoint:
        """The file, what it holds in one vector laid out by the parameters of the twin."""
        return laid_out(load_checkpoint(self.path), load_factory(self.model)())


@dataclass(frozen=True)
class Row:
    """Shares of images; parameters and channels (of convolutions and linears) before and after.

    evaluation: of a library that rounds activations, on the first 2,000 images.
    """

    name: str
    families: tuple[str, ...]
    rule: str
    images: int
    library_mean: float | None
    library_draws: float | None
    folded: float
    draws: float
    pruned: float
    int8: float
    channels: tuple[int, int]
    parameters: tuple[int, int]
    checkpoint_bytes: int
    tflite_bytes: int
    differing: int
    seconds: float
    evaluation: float | None = None


def examples() -> list[Example]:
    """Every one there is."""
    resnet18 = SAMPLE.parent / "resnet18"
    found = [
        Example("lenet5", SAMPLE / "bayesian.pt", f"{SAMPLE / 'model.py'}:lenet5"),
        Example("resnet18", resnet18 / "checkpoints" / "bayesian16-0.pt",
                f"{resnet18 / 'model.py'}:dense16"),
    ]  # fmt: skip
    for library in libraries():
        stored = stored_reference(library)
        path = CHECKPOINTS / f"{library.name}.pt"
        found.append(
            Example(
                library.name,
                path,
                library.model("twin"),
                stored.mean,
                stored.predictive,
                stored.evaluation,
            )
        )
    return found


def rule_of(example: Example) -> PruneSpec:
    """The family's own where it publishes one, else signal-to-noise."""
    if example.name in CHOSEN:
        return PruneSpec(PruneRule.FAMILY, CHOSEN[example.name])
    if example.name in UNPRUNED:
        return PruneSpec(PruneRule.NONE)
    layers = recognise(example.checkpoint()).layers
    if any(layer.family.gate_rule is not None for layer in layers):
        return PruneSpec(PruneRule.FAMILY)
    return PruneSpec(PruneRule.SNR, SNR)


def share(metrics: Mapping[str, Predictive], name: str) -> float:
    """Accuracy of one of the compared networks."""
    return metrics[name].accuracy


def row_of(example: Example, images: Images, folder: Path) -> Row:
    """Fold, draw, prune and export one."""
    start, spec = perf_counter(), rule_of(example)
    checkpoint, twin = example.checkpoint(), load_factory(example.model)
    folded = fold_posterior(checkpoint, twin, images.inputs[:8], PruneSpec(PruneRule.NONE))
    samples = Samples(images.inputs, images.labels)
    metrics = compare_monte_carlo(folded, checkpoint, samples).report.metrics
    data = folder / "labelled.npz"
    np.savez(data, inputs=images.inputs, labels=images.labels)
    bundle = deploykit.export(
        example.path,
        out=folder / "bundle",
        model=example.model,
        input_shape=(1, 1, 28, 28),
        data=SAMPLE / "calibration.npz",
        eval_data=data,
        prune_rule=spec.rule.value,
        threshold=spec.threshold,
        align="none",
    )
    manifest: Any = bundle.manifest
    weighted = [one for one in manifest["layers"] if one["operator"] not in MOVING]
    channels = tuple(
        sum(one[f"channels_{when}"] for one in weighted) for when in ("before", "after")
    )
    removal, accuracy = manifest["removal"], manifest["accuracy"]
    assert accuracy["model.onnx"] == accuracy["model.tflite"]
    return Row(
        name=example.name,
        families=tuple(sorted({*manifest["fold"]["families"].values()} - {"deterministic"})),
        rule=f"snr < {SNR:g}" if spec.rule is PruneRule.SNR else spec.rule.value,
        images=len(samples),
        library_mean=example.mean,
        library_draws=example.draws,
        folded=share(metrics, "mean"),
        draws=share(metrics, "monte_carlo"),
        pruned=accuracy["pruned"],
        int8=accuracy["model.tflite"],
        channels=(channels[0], channels[1]),
        parameters=(removal["parameters_before"], removal["parameters_after"]),
        checkpoint_bytes=example.path.stat().st_size,
        tflite_bytes=manifest["sizes"]["model.tflite"],
        differing=sum(one["differing"] for one in manifest["parity"]),
        seconds=perf_counter() - start,
        evaluation=example.evaluation,
    )


def line(row: Row) -> str:
    """One line of the table."""
    theirs = [
        f"{x:.4f}" if x is not None else "      " for x in (row.library_mean, row.library_draws)
    ]
    return (
        f"{row.name:<28}{row.rule:<9}{theirs[0]}  {theirs[1]}  {row.folded:.4f}  {row.draws:.4f}  "
        f"{row.pruned:.4f}  {row.int8:.4f}  {row.channels[1]:>4} of {row.channels[0]:<4} "
        f"{row.parameters[1]:>6,} of {row.parameters[0]:<7,} {row.checkpoint_bytes:>8,} "
        f"{row.tflite_bytes:>7,}"
    )


HEADING = (
    f"{'':<28}{'':<9}{'library':<16}{'deploykit':<16}{'':<16}{'':<13}{'':<18}{'bytes of':<16}\n"
    f"{'example':<28}{'rule':<9}{'mean':<8}{str(DRAWS) + ' draws':<10}"
    f"{'folded':<6}  {str(DRAWS) + ' dr.':<6}  {'pruned':<6}  {'int8':<6}  {'channels':<12} "
    f"{'parameters':<17} {'checkpt':>8} {'tflite':>7}"
)


def bounds(rows: Sequence[Row]) -> list[Bound]:
    """What is claimed of every row."""
    found: list[Bound] = []
    for row in rows:
        if row.library_mean is not None and row.library_draws is not None and row.images == 2000:
            found += [
                Bound(f"{row.name}: folded against the library's mean",
                      abs(row.folded - row.library_mean), 1e-3),
                Bound(f"{row.name}: 16 draws against the library's 16",
                      abs(row.draws - row.library_draws), 0.02),
            ]  # fmt: skip
        # Integers of a network that was trained to round are held against what it rounds to.
        rounds = row.evaluation is not None and row.images == 2000
        above = row.evaluation if rounds and row.evaluation is not None else row.pruned
        named = "its rounded evaluation" if rounds else "pruned"
        found += [
            Bound(f"{row.name}: pruned under folded", row.folded - row.pruned, 0.02),
            Bound(f"{row.name}: int8 under {named}", above - row.int8, 0.005),
            Bound(f"{row.name}: differing integers", row.differing, 0),
        ]
    return found


def main() -> int:
    """Print the table and its bounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", help="comma-separated; all without")
    parser.add_argument("--images", type=Path, help="idx files: all 10,000 test images")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    if arguments.images:
        every = all_test_images(arguments.images)
        images = Images(every.inputs, every.labels)
    else:
        images = test_images()
    chosen = examples()
    if arguments.examples:
        names = arguments.examples.split(",")
        unknown = [name for name in names if name not in {one.name for one in chosen}]
        if unknown:
            parser.error(f"no example is called {', '.join(unknown)}")
        chosen = [one for one in chosen if one.name in names]
    rows: list[Row] = []
    print(HEADING)
    for example in chosen:
        with tempfile.TemporaryDirectory(prefix="deploykit-families-") as folder:
            rows.append(row_of(example, images, Path(folder)))
        print(line(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return print_bounds(bounds(rows))


if __name__ == "__main__":
    sys.exit(main())
