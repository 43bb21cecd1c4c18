"""Products of two activations: terms that meet, and heads that go whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from deploykit.graph.channels.liveness import analyse
from deploykit.spec.arrays import Float32Array
from deploykit.spec.network import Network
from tests.graph.removing import assert_equal_in_runtime, pruned_to, removed
from tests.graph.text import graph, values, weights, written

ATTENTION = """
    (float[1,3,4] input) => (float[1,3,2] output) {
        q = MatMul(input, wq)
        k = MatMul(input, wk)
        v = MatMul(input, wv)
        qh = Reshape(q, split)
        kh = Reshape(k, split2)
        vh = Reshape(v, split3)
        qt = Transpose<perm=[0,2,1,3]>(qh)
        kt = Transpose<perm=[0,2,3,1]>(kh)
        vt = Transpose<perm=[0,2,1,3]>(vh)
        scores = MatMul(qt, kt)
        scaled = Mul(scores, root)
        p = Softmax<axis=-1>(scaled)
        o = MatMul(p, vt)
        ot = Transpose<perm=[0,2,1,3]>(o)
        joined = Reshape(ot, join)
        output = MatMul(joined, wo)
    }"""


def attention(
    queries: Sequence[int] = (),
    keys: Sequence[int] = (),
    held: Sequence[int] = (),
    unread: Sequence[int] = (),
) -> Network:
    """Two heads of three. By projection, which of the six columns are zero; of wo which rows."""
    rows = np.array([0, 0, 2, 3])
    return graph(
        ATTENTION,
        {"wq": without(queries, 1), "wk": without(keys, 2), "wv": without(held, 3),
         "wo": without(unread, 4)[:2].T, "split": rows, "split2": rows, "split3": rows,
         "root": 0.5, "join": np.array([0, 0, 6])},
    )  # fmt: skip


def without(columns: Sequence[int], seed: int) -> Float32Array:
    weight = weights(4, 6, seed=seed)
    weight[:, list(columns)] = 0.0
    return weight


def widths(network: Network) -> tuple[int, int, int, int]:
    """Columns of wq, wk, wv, rows of wo."""
    held = values(network)
    left = set(held) & {"wq", "wk", "wv", "wo"}
    if left != {"wq", "wk", "wv", "wo"}:
        return (0, 0, 0, 0)
    return (
        held["wq"].shape[1], held["wk"].shape[1], held["wv"].shape[1], held["wo"].shape[0],
    )  # fmt: skip


CASES: dict[str, tuple[Network, tuple[int, int, int, int]]] = {
    "all live": (attention(), (6, 6, 6, 6)),
    "one term of each head, dead in the queries": (attention(queries=[0, 4]), (4, 4, 6, 6)),
    "dead in the keys": (attention(keys=[2, 3]), (4, 4, 6, 6)),
    "dead in either": (attention(queries=[0], keys=[5]), (4, 4, 6, 6)),
    "dead in one head alone: that head is filled up": (attention(queries=[0]), (6, 6, 6, 6)),
    "two in one head, one in the other": (attention(queries=[0, 1, 4]), (4, 4, 6, 6)),
    "values dead in each head": (attention(held=[1, 3]), (6, 6, 4, 4)),
    "values unread in each head": (attention(unread=[1, 3]), (6, 6, 4, 4)),
    "values unread in one, dead in the other": (attention(held=[1], unread=[3]), (6, 6, 4, 4)),
    "values dead in one head alone": (attention(held=[1]), (6, 6, 6, 6)),
    "a head of which all values are dead goes whole": (attention(held=[3, 4, 5]), (3, 3, 3, 3)),
    "a head that nobody reads goes whole": (attention(unread=[0, 1, 2]), (3, 3, 3, 3)),
    "a head goes, of the other one term": (attention(queries=[1], unread=[3, 4, 5]), (2, 2, 3, 3)),
}


@pytest.mark.parametrize(("network", "told"), CASES.values(), ids=CASES)
def test_heads_go_whole_and_the_others_keep_equally_many(
    network: Network, told: tuple[int, int, int, int]
) -> None:
    pruned, report = removed(network)
    assert widths(pruned) == told
    assert report.borders == ()
    assert_equal_in_runtime(network, pruned)


def test_a_head_whose_scores_are_zero_still_averages_its_values() -> None:
    """All queries of head 1 are dead: its softmax is 1/3 for every token, not nothing."""
    network = attention(queries=[3, 4, 5])
    pruned, _ = removed(network)
    assert widths(pruned)[2:] == (6, 6)
    assert_equal_in_runtime(network, pruned)


def test_the_graph_of_one_head_that_is_left() -> None:
    pruned, _ = removed(attention(queries=[1], unread=[3, 4, 5]))
    text = written(pruned)
    assert "qh[1,3,1,2] = Reshape(q, split.cut[4])" in text
    assert "scores[1,1,3,3] = MatMul(qt, kt)" in text
    assert "o[1,1,3,3] = MatMul(p, vt)" in text
    assert "joined[1,3,3] = Reshape(ot, join.cut[3])" in text


def test_a_product_of_maps_by_their_channels_keeps_the_terms_that_meet() -> None:
    """a a^T over positions, as channel attention has it: rows and terms are not cut together."""
    network = graph(
        """
        (float[1,4,6] input) => (float[1,2,3] output) {
            a = Conv(input, w, b)
            t = Transpose<perm=[0,2,1]>(a)
            g = MatMul(a, t)
            output = Conv(g, v, c)
        }
        """,
        {"w": weights(3, 4, 1) * np.array([1, 0, 1]).reshape(3, 1, 1), "b": np.zeros(3),
         "v": weights(2, 3, 1), "c": weights(2)},
    )  # fmt: skip
    pruned, report = removed(network)
    assert values(pruned)["w"].shape == (3, 4, 1)
    assert report.borders == ("g (MatMul)",)


def test_terms_over_tokens_are_summed_and_one_that_is_dead_goes() -> None:
    network = graph(
        """
        (float[1,3,4] input) => (float[1,3,2] output) {
            q = MatMul(input, wq)
            k = MatMul(input, wk)
            t = Transpose<perm=[0,2,1]>(k)
            s = MatMul(q, t)
            output = MatMul(s, u)
        }
        """,
        {"wq": weights(4, 3) * np.array([1, 0, 1]), "wk": weights(4, 3) * np.array([1, 1, 0]),
         "u": weights(3, 2)},
    )  # fmt: skip
    pruned_to(
        network,
        """
        q[1,3,1] = MatMul(input, wq[4,1])
        k[1,3,1] = MatMul(input, wk[4,1])
        t[1,1,3] = Transpose<perm=0,2,1>(k)
        s[1,3,3] = MatMul(q, t)
        output[1,3,2] = MatMul(s, u[3,2])
        """,
    )


def test_heads_that_are_broadcast_are_a_border() -> None:
    """One key head for all query heads."""
    network = graph(
        """
        (float[1,2,3,4] left, float[1,1,4,3] right) => (float[1,2,3,3] output) {
            output = MatMul(left, right)
        }
        """,
        {},
    )
    assert analyse(network.model.graph).structure.borders == ("output (MatMul)",)
