from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.anytime.scores import TERMS, aipw_scores, aipw_terms, cuped

quick = settings(max_examples=50, deadline=None)

Log = tuple[np.ndarray, np.ndarray, np.ndarray]


@st.composite
def logs(draw: st.DrawFn, arms: int = 3) -> Log:
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(0, arms, n), rng.random(n), rng.uniform(0.05, 1.0, n)


def by_definition(arms, rewards, propensities, a, b, predictions):
    """Straight from the formula."""
    scores = []
    for t, (arm, reward, p) in enumerate(zip(arms, rewards, propensities, strict=True)):
        score = predictions[t, a] + (arm == a) * (reward - predictions[t, a]) / p
        if b is not None:
            score -= predictions[t, b] + (arm == b) * (reward - predictions[t, b]) / p
        scores.append(score)
    return scores


@quick
@given(log=logs(), b=st.sampled_from([None, 0, 2]), seed=st.integers(0, 99))
def test_scores_are_those_of_the_formula(log: Log, b: int | None, seed: int) -> None:
    m = np.random.default_rng(seed).random((len(log[0]), 3))
    assert aipw_scores(*log, 1, b, predictions=m) == pytest.approx(by_definition(*log, 1, b, m))


@quick
@given(log=logs())
def test_predictions_are_means_of_the_rewards_before_drawn_to_the_mean_of_all_arms(log: Log) -> None:
    arms, rewards, _ = log
    m = np.empty((len(arms), 3))
    for t in range(len(arms)):
        overall = rewards[:t].mean() if t else 0.5
        for k in range(3):
            own = rewards[:t][arms[:t] == k]
            m[t, k] = (own.sum() + overall) / (len(own) + 1)
    assert aipw_scores(*log, 1, 2) == pytest.approx(aipw_scores(*log, 1, 2, predictions=m))


@quick
@given(log=logs(), cut=st.floats(0, 1))
def test_a_log_can_be_cut_anywhere_when_the_rest_is_told_what_was_learnt(log: Log, cut: float) -> None:
    arms, rewards, propensities = log
    whole = aipw_terms(*log, 1, 0)
    i = int(cut * len(arms))
    sums = np.zeros((3, 3))
    np.add.at(sums, arms[:i], np.column_stack([np.ones(i), rewards[:i], rewards[:i] ** 2]))
    rest = aipw_terms(arms[i:], rewards[i:], propensities[i:], 1, 0, sums=sums)
    assert rest[:, [0, 1, 2, 3, 5, 6]] == pytest.approx(whole[i:, [0, 1, 2, 3, 5, 6]])


def test_the_terms_of_one_decision() -> None:
    m = np.array([[0.2, 0.5, 0.9]])
    treated = aipw_terms([1], [1.0], [0.25], 1, 0, predictions=m)
    assert treated[0] == pytest.approx([1, 2.3, 2.3**2, 4, 0.25 / 0.0625, 1, 0])
    control = aipw_terms([0], [1.0], [0.25], 1, 0, predictions=m)
    assert control[0] == pytest.approx([1, 0.3 - 3.2, 2.9**2, 3.2**2, 0.25 / 0.0625, 0, 1])
    neither = aipw_terms([2], [1.0], [0.25], 1, 0, predictions=m)
    assert neither[0] == pytest.approx([1, 0.3, 0.09, 0, 0, 0, 0])
    alone = aipw_terms([1], [1.0], [0.25], 1, predictions=m)
    assert alone[0] == pytest.approx([1, 2.5, 6.25, 4, 4, 1, 1])


def test_the_variance_foreseen_is_that_of_the_arms_rewards_and_of_four_half_a_range_off() -> None:
    n = 1000
    m = np.full((n, 2), 0.1)
    rewards = (np.arange(n) % 10 == 0).astype(float)
    terms = aipw_terms(np.zeros(n, int), rewards, np.full(n, 0.5), 0, 1, predictions=m)
    seen = np.cumsum((rewards - 0.1) ** 2) - (rewards - 0.1) ** 2
    assert terms[:, 4] == pytest.approx((1 + seen) / (4 + np.arange(n)) / 0.25)


@pytest.mark.parametrize("predictions", ["running means", "wrong"])
def test_the_mean_score_is_the_difference_however_the_arms_are_drawn(predictions: str) -> None:
    """Even where the drawing follows the rewards, and the predictions are far off."""
    rng = np.random.default_rng(3)
    means = np.array([0.2, 0.6, 0.9])
    total = []
    for _ in range(200):
        arms, rewards, propensities = np.empty(300, int), np.empty(300), np.empty(300)
        sums = np.ones(3)
        for t in range(300):
            p = 0.1 + 0.7 * sums / sums.sum()
            arms[t] = min(np.searchsorted(p.cumsum(), rng.random()), 2)
            propensities[t] = p[arms[t]]
            rewards[t] = rng.random() < means[arms[t]]
            sums[arms[t]] += rewards[t]
        m = np.tile([0.9, 0.1, 0.5], (300, 1)) if predictions == "wrong" else None
        total.append(aipw_scores(arms, rewards, propensities, 2, 0, predictions=m).mean())
    error = np.std(total) / np.sqrt(len(total))
    assert np.mean(total) == pytest.approx(0.7, abs=3 * error)
    assert error < 0.02


def test_cuped_narrows_by_the_square_of_the_correlation() -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(7.0, 2.0, 2000)
    Y = 0.4 * X + rng.normal(size=2000)
    adjusted = cuped(Y, X)
    rho = np.corrcoef(X, Y)[0, 1]
    assert np.var(adjusted) == pytest.approx(np.var(Y) * (1 - rho**2))
    assert adjusted.mean() == pytest.approx(Y.mean())
    assert np.array_equal(cuped(Y, X, slope=0.0), Y)
    assert cuped(Y, X, slope=0.4) == pytest.approx(Y - 0.4 * (X - X.mean()))
    assert np.array_equal(cuped([1.0, 2.0], [3.0, 3.0]), [1.0, 2.0])  # a constant explains nothing
    assert cuped([], []).shape == (0,)


def test_cuped_is_a_special_case_of_aipw() -> None:
    """Inverse-propensity scores of adjusted outcomes are AIPW scores whose predictions are θ(X - X̄), for every arm."""
    rng = np.random.default_rng(6)
    n = 500
    arms, X = rng.integers(0, 2, n), rng.normal(size=n)
    Y = 0.3 + 0.1 * arms + 0.5 * X + rng.normal(size=n)
    p = np.full(n, 0.5)
    adjusted = cuped(Y, X)
    weighted = aipw_scores(arms, adjusted, p, 1, 0, predictions=np.zeros((n, 2)))
    augmented = aipw_scores(arms, Y, p, 1, 0, predictions=np.column_stack([Y - adjusted] * 2))
    assert augmented == pytest.approx(weighted)


def test_no_decisions_make_no_terms() -> None:
    assert aipw_terms([], [], [], 1, 0).shape == (0, TERMS)
    assert np.array_equal(aipw_terms([], [], [], 1, 0).sum(axis=0), np.zeros(TERMS))


def test_what_is_given_is_not_written_to() -> None:
    sums = np.array([[4.0, 2.0, 1.5], [1.0, 1.0, 1.0]])
    before = sums.copy()
    aipw_terms([0, 1], [1.0, 0.0], [0.5, 0.5], 1, 0, sums=sums)
    assert np.array_equal(sums, before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arms": [0.5, 1.0]}, "arms: must be a vector of indices"),
        ({"arms": [[0, 1]]}, "arms: must be a vector of indices"),
        ({"arms": [0, -1]}, "arms: an index is below 0"),
        ({"arms": [0, 2], "sums": np.zeros((2, 3))}, "arms: an index is below 0, or above 1"),
        ({"rewards": [1.0]}, r"rewards: must have the shape \[2\]"),
        ({"rewards": [1.0, np.nan]}, "rewards: holds a number that is not finite"),
        ({"propensities": [0.5, 0.0]}, "propensities: "),
        ({"propensities": [0.5, 1.1]}, "propensities: "),
        ({"propensities": [0.5, np.inf]}, "propensities: "),
        ({"treatment": 0, "control": 0}, "treatment and control: "),
        ({"treatment": -1}, "treatment and control: "),
        ({"predictions": np.zeros((2, 1))}, r"predictions: must have the shape \[2, 2 or more\]"),
        ({"predictions": np.zeros((1, 2))}, "predictions: "),
        ({"predictions": np.full((2, 2), np.inf)}, "predictions: holds a number that is not finite"),
        ({"sums": np.zeros((2, 2))}, "sums: "),
        ({"sums": np.full((2, 3), np.nan)}, "sums: "),
        ({"sums": np.array([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]])}, "sums: no rewards"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict, message: str) -> None:
    given = {"arms": [0, 1], "rewards": [1.0, 0.0], "propensities": [0.5, 0.5], "treatment": 1, "control": 0} | wrong
    with pytest.raises(ValueError, match=f"^{message}"):
        aipw_terms(**given)


def test_cuped_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^covariate: "):
        cuped([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"^outcomes: "):
        cuped([1.0, np.nan], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"^slope: "):
        cuped([1.0, 2.0], [1.0, 2.0], slope=np.nan)
