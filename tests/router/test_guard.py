from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from router.config import Guard as Settings
from router.safety.guard import Guard
from tests.router.fakes import FakeClock

QUICK = Settings(failures=3, seconds=10.0, longest_seconds=40.0)


class Watch:
    """A guard of two arms, of which the first is the one in trouble."""

    def __init__(self, told: Settings = QUICK, arms: int = 2) -> None:
        self.clock = FakeClock(0.0)
        self.guard = Guard(told, arms, self.clock)

    def allowed(self) -> list[bool]:
        return [bool(allowed) for allowed in self.guard.allowed()]

    def leave_out(self, index: int = 0) -> None:
        for _ in range(QUICK.failures):
            self.guard.failed(index, probe=False)

    def probe(self, seconds: float, index: int = 0) -> None:
        """Time passes, the arm's time comes, and a call goes to it."""
        self.clock.advance(seconds)
        assert self.guard.tick()
        assert self.guard.drawn(index)


def test_all_arms_are_allowed_at_first():
    assert Watch(arms=3).allowed() == [True, True, True]


def test_an_arm_is_left_out_after_so_many_failures_in_a_row():
    watch = Watch()
    outcomes = [watch.guard.failed(0, probe=False) for _ in range(3)]
    assert outcomes == [False, False, True]
    assert watch.allowed() == [False, True]


def test_a_success_between_failures_starts_the_count_again():
    watch = Watch()
    for _ in range(5):
        watch.guard.failed(0, probe=False)
        watch.guard.failed(0, probe=False)
        assert not watch.guard.succeeded(0, probe=False)
    assert watch.allowed() == [True, True]


def test_failures_of_one_arm_are_not_counted_for_another():
    watch = Watch()
    for _ in range(2):
        watch.guard.failed(0, probe=False)
        watch.guard.failed(1, probe=False)
    assert watch.allowed() == [True, True]


@pytest.mark.parametrize("arms", [1, 2, 3])
def test_the_last_arm_is_never_left_out(arms: int):
    watch = Watch(arms=arms)
    for index in range(arms):
        watch.leave_out(index)
        watch.leave_out(index)
    assert watch.allowed() == [False] * (arms - 1) + [True]


def test_while_the_others_are_only_probed_the_last_arm_in_service_stays():
    watch = Watch()
    watch.leave_out(0)
    watch.clock.advance(10)
    watch.guard.tick()
    watch.leave_out(1)
    assert watch.allowed() == [True, True]


def test_an_arm_comes_back_to_be_probed_when_its_time_has_come_and_not_before():
    watch = Watch()
    watch.leave_out()
    watch.clock.advance(9.999)
    assert not watch.guard.tick()
    assert watch.allowed() == [False, True]
    watch.clock.advance(0.001)
    assert watch.guard.tick()
    assert watch.allowed() == [True, True]
    assert not watch.guard.tick(), "once"


def test_there_is_one_probe_at_a_time():
    watch = Watch()
    watch.leave_out()
    watch.probe(10)
    assert watch.allowed() == [False, True]
    assert not watch.guard.drawn(1), "an arm in service has no probes"


def test_a_probe_that_succeeds_brings_the_arm_back_as_good_as_new():
    watch = Watch()
    watch.leave_out()
    watch.probe(10)
    watch.guard.failed(0, probe=True)
    watch.probe(20)
    assert watch.guard.succeeded(0, probe=True)
    assert watch.allowed() == [True, True]
    watch.guard.failed(0, probe=False)
    assert watch.allowed() == [True, True], "its failures are counted from none"
    watch.leave_out()
    watch.clock.advance(10)
    assert watch.guard.tick(), "and its seconds start again"


def test_each_failed_probe_doubles_the_seconds_up_to_the_longest():
    watch = Watch()
    watch.leave_out()
    for seconds in (10, 20, 40, 40):
        watch.clock.advance(seconds - 0.5)
        assert not watch.guard.tick()
        watch.probe(0.5)
        watch.guard.failed(0, probe=True)


def test_an_abandoned_probe_proves_nothing_and_the_next_call_is_the_probe():
    watch = Watch()
    watch.leave_out()
    watch.probe(10)
    assert watch.guard.abandoned(0, probe=True)
    assert watch.allowed() == [True, True]
    assert watch.guard.drawn(0)
    watch.guard.failed(0, probe=True)
    watch.clock.advance(19.5)
    assert not watch.guard.tick(), "one probe failed, so the seconds doubled once"
    watch.clock.advance(0.5)
    assert watch.guard.tick()


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "abandoned"])
def test_calls_from_before_decide_nothing_while_the_probe_is_on_its_way(outcome: str):
    watch = Watch()
    watch.leave_out()
    watch.probe(10)
    assert not getattr(watch.guard, outcome)(0, probe=False)
    assert watch.allowed() == [False, True]
    assert watch.guard.succeeded(0, probe=True)
    assert watch.allowed() == [True, True]


def test_an_abandoned_call_that_is_no_probe_changes_nothing():
    watch = Watch()
    assert not watch.guard.abandoned(0, probe=False)
    assert watch.allowed() == [True, True]


def test_a_mask_is_the_readers_own():
    watch = Watch()
    mask = watch.guard.allowed()
    watch.leave_out()
    assert mask.tolist() == [True, True]
    assert mask.dtype == np.bool_


@dataclass(frozen=True)
class Sent:
    """A call on its way."""

    arm: int
    probe: bool


class AnyHistory(RuleBasedStateMachine):
    """Calls that overlap as they like, against what the guard promises."""

    calls = Bundle("calls")

    @initialize(arms=st.integers(1, 4))
    def start(self, arms: int) -> None:
        self.clock = FakeClock(0.0)
        self.guard = Guard(QUICK, arms, self.clock)
        self.arms = arms
        self.probing: set[int] = set()  # arms with a probe on its way
        self.failed_probes = [0] * arms  # in a row
        self.due: dict[int, float] = {}  # when arms that are left out may come back

    @rule(target=calls, data=st.data())
    def send(self, data: st.DataObject) -> Sent:
        arm = data.draw(st.sampled_from(np.flatnonzero(self.guard.allowed()).tolist()))
        probe = self.checked(lambda: self.guard.drawn(arm))
        if probe:
            assert arm not in self.probing, "one probe at a time"
            self.probing.add(arm)
        return Sent(arm, probe)

    @rule(call=consumes(calls))
    def succeed(self, call: Sent) -> None:
        self.checked(lambda: self.guard.succeeded(call.arm, probe=call.probe))
        if call.probe:
            self.probing.remove(call.arm)
            self.failed_probes[call.arm] = 0
            assert self.guard.allowed()[call.arm]

    @rule(call=consumes(calls))
    def fail(self, call: Sent) -> None:
        was_allowed = self.guard.allowed()[call.arm]
        self.checked(lambda: self.guard.failed(call.arm, probe=call.probe))
        if call.probe:
            self.probing.remove(call.arm)
            self.failed_probes[call.arm] += 1
            assert not self.guard.allowed()[call.arm]
        if call.probe or (was_allowed and not self.guard.allowed()[call.arm]):
            seconds = min(QUICK.seconds * 2 ** self.failed_probes[call.arm], QUICK.longest_seconds)
            self.due[call.arm] = self.clock() + seconds

    @rule(call=consumes(calls))
    def abandon(self, call: Sent) -> None:
        self.checked(lambda: self.guard.abandoned(call.arm, probe=call.probe))
        if call.probe:
            self.probing.remove(call.arm)
            assert self.guard.allowed()[call.arm]

    @precondition(lambda self: self.due)
    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.checked(self.guard.tick)
        for arm in [arm for arm, time in self.due.items() if time <= self.clock()]:
            del self.due[arm]
            assert self.guard.allowed()[arm]

    @invariant()
    def somebody_serves(self) -> None:
        allowed = self.guard.allowed()
        assert allowed.any()
        assert not any(allowed[arm] for arm in self.probing | self.due.keys())
        assert all(allowed[arm] for arm in range(self.arms) if arm not in self.probing | self.due.keys())

    def checked(self, step: Callable[[], bool]) -> bool:
        """Does a step, and sees to it that a change of the mask is told."""
        before = self.guard.allowed()
        told = step()
        assert told or (before == self.guard.allowed()).all()
        return told


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
