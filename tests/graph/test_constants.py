"""What depends on constants alone becomes an initializer; parameters keep name and variance."""

from __future__ import annotations

import numpy as np

from deploykit.graph.passes.constants import fold_constants
from deploykit.graph.tracking import apply_pass
from deploykit.spec.network import Network
from tests.graph.text import assert_same_function, expected, graph, values, weights, written


def folded(network: Network) -> Network:
    return apply_pass("fold_constants", fold_constants, network)


def test_small_subgraphs_of_constants_become_initializers() -> None:
    before = graph(
        """
        (float[1,2,4,4] input) => (float[1,3,4,4] output) {
            shape = Constant<value_ints=[3]>()
            b = ConstantOfShape(shape)
            a = Conv(input, w, b)
            same = Identity(a)
            output = Relu(same)
        }
        """,
        {"w": weights(3, 2, 1, 1)},
        ["w"],
    )
    after = folded(before)
    assert written(after) == expected(
        """
        a[1,3,4,4] = Conv(input, w[3,2,1,1], b[3])
        output[1,3,4,4] = Relu(a)
        """
    )
    np.testing.assert_array_equal(values(after)["b"], np.zeros(3))
    np.testing.assert_array_equal(after.variance["w"], before.variance["w"])


def test_a_gate_in_the_forward_is_multiplied_out_however_large_the_weight_is() -> None:
    before = graph(
        """
        (float[1,600] input) => (float[1,500] output) {
            gated = Mul(w, z)
            output = Gemm<transB=1>(input, gated)
        }
        """,
        {"w": weights(500, 600), "z": np.array([[0.0], [1.0]] * 250)},
        ["w"],
    )
    after = folded(before)
    assert written(after) == "output[1,500] = Gemm<transB=1>(input, gated[500,600])"
    assert after.variance == {}
    assert_same_function(before, after)


def test_a_transposed_parameter_keeps_its_name_and_variance() -> None:
    before = graph(
        """
        (float[1,3,4] input) => (float[1,3,5] output) {
            t = Transpose<perm=[1,0]>("fc.weight")
            output = MatMul(input, t)
        }
        """,
        {"fc.weight": weights(5, 4)},
        ["fc.weight"],
    )
    after = folded(before)
    assert written(after) == "output[1,3,5] = MatMul(input, fc.weight[4,5])"
    np.testing.assert_array_equal(values(after)["fc.weight"], values(before)["fc.weight"].T)
    np.testing.assert_array_equal(after.variance["fc.weight"], before.variance["fc.weight"].T)
    assert_same_function(before, after)


def test_a_parameter_that_is_read_both_ways_round_stays() -> None:
    before = graph(
        """
        (float[1,4] input) => (float[1,4] output) {
            t = Transpose<perm=[1,0]>(w)
            a = MatMul(input, t)
            output = MatMul(a, w)
        }
        """,
        {"w": weights(5, 4)},
        ["w"],
    )
    after = folded(before)
    np.testing.assert_array_equal(after.variance["w"], before.variance["w"])
    assert_same_function(before, after)


def test_parts_of_a_split_parameter_are_parameters() -> None:
    before = graph(
        """
        (float[1,4] input) => (float[1,8] output) {
            sizes = Constant<value_ints=[3, 5]>()
            parts = SplitToSequence<axis=0>(w, sizes)
            zero = Constant<value_int=0>()
            one = Constant<value_int=1>()
            first = SequenceAt(parts, zero)
            second = SequenceAt(parts, one)
            turned = Transpose<perm=[1,0]>(second)
            a = Gemm<transB=1>(input, first)
            b = MatMul(input, turned)
            output = Concat<axis=1>(a, b)
        }
        """,
        {"w": weights(8, 4)},
        ["w"],
    )
    after = folded(before)
    assert [node.op_type for node in after.model.graph] == ["Gemm", "MatMul", "Concat"]
    assert values(after).keys() == {"w.0", "w.1"}
    np.testing.assert_array_equal(after.variance["w.0"], before.variance["w"][:3])
    np.testing.assert_array_equal(after.variance["w.1"], before.variance["w"][3:].T)
    np.testing.assert_array_equal(values(after)["w.0"], values(before)["w"][:3])
    np.testing.assert_array_equal(values(after)["w.1"], values(before)["w"][3:].T)
