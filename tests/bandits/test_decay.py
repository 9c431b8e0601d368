"""Forward decay against the textbook: event after event, all that was there before is multiplied."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.decay import HalfLife, relandmark
from bandits.policy import Vector

Events = list[tuple[float, float]]
"""(time, what is added)."""

ORIGIN = 1.7e9  # times are like Unix times of today
NOTHING = np.zeros((1, 1))
half_lives = st.floats(0.5, 1e7).map(HalfLife)
events = st.lists(st.tuples(st.floats(0.0, 90.0), st.floats(0.125, 8.0)), min_size=1, max_size=30)


def at(half_life: HalfLife, place: float) -> float:
    """The time that is so many half-lives after the origin."""
    return ORIGIN + place * half_life.seconds


def learn(half_life: HalfLife, history: Events) -> dict[int, Vector]:
    eras: dict[int, Vector] = {}
    for time, added in history:
        eras.setdefault(half_life.era(time), np.zeros((1, 1)))[0, 0] += half_life.weight(time) * added
    return eras


def discounted(half_life: HalfLife, history: Events, now: float) -> float:
    total, last = 0.0, -math.inf
    for time, added in sorted(history):
        total = total * math.exp2((last - time) / half_life.seconds) + added
        last = time
    return total * math.exp2((last - now) / half_life.seconds)


@settings(max_examples=50, deadline=None)
@given(half_life=half_lives, history=events, data=st.data())
def test_it_is_sequential_discounting_in_any_order(half_life: HalfLife, history: Events, data: st.DataObject) -> None:
    history = [(at(half_life, place), added) for place, added in history]
    now = at(half_life, 90.0)
    shuffled = data.draw(st.permutations(history))
    (read,) = half_life.sums(learn(half_life, shuffled), now).ravel()
    assert read == pytest.approx(discounted(half_life, history, now), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(half_life=half_lives, history=events, data=st.data())
def test_replicas_merge_era_by_era(half_life: HalfLife, history: Events, data: st.DataObject) -> None:
    history = [(at(half_life, place), added) for place, added in history]
    mine = data.draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))
    one = learn(half_life, [event for event, own in zip(history, mine, strict=True) if own])
    other = learn(half_life, [event for event, own in zip(history, mine, strict=True) if not own])
    merged = {era: one.get(era, NOTHING) + other.get(era, NOTHING) for era in one.keys() | other.keys()}
    now = at(half_life, 90.0)
    np.testing.assert_allclose(half_life.sums(merged, now), half_life.sums(learn(half_life, history), now), rtol=1e-12)


@given(half_life=half_lives, history=events)
def test_sums_that_are_moved_to_a_later_era_say_the_same_to_the_last_bit(half_life: HalfLife, history: Events) -> None:
    history = [(at(half_life, place), added) for place, added in history]
    now = at(half_life, 90.0)
    for era, sums in learn(half_life, history).items():
        there = relandmark(sums, era, half_life.era(now))
        assert np.array_equal(half_life.sums({era: sums}, now), half_life.sums({half_life.era(now): there}, now))
        assert np.array_equal(relandmark(there, half_life.era(now), era), sums)


def test_moving_is_an_exact_power_of_two() -> None:
    sums = np.array([[1 / 3, 0.0, -7.0]])
    assert np.array_equal(relandmark(sums, 5, 6), sums * 2.0**-32)
    assert np.array_equal(relandmark(sums, 6, 5), sums * 2.0**32)
    assert np.array_equal(relandmark(sums, 5, 10**9), np.zeros((1, 3)))


@given(half_life=half_lives, time=st.floats(-2e9, 2e9))
def test_a_weight_doubles_with_each_half_life_and_an_era_has_32(half_life: HalfLife, time: float) -> None:
    era, weight = half_life.era(time), half_life.weight(time)
    assert 1.0 <= weight <= 2.0**32
    place = 32 * era + math.log2(weight)
    assert place * half_life.seconds == pytest.approx(time, rel=1e-12, abs=1e-12 * half_life.seconds)


def test_what_is_one_half_life_old_counts_half() -> None:
    day = HalfLife(86_400.0)
    sums = learn(day, [(ORIGIN, 8.0), (ORIGIN + 86_400.0, 1.0)])
    assert day.sums(sums, ORIGIN + 86_400.0) == pytest.approx(5.0, rel=1e-14)
    assert day.sums(sums, ORIGIN + 3 * 86_400.0) == pytest.approx(1.25, rel=1e-14)


def test_discounted_thompson_samplings_factor_is_a_half_life_in_steps() -> None:
    assert HalfLife.of_discount(0.5).seconds == 1.0
    assert HalfLife.of_discount(0.995).seconds == pytest.approx(138.28, abs=0.01)
    rewards = np.random.default_rng(3).random(5_000)
    total = 0.0
    for reward in rewards:
        total = 0.995 * total + reward
    forgetting = HalfLife.of_discount(0.995)
    sums = learn(forgetting, list(enumerate(rewards.tolist())))
    assert len(sums) == 2
    assert forgetting.sums(sums, 4_999) == pytest.approx(total, rel=1e-12)


def test_late_events_and_those_of_a_clock_that_is_ahead_count_as_their_time_says() -> None:
    half_life = HalfLife(60.0)
    late, ahead = ORIGIN - 20 * 60.0, ORIGIN + 3 * 60.0
    sums = learn(half_life, [(ORIGIN, 1.0), (late, 1.0), (ahead, 1.0)])
    assert half_life.sums(sums, ORIGIN) == pytest.approx(1.0 + 2.0**-20 + 8.0, rel=1e-12)


def test_a_clock_that_is_ahead_may_have_begun_the_next_era() -> None:
    half_life = HalfLife(1.0)
    sums = learn(half_life, [(31.5, 1.0), (32.5, 1.0)])
    assert set(sums) == {0, 1}
    assert half_life.sums(sums, 31.5) == pytest.approx(3.0, rel=1e-14)


@pytest.mark.parametrize("age", [97, 128, 1_000, 10_000, 10**9])
def test_what_is_very_old_is_as_good_as_nothing(age: int) -> None:
    half_life = HalfLife(1.0)
    sums = learn(half_life, [(ORIGIN - age, 1.0), (ORIGIN, 1.0)])
    assert half_life.sums(sums, ORIGIN).item() == 1.0


@given(half_life=half_lives, now=st.floats(-2e9, 2e9))
def test_a_forgotten_era_is_at_least_96_half_lives_old(half_life: HalfLife, now: float) -> None:
    oldest = half_life.oldest(now)
    full = np.array([[2.0**85]])  # 2^53 events at the end of an era
    with_it = half_life.sums({oldest - 1: full, half_life.era(now): np.ones((1, 1))}, now)
    assert np.array_equal(with_it, half_life.sums({half_life.era(now): np.ones((1, 1))}, now))
    assert half_life.sums({oldest: np.ones((1, 1))}, now).item() > 0.0
    assert half_life.era(now) - oldest == 3


def test_years_without_an_event_end_in_nothing_and_not_in_nan() -> None:
    half_life = HalfLife(1.0)
    sums = learn(half_life, [(0.0, 1.0)])
    for now in (1e2, 1e3, 1e6, 1e15):
        assert half_life.sums(sums, now).item() == pytest.approx(0.0, abs=1e-29)


def test_reading_leaves_the_eras_as_they_were() -> None:
    half_life = HalfLife(10.0)
    sums = learn(half_life, [(0.0, 1.0), (500.0, 1.0)])
    kept = {era: rows.copy() for era, rows in sums.items()}
    read = half_life.sums(sums, 500.0)
    read[:] = 7.0
    assert all(np.array_equal(rows, kept[era]) for era, rows in sums.items())


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf, 1e308])
def test_a_half_life_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^seconds: "):
        HalfLife(seconds)


@pytest.mark.parametrize("discount", [0.0, 1.0, -0.5, 2.0, math.nan])
def test_a_discount_that_is_none_is_refused(discount: float) -> None:
    with pytest.raises(ValueError, match=r"^discount: "):
        HalfLife.of_discount(discount)


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf, 1e300])
def test_a_time_that_is_none_is_refused(time: float) -> None:
    for ask in (HalfLife(1.0).era, HalfLife(1.0).weight, HalfLife(1.0).oldest):
        with pytest.raises(ValueError, match=r"^time: "):
            ask(time)


def test_eras_that_cannot_be_summed_are_refused() -> None:
    half_life = HalfLife(1.0)
    with pytest.raises(ValueError, match=r"^eras: name one"):
        half_life.sums({}, 0.0)
    with pytest.raises(ValueError, match=r"^eras: 2 lies in the future"):
        half_life.sums({2: np.ones((1, 3))}, 0.0)
    with pytest.raises(ValueError, match=r"^eras: .*shape"):
        half_life.sums({0: np.ones((1, 3)), -1: np.ones((2, 3))}, 0.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_sums_that_are_not_finite_never_come_out(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^sums: "):
        HalfLife(1.0).sums({0: np.array([[wrong]])}, 0.0)


@pytest.mark.parametrize("era", [100, 10**12])
def test_sums_that_would_overflow_are_refused(era: int) -> None:
    with pytest.raises(ValueError, match=rf"^sums: .*era {era} to 0"):
        relandmark(np.ones((1, 1)), era, 0)
