from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.config.context import Feature
from router.config.rules import WEEKDAYS, Rule, RuleTest, zone_of
from router.context.rules import Rules, check_rules, wall_clock

ARMS = ["fast", "robust", "new"]
CONTEXT = {
    "volatility": Feature(tensor="features", column=3, low=0, high=1, outside="clip"),
    "region": Feature(parameter="region", levels=("eu", "us"), unknown="other", missing="other"),
}
SPIKE = Rule(name="spike", when="volatility > 0.30", use="robust")
HOME = Rule(name="home", when='region == "eu" or unit == "house"', only=("fast", "robust"))
DESK = Rule(name="desk", when='metadata["x-desk"] == "fx"', never=("new",))
NIGHT = Rule(name="night", when='hour < 8 or hour >= 16.5 or weekday in ["sat", "sun"]', never=("new", "fast"))
MONDAY = datetime(2026, 1, 5, tzinfo=UTC).timestamp()


def ruled(
    *rules: Rule, volatility: float = 0.1, region: str | None = "us", unit: str = "", now: float = 0.0, **more: Any
):
    mask, name = Rules(rules, CONTEXT, ARMS, **more)((volatility, region), unit, {"x-desk": "fx"}, now)
    return [arm for arm, allowed in zip(ARMS, mask, strict=True) if allowed], name


def test_without_rules_everything_is_allowed():
    assert ruled() == (ARMS, "")


def test_a_rule_that_does_not_hold_changes_nothing():
    assert ruled(SPIKE, HOME) == (ARMS, "")


def test_use_leaves_one_arm_only_leaves_these_and_never_leaves_the_others():
    assert ruled(SPIKE, volatility=0.31) == (["robust"], "spike")
    assert ruled(HOME, unit="house") == (["fast", "robust"], "home")
    assert ruled(DESK) == (["fast", "robust"], "desk")


def test_the_first_rule_that_holds_decides_alone():
    assert ruled(HOME, SPIKE, volatility=0.9, region="eu") == (["fast", "robust"], "home")
    assert ruled(SPIKE, HOME, volatility=0.9, region="eu") == (["robust"], "spike")


def test_masks_cannot_be_written():
    mask, _ = Rules([DESK], CONTEXT, ARMS)((0.0, None), "", {"x-desk": "fx"}, 0.0)
    with pytest.raises(ValueError, match="read-only"):
        mask[2] = True
    assert mask.dtype == np.bool_


@pytest.mark.parametrize(
    ("hours", "timezone", "rule"),
    [
        (7.99, "UTC", "night"),
        (8.0, "UTC", ""),
        (16.49, "UTC", ""),
        (16.5, "UTC", "night"),
        (2.99, "Asia/Karachi", "night"),  # five hours ahead
        (3.0, "Asia/Karachi", ""),
        (13.0, "America/New_York", ""),  # five hours behind
        (-1.0, "UTC", "night"),
        (-24.0 + 12, "UTC", "night"),  # Sunday
        (24.0 * 4 + 12, "UTC", ""),  # Friday
        (24.0 * 5 + 12, "UTC", "night"),  # Saturday
    ],
)
def test_rules_know_the_time_of_day_and_the_weekday_of_their_zone(hours: float, timezone: str, rule: str):
    assert ruled(NIGHT, now=MONDAY + hours * 3600, timezone=timezone)[1] == rule


def test_a_rule_may_read_the_weekday_alone():
    rule = Rule(name="friday", when='weekday == "fri"', use="robust")
    assert [ruled(rule, now=MONDAY + day * 86400)[1] for day in range(7)] == ["", "", "", "", "friday", "", ""]


@pytest.mark.parametrize("name", ["UTC", "Europe/London", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"])
@example(now=1774746000.0)  # when London's summer time begins
@example(now=1774745999.999)
@example(now=1792890000.0)  # and ends
@example(now=1792889999.999)
@given(now=st.floats(0, 4e9))
def test_the_wall_clock_is_that_of_the_calendar(name: str, now: float):
    hour, weekday = wall_clock(zone_of(name))(now)
    there = datetime.fromtimestamp(now, ZoneInfo(name))
    midnight = there.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    passed = (there.replace(tzinfo=None) - midnight) / timedelta(hours=1)
    assert weekday == WEEKDAYS[there.weekday()]
    assert hour == pytest.approx(passed, abs=1e-6)


# -- tests beside the rules


def failures(*tests: RuleTest, rules: tuple[Rule, ...] = (SPIKE, HOME, DESK)) -> list[str]:
    return check_rules(rules, tests, CONTEXT, ARMS)


def test_rule_tests_that_hold_say_nothing():
    assert not failures(
        RuleTest(given={"volatility": 0.4, "region": "eu"}, allowed=("robust",), rule="spike"),
        RuleTest(given={"volatility": 7}, allowed=("robust",)),  # which is clipped, like a request's
        RuleTest(given={"volatility": 0.1, "unit": "house"}, allowed=("robust", "fast"), rule="home"),
        RuleTest(given={"volatility": 0.1, "metadata": {"X-Desk": "fx"}}, allowed=("fast", "robust"), rule="desk"),
        RuleTest(given={"volatility": 0.1, "region": "uk"}, allowed=tuple(ARMS), rule=""),
    )


def test_rule_tests_say_which_fail_and_how():
    assert failures(
        RuleTest(given={"volatility": 0.4}, allowed=("fast",)),
        RuleTest(given={"volatility": 0.1}, allowed=("robust",)),
        RuleTest(given={"volatility": 0.4}, allowed=("robust",), rule="home"),
        RuleTest(given={"volatility": 0.4}, allowed=("robust",), rule=""),
        RuleTest(given={"volatility": 0.1}, allowed=tuple(ARMS), rule="home"),
        RuleTest(given={"volatility": 0.1}, allowed=("fsat",)),
        RuleTest(given={"volatility": "high"}, allowed=("fast",)),
        RuleTest(given={}, allowed=("fast",)),
        RuleTest(given={"volatility": 0.1, "vega": 1}, allowed=("fast",)),
        RuleTest(given={"volatility": 0.1, "unit": 7}, allowed=("fast",)),
        RuleTest(given={"volatility": 0.1, "metadata": {"x": 7}}, allowed=("fast",)),
        RuleTest(given={"volatility": 0.1, "time": "noon"}, allowed=("fast",)),
        RuleTest(given={"volatility": 0.1, "time": 12}, allowed=("fast",)),
    ) == [
        "rule_tests[0]: rule 'spike' decides, and robust are allowed; expected were fast",
        "rule_tests[1]: no rule holds, and fast, new, robust are allowed; expected were robust",
        "rule_tests[2]: rule 'spike' decides; expected was 'home'",
        "rule_tests[3]: rule 'spike' decides; expected was that none holds",
        "rule_tests[4]: no rule holds; expected was 'home'",
        "rule_tests[5]: allowed: fsat: none of the arms (fast, new, robust)",
        "rule_tests[6]: given: context: volatility (column 3 of input 'features') must be a number",
        "rule_tests[7]: given: context: volatility (column 3 of input 'features') is missing",
        "rule_tests[8]: given: context: the route has no feature 'vega'",
        "rule_tests[9]: given: unit must be a text",
        "rule_tests[10]: given: metadata must be a mapping of texts",
        'rule_tests[11]: given: time must be such as "2026-01-05T14:30"',
        'rule_tests[12]: given: time must be such as "2026-01-05T14:30"',
    ]


def test_rule_tests_are_given_the_time_of_the_routes_zone():
    def night(time: object) -> list[str]:
        test = RuleTest(given={"volatility": 0, "time": time}, allowed=("robust",), rule="night")
        return check_rules([NIGHT], [test], CONTEXT, ARMS, "America/New_York")

    assert not night("2026-01-05T16:30")
    assert not night(datetime(2026, 1, 5, 7, 59))  # noqa: DTZ001  # as YAML reads a time
    assert not night("2026-01-05T12:59Z")
    assert night("2026-01-05T13:00Z") == night("2026-01-05T08:00") != []


def test_rule_tests_of_rules_that_read_the_time_need_one():
    (failure,) = failures(RuleTest(given={"volatility": 0}, allowed=("robust",)), rules=(NIGHT,))
    assert failure == "rule_tests[0]: given: the rules read the time; give one"
