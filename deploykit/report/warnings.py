"""What in a manifest deserves a second look, as sentences that say what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from deploykit.spec.listing import listed

POINTS_LOST_TO_PRUNING = 2.0
POINTS_LOST_TO_INTEGERS = 1.0
POINTS_TO_MONTE_CARLO = 5.0
FEW_LABELS = 200
"""Of the sample LeNet-5, T from so many labels deviates by 12 %, from 1,000 by 5 %."""
STRAY = 0.01
"""Of the samples, that every data set holds twice."""
WORSE_NLL = 1.01
"""Ratio of NLL with a temperature to that without, above which it is told."""
LOW_SQNR_DB = 15.0
FEW_SAMPLES = 32
FLOAT = "float"
EIGHT = 8
"""Bits, under which SQNR says how coarse training's grid is."""
FAR_FROM_TRAINING = 5.0
"""Ratio of deviations, and shift in deviations, at a batch norm. benchmarks/networks: a
ratio of 1.0 on their data and of 56 to 87 on pixels, a shift of 0.1 at most and of 50 at least."""
AS_FAST = frozenset({"ArgMax", "Embedding", "Repeat"})
"""Operators that XNNPACK lacks, and that LiteRT's own kernels run as fast (tests/suite/gaps.py)."""
FAST = frozenset({"XNNPACK", "GELU"})
"""What LiteRT runs as fast in int8 as in float (benchmarks/results/kernels.json)."""


def warnings_of(manifest: Any) -> list[str]:
    """One sentence per finding, the costliest kind first; empty where nothing stands out."""
    if manifest.get("activations") == FLOAT:
        quantized = [
            *_weights_alone(manifest["accuracy"], manifest["layers"]),
            *_coarse_rows(manifest["parity"]),
        ]
    else:
        quantized = [
            *_accuracy(manifest["accuracy"], _instead(manifest)),
            *_sqnr(manifest["layers"], manifest.get("given", []), manifest.get("equalization")),
        ]
    return [
        *_constant(manifest.get("constant_output")),
        *quantized,
        *_kernels(manifest["layers"], manifest.get("given", [])),
        *_posterior(manifest["fold"]),
        *_arithmetic(manifest["fold"]),
        *_temperature(manifest.get("temperature")),
        *_seen(manifest.get("evaluation"), manifest.get("temperature")),
        *_calibration(manifest["calibration"]),
        *_widths(manifest["removal"]["alignment"]),
    ]


def _constant(found: Any) -> Iterator[str]:
    """A network that answers alike whatever it is given."""
    if found is None:
        return
    zeros = found["zero_weights"]
    layers = listed(zeros)
    why = f"; the weights of {layers} are all zero" if zeros else ""
    yield (
        f"the float network gives the same output for all {found['samples']} samples looked at"
        f"{why}: look at the checkpoint, and at what pruning and preprocessing leave of the signal"
    )


def _weights_alone(accuracy: Any, layers: Any) -> Iterator[str]:
    """Of a network whose activations are float32."""
    low = {x["name"]: x["sqnr_db"] for x in layers if (x["sqnr_db"] or LOW_SQNR_DB) < LOW_SQNR_DB}
    lost = 0.0
    if accuracy is not None:
        files = [accuracy[file] for file in ("model.onnx", "model.tflite") if file in accuracy]
        lost = 100 * (accuracy["pruned"] - min(files))
    if not low and lost <= POINTS_LOST_TO_INTEGERS:
        return
    told = [f"{listed(list(low))} under {LOW_SQNR_DB:.0f} dB"] if low else []
    if lost > POINTS_LOST_TO_INTEGERS:
        told.append(f"{lost:.1f} points under the float network")
    yield (
        f"integer weights cost much ({'; '.join(told)}): give --bits 8, --block-size 32, or "
        "--layer-bits NAME=8 or NAME=float for layers that suffer"
    )


def _coarse_rows(parity: Any) -> Iterator[str]:
    """Where runtimes lose what the weights keep."""
    far = [found for found in parity if "coarse_rows" in found]
    if far:
        worst = min(far, key=lambda found: float(found["sqnr_db"] or -math.inf))
        layer = worst["coarse_rows"]
        yield (
            f"{worst['runtime']} is {worst['sqnr_db']} dB from what the integer weights say, as it "
            f"rounds each row of activations to int8, and those that {layer} reads have outliers: "
            f"give --layer-bits {layer}=float"
        )


def _instead(manifest: Any) -> str:
    """What to do about accuracy that integers cost: of weights under 8 bits first these."""
    kept = {x["name"] for x in manifest.get("given", []) if x["kind"] == "weight" and not x["why"]}
    narrow = any(
        (layer.get("bits") or EIGHT) < EIGHT and layer["name"] not in kept
        for layer in manifest["layers"]
    )
    if not narrow:
        return (
            "give more or other calibration data, or another --calibration; `deploykit diagnose` "
            "on the bundle names the layers that cost it"
        )
    allocated = manifest.get("allocation")
    chosen = (
        "let --bits auto choose bits by layer under a limit (--max-accuracy-drop 1)"
        if allocated is None
        else f"allow more than {allocated['target']}"
    )
    return (
        f"{chosen}, or leave the layers that `deploykit diagnose` on the bundle names in 8 bits "
        "(--layer-bits NAME=8)"
    )


def _accuracy(accuracy: Any, instead: str) -> Iterator[str]:
    """instead: what to do about what integers cost."""
    if accuracy is None:
        return
    lost = 100 * (accuracy.get("folded", accuracy["pruned"]) - accuracy["pruned"])
    if lost > POINTS_LOST_TO_PRUNING:
        yield (
            f"pruning costs {lost:.1f} points ({accuracy['folded']:.4f} to "
            f"{accuracy['pruned']:.4f}): give a threshold that closes fewer gates (--dry-run), "
            "by layer in export.toml where only some layers suffer (a small gate in front of a "
            "batch norm is not a weak channel)"
        )
    losses: dict[float, list[str]] = {}
    for file in ("model.onnx", "model.tflite"):
        lost = 100 * (accuracy["pruned"] - accuracy.get(file, accuracy["pruned"]))
        if lost > POINTS_LOST_TO_INTEGERS:
            losses.setdefault(lost, []).append(file)
    for lost, files in losses.items():
        subject = f"{' and '.join(files)} {'is' if len(files) == 1 else 'are'}"
        yield f"{subject} {lost:.1f} points under the pruned float network: {instead}"


def _widths(alignment: Any) -> Iterator[str]:
    if alignment["note"]:
        yield alignment["note"]


def _sqnr(layers: Any, given: Any, equalization: Any) -> Iterator[str]:
    """given: grids; what was trained on fewer bits lies that far from a network without them.

    equalization: its record, None where it was not asked for.
    """
    coarse = [x for x in given if x["kind"] == "activation" and x["bits"] < EIGHT and not x["why"]]
    if coarse:
        return
    low = {x["name"]: x["sqnr_db"] for x in layers if (x["sqnr_db"] or LOW_SQNR_DB) < LOW_SQNR_DB}
    if low:
        worst = min(low, key=lambda name: float(low[name]))
        tried = "" if equalization else "--equalization cross-layer, or "
        yield (
            f"{len(low)} layers are under {LOW_SQNR_DB:.0f} dB, the worst {worst} with "
            f"{low[worst]:.1f} dB: try {tried}what `deploykit diagnose` on the bundle finds to help"
        )


def _kernels(layers: Any, given: Any) -> Iterator[str]:
    """given: grids; a clip to one that does not fill int8 is what training asks for."""
    asked = {use["name"] for use in given if use["kind"] == "activation"}
    small = [
        x["name"]
        for x in layers
        if x.get("stored", {}).get("tflite", {}).get("kernel") == "CONV_2D"
    ]
    if small:
        yield (
            f"model.tflite holds {listed(small)} in 4 bits, which LiteRT runs several times as "
            "slowly as in 8 and rounds otherwise now and then: --tflite-lowbit fast (the default) "
            "stores them in int8, and deflate takes the file to about the same size"
        )
    asked.update(small)
    outside = [
        x["name"]
        for x in layers
        if x["kernels"].get("litert", "XNNPACK") not in FAST
        and x["operator"] not in AS_FAST
        and x["name"] not in asked
    ]
    if outside:
        yield (
            f"LiteRT runs {listed(outside)} outside XNNPACK, in slower kernels: put an activation "
            "behind a layer that can take it in, or use an operator that XNNPACK has "
            "(`deploykit inspect` shows the kernel of every layer)"
        )


def _arithmetic(fold: Any) -> Iterator[str]:
    """Gates that published float32 code gets wrong."""
    for layer in [] if fold is None else fold.get("arithmetic", []):
        here = f"{layer['layer']}: of {layer['gates']} gates, published float32 code gets "
        here += f"{layer['means']} means wrong and closes {layer['decisions']} others"
        if fold["numerics"] == "exact":
            yield f"{here}; exported are the right ones (--numerics reference: the published)"
        else:
            yield f"{here}; exported are the published ones, as --numerics reference asks"


def _posterior(fold: Any) -> Iterator[str]:
    metrics = {} if fold is None else fold["metrics"]
    if "monte_carlo" not in metrics:
        return
    gap = 100 * (metrics["monte_carlo"]["accuracy"] - metrics["mean"]["accuracy"])
    if abs(gap) > POINTS_TO_MONTE_CARLO:
        side = "better" if gap > 0 else "worse"
        yield (
            f"draws from the posterior are {abs(gap):.1f} points {side} than its mean, so the mean "
            "network that is exported is not what training measured"
        )


def _temperature(temperature: Any) -> Iterator[str]:
    if temperature is None:
        return
    before, after = temperature["nll_before"], temperature["nll_after"]
    if before is not None and after > WORSE_NLL * before:
        yield (
            f"the temperature takes NLL from {before:.3f} to {after:.3f} nats on the labels that "
            "judge it: fit it to --temperature labels on more samples, none that training saw, or "
            "leave it out"
        )
    if temperature["fitted_on"] == "labels" and temperature["samples"] < FEW_LABELS:
        yield (
            f"the temperature is fitted to {temperature['samples']} labels: give {FEW_LABELS} or "
            "more, with which it varies less from sample to sample"
        )


def _seen(evaluation: Any, temperature: Any) -> Iterator[str]:
    """Samples that measure or fit what calibration was fitted to before."""
    for found, told in (
        (evaluation, "--eval-data: accuracy and confidence may look better than they are"),
        (temperature, "the labelled data that fit the temperature: it may be too small"),
    ):
        if found is None:
            continue
        seen = found.get("in_calibration", 0)
        if seen > STRAY * found["samples"]:
            yield f"{seen:,} samples of the calibration data are in {told}; leave them out of one"


def _calibration(calibration: Any) -> Iterator[str]:
    if calibration["samples"] < FEW_SAMPLES:
        yield (
            f"ranges come from {calibration['samples']} calibration samples: give "
            f"{FEW_SAMPLES} or more"
        )
    yield from _data(calibration.get("fit"))


def _data(fit: Any) -> Iterator[str]:
    """Calibration data that are not what the network was trained on."""
    if fit is None:
        return
    seen = f"the calibration data run from {fit['low']:.4g} to {fit['high']:.4g}"
    if fit["possible"] is not None:
        low, high = fit["possible"]
        if fit["low"] < low - (high - low) / 10 or fit["high"] > high + (high - low) / 10:
            yield (
                f"{seen}, where --mean and --std make {low:.4g} to {high:.4g} of pixels: give data "
                "that were normalised so, or the numbers of training"
            )
    norm = fit["batchnorm"]
    if norm is None:
        if fit["pixels"] and fit["possible"] is None:
            yield (
                f"{seen}, whole numbers as pixels are before preprocessing: right only for a "
                "network that was trained on such, else preprocess them as in training"
            )
        return
    far = norm["shift"] > FAR_FROM_TRAINING
    if far or not 1 / FAR_FROM_TRAINING < norm["spread"] < FAR_FROM_TRAINING:
        yield (
            f"{seen}, and at the first batch norm, {norm['name']}, they spread "
            f"{norm['spread']:.3g} times as far as its running variance says, their mean "
            f"{norm['shift']:.3g} deviations from its running mean (medians over channels): "
            "preprocess them as in training"
        )
