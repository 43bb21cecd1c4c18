"""A pass that moves a variance onto other numbers is refused, in every way to do it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from deploykit.errors import GraphError
from deploykit.graph.edit import bypass, set_initializer
from deploykit.graph.tracking import Rewritten, apply_pass
from deploykit.spec.network import Network
from tests.graph.text import graph, values, weights


def network() -> Network:
    return graph(
        """
        (float[1,2] input) => (float[1,3] output) {
            a = MatMul(input, w)
            output = Relu(a)
        }
        """,
        {"w": weights(2, 3)},
        ["w"],
    )


def renames(given: Network) -> Rewritten:
    model = given.model.clone()
    value = model.graph.initializers.pop("w")
    value.name = "v"
    model.graph.register_initializer(value)
    return Rewritten(Network(model, {"v": given.variance["w"]}))


def loses_the_initializer(given: Network) -> Rewritten:
    model = given.model.clone()
    matmul, relu = model.graph
    relu.replace_input_with(0, model.graph.inputs[0])
    model.graph.remove(matmul, safe=True)
    del model.graph.initializers["w"]
    return Rewritten(Network(model, given.variance))


def changes_the_value(given: Network) -> Rewritten:
    model = given.model.clone()
    set_initializer(model.graph, "w", 2 * values(given)["w"])
    return Rewritten(Network(model, given.variance))


def changes_the_value_in_place(given: Network) -> Rewritten:
    set_initializer(given.model.graph, "w", 2 * values(given)["w"])
    return Rewritten(given)


def changes_the_variance(given: Network) -> Rewritten:
    return Rewritten(Network(given.model, {"w": 4 * given.variance["w"]}))


def transposes_the_variance_alone(given: Network) -> Rewritten:
    return Rewritten(Network(given.model, {"w": given.variance["w"].T}), frozenset({"w"}))


def drops_the_variance(given: Network) -> Rewritten:
    return Rewritten(Network(given.model, {}))


def drops_the_variance_as_updated(given: Network) -> Rewritten:
    return Rewritten(Network(given.model, {}), updated=frozenset({"w"}))


def drops_the_variance_of_what_stays(given: Network) -> Rewritten:
    return Rewritten(Network(given.model, {}), dropped=frozenset({"w"}))


CHEATS: dict[Callable[[Network], Rewritten], str] = {
    renames: "dropped the variance of w without saying so",
    loses_the_initializer: "lost the initializer w but kept its variance",
    changes_the_value: "changed the values of w and left its variance behind",
    changes_the_value_in_place: "changed the values of w and left its variance behind",
    changes_the_variance: "changed the variance of w without saying so",
    transposes_the_variance_alone: r"left w with shape \(2, 3\) and a variance of shape \(3, 2\)",
    drops_the_variance: "dropped the variance of w without saying so",
    drops_the_variance_as_updated: "dropped the variance of w without saying so",
    drops_the_variance_of_what_stays: "dropped the variance of w, which stays",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_a_pass_is_refused_by_name_that(cheat: Callable[[Network], Rewritten]) -> None:
    with pytest.raises(GraphError, match=f"pass cheat {CHEATS[cheat]}"):
        apply_pass("cheat", cheat, network())


def test_a_pass_may_change_value_and_variance_together() -> None:
    def doubles(given: Network) -> Rewritten:
        model = given.model.clone()
        set_initializer(model.graph, "w", 2 * values(given)["w"])
        variance = {"w": 4 * given.variance["w"]}
        return Rewritten(Network(model, variance), updated=frozenset({"w"}))

    before = network()
    after = apply_pass("doubles", doubles, before)
    np.testing.assert_array_equal(after.variance["w"], 4 * before.variance["w"])


def test_a_pass_may_take_an_initializer_away_with_its_variance() -> None:
    def empties(given: Network) -> Rewritten:
        return Rewritten(loses_the_initializer(given).network, dropped=frozenset({"w"}))

    def empties_both(given: Network) -> Rewritten:
        return Rewritten(Network(empties(given).network.model, {}), dropped=frozenset({"w"}))

    assert apply_pass("empties", empties_both, network()).variance == {}
    with pytest.raises(GraphError, match="lost the initializer w but kept its variance"):
        apply_pass("empties", empties, network())


def test_bypassing_a_node_from_input_to_output_is_an_error() -> None:
    given = graph("(float[1,2] input) => (float[1,2] output) { output = Identity(input) }", {})
    model = given.model.clone()
    with pytest.raises(ValueError, match="straight to an output"):
        bypass(model.graph, model.graph[0], model.graph.inputs[0])
