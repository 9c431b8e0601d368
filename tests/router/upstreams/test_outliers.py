"""Targets that do worse than the others are left out for a while, and nobody else is."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.errors import Code
from router.upstreams.outliers import OUT_SECONDS, WINDOW_CALLS, Outliers, Target

Does = Callable[[], tuple[float, Code | None]]
"""What a target does with a call: how long it takes, and how that ends."""


def always(seconds: float, code: Code | None = None) -> Does:
    return lambda: (seconds, code)


class Fleet:
    """Targets that are asked in turn, at a constant rate."""

    def __init__(self, **does: Does) -> None:
        self.does = does
        self.now = 1000.0
        self.asked: Counter[str] = Counter()
        self.most_out = 0
        self.outliers = Outliers(does, self.now)
        self._in_flight: list[tuple[float, int, float, str, Code | None]] = []
        self._turns = itertools.cycle(does)
        self._numbers = itertools.count()

    def run(self, seconds: float, *, rate: float = 200.0) -> Fleet:
        for _ in range(int(seconds * rate)):
            self.now += 1 / rate
            self._end_calls()
            name = self._next()
            self.asked[name] += 1
            took, code = self.does[name]()
            heapq.heappush(self._in_flight, (self.now + took, next(self._numbers), self.now, name, code))
        return self

    @property
    def out(self) -> set[str]:
        return {name for name, target in self.outliers.targets.items() if target.until}

    def _next(self) -> str:
        names = [next(self._turns) for _ in self.does]
        for name in names:
            target = self.outliers.targets[name]
            if not target.until or self.outliers.try_again(target, self.now):
                for _ in range(names.index(name) + 1):
                    next(self._turns)
                return name
        return names[0]

    def _end_calls(self) -> None:
        while self._in_flight and self._in_flight[0][0] <= self.now:
            now, _, began, name, code = heapq.heappop(self._in_flight)
            self.outliers.ended(self.outliers.targets[name], began, now, code)
            self.most_out = max(self.most_out, len(self.out))


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.UNAVAILABLE, Code.UNKNOWN, Code.NOT_FOUND, Code.CANCELLED])
def test_a_target_that_keeps_failing_is_left_out(code: Code):
    assert Fleet(a=always(0.01), b=always(0.01), c=always(0.001, code)).run(3).out == {"c"}


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED])
def test_what_is_no_fault_of_its_own_leaves_nobody_out(code: Code):
    assert not Fleet(a=always(0.02), b=always(0.0001, code)).run(10).out, "nor is a quick refusal a quick answer"


def test_a_target_that_fails_now_and_then_stays():
    fails = itertools.cycle([Code.INTERNAL, None, None, None])
    assert not Fleet(a=always(0.01), b=lambda: (0.01, next(fails))).run(20).out


@pytest.mark.parametrize(
    ("usual", "other", "left_out"),
    [(0.02, 0.2, True), (0.02, 0.11, True), (0.02, 0.09, False), (0.0002, 0.002, False), (0.0002, 0.02, True)],
)
def test_a_target_that_is_far_slower_is_left_out(usual: float, other: float, left_out: bool):
    assert Fleet(a=always(usual), b=always(other), c=always(usual)).run(5).out == ({"b"} if left_out else set())


def test_a_target_that_hangs_is_left_out():
    fleet = Fleet(a=always(0.01), b=always(2.0, Code.DEADLINE_EXCEEDED)).run(5)
    assert fleet.out == {"b"}


def test_a_target_that_is_left_out_is_hardly_asked_and_comes_back_by_itself():
    fleet = Fleet(a=always(0.01), b=always(0.01, Code.INTERNAL)).run(2)
    assert fleet.out == {"b"}
    fleet.asked.clear()
    fleet.run(100)
    assert 1 <= fleet.asked["b"] <= 5
    fleet.does["b"] = always(0.01)
    fleet.run(OUT_SECONDS[1] + 2)
    assert not fleet.out
    fleet.asked.clear()
    fleet.run(1)
    assert fleet.asked["a"] == fleet.asked["b"]


def test_each_time_in_vain_is_twice_as_long_and_a_good_comparison_forgives():
    fleet = Fleet(a=always(0.001), b=always(0.001, Code.INTERNAL)).run(2)
    target = fleet.outliers.targets["b"]
    lasted = []
    for _ in range(5):
        lasted.append(target.until - target.since)
        fleet.run(target.until - fleet.now + 0.1)
    assert lasted == pytest.approx([10, 20, 40, 60, 60])
    fleet.does["b"] = always(0.001)
    fleet.run(64)
    assert not fleet.out
    assert target.seconds == OUT_SECONDS[0]


def test_where_all_do_as_badly_all_are_used():
    fleet = Fleet(a=always(0.01), b=always(0.01, Code.INTERNAL)).run(3)
    assert fleet.out == {"b"}
    fleet.does["a"] = always(0.01, Code.INTERNAL)
    fleet.run(3)
    assert not fleet.out
    fleet.does["b"] = always(0.01)
    fleet.run(3)
    assert fleet.out == {"a"}


@given(
    st.lists(st.tuples(st.sampled_from([0.001, 0.01, 0.1]), st.sampled_from([None, Code.INTERNAL])), max_size=7),
    st.integers(0, 7),
)
def test_never_more_than_half_are_left_out(targets: list[tuple[float, Code | None]], healed: int):
    fleet = Fleet(**{f"t{n}": always(*does) for n, does in enumerate([(0.001, None), *targets])}).run(4)
    fleet.does |= {f"t{n}": always(0.001) for n in range(min(healed, len(fleet.does)))}
    fleet.run(4)
    assert fleet.most_out <= len(fleet.does) // 2
    assert "t0" not in fleet.out, "the best stays"


@pytest.mark.parametrize("rate", [20.0, 400.0])
def test_targets_that_are_alike_are_left_alone(rate: float):
    """Though a tenth of their calls fail, and some take twenty times as long as others."""
    random = np.random.default_rng(1)

    def alike() -> tuple[float, Code | None]:
        seconds = 0.1 if random.random() < 0.3 else 0.005
        return seconds * random.exponential(), Code.INTERNAL if random.random() < 0.1 else None

    assert Fleet(a=alike, b=alike, c=alike).run(20_000 / rate, rate=rate).most_out == 0


def test_few_calls_prove_nothing():
    fleet = Fleet(a=always(0.01), b=always(0.01, Code.INTERNAL))
    fleet.run(2 * WINDOW_CALLS - 2, rate=1.0)
    assert not fleet.out
    fleet.run(5, rate=1.0)
    assert fleet.out == {"b"}


def test_calls_from_before_say_nothing_of_a_target_that_is_left_out():
    fleet = Fleet(a=always(0.001), b=always(0.001, Code.INTERNAL)).run(2)
    target = fleet.outliers.targets["b"]
    for code in (None, Code.INTERNAL):
        assert not fleet.outliers.ended(target, target.since - 0.5, fleet.now, code)
    assert fleet.out == {"b"}


def test_who_says_that_it_is_not_ready_is_left_out_at_once_and_tried_each_second():
    outliers = Outliers(["a", "b"], 0.0)
    target = outliers.targets["b"]
    outliers.not_ready(target, 10.0)
    tried = [now for now in np.arange(10.0, 15.0, 0.25) if outliers.try_again(target, now)]
    assert tried == [11.0, 12.0, 13.0, 14.0]
    assert not outliers.ended(target, 14.0, 14.1), "which is no news"
    assert not target.until


def test_the_reason_is_a_sentence_with_its_numbers():
    outliers = Outliers(["a", "b"], 0.0)
    changed: list[Target] = []
    for n in range(2 * WINDOW_CALLS):
        name, code = ("a", None) if n % 2 else ("b", Code.INTERNAL)
        changed += outliers.ended(outliers.targets[name], n, n + 0.01, code)
    (target,) = changed
    assert target.why == "20 of 20 calls failed; at a, 0 of 20"
