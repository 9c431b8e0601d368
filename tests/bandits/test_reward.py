from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bandits.reward import GREATEST, Range

bounds = st.floats(-GREATEST, GREATEST)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, high = sorted((draw(bounds), draw(bounds)))
    assume(low < high)
    return Range(low, high)


def test_a_reward_is_its_place_in_the_range() -> None:
    assert Range().share(0.25) == 0.25
    assert Range(-100, 300).share(0) == 0.25
    assert Range(-100, 300).value(0.25) == 0.0


@given(reward=ranges(), data=st.data())
def test_every_reward_of_the_range_has_a_place_and_is_found_there(reward: Range, data: st.DataObject) -> None:
    value = data.draw(st.floats(reward.low, reward.high))
    share = reward.share(value)
    assert 0.0 <= share <= 1.0
    scale = max(abs(reward.low), abs(reward.high))
    assert reward.value(share) == pytest.approx(value, rel=0, abs=4e-16 * scale + 5e-324)


@given(reward=ranges())
def test_the_ends_are_met_exactly(reward: Range) -> None:
    assert (reward.share(reward.low), reward.share(reward.high)) == (0.0, 1.0)
    assert (reward.value(0.0), reward.value(1.0)) == (reward.low, reward.high)


@given(reward=ranges(), share=st.floats(0.0, 1.0))
def test_a_place_in_the_range_is_a_reward_that_the_range_takes(reward: Range, share: float) -> None:
    assert reward.low <= reward.value(share) <= reward.high


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 300.0000001, -100.5, 10**400])
def test_a_reward_outside_is_refused_and_not_quoted(value: float) -> None:
    with pytest.raises(ValueError, match=r"^reward: .*-100 to 300") as refusal:
        Range(-100, 300).share(value)
    assert str(value) not in str(refusal.value)


@pytest.mark.parametrize("share", [math.nan, -0.1, 1.1])
def test_a_place_outside_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"^share: "):
        Range(-100, 300).value(share)


@pytest.mark.parametrize(
    ("low", "high", "wrong"),
    [
        (0.0, 0.0, "low"),
        (2.0, 1.0, "low"),
        (math.nan, 1.0, "low"),
        (-math.inf, 1.0, "low"),
        (-2e100, 1.0, "low"),
        (0.0, math.nan, "high"),
        (0.0, math.inf, "high"),
        (0.0, 2e100, "high"),
    ],
)
def test_a_range_that_is_none_is_refused(low: float, high: float, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^{wrong}: "):
        Range(low, high)


def test_the_widest_range_has_room_for_the_sums_of_its_squares() -> None:
    widest = Range(-GREATEST, GREATEST)
    assert widest.share(0.0) == 0.5
    assert np.isfinite(1e100 * widest.high * widest.high)
