from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits import Policy, sampler
from router.config import Arm, Route
from router.config.safety import Schedule, check_schedule
from router.safety.schedule import PARTS, scheduled, shares_at

ARMS = ["a", "b", "c"]
START = datetime(2026, 3, 2, 8, tzinfo=UTC)


def schedule(*shares: dict[str, float], between: str = "step") -> Schedule:
    """One moment every hour."""
    moments = [{"at": START + timedelta(hours=hour), "shares": each} for hour, each in enumerate(shares)]
    return msgspec.convert({"moments": moments, "between": between}, Schedule)


def policy_at(told: Schedule, time: float) -> Policy:
    """Of a route with that schedule."""
    arms = {arm: Arm(model=arm, target="h:1") for arm in ARMS}
    return scheduled(Route(arms=arms, schedule=told), time).build_policy()


def at(hours: float) -> float:
    return START.timestamp() + 3600.0 * hours


def test_each_moment_holds_from_its_time_on_and_the_first_also_before():
    told = schedule({"a": 1.0}, {"a": 1.0, "b": 3.0}, {"c": 2.0})
    for hours, shares in (
        (-9.0, (1, 0, 0)),
        (0.0, (1, 0, 0)),
        (0.999, (1, 0, 0)),
        (1.0, (0.25, 0.75, 0)),
        (99, (0, 0, 1)),
    ):
        assert shares_at(told, ARMS, at(hours)) == shares


def test_between_two_moments_shares_move_in_a_line_and_stay_after_the_last():
    told = schedule({"a": 1.0}, {"a": 1.0, "b": 1.0}, between="linear")
    for hours, b in (-1.0, 0.0), (0.0, 0.0), (0.5, 0.25), (0.9, 0.45), (1.0, 0.5), (2.0, 0.5):
        assert shares_at(told, ARMS, at(hours)) == pytest.approx((1.0 - b, b, 0.0), abs=1 / PARTS)


def test_a_zone_is_part_of_a_time():
    berlin = msgspec.convert(
        {
            "moments": [
                {"at": "2026-03-02T08:00:00Z", "shares": {"a": 1}},
                {"at": "2026-03-02T10:00:00+01:00", "shares": {"b": 1}},
            ]
        },
        Schedule,
    )
    assert shares_at(berlin, ARMS, at(0.99)) == (1, 0, 0)
    assert shares_at(berlin, ARMS, at(1.0)) == (0, 1, 0)


@given(st.floats(-2.0, 5.0), st.sampled_from(["step", "linear"]))
def test_shares_are_a_distribution_at_any_time(hours: float, between: str):
    told = schedule({"a": 90, "b": 10}, {"a": 1, "b": 1, "c": 1}, {"c": 0.3}, between=between)
    shares = shares_at(told, ARMS, at(hours))
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)
    assert min(shares) >= 0.0
    p = policy_at(told, at(hours)).fit(np.zeros((3, 3)))(None, np.ones(3, dtype=np.bool_))
    np.testing.assert_allclose(p, shares, atol=1e-12)


def test_nobody_who_has_an_arm_loses_it_while_its_share_grows():
    told = schedule({"a": 1.0}, {"a": 1.0, "b": 1.0}, between="linear")
    draw, everybody = sampler("salt", ARMS), np.ones(3, dtype=np.bool_)
    had: set[str] = set()
    for minute in range(0, 61, 5):
        p = policy_at(told, at(minute / 60)).fit(np.zeros((3, 3)))(None, everybody)
        has = {unit for unit in map(str, range(2_000)) if draw(p, unit) == 1}
        assert had <= has
        had = has
    assert len(had) == pytest.approx(1_000, abs=100)


def test_a_ramp_changes_the_policy_a_thousand_times_at_most():
    told = schedule({"a": 1.0}, {"b": 1.0}, between="linear")
    policies = {policy_at(told, at(hours)) for hours in np.linspace(0.0, 1.0, 20_000)}
    assert len(policies) <= PARTS + 1


@pytest.mark.parametrize(
    ("moments", "sentence"),
    [
        ([], "moments: at least one"),
        ([{"at": "2026-03-02T08:00:00", "shares": {"a": 1}}], "timezone"),
        ([{"at": "2026-03-02T08:00:00Z", "shares": {"a": 0}}], "shares: one at least must be above 0"),
        ([{"at": "2026-03-02T08:00:00Z", "shares": {"a": -1}}], "shares: must be finite and not below 0"),
        ([{"at": "2026-03-02T08:00:00Z", "shares": {"a": 1}}] * 2, "moments: each must come after"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused(moments: list, sentence: str):
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert({"moments": moments}, Schedule)


def test_a_schedule_names_arms_of_its_route_only():
    with pytest.raises(ValueError, match="moments: d: none of the arms"):
        check_schedule(schedule({"a": 1.0, "d": 1.0}), ARMS)
    check_schedule(schedule({"a": 1.0}), ARMS)
