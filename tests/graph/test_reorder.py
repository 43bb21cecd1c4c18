"""Channels are ordered so that Gathers go, and nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deploykit.graph.cost import totals
from deploykit.graph.passes.reorder import MOST_RUNS, order_channels
from deploykit.graph.tracking import apply_pass
from deploykit.reference.float import evaluate
from deploykit.runtime import ort
from deploykit.spec.arrays import AnyArray, Float32Array
from deploykit.spec.network import Network, static_shape
from tests.graph.text import (
    assert_same_function,
    expected,
    graph,
    values,
    weights,
    written,
)


def ordered(network: Network) -> Network:
    after = apply_pass("order_channels", order_channels, network)
    assert order_channels(after).network is after
    return after


def operators(network: Network) -> Counter[str]:
    return Counter(node.op_type for node in network.model.graph)


def layer(name: str, *shape: int, seed: int = 0) -> dict[str, Float32Array]:
    """Weight and bias of a convolution or linear."""
    return {
        f"{name}.weight": weights(*shape, seed=seed),
        f"{name}.bias": weights(shape[0], seed=seed + 1),
    }


def conv(target: str, source: str, name: str, attributes: str = "") -> str:
    return f'{target} = Conv{attributes}({source}, "{name}.weight", "{name}.bias")'


# --- one reader -----------------------------------------------------------------------------------


def test_a_permutation_goes_into_the_reader() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {{
            {conv("a", "input", "c")}
            r = Relu(a)
            g = Gather<axis=1>(r, order)
            {conv("output", "g", "d")}
        }}
        """,
        {**layer("c", 4, 2, 1, 1), **layer("d", 3, 4, 1, 1), "order": np.array([2, 0, 3, 1])},
    )
    after = ordered(before)
    assert written(after) == expected(
        """
        a[1,4,4,4] = Conv(input, c.weight[4,2,1,1], c.bias[4])
        r[1,4,4,4] = Relu(a)
        output[1,3,4,4] = Conv(r, d.weight[3,4,1,1], d.bias[3])
        """
    )
    np.testing.assert_array_equal(values(after)["c.weight"], values(before)["c.weight"])
    assert_same_function(before, after)


def test_two_readers_of_alternating_channels_get_a_run_each() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] left, float[1,3,4,4] right) {{
            {conv("a", "input", "c")}
            even = Gather<axis=1>(a, evens)
            odd = Gather<axis=1>(a, odds)
            {conv("left", "even", "l")}
            {conv("right", "odd", "r")}
        }}
        """,
        {**layer("c", 4, 2, 1, 1), **layer("l", 3, 2, 1, 1), **layer("r", 3, 2, 1, 1, seed=3),
         "evens": np.array([0, 2]), "odds": np.array([1, 3])},
        ["c.weight", "c.bias"],
    )  # fmt: skip
    after = ordered(before)
    assert written(after) == expected(
        """
        a[1,4,4,4] = Conv(input, c.weight[4,2,1,1], c.bias[4])
        a.run[1,2,4,4], a.run_1[1,2,4,4] = Split<axis=1>(a, a.runs[2])
        left[1,3,4,4] = Conv(a.run, l.weight[3,2,1,1], l.bias[3])
        right[1,3,4,4] = Conv(a.run_1, r.weight[3,2,1,1], r.bias[3])
        """
    )
    order = [0, 2, 1, 3]
    for name in ("c.weight", "c.bias"):
        np.testing.assert_array_equal(values(after)[name], values(before)[name][order])
        np.testing.assert_array_equal(after.variance[name], before.variance[name][order])
    assert_same_function(before, after)


def test_channels_that_nobody_reads_are_sliced_off() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {{
            {conv("a", "input", "c")}
            g = Gather<axis=1>(a, order)
            {conv("output", "g", "d")}
        }}
        """,
        {**layer("c", 4, 2, 1, 1), **layer("d", 3, 2, 1, 1), "order": np.array([3, 1])},
    )
    after = ordered(before)
    assert operators(after) == {"Conv": 2, "Slice": 1}
    assert_same_function(before, after)


@pytest.mark.parametrize(
    "between",
    [
        'Conv<pads=[1,1,1,1], group=4>(a, "w.weight", "w.bias")',
        "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
        "Mul(a, scale)",
        "PRelu(a, slope)",
        "BatchNormalization(a, one, two, three, four)",
        "InstanceNormalization(a, one, two)",
        "Resize<mode=\"nearest\">(a, , , sizes)",
        "Pad(a, pads)",
    ],
)  # fmt: skip
def test_what_is_between_follows(between: str) -> None:
    each = np.array([1.0, 2.0, -3.0, 0.5])
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,N,N] left, float[1,3,N,N] right) {{
            {conv("a", "input", "c")}
            b = {between}
            even = Gather<axis=1>(b, evens)
            odd = Gather<axis=1>(b, odds)
            {conv("left", "even", "l")}
            {conv("right", "odd", "r")}
        }}
        """.replace("N,N", "6,6" if "Pad(" in between else "8,8" if "Resize" in between else "4,4"),
        {**layer("c", 4, 2, 1, 1), **layer("l", 3, 2, 1, 1), **layer("r", 3, 2, 1, 1, seed=3),
         **layer("w", 4, 1, 3, 3, seed=5), "evens": np.array([0, 2]), "odds": np.array([1, 3]),
         "scale": each.reshape(1, 4, 1, 1), "slope": each.reshape(4, 1, 1), "one": abs(each),
         "two": each, "three": -each, "four": abs(each), "sizes": np.array([1, 4, 8, 8]),
         "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        [name for name in ("w.weight", "w.bias") if name in between],
    )  # fmt: skip
    after = ordered(before)
    assert operators(after)["Gather"] == 0
    assert operators(after)["Split"] == 1
    assert_same_function(before, after)


def test_a_channel_that_is_taken_twice_is_read_twice() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {{
            {conv("a", "input", "c")}
            g = Gather<axis=1>(a, twice)
            {conv("output", "g", "d")}
        }}
        """,
        {**layer("c", 3, 2, 1, 1), **layer("d", 3, 6, 1, 1),
         "twice": np.array([0, 0, 2, 2, 1, 1])},
    )  # fmt: skip
    after = ordered(before)
    assert written(after).splitlines()[1] == "g[1,6,4,4] = Concat<axis=1>(a, a)"
    assert_same_function(before, after)


def test_a_flattened_map_follows() -> None:
    before = graph(
        f"""
        (float[1,2,2,2] input) => (float[1,3] output) {{
            {conv("a", "input", "c")}
            even = Gather<axis=1>(a, evens)
            odd = Gather<axis=1>(a, odds)
            {conv("b", "odd", "r")}
            both = Concat<axis=1>(b, even)
            flat = Flatten(both)
            output = Gemm<transB=1>(flat, "f.weight", "f.bias")
        }}
        """,
        {**layer("c", 4, 2, 1, 1), **layer("r", 3, 2, 1, 1, seed=3), **layer("f", 3, 20, seed=7),
         "evens": np.array([2, 0]), "odds": np.array([1, 3])},
        ["f.weight"],
    )  # fmt: skip
    after = ordered(before)
    assert operators(after) == {"Conv": 2, "Split": 1, "Concat": 1, "Flatten": 1, "Gemm": 1}
    assert_same_function(before, after)


# --- what has to stay -----------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["g", "Relu(g)", 'Conv<group=2>(g, "d.weight", "d.bias")'])
@pytest.mark.parametrize("first", ["group=2", "group=1"])
def test_where_order_matters_on_both_sides_the_very_same_network(last: str, first: str) -> None:
    before = graph(
        f"""
        (float[1,4,4,4] input) => (float[1,4,4,4] output) {{
            {conv("a", "input", "c", f"<{first}>")}
            b = {"Softmax<axis=1>(a)" if first == "group=1" else "Relu(a)"}
            g = Gather<axis=1>(b, order)
            output = {last if "(" in last else "Neg(g)"}
        }}
        """,
        {**layer("c", 4, 2 if first == "group=2" else 4, 1, 1), **layer("d", 4, 2, 1, 1),
         "order": np.array([2, 0, 3, 1])},
    )  # fmt: skip
    assert order_channels(before).network is before


def test_without_a_gather_the_very_same_network() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,6,4,4] output) {{
            {conv("a", "input", "c")}
            {conv("b", "a", "d")}
            output = Concat<axis=1>(b, a)
        }}
        """,
        {**layer("c", 3, 2, 1, 1), **layer("d", 3, 3, 1, 1)},
    )
    assert order_channels(before).network is before


def test_an_output_keeps_its_order_and_the_layer_before_it_gives_it() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,5,4,4] output) {{
            {conv("a", "input", "c")}
            {conv("b", "input", "d")}
            g = Gather<axis=1>(a, order)
            output = Concat<axis=1>(b, g)
        }}
        """,
        {**layer("c", 3, 2, 1, 1), **layer("d", 2, 2, 1, 1, seed=3), "order": np.array([2, 0, 1])},
    )
    after = ordered(before)
    assert written(after) == expected(
        """
        a[1,3,4,4] = Conv(input, c.weight[3,2,1,1], c.bias[3])
        b[1,2,4,4] = Conv(input, d.weight[2,2,1,1], d.bias[2])
        output[1,5,4,4] = Concat<axis=1>(b, a)
        """
    )
    np.testing.assert_array_equal(values(after)["c.weight"], values(before)["c.weight"][[2, 0, 1]])
    assert_same_function(before, after)


def test_a_sum_of_a_tensor_and_its_own_permutation_keeps_the_gather() -> None:
    before = graph(
        f"""
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {{
            {conv("a", "input", "c")}
            g = Gather<axis=1>(a, order)
            s = Add(a, g)
            {conv("output", "s", "d")}
        }}
        """,
        {**layer("c", 40, 2, 1, 1), **layer("d", 3, 40, 1, 1),
         "order": np.random.default_rng(0).permutation(40)},
    )  # fmt: skip
    assert order_channels(before).network is before


def test_readers_of_too_many_runs_keep_their_gather_and_others_lose_theirs() -> None:
    count = MOST_RUNS + 1
    lines = [conv(f"a{k}", "input", f"c{k}") for k in range(count)]
    lines += [f"h{k} = Gather<axis=1>(a{k}, flip)" for k in range(count)]
    joined = ", ".join(f"h{k}" for k in range(count))
    text = f"""
    (float[1,2,4,4] input) => (float[1,3,4,4] output, float[1,3,4,4] other) {{
        {" ".join(lines)}
        all = Concat<axis=1>({joined})
        most = Gather<axis=1>(all, some)
        {conv("output", "most", "d")}
        {conv("x", "input", "x")}
        y = Gather<axis=1>(x, flip)
        {conv("other", "y", "y")}
    }}
    """
    constants: dict[str, AnyArray] = {"flip": np.array([1, 0]), "some": np.arange(1, 2 * count)}
    for k in range(count):
        constants.update(layer(f"c{k}", 2, 2, 1, 1, seed=k))
    constants.update(layer("d", 3, 2 * count - 1, 1, 1) | layer("x", 2, 2, 1, 1))
    before = graph(text, constants | layer("y", 3, 2, 1, 1))
    after = ordered(before)
    assert operators(after)["Gather"] == operators(before)["Gather"] - 1
    for name in (f"c{k}.weight" for k in range(count)):
        np.testing.assert_array_equal(values(after)[name], values(before)[name])
    assert_same_function(before, after)


# --- ShuffleNetV2 ---------------------------------------------------------------------------------


def shufflenet(units: Sequence[int], seed: int) -> Network:
    """A stem, units by stride, and a linear, with shuffles as Gathers of what removal left."""
    rng = np.random.default_rng(seed)
    lines, constants, width = [conv("x0", "input", "stem")], layer("stem", 6, 3, 3, 3), 6
    size = 14
    pads = "pads=[1,1,1,1]"

    def add(target: str, source: str, name: str, *shape: int, attributes: str = "") -> None:
        lines.append(conv(target, source, name, attributes))
        constants.update(layer(name, *shape, seed=len(constants)))

    def gather(target: str, source: str, taken: AnyArray) -> None:
        constants[f"{target}.taken"] = taken
        lines.append(f'{target} = Gather<axis=1>({source}, "{target}.taken")')

    for k, stride in enumerate(units):
        x, half = f"x{k}", max(int(rng.integers(width // 2 - 1, width)), 1)
        if stride == 1:
            cut = max(int(rng.integers(width // 3, width)), 1)
            gather(f"pass{k}", x, rng.permutation(width)[: width - cut + 1])
            gather(f"in{k}", x, rng.permutation(width)[:cut])
            left, right, kept, taken = f"pass{k}", f"in{k}", width - cut + 1, cut
        else:
            size = (size - 1) // 2 + 1
            add(f"dwl{k}", x, f"dwl{k}", width, 1, 3, 3,
                attributes=f"<{pads}, strides=[2,2], group={width}>")  # fmt: skip
            add(f"left{k}", f"dwl{k}", f"left{k}", half, width, 1, 1)
            left, right, kept, taken = f"left{k}", x, half, width
        add(f"m{k}", right, f"m{k}", half, taken, 1, 1)
        lines.append(f"r{k} = Relu(m{k})")
        add(f"dw{k}", f"r{k}", f"dw{k}", half, 1, 3, 3,
            attributes=f"<{pads}, strides=[{stride},{stride}], group={half}>")  # fmt: skip
        add(f"o{k}", f"dw{k}", f"o{k}", half, half, 1, 1)
        lines.append(f"j{k} = Concat<axis=1>({left}, o{k})")
        width = kept + half
        gather(f"x{k + 1}", f"j{k}", rng.permutation(width))
    lines.append(f"pooled = GlobalAveragePool(x{len(units)}) flat = Flatten(pooled)")
    lines.append('output = Gemm<transB=1>(flat, "fc.weight", "fc.bias")')
    constants.update(layer("fc", 5, width))
    body = "\n".join(lines)
    return graph(
        f"(float[1,3,16,16] input) => (float[1,5] output) {{\n{body}\n}}",
        constants,
        [name for name in constants if name.endswith(("weight", "bias"))],
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("units", [(1,), (2,), (2, 1), (2, 1, 1, 2, 1), (1, 2, 2, 1, 1, 1)])
def test_shufflenet_units_lose_every_gather(units: tuple[int, ...], seed: int) -> None:
    before = shufflenet(units, seed)
    after = ordered(before)
    assert operators(after)["Gather"] == 0
    assert totals(after.model) == totals(before.model)
    held = values(before)
    for name, array in values(after).items():
        assert name not in held or array.dtype == held[name].dtype
    assert_same_function(before, after)
    onnx.checker.check_model(ir.to_proto(after.model), full_check=True)
    x = np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(
        ort.evaluate(after, x)["output"], ort.evaluate(before, x)["output"], rtol=1e-4, atol=1e-4
    )


# --- random graphs --------------------------------------------------------------------------------

SIDE = 3


class Builder:
    """A float64 graph that grows; widths by tensor."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, AnyArray] = {}
        self.widths: dict[str, int] = {"input": 4}
        self.maps = ["input"]

    def node(self, operator: str, inputs: list[str], width: int, **attributes: Any) -> str:
        name = f"t{len(self.widths)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        self.widths[name] = width
        return name

    def array(self, array: AnyArray) -> str:
        name = f"k{len(self.arrays)}"
        self.arrays[name] = array
        return name

    def layer(self, *shape: int) -> list[str]:
        scale = np.sqrt(np.prod(shape[1:]))
        return [
            self.array(self.rng.normal(size=shape) / scale),
            self.array(self.rng.normal(size=shape[0])),
        ]

    def some(self) -> str:
        """A tensor, late ones more often."""
        late = self.maps[-4:]
        return str(self.rng.choice(late if self.rng.random() < 0.7 else self.maps))

    def keep(self, name: str) -> str:
        self.maps.append(name)
        return name

    def conv(self, source: str, width: int) -> str:
        return self.node("Conv", [source, *self.layer(width, self.widths[source], 1, 1)], width)

    def step(self, kind: str) -> None:
        source, rng = self.some(), self.rng
        width = self.widths[source]
        match kind:
            case "conv":
                self.keep(self.conv(source, int(rng.integers(1, 7))))
            case "depthwise" if width > 1:
                inputs = [source, *self.layer(width, 1, 3, 3)]
                self.keep(self.node("Conv", inputs, width, group=width, pads=[1, 1, 1, 1]))
            case "grouped" if width % 2 == 0:
                inputs = [source, *self.layer(width, width // 2, 1, 1)]
                self.keep(self.node("Conv", inputs, width, group=2))
            case "relu":
                self.keep(self.node("Relu", [source], width))
            case "pool":
                self.keep(
                    self.node("MaxPool", [source], width, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
                )
            case "scale":
                factor = self.array(rng.normal(size=(1, width, 1, 1)))
                self.keep(self.node("Mul", [source, factor], width))
            case "gate":
                pooled = self.node("GlobalAveragePool", [source], width)
                gate = self.node("Sigmoid", [self.conv(pooled, width)], width)
                self.keep(self.node("Mul", [source, gate], width))
            case "residual":
                other = self.some()
                branch = other if self.widths[other] == width else self.conv(other, width)
                self.keep(self.node("Add", [source, branch], width))
            case "concat":
                parts = [source, self.some(), self.some()][: int(rng.integers(2, 4))]
                total = sum(self.widths[part] for part in parts)
                if total <= 24:
                    self.keep(self.node("Concat", parts, total, axis=1))
            case "gather":
                taken = rng.permutation(width)[: int(rng.integers(1, width + 1))]
                if rng.random() < 0.2:
                    taken = rng.integers(0, width, size=width)
                self.keep(self.node("Gather", [source, self.array(taken)], len(taken), axis=1))
            case "slice":
                start = int(rng.integers(0, width))
                bounds = [self.array(np.array([k])) for k in (start, width, 1)]
                self.keep(self.node("Slice", [source, *bounds], width - start))
            case "split" if width > 1:
                first = int(rng.integers(1, width))
                sizes = self.array(np.array([first, width - first]))
                names = [f"t{len(self.widths)}", f"t{len(self.widths) + 1}"]
                self.nodes.append(helper.make_node("Split", [source, sizes], names, axis=1))
                for name, held in zip(names, (first, width - first), strict=True):
                    self.widths[name] = held
                    self.keep(name)
            case _:
                return

    def network(self, raw_outputs: int) -> Network:
        """Ends in a linear on everything that is left over, and some tensors as they are."""
        read = {name for node in self.nodes for name in node.input}
        made = [name for node in self.nodes for name in node.output]
        raw = [name for name in self.maps[::-1] if name in made][:raw_outputs]
        ends = [name for name in self.maps if name not in read and name not in raw] or ["input"]
        joined = ends[0]
        if len(ends) > 1:
            joined = self.node("Concat", ends, sum(self.widths[e] for e in ends), axis=1)
        flat = self.node("Flatten", [joined], 0)
        last = self.layer(3, self.widths[joined] * SIDE * SIDE)
        self.nodes.append(helper.make_node("Gemm", [flat, *last], ["output"], transB=1))
        double = TensorProto.DOUBLE
        outputs = [helper.make_tensor_value_info("output", double, [1, 3])]
        outputs += [
            helper.make_tensor_value_info(name, double, [1, self.widths[name], SIDE, SIDE])
            for name in raw
        ]
        proto = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("input", double, [1, 4, SIDE, SIDE])],
            outputs,
            [numpy_helper.from_array(array, name) for name, array in self.arrays.items()],
        )
        model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 10
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        variance = {
            name: np.abs(array).astype(np.float32)
            for name, array in self.arrays.items()
            if array.dtype == np.float64
        }
        return Network(ir.from_proto(inferred), variance)


STEPS = (
    "conv", "conv", "depthwise", "grouped", "relu", "pool", "scale", "gate", "residual", "concat",
    "concat", "gather", "gather", "gather", "slice", "split",
)  # fmt: skip


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.integers(0, 2**16),
    st.lists(st.sampled_from(STEPS), min_size=2, max_size=18),
    st.integers(0, 2),
)
def test_on_any_graph_the_function_stays(seed: int, steps: list[str], raw_outputs: int) -> None:
    builder = Builder(seed)
    for kind in steps:
        builder.step(kind)
    before = builder.network(raw_outputs)
    after = ordered(before)
    if after is before:
        return
    assert operators(after)["Gather"] < operators(before)["Gather"]
    assert totals(after.model) == totals(before.model)
    rng = np.random.default_rng(seed)
    feed = rng.normal(size=(2, 4, SIDE, SIDE))
    left, right = evaluate(before, feed), evaluate(after, feed)
    for port in before.model.graph.outputs:
        name = str(port.name)
        scale = max(1.0, float(np.abs(left[name]).max()))
        assert np.abs(left[name] - right[name]).max() <= 1e-12 * scale
    held = values(after)
    for name, variance in after.variance.items():
        assert held[name].dtype == np.float64
        np.testing.assert_array_equal(variance, np.abs(held[name]).astype(np.float32))
    proto = ir.to_proto(after.model)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in inferred.graph.value_info
    }
    for node in after.model.graph:
        for value in node.outputs:
            stated = static_shape(value)
            assert shapes.get(str(value.name), stated) == stated
