from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits import EpsilonGreedy, Fitted, Mask, Split, Thompson, Vector
from bandits.counts import Counts
from bandits.floor import Floor
from bandits.squarecb import SquareCB
from tests.bandits.contract import Case, PolicyContract, learn, masks, some_context, some_history

CASES = [
    Case(Floor(EpsilonGreedy(0.0), floor=0.05)),
    Case(Floor(Thompson(), floor=1.0), arms=7),
    Case(Floor(Floor(SquareCB(2), floor=0.1))),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.policy))
class TestFloors(PolicyContract):
    """A policy with a floor is a policy."""


@dataclass(frozen=True, slots=True)
class Shared(Counts):
    """Reads a context, and hands the same p to everybody."""

    p: tuple[float, ...]

    @property
    def features(self) -> int:
        return 1

    def fit(self, sums: Vector) -> Fitted:
        shared = np.array(self.p)
        shared.flags.writeable = False
        return lambda *_: shared


def floored(weights: tuple[float, ...], floor: float, allowed: Mask | None = None) -> Vector:
    everyone = np.ones(len(weights), dtype=bool)
    fitted = Floor(Split(weights), floor).fit(np.zeros((len(weights), 3)))
    return fitted(None, everyone if allowed is None else allowed)


def test_the_floor_is_taken_from_all_in_proportion() -> None:
    assert floored((1, 0, 0), 0.05) == pytest.approx([0.9, 0.05, 0.05], abs=1e-15)
    assert floored((0.6, 0.3, 0.1), 0.1) == pytest.approx([0.52, 0.31, 0.17], abs=1e-15)


def test_an_arm_that_is_not_allowed_needs_no_floor() -> None:
    allowed = np.array([True, False, True])
    assert floored((1, 7, 0), 0.05, allowed) == pytest.approx([0.95, 0.0, 0.05], abs=1e-15)


def test_a_floor_that_is_too_high_for_all_is_equal_shares() -> None:
    assert floored((1, 0, 0), 0.5) == pytest.approx([1 / 3] * 3, abs=1e-15)
    assert floored((1, 0), 0.5) == pytest.approx([0.5] * 2, abs=1e-15)


def test_without_a_floor_p_is_what_it_was() -> None:
    assert np.array_equal(
        floored((0.7, 0.2, 0.1), 0.0), Split((0.7, 0.2, 0.1)).fit(np.zeros((3, 3)))(None, np.ones(3, bool))
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.policy))
@given(data=st.data())
def test_no_allowed_arm_is_below_the_floor_and_the_order_stays(case: Case, data: st.DataObject) -> None:
    assert isinstance(case.policy, Floor)
    allowed = data.draw(masks(case))
    sums = learn(case, some_history(case))
    p = case.policy.fit(sums)(some_context(case), allowed)
    assert (p[allowed] >= min(case.policy.floor, 1 / allowed.sum())).all()
    inside = case.policy.policy.fit(sums)(some_context(case), allowed)
    order = np.argsort(inside[allowed], kind="stable")
    assert (np.diff(p[allowed][order]) >= -1e-15).all()


def test_it_learns_what_the_policy_inside_learns() -> None:
    policy = Thompson(2.0, 3.0)
    assert (Floor(policy).layout, Floor(policy).width, Floor(policy).features) == ("counts", 3, 0)
    assert np.array_equal(Floor(policy).delta(0.5, None, 0.1), policy.delta(0.5, None, 0.1))


def test_without_a_context_p_is_worked_out_once_and_read_only() -> None:
    fitted = Floor(Thompson()).fit(np.zeros((3, 3)))
    for allowed in (np.array([True, True, True]), np.array([True, False, True])):
        p = fitted(None, allowed)
        assert not p.flags.writeable
        assert fitted(np.array([1.0]), allowed.copy()) is p


def test_a_p_that_others_hold_is_not_written_into() -> None:
    fitted = Floor(Shared((1.0, 0.0)), 0.1).fit(np.zeros((2, 3)))
    for _ in range(3):
        assert fitted(np.zeros(1), np.ones(2, dtype=bool)) == pytest.approx([0.9, 0.1], abs=1e-15)


def test_with_a_context_too_an_arm_that_is_not_allowed_stays_at_0() -> None:
    fitted = Floor(Shared((1.0, 0.0, 0.0)), 0.1).fit(np.zeros((3, 3)))
    assert fitted(np.zeros(1), np.array([True, False, True])) == pytest.approx([0.9, 0.0, 0.1], abs=1e-15)


@pytest.mark.parametrize("floor", [-0.01, 1.01, math.nan, math.inf])
def test_a_floor_that_is_no_probability_is_refused(floor: float) -> None:
    with pytest.raises(ValueError, match=r"^floor: "):
        Floor(Thompson(), floor)
