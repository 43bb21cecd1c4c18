"""What may help a layer, each tried on the integer network before it is advised.

Remedies stand in the order of what they cost on the device: other ranges and another rounding cost
nothing, 8 bits cost bytes, floats bytes and time. The first is advised that removes ENOUGH of what
the best one removes. Each is estimated on top of those advised before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploykit.bundle import PLAN
from deploykit.diagnose.changes import (
    Change,
    Refit,
    State,
    after,
    changed_error,
    combined,
    recalibrated,
)
from deploykit.diagnose.contributions import planned_bits
from deploykit.diagnose.findings import LayerFinding, Remedy
from deploykit.diagnose.subject import decibels
from deploykit.diagnose.weight_growth import added, grown_to_8_bits, grown_to_float, weights_of
from deploykit.quantize.calibration import Calibration
from deploykit.quantize.clipping import FULL_BITS
from deploykit.quantize.histogram import Histogram
from deploykit.quantize.nodes import parameter
from deploykit.quantize.operators import WEIGHTED
from deploykit.quantize.sharing import find_groups
from deploykit.quantize.structure import Layer
from deploykit.quantize.tied import tied_layers
from deploykit.spec.plan import Rounding, WeightRange
from deploykit.spec.progress import Advance
from deploykit.spec.quantized import Quantization, int_range
from deploykit.spec.whole_numbers import real_inputs

HELPS = 0.05
"""Share of the outputs' error that a remedy has to remove; 0.2 dB."""
ENOUGH = 0.7
FULL = FULL_BITS
BETTER = {
    Rounding.NEAREST: (Rounding.COMPENSATED, Rounding.SEQUENTIAL),
    Rounding.COMPENSATED: (Rounding.SEQUENTIAL,),
    Rounding.SEQUENTIAL: (),
    Rounding.LEARNED: (),
}
ALONE = "for these layers alone"
BEHIND = "the layers behind as they are"
RANGES = "by ranges alone"
QUICK = 10**6
"""Weights, beyond which rounding in sequence takes minutes, as the export itself."""


@dataclass(frozen=True)
class Found:
    """remedy: None where nothing tried helps. tried: flags."""

    remedy: Remedy | None
    tried: tuple[str, ...]


class Remedies:
    """Tries flags on one bundle. data: the file that the samples come from, None: the bundle's.

    seen: values by tensor, over all samples; empty where no other ranges are to be tried.
    """

    def __init__(self, state: State, data: Path | None, seen: Mapping[str, Histogram]) -> None:
        self._opened, self._data = state.opened, data
        self._taken: list[Change] = []
        self._tied = tied_layers(state.opened.layers)
        self._groups = find_groups(state.opened.layers, real_inputs(state.opened.lowered))
        self._method = Calibration(state.opened.plan["calibration"])
        self._rounding = Rounding(state.opened.plan["rounding"])
        in_sequence = self._rounding.in_sequence and state.fitting is not None
        self._anew = self._refits() if in_sequence and not self._many() else {}
        self._behind = BEHIND if in_sequence and not self._anew else ""
        if self._anew and state.fitting is not None:
            # As in the bundle, what rounds on samples is measured on them, with and without a flag.
            state = State(state.opened, state.fitting, state.fitting)
            state = after(state, self._completed(Change(())))
        self._start = self._state = state
        self._ranges = tuple(self._other_ranges(seen)) if seen else ()

    def _refits(self) -> dict[str, Refit]:
        """Every layer with weights as the bundle rounds it, where in sequence."""
        plan = self._opened.plan
        stated = WeightRange(plan.get("weight_range", WeightRange.LEAST_ERROR))
        return {
            one.name: Refit(planned_bits(plan, one.name) or FULL, Rounding.SEQUENTIAL, stated)
            for one in self._opened.layers
            if one.kind in WEIGHTED
            and one.name not in self._trained()
            and len(self._sharing(one)) == 1
        }

    def _completed(self, change: Change) -> Change:
        """In sequence layers make up for those before them: then all are rounded anew."""
        others = {name: one for name, one in self._anew.items() if name not in change.in_float}
        return replace(change, refits={**others, **change.refits})

    def _error(self, change: Change) -> float:
        """Relative, of the outputs, with a change of what stands."""
        if not self._anew:
            return changed_error(self._state, change)
        return after(self._start, self._completed(combined([*self._taken, change]))).error

    def take_best(self, finding: LayerFinding, layer: Layer | None) -> Found:
        """What helps a layer, or input of the network (None), on top of what was taken before."""
        before = self._state.error
        candidates = [one for one in self._candidates(finding, layer) if one not in self._taken]
        removed = [before - self._error(change) for change in candidates]
        tried = tuple(" ".join(change.flags) for change in candidates)
        most = max(removed, default=0.0)
        if most <= HELPS * before:
            return Found(None, tried)
        change = next(
            change
            for change, gain in zip(candidates, removed, strict=True)
            if gain >= ENOUGH * most
        )
        state = after(self._start, self._completed(combined([*self._taken, change])))
        if state.error >= (1.0 - HELPS) * before:
            return Found(None, tried)
        self._taken.append(change)
        self._state = state
        return Found(self._remedy(change, before, state.error, change.of or self._behind), tried)

    def together(self) -> Remedy | None:
        """All that were taken; None of fewer than two."""
        if len(self._taken) < 2:
            return None
        every = combined(self._taken)
        of = every.of or self._behind
        return self._remedy(every, self._start.error, self._state.error, of)

    def _remedy(self, change: Change, before: float, error: float, of: str) -> Remedy:
        """before, error: of the outputs, relative. Allocated bits are kept by naming their plan."""
        flags = change.flags
        if "allocation" in self._opened.plan and "--bits" not in flags:
            flags = ("--plan", str(self._opened.bundle.file(PLAN)), *flags)
        grown = added(change.weight_bytes.values())
        return Remedy(flags, decibels(before), decibels(error), grown, of)

    def untried(self) -> tuple[str, ...]:
        """Flags that `everywhere` leaves out, as they take too long."""
        better = Rounding.SEQUENTIAL in BETTER[self._rounding]
        return (f"--rounding {Rounding.SEQUENTIAL.value}",) if better and self._many() else ()

    def everywhere(self, progress: Advance) -> tuple[Remedy, ...]:
        """What helps when the weights of all layers are rounded otherwise, each by itself."""
        state, plan = self._start, self._opened.plan
        weighted = [one for one in self._opened.layers if one.kind in WEIGHTED]
        bits = {
            one.name: planned_bits(plan, one.name) or FULL
            for one in weighted
            if one.name not in self._trained() and len(self._sharing(one)) == 1
        }
        if state.fitting is None or not bits:
            return ()
        least, changes = WeightRange.LEAST_ERROR, []
        if Rounding.SEQUENTIAL in BETTER[self._rounding] and not self._many():
            refits = {name: Refit(held, Rounding.SEQUENTIAL, least) for name, held in bits.items()}
            changes.append(Change(("--rounding", Rounding.SEQUENTIAL.value), refits=refits))
        if min(bits.values()) < FULL:
            refits = {name: Refit(FULL, Rounding.NEAREST, least) for name in bits}
            grown = {
                one.name: grown_to_8_bits(self._opened, one) for one in weighted if one.name in bits
            }
            changes.append(Change(("--bits", str(FULL)), refits=refits, weight_bytes=grown))
        found = []
        for place, change in enumerate(changes):
            error = after(state, change, progress).error
            if error < (1.0 - HELPS) * state.error:
                found.append(self._remedy(change, state.error, error, ""))
            progress(place + 1, len(changes))
        return tuple(found)

    def _candidates(self, finding: LayerFinding, layer: Layer | None) -> Iterator[Change]:
        tensor = finding.name if layer is None else layer.output
        yield from (change for change in self._ranges if self._concerns(change, tensor))
        settled = {*self._trained(), *(name for one in self._taken for name in one.in_float)}
        if layer is None or layer.kind not in WEIGHTED or layer.name in settled:
            return
        yield from self._of_weights(layer)
        tied = self._sharing(layer)
        yield self._in_float(tied, ())
        reader = self._only_reader(layer)
        if finding.weights >= finding.activations or reader is None:
            return
        if reader.name not in self._trained():
            names = tuple(dict.fromkeys((*tied, *self._sharing(reader))))
            yield self._in_float(names, (layer.output,))

    def _of_weights(self, layer: Layer) -> Iterator[Change]:
        bits = planned_bits(self._opened.plan, layer.name)
        if bits is None or self._state.fitting is None:
            return
        sharing, least = self._sharing(layer), WeightRange.LEAST_ERROR
        alone = len(sharing) == 1
        for rounding in BETTER[self._rounding] if alone else ():
            refits = {layer.name: Refit(bits, rounding, least)}
            yield Change(("--rounding", rounding.value), refits=refits, of=ALONE)
        if bits >= FULL:
            return
        if alone:
            other = self._other_weight_range(layer, bits)
            refits = {layer.name: Refit(bits, self._rounding, other)}
            yield Change(("--weight-range", other.value), refits=refits, of=ALONE)
        rounding = self._rounding if alone else Rounding.NEAREST
        yield Change(
            ("--layer-bits", f"{layer.name}={FULL}"),
            refits=dict.fromkeys(sharing, Refit(FULL, rounding, least)),
            weight_bytes={layer.name: grown_to_8_bits(self._opened, layer)},
        )

    def _in_float(self, names: tuple[str, ...], tensors: tuple[str, ...]) -> Change:
        """tensors: between them, which then hold floats too."""
        flags = tuple(word for name in names for word in ("--layer-bits", f"{name}=float"))
        layers = [layer for layer in self._opened.layers if layer.name in names]
        grown = {layer.name: grown_to_float(self._opened, layer) for layer in layers}
        return Change(flags, names, grids=dict.fromkeys(tensors), weight_bytes=grown)

    def _other_ranges(self, seen: Mapping[str, Histogram]) -> Iterator[Change]:
        """The plan's own way to choose ranges on other data, and the best of the other ways."""
        given = () if self._data is None else ("--data", str(self._data))
        changes = {
            method: Change(
                (*given, *(() if method is self._method else ("--calibration", method.value))),
                grids=recalibrated(self._opened, seen, method),
                of="" if self._data is None else RANGES,
            )
            for method in Calibration
        }
        own = changes.pop(self._method)
        errors = {method: self._error(one) for method, one in changes.items()}
        best = min(errors, key=lambda method: errors[method])
        if self._data is not None:
            yield own
        if errors[best] < (1.0 - HELPS) * self._error(own):
            yield changes[best]

    def _concerns(self, change: Change, tensor: str) -> bool:
        """Whether the tensor's own new grid, with those that share it, does some of the good.

        By itself; or, where several tensors are cut one behind another, the others do less
        without it.
        """
        group = next(one for one in self._groups if tensor in one.tensors)
        own = {name: grid for name, grid in change.grids.items() if name in group.tensors}
        others = {name: grid for name, grid in change.grids.items() if name not in own}
        if not own:
            return False
        least = HELPS * self._state.error
        if self._state.error - self._with_grids(own) > least:
            return True
        return self._with_grids(others) - self._with_grids(change.grids) > least

    def _with_grids(self, grids: Mapping[str, Quantization | None]) -> float:
        return self._error(Change((), grids=grids))

    def _other_weight_range(self, layer: Layer, bits: int) -> WeightRange:
        """Than the bundle's own: what its plan states, else by whether a scale clips."""
        stated = self._opened.plan.get("weight_range")
        if stated is not None:
            own = WeightRange(stated)
            return next(one for one in WeightRange if one is not own)
        weight = parameter(layer.nodes[0], 1).reshape(-1)
        rows = np.abs(weight.reshape(len(parameter(layer.nodes[0], 1)), -1))
        _, highest = int_range(bits)
        for operator in self._opened.network.operators:
            scale = getattr(getattr(operator, "weight", None), "scale", None)
            if operator.name == layer.name and scale is not None:
                clips = (scale * highest < rows.max(axis=1) * (1 - 1e-6)).any()
                return WeightRange.LARGEST if clips else WeightRange.LEAST_ERROR
        return WeightRange.LEAST_ERROR

    def _only_reader(self, layer: Layer) -> Layer | None:
        """The layer with weights that alone reads a layer's output, which the network keeps in."""
        readers = [one for one in self._opened.layers if layer.output in one.inputs]
        if len(readers) != 1 or layer.output in self._opened.ends:
            return None
        return readers[0] if readers[0].kind in WEIGHTED else None

    def _sharing(self, layer: Layer) -> tuple[str, ...]:
        return tuple(one.name for one in self._tied[layer.name])

    def _trained(self) -> set[str]:
        """Layers whose integers training chose."""
        uses = self._opened.plan.get("given", [])
        return {use["name"] for use in uses if use["kind"] == "weight" and use["why"] is None}

    def _many(self) -> bool:
        """Whether rounding all layers in sequence takes minutes."""
        weighted = (one for one in self._opened.layers if one.kind in WEIGHTED)
        return sum(map(weights_of, weighted)) > QUICK
