"""A temperature in the last layer's scales, with every integer as it was.

A weighted layer computes q = rint(acc * m) + zero point with m = sx * sw / sy, and q means
sy * (q - zero point). Dividing sw and sy by T leaves m alone and divides what q means by T: the
logits. Nothing is rounded again; but m is a float32, and sw / T and sy / T are too, so that one in a
few channels would come out an ulp beside its m. So sy is searched near sy / T, and sw next to each
sw / T, for float32s that give every m exactly.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploykit.errors import QuantizationError
from deploykit.quantize.layer_plan import quantized_name
from deploykit.quantize.operators import WEIGHTED, Kind
from deploykit.quantize.scales import LARGEST_SCALE, SMALLEST_SCALE, check_scale
from deploykit.quantize.structure import Layer, build_structure, tails
from deploykit.spec.arrays import AnyArray, Float32Array, Float64Array
from deploykit.spec.network import Network
from deploykit.spec.plan import LayerPlan, QuantPlan
from deploykit.spec.requantize import multiplier

MOVING = frozenset((Kind.FLATTEN, Kind.RESHAPE, Kind.REARRANGE))
"""What may stand between the last weighted layer and the output: integers in other places."""
NEARBY = 4096
"""Float32 steps to either side within which sy is searched: T moves by 0.05 % at most."""
ULPS = np.arange(-3, 4, dtype=np.int32)
"""Float32 steps of sw around sw / T."""
ADVICE = (
    "end the network in a linear layer or convolution (and a softmax, if any), or divide its "
    "output by the temperature in the app and leave --temperature out"
)


@dataclass(frozen=True)
class LastLayer:
    """The weighted layer that gives the logits. tensors: float names, its output to the port's."""

    layer: Layer
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Scales:
    """output: sy'. weight: sw' [O]. moved: channels whose multiplier is not as it was."""

    output: float
    weight: Float32Array
    moved: int


@dataclass(frozen=True)
class TemperedPlan:
    """temperature: that the output's scale was divided by, within 0.05 % of the one asked for.

    divisors: [O], what each weight scale was divided by: the same up to float32 rounding.
    moved: channels whose multiplier is a float32 step or two off; with none, every integer is as
    without temperature.
    """

    plan: QuantPlan
    temperature: float
    divisors: Float64Array
    moved: int


def last_layer(network: Network) -> LastLayer:
    """network: lowered.

    Raises QuantizationError where no weighted layer alone gives the only output, with what to do.
    """
    layers, graph = build_structure(network), network.model.graph
    if len(graph.outputs) != 1:
        raise QuantizationError(
            f"--temperature: the network has {len(graph.outputs)} outputs, and a temperature is "
            "that of one classifier's logits; leave it out"
        )
    (output,) = graph.outputs
    tail = output.producer()
    behind = tail is not None and tail in tails(network)
    source = tail.inputs[0] if tail is not None and behind else output
    name = str(source.name if source is not None else "")
    makers = {layer.output: layer for layer in layers}
    read = [one for layer in layers for one in layer.inputs]
    tensors = [name]
    while name in makers and makers[name].kind in MOVING:
        (name,) = makers[name].inputs
        tensors.append(name)
    layer = makers.get(name)
    what = "its input" if layer is None else f"{layer.kind.value} {layer.name!r}"
    if layer is not None and layer.region is not None and layer.name in network.in_float:
        raise QuantizationError(
            f"--temperature: layer {layer.name!r} stays in float, and its scale is not free; keep "
            "it in integers, or divide the output by the temperature in the app and leave "
            "--temperature out"
        )
    if layer is None or layer.kind not in WEIGHTED:
        raise QuantizationError(
            f"--temperature: the output comes from {what}, whose scale is not free; {ADVICE}"
        )
    if layer.high is not None:
        raise QuantizationError(
            f"--temperature: {what} is clipped to {layer.high:g}, which a temperature would move; "
            f"{ADVICE}"
        )
    for tensor in tensors:
        if read.count(tensor) > (tensor != tensors[0]):
            raise QuantizationError(
                f"--temperature: {tensor!r}, the logits, is read inside of the network too; "
                f"{ADVICE}"
            )
    weight = str(layer.nodes[0].inputs[1].name) if layer.nodes[0].inputs[1] is not None else ""
    users = [one.name for one in layers if one is not layer and _reads(one, weight)]
    if users:
        raise QuantizationError(
            f"--temperature: the weights of {what} are those of {users[0]} too, whose scale has to "
            f"stay; {ADVICE}"
        )
    return LastLayer(layer, tuple(tensors))


def _reads(layer: Layer, weight: str) -> bool:
    return any(value is not None and value.name == weight for value in layer.nodes[0].inputs)


def tempered_plan(network: Network, plan: QuantPlan, temperature: float) -> TemperedPlan:
    """The plan for logits / T. network: lowered, that the plan is for.

    Raises QuantizationError where the last layer does not allow it, or scales leave their range.
    """
    last = last_layer(network)
    names = {quantized_name(network, name) for name in last.tensors}
    (decided,) = (one for one in plan.layers if one.name == last.layer.name)
    assert decided.weight is not None
    source, into = plan.tensors[decided.inputs[0]], plan.tensors[decided.output]
    found = matching_scales(source.scale, decided.weight.scale, into.scale, temperature)
    check_scale(decided.output, found.output)
    if found.output < SMALLEST_SCALE:
        raise QuantizationError(
            f"--temperature {temperature:g}: the output's scale would be {found.output:.3g}, and "
            f"runtimes take {SMALLEST_SCALE:.3g} to {LARGEST_SCALE:.3g}; give another"
        )
    exact = into.scale / found.output
    return TemperedPlan(
        replace(
            plan,
            tensors={
                name: replace(held, scale=found.output) if name in names else held
                for name, held in plan.tensors.items()
            },
            layers=_with_scale(plan.layers, decided, found.weight, exact),
        ),
        exact,
        decided.weight.scale.astype(np.float64) / found.weight,
        found.moved,
    )


def _with_scale(
    layers: Sequence[LayerPlan], decided: LayerPlan, scale: Float32Array, temperature: float
) -> tuple[LayerPlan, ...]:
    """output_shift is in real units, as the logits are."""
    assert decided.weight is not None
    shift = decided.output_shift
    changed = replace(
        decided,
        weight=replace(decided.weight, scale=scale),
        output_shift=None if shift is None else (shift / temperature).astype(np.float32),
    )
    return tuple(changed if one is decided else one for one in layers)


def matching_scales(
    input_scale: float, weight_scale: Float32Array, output_scale: float, temperature: float
) -> Scales:
    """Float32 scales near sw / T and sy / T with the multipliers of sw and sy, of all if any have.

    The nearest sy' that gives all; where none within NEARBY does, the one that gives most. A power
    of two gives all at once; elsewhere sw' is coarser than m in up to half of the channels, so that
    ten channels need some ten to a thousand tries, and a thousand channels do not all succeed.
    """
    wanted = multiplier(input_scale, weight_scale, output_scale)
    middle = np.float32(output_scale / temperature)
    best: Scales | None = None
    for offset in sorted(range(-NEARBY, NEARBY + 1), key=abs):
        output = _step(middle, offset)
        exact = output_scale / float(output)
        near = (weight_scale.astype(np.float64) / exact).astype(np.float32)
        tried = (near.view(np.int32)[:, None] + ULPS).view(np.float32)
        apart = np.abs(
            multiplier(input_scale, tried, float(output)).view(np.int32)
            - wanted.view(np.int32)[:, None]
        )
        moved = int(np.count_nonzero(apart.min(axis=1)))
        if best is None or moved < best.moved:
            # Among equals the one next to sw / T.
            choice = (apart * len(ULPS) + np.abs(ULPS)).argmin(axis=1)
            best = Scales(float(output), tried[np.arange(len(near)), choice], moved)
        if not best.moved:
            break
    assert best is not None
    return best


def _step(value: AnyArray | np.float32, count: int) -> np.float32:
    """The float32 so many steps from a positive one."""
    return np.float32((np.float32(value).view(np.int32) + np.int32(count)).view(np.float32))
