from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from protos.errors import ResourceExhausted
from router.config import Client
from router.edge import limits as module
from router.edge.limits import Limit, Limits, shared_memory
from tests.router.fakes import FakeClock

WORKERS = 3
KEY = "0" * 64


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = shared_memory(WORKERS)
    yield descriptor
    os.close(descriptor)


def desk(**limits: float) -> Client:
    return Client(key_sha256=KEY, **limits)  # type: ignore[arg-type]  # numbers as they are


def seen_by(worker: int, memory: int, clock: FakeClock) -> Limits:
    return Limits(clock, workers=WORKERS, worker=worker, memory=memory)


def workers(memory: int, clock: FakeClock, told: Client) -> list[Limit]:
    """The limit of one client, as each worker sees it."""
    return [seen_by(worker, memory, clock).of({"desk": told})["desk"] for worker in range(WORKERS)]


def admits(limit: Limit) -> bool:
    try:
        with limit.admitted():
            return True
    except ResourceExhausted:
        return False


@pytest.mark.parametrize("turns", [[0], [0, 1, 2], [0, 0, 2], [2, 1, 1]], ids=str)
def test_a_client_asks_as_often_as_it_may_of_all_workers_together_however_it_is_spread(memory: int, turns: list[int]):
    clock = FakeClock()
    limits = workers(memory, clock, desk(requests_per_second=2.0, burst=3))

    def admitted(tries: int) -> int:
        return sum(admits(limits[turns[k % len(turns)]]) for k in range(tries))

    assert admitted(20) == 3
    clock.advance(1.0)
    assert admitted(20) == 2
    clock.advance(1000.0)
    assert admitted(20) == 3
    clock.advance(0.5)
    assert admitted(20) == 1


def test_a_client_has_as_many_requests_in_flight_as_it_may_in_all_workers_together(memory: int):
    limits = workers(memory, FakeClock(), desk(max_in_flight=3))
    with ExitStack() as stack:
        for limit in limits:
            stack.enter_context(limit.admitted())
        for limit in limits:
            with pytest.raises(ResourceExhausted, match="has 3 requests in flight"), limit.admitted():
                pass
    assert all(map(admits, limits))


def test_what_a_worker_had_in_flight_when_it_died_is_forgotten_and_what_it_had_admitted_is_not(memory: int):
    clock = FakeClock()
    told = desk(requests_per_second=1.0, burst=2, max_in_flight=1)
    limits = workers(memory, clock, told)
    dying = limits[1].admitted()
    dying.__enter__()
    assert not admits(limits[0])
    successor = seen_by(1, memory, clock).of({"desk": told})["desk"]
    assert [admits(successor), admits(limits[0])] == [True, False], "two in all"


def test_clients_whose_places_are_one_do_not_share_their_limits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PLACES", 4)
    limits = Limits(FakeClock()).of({f"c{n}": desk(requests_per_second=1.0, burst=1) for n in range(4)})
    assert sorted(limit.place for limit in limits.values()) == [0, 1, 2, 3]
    assert [admits(limits[f"c{n}"]) for n in range(4)] == [True] * 4
    assert [admits(limits[f"c{n}"]) for n in range(4)] == [False] * 4


def test_a_client_that_comes_back_with_the_limits_that_it_had_has_what_it_had_left():
    limits = Limits(FakeClock())
    slow, slower = desk(requests_per_second=1.0, burst=2), desk(requests_per_second=0.5, burst=1)
    assert admits(limits.of({"desk": slow})["desk"])
    assert admits(limits.of({"desk": slower})["desk"])
    back = limits.of({"desk": slow})["desk"]
    assert [admits(back), admits(back)] == [True, False]
