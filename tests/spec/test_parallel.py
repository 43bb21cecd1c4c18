"""Work on all cores: order, errors, and BLAS as it was afterwards."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from deploykit.spec import parallel
from deploykit.spec.parallel import computed_ahead, in_parallel


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


@pytest.fixture(params=[1, 2, 8])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    count = int(request.param)
    monkeypatch.setattr(parallel, "workers", lambda: count)
    return count


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_results_are_in_the_order_of_the_items(count: int) -> None:
    items = list(range(count))
    assert in_parallel(str, items) == list(map(str, items))
    assert list(computed_ahead(str, items)) == list(map(str, items))


@pytest.mark.usefixtures("cores")
def test_the_first_error_in_the_order_of_the_items_is_raised() -> None:
    def refuse(item: int) -> int:
        if item > 2:
            raise ValueError(item)
        return item

    with pytest.raises(ValueError, match="3"):
        in_parallel(refuse, range(9))
    found = computed_ahead(refuse, range(9))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(found)


@pytest.mark.usefixtures("cores")
def test_blas_has_one_core_inside_and_what_it_had_afterwards() -> None:
    before = blas_threads()
    assert set().union(*in_parallel(lambda _: blas_threads(), range(4))) == {1}
    assert set().union(*computed_ahead(lambda _: blas_threads(), range(4))) == {1}
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda item: 1 / item, [0, 0])
    assert blas_threads() == before


def test_work_within_work_stays_on_its_core(cores: int) -> None:
    def inner(_: int) -> list[str]:
        return in_parallel(lambda _: threading.current_thread().name, range(3))

    for names in in_parallel(inner, range(2)):
        assert len(set(names)) == 1 or cores == 1


def test_no_more_than_a_few_results_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "workers", lambda: 64)
    started: list[int] = []
    found = computed_ahead(started.append, range(100))
    next(found)
    assert len(started) <= parallel.MOST_AHEAD + 1
