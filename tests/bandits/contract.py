"""What every policy owes its route. A new policy is one more Case in test_policies.py."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bandits import Mask, Policy, Vector, sampler
from bandits.decay import HalfLife

HALF_LIFE = HalfLife(4.0)  # so that the times below span several eras
LATEST = 400.0

quick = settings(max_examples=15, deadline=None)  # of each case: there are dozens


@dataclass(frozen=True)
class Case:
    """A policy under contract, with the number of its arms."""

    policy: Policy
    arms: int = 4

    @property
    def context(self) -> int:
        return self.policy.features

    @property
    def nothing(self) -> Vector:
        return np.zeros((self.arms, self.policy.width))

    @property
    def everyone(self) -> Mask:
        return np.ones(self.arms, dtype=bool)


@dataclass(frozen=True)
class Event:
    arm: int
    reward: float
    context: Vector | None
    propensity: float
    time: float


def contexts(case: Case) -> st.SearchStrategy[Vector | None]:
    """Contexts of eighths: small sums and products of such are exact, so equalities can be asserted bit for bit."""
    if not case.context:
        return st.none()
    eighths = st.integers(-16, 16).map(lambda i: i / 8)
    return st.lists(eighths, min_size=case.context, max_size=case.context).map(np.array)


def histories(case: Case) -> st.SearchStrategy[list[Event]]:
    event = st.builds(
        Event,
        arm=st.integers(0, case.arms - 1),
        reward=st.integers(0, 8).map(lambda i: i / 8),
        context=contexts(case),
        propensity=st.integers(0, 6).map(lambda i: 2.0**-i),
        time=st.floats(0.0, LATEST),
    )
    return st.lists(event, max_size=40)


def masks(case: Case) -> st.SearchStrategy[Mask]:
    some = st.lists(st.booleans(), min_size=case.arms, max_size=case.arms).filter(any)
    return some.map(lambda allowed: np.array(allowed, dtype=bool))


def delta(case: Case, event: Event) -> Vector:
    return case.policy.delta(event.reward, event.context, event.propensity)


def learn(case: Case, history: Iterable[Event]) -> Vector:
    sums = case.nothing
    for event in history:
        sums[event.arm] += delta(case, event)
    return sums


def decayed(case: Case, history: Iterable[Event]) -> Vector:
    """What is left at LATEST by forward decay."""
    eras = {HALF_LIFE.era(LATEST): case.nothing}
    for event in history:
        rows = eras.setdefault(HALF_LIFE.era(event.time), case.nothing)
        rows[event.arm] += HALF_LIFE.weight(event.time) * delta(case, event)
    return HALF_LIFE.sums(eras, LATEST)


def discounted(case: Case, history: Iterable[Event]) -> Vector:
    """What is left at LATEST by the textbook: event after event, all that was there before is multiplied."""
    sums, now = case.nothing, 0.0
    for event in sorted(history, key=lambda event: event.time):
        sums *= 0.5 ** ((event.time - now) / HALF_LIFE.seconds)
        sums[event.arm] += delta(case, event)
        now = event.time
    sums *= 0.5 ** ((LATEST - now) / HALF_LIFE.seconds)
    return sums


def assert_same_sums(one: Vector, other: Vector) -> None:
    """Bit for bit where they count: eighths sum exactly. Whatever else a row holds may round."""
    assert np.array_equal(one[:, :3], other[:, :3])
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.abs(other).max())


@contextmanager
def may_refuse(*arguments: str) -> Iterator[None]:
    """What stands inside may also end in a ValueError about one of these arguments."""
    try:
        yield
    except ValueError as refusal:
        if not str(refusal).startswith(tuple(f"{argument}: " for argument in arguments)):
            raise


@contextmanager
def often_interrupted() -> Iterator[None]:
    """Threads take turns within a call, not only after milliseconds."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def assert_distribution(p: Vector, allowed: Mask) -> None:
    assert p.shape == allowed.shape
    assert p.dtype == np.float64
    assert (p >= 0).all()  # so not NaN either
    assert (p[~allowed] == 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)


def learnt(case: Case) -> st.SearchStrategy[Vector]:
    """Sums of histories from no events to millions, at powers of two so that they stay exact."""
    sums = histories(case).map(lambda history: learn(case, history))
    return st.builds(lambda rows, scale: rows * 2.0**scale, sums, st.integers(-4, 20))


def some_history(case: Case, events: int = 60, seed: int = 7) -> list[Event]:
    rng = np.random.default_rng(seed)
    return [
        Event(
            arm=int(rng.integers(case.arms)),
            reward=int(rng.integers(9)) / 8,
            context=rng.integers(-16, 17, case.context) / 8 if case.context else None,
            propensity=0.25,
            time=float(rng.uniform(LATEST - 40, LATEST)),
        )
        for _ in range(events)
    ]


def untied_history(case: Case, seed: int) -> list[Event]:
    """Rewards of all digits: no two arms look alike, so a rounding cannot change which is the best."""
    rng = np.random.default_rng(seed)
    return [replace(event, reward=float(rng.random())) for event in some_history(case, seed=seed)]


def some_context(case: Case) -> Vector | None:
    return some_history(case, 1)[0].context


class PolicyContract:
    """Inherit it, and parametrise the class with `case`."""

    # What it says

    @quick
    @given(data=st.data())
    def test_p_is_a_distribution_over_the_allowed_arms(self, case: Case, data: st.DataObject) -> None:
        fitted = case.policy.fit(data.draw(learnt(case)))
        allowed = data.draw(masks(case))
        assert_distribution(fitted(data.draw(contexts(case)), allowed), allowed)

    def test_the_only_allowed_arm_has_probability_one(self, case: Case) -> None:
        fitted = case.policy.fit(learn(case, some_history(case)))
        for only in np.eye(case.arms, dtype=bool):
            assert fitted(some_context(case), only) == pytest.approx(only.astype(float), abs=1e-12)

    def test_nothing_learnt_is_a_legal_state(self, case: Case) -> None:
        assert_distribution(case.policy.fit(case.nothing)(some_context(case), case.everyone), case.everyone)

    @quick
    @given(data=st.data(), scale=st.integers(-1080, 900))
    def test_sums_however_small_or_large_give_a_distribution_or_are_refused(
        self, case: Case, data: st.DataObject, scale: int
    ) -> None:
        """Small ones are what forgetting leaves."""
        sums = np.ldexp(learn(case, data.draw(histories(case))), scale)
        with may_refuse("sums") if scale > 0 else nullcontext():
            assert_distribution(case.policy.fit(sums)(some_context(case), case.everyone), case.everyone)

    # What it learns

    @quick
    @given(data=st.data())
    def test_rewards_may_arrive_in_any_order(self, case: Case, data: st.DataObject) -> None:
        history = data.draw(histories(case))
        shuffled = data.draw(st.permutations(history))
        assert_same_sums(learn(case, history), learn(case, shuffled))

    @quick
    @given(data=st.data())
    def test_replicas_merge_by_addition(self, case: Case, data: st.DataObject) -> None:
        history = data.draw(histories(case))
        first = data.draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))
        one = learn(case, [event for event, mine in zip(history, first, strict=True) if mine])
        other = learn(case, [event for event, mine in zip(history, first, strict=True) if not mine])
        whole = learn(case, history)
        assert_same_sums(one + other, whole)
        assert case.policy.fit(one + other)(some_context(case), case.everyone) == pytest.approx(
            case.policy.fit(whole)(some_context(case), case.everyone), abs=1e-9
        )

    @quick
    @given(data=st.data())
    def test_forward_decay_is_sequential_discounting(self, case: Case, data: st.DataObject) -> None:
        history = data.draw(histories(case))
        rounding = 1e-12 * max((np.abs(delta(case, event)).max() for event in history), default=0.0)
        np.testing.assert_allclose(decayed(case, history), discounted(case, history), rtol=1e-12, atol=rounding)

    @pytest.mark.parametrize("seed", range(4))
    def test_a_policy_cannot_tell_forward_decay_from_discounting(self, case: Case, seed: int) -> None:
        history = untied_history(case, seed)
        p = case.policy.fit(discounted(case, history))(some_context(case), case.everyone)
        assert case.policy.fit(decayed(case, history))(some_context(case), case.everyone) == pytest.approx(p, abs=1e-9)

    def test_a_delta_is_one_row(self, case: Case) -> None:
        for propensity in (1.0, 0.5, 5e-324):
            row = case.policy.delta(0.5, some_context(case), propensity)
            assert row.shape == (case.policy.width,)
            assert tuple(row[:3]) == (1.0, 0.5, 0.25), "a row begins with n, Σr and Σr²"
            assert row.dtype == np.float64
            assert np.isfinite(row).all()

    def test_a_reward_of_zero_is_learnt_from_too(self, case: Case) -> None:
        assert case.policy.delta(0.0, some_context(case), 0.5).any()

    # What may share it

    def test_a_fitted_policy_keeps_what_it_was_fitted_to(self, case: Case) -> None:
        sums = learn(case, some_history(case))
        kept = sums.copy()
        fitted = case.policy.fit(sums)
        assert np.array_equal(sums, kept), "fit changed the sums"
        sums[:] = np.nan
        again = case.policy.fit(kept)
        for allowed in (case.everyone, np.arange(case.arms) > 0):
            assert np.array_equal(fitted(some_context(case), allowed), again(some_context(case), allowed))

    def test_a_caller_cannot_spoil_p_for_the_next(self, case: Case) -> None:
        fitted = case.policy.fit(learn(case, some_history(case)))
        p = fitted(some_context(case), case.everyone)
        kept = p.copy()
        if p.flags.writeable:
            p[:] = 7.0
        assert np.array_equal(fitted(some_context(case), case.everyone), kept)

    def test_threads_share_a_fitted_policy(self, case: Case) -> None:
        fitted = case.policy.fit(learn(case, some_history(case)))
        calls = [
            (event.context, np.roll(np.arange(case.arms) < 1 + i % case.arms, i))
            for i, event in enumerate(some_history(case, 200))
        ]
        alone = [fitted(*call).tobytes() for call in calls]
        fresh = case.policy.fit(learn(case, some_history(case)))
        with often_interrupted(), ThreadPoolExecutor(4) as threads:
            for together in threads.map(lambda _: [fresh(*call).tobytes() for call in calls], range(24)):
                assert together == alone

    def test_a_policy_is_a_frozen_value(self, case: Case) -> None:
        hash(case.policy)
        for field in fields(case.policy):  # type: ignore[arg-type]  # policies are dataclasses, which a Protocol hides
            with pytest.raises(FrozenInstanceError):
                setattr(case.policy, field.name, None)

    # What is drawn from it

    def test_arms_are_drawn_as_p_says(self, case: Case) -> None:
        p = case.policy.fit(learn(case, some_history(case)))(some_context(case), case.everyone)
        draw = sampler("contract", [f"arm-{k}" for k in range(case.arms)])
        drawn = np.bincount([draw(p, f"unit-{i}") for i in range(20_000)], minlength=case.arms)
        assert (drawn[p == 0] == 0).all()
        if np.count_nonzero(p) > 1:
            assert chisquare(drawn[p > 0], p[p > 0] * drawn.sum()).pvalue > 1e-4

    def test_a_unit_keeps_its_arm_until_that_is_ejected(self, case: Case) -> None:
        p = case.policy.fit(case.nothing)(some_context(case), case.everyone)
        draw = sampler("contract", [f"arm-{k}" for k in range(case.arms)])
        units = [f"unit-{i}" for i in range(500)]
        before = np.array([draw(p, unit) for unit in units])
        assert [draw(p, unit) for unit in units] == before.tolist()
        for ejected in np.flatnonzero((p > 0) & (p < 1)):
            rest = np.where(np.arange(case.arms) == ejected, 0.0, p)
            after = np.array([draw(rest / rest.sum(), unit) for unit in units])
            assert np.array_equal(after[before != ejected], before[before != ejected])
            assert ejected not in after

    def test_an_ejection_moves_a_unit_only_to_an_arm_that_gained_more(self, case: Case) -> None:
        """Where an arm that is no longer allowed changes what the policy thinks of the others."""
        fitted = case.policy.fit(learn(case, some_history(case)))
        draw = sampler("contract", [f"arm-{k}" for k in range(case.arms)])
        p = fitted(some_context(case), case.everyone)
        for ejected in range(case.arms):
            rest = fitted(some_context(case), np.arange(case.arms) != ejected)
            for unit in range(200):
                was, now = draw(p, f"unit-{unit}"), draw(rest, f"unit-{unit}")
                if was not in (now, ejected):
                    assert rest[now] * p[was] >= p[now] * rest[was] * (1 - 1e-12)

    # What it refuses

    def test_no_allowed_arm_is_refused(self, case: Case) -> None:
        with pytest.raises(ValueError, match=r"^allowed: "):
            case.policy.fit(case.nothing)(some_context(case), np.zeros(case.arms, dtype=bool))

    def test_a_mask_of_other_arms_is_refused(self, case: Case) -> None:
        with pytest.raises(ValueError, match=r"^allowed: "):
            case.policy.fit(case.nothing)(some_context(case), np.ones(case.arms + 1, dtype=bool))

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), -0.01, 1.01])
    def test_a_reward_outside_its_range_is_refused(self, case: Case, wrong: float) -> None:
        with pytest.raises(ValueError, match=r"^reward: ") as refusal:
            case.policy.delta(wrong, some_context(case), 0.5)
        assert str(wrong) not in str(refusal.value), "rewards are private"

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.5, 0.0, 1.01])
    def test_a_propensity_outside_its_range_is_refused(self, case: Case, wrong: float) -> None:
        with pytest.raises(ValueError, match=r"^propensity: "):
            case.policy.delta(1.0, some_context(case), wrong)

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
    def test_sums_that_are_not_finite_are_refused(self, case: Case, wrong: float) -> None:
        for column in range(case.policy.width):
            sums = learn(case, some_history(case))
            sums[1, column] = wrong
            with pytest.raises(ValueError, match=r"^sums: .*arm 1"):
                case.policy.fit(sums)

    def test_sums_of_another_shape_are_refused(self, case: Case) -> None:
        width = case.policy.width
        for shape in [(case.arms, width + 1), (width,), (0, width), (1, case.arms, width)]:
            with pytest.raises(ValueError, match=r"^sums: "):
                case.policy.fit(np.zeros(shape))

    def test_a_context_that_cannot_be_read_is_refused(self, case: Case) -> None:
        fitted = case.policy.fit(case.nothing)
        if not case.context:  # then any will do
            assert np.array_equal(fitted(np.full(3, np.nan), case.everyone), fitted(None, case.everyone))
            return
        for wrong in (None, np.zeros(case.context + 1), np.full(case.context, np.nan)):
            with pytest.raises(ValueError, match=r"^context: "):
                fitted(wrong, case.everyone)
            with pytest.raises(ValueError, match=r"^context: "):
                case.policy.delta(1.0, wrong, 0.5)

    @pytest.mark.parametrize("great", [1e80, 1e160, 1.7e308])
    def test_a_context_of_great_numbers_is_refused_or_harmless(self, case: Case, great: float) -> None:
        """Their squares are beyond float64, and what is not finite would spoil every later sum."""
        context = np.full(case.context, great) * np.resize([1.0, -1.0], case.context)
        fitted = case.policy.fit(learn(case, some_history(case)))
        with may_refuse("context"):
            assert_distribution(fitted(context, case.everyone), case.everyone)
        with may_refuse("context"):
            assert np.isfinite(case.policy.delta(1.0, context, 0.5)).all()

    def test_arrays_that_lie_otherwise_in_memory_are_read_right_or_refused(self, case: Case) -> None:
        """Machine code would read what lies between the numbers, or beyond them."""
        fitted = case.policy.fit(learn(case, some_history(case)))
        context, allowed = some_context(case), np.arange(case.arms) > 0
        p = fitted(context, allowed)
        others: list[tuple[Any, Any]] = [(context, np.repeat(allowed, 2)[::2])]
        if context is not None:
            contexts = np.repeat(context, 2)[::2], context[::-1].copy()[::-1], context[None, :], context.astype("f4")
            others += [(other, allowed) for other in contexts]
        for other in others:
            with may_refuse("context", "allowed"):
                assert np.array_equal(fitted(*other), p)


def assert_layouts(cases: Sequence[Case]) -> None:
    """A policy that changes in kind takes over the sums of its layout, and starts clean where that is another.

    So one layout is one meaning: of the same width, and with the same row for the same reward. Call it over all cases.
    """
    for one, other in product(cases, repeat=2):
        if one.policy.layout != other.policy.layout:
            continue
        assert one.policy.width == other.policy.width
        assert one.context == other.context
        for event in some_history(one):
            assert np.array_equal(delta(one, event), delta(other, event))
        if one.arms == other.arms:
            p = other.policy.fit(learn(one, some_history(one)))(some_context(one), one.everyone)
            assert_distribution(p, one.everyone)
