"""What every policy owes its route. A new policy is one more Case in test_policies.py."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, dataclass, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bandits import Draw, Mask, Policy, Vector

quick = settings(max_examples=25, deadline=None)


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
    )
    return st.lists(event, max_size=40)


def masks(case: Case) -> st.SearchStrategy[Mask]:
    some = st.lists(st.booleans(), min_size=case.arms, max_size=case.arms).filter(any)
    return some.map(lambda allowed: np.array(allowed, dtype=bool))


def learn(case: Case, history: Iterable[Event]) -> Vector:
    sums = case.nothing
    for event in history:
        sums[event.arm] += case.policy.delta(event.reward, event.context, event.propensity)
    return sums


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
        )
        for _ in range(events)
    ]


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
        p = fitted(data.draw(contexts(case)), allowed)
        assert p.shape == (case.arms,)
        assert p.dtype == np.float64
        assert (p >= 0).all()
        assert (p[~allowed] == 0).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)

    def test_the_only_allowed_arm_has_probability_one(self, case: Case) -> None:
        fitted = case.policy.fit(learn(case, some_history(case)))
        for only in np.eye(case.arms, dtype=bool):
            assert fitted(some_context(case), only) == pytest.approx(only.astype(float), abs=1e-12)

    def test_nothing_learnt_is_a_legal_state(self, case: Case) -> None:
        p = case.policy.fit(case.nothing)(some_context(case), case.everyone)
        assert np.isfinite(p).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)

    # What it learns

    @quick
    @given(data=st.data())
    def test_rewards_may_arrive_in_any_order(self, case: Case, data: st.DataObject) -> None:
        history = data.draw(histories(case))
        shuffled = data.draw(st.permutations(history))
        assert np.array_equal(learn(case, history), learn(case, shuffled))

    @quick
    @given(data=st.data())
    def test_replicas_merge_by_addition(self, case: Case, data: st.DataObject) -> None:
        history = data.draw(histories(case))
        first = data.draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))
        one = learn(case, [event for event, mine in zip(history, first, strict=True) if mine])
        other = learn(case, [event for event, mine in zip(history, first, strict=True) if not mine])
        whole = learn(case, history)
        assert np.array_equal(one + other, whole)
        assert np.array_equal(
            case.policy.fit(one + other)(some_context(case), case.everyone),
            case.policy.fit(whole)(some_context(case), case.everyone),
        )

    def test_a_delta_is_one_row(self, case: Case) -> None:
        delta = case.policy.delta(1.0, some_context(case), 0.5)
        assert delta.shape == (case.policy.width,)
        assert tuple(delta[:3]) == (1.0, 1.0, 1.0), "a row begins with n, Σr and Σr²"
        assert delta.dtype == np.float64
        assert np.isfinite(delta).all()

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
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda call: fresh(*call).tobytes(), calls))
        assert together == alone

    def test_a_policy_is_a_frozen_value(self, case: Case) -> None:
        hash(case.policy)
        for field in fields(case.policy):  # type: ignore[arg-type]  # policies are dataclasses, which a Protocol hides
            with pytest.raises(FrozenInstanceError):
                setattr(case.policy, field.name, None)

    # What is drawn from it

    def test_arms_are_drawn_as_p_says(self, case: Case) -> None:
        p = case.policy.fit(learn(case, some_history(case)))(some_context(case), case.everyone)
        draw = Draw("contract", [f"arm-{k}" for k in range(case.arms)])
        drawn = np.bincount([draw(p, f"unit-{i}") for i in range(20_000)], minlength=case.arms)
        assert (drawn[p == 0] == 0).all()
        if np.count_nonzero(p) > 1:
            assert chisquare(drawn[p > 0], p[p > 0] * drawn.sum()).pvalue > 1e-4

    def test_a_unit_keeps_its_arm_until_that_is_ejected(self, case: Case) -> None:
        p = case.policy.fit(case.nothing)(some_context(case), case.everyone)
        draw = Draw("contract", [f"arm-{k}" for k in range(case.arms)])
        units = [f"unit-{i}" for i in range(500)]
        before = [draw(p, unit) for unit in units]
        assert [draw(p, unit) for unit in units] == before
        rest = np.where(np.arange(case.arms) == 0, 0.0, p)
        after = [draw(rest / rest.sum(), unit) for unit in units]
        assert [arm for arm, was in zip(after, before, strict=True) if was != 0] == [arm for arm in before if arm != 0]
        assert 0 not in after

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
