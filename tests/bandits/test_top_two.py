"""Top-two Thompson sampling, against the literal algorithm and the optimal shares of best-arm identification."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bandits import Thompson
from bandits.top_two import TopTwoThompson, another, challenge


def rows(*plays_and_rewards: tuple[float, float]) -> np.ndarray:
    return np.array([(n, r, r) for n, r in plays_and_rewards], dtype=float)


def p_of(policy: TopTwoThompson | Thompson, sums: np.ndarray) -> np.ndarray:
    return policy.fit(sums)(None, np.ones(len(sums), dtype=bool))


@pytest.mark.parametrize("leader", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("arms", [((10, 6), (12, 5), (3, 1)), ((40, 30), (20, 9), (2, 2), (0, 0)), ((9, 4), (9, 4))])
def test_arms_are_chosen_as_often_as_by_the_literal_algorithm(leader: float, arms: tuple[tuple[int, int], ...]) -> None:
    """Draw from the posteriors; with probability 1 - leader draw again until another arm wins."""
    rng = np.random.default_rng(11)
    n, r = np.array(arms).T
    drawn = np.zeros(len(arms))
    best = iter(rng.beta(1 + r, 1 + n - r, (400_000, len(arms))).argmax(axis=1))
    for stay in rng.random(20_000) < leader:
        arm = first = next(best)
        while not stay and arm == first:
            arm = next(best)
        drawn[arm] += 1
    p = p_of(TopTwoThompson(leader), rows(*arms))
    assert chisquare(drawn, p * drawn.sum()).pvalue > 1e-4


def test_a_leader_that_always_wins_is_thompson_sampling() -> None:
    sums = rows((28, 9), (28, 11), (5, 1))
    assert p_of(TopTwoThompson(leader=1.0), sums) == pytest.approx(p_of(Thompson(), sums), abs=1e-12)
    assert p_of(TopTwoThompson(1.0, alpha=2, beta=5), sums) == pytest.approx(p_of(Thompson(2, 5), sums), abs=1e-12)


def test_of_two_arms_the_second_draw_is_the_other() -> None:
    """p = leader q + (1 - leader) (1 - q), with the published q = .7073158208."""
    p = p_of(TopTwoThompson(0.8), rows((28, 9), (28, 11)))
    assert p[1] == pytest.approx(0.8 * 0.7073158208 + 0.2 * (1 - 0.7073158208), abs=1e-9)


def test_a_sure_leader_gets_its_share_and_the_likelier_challenger_the_most_of_the_rest() -> None:
    p = p_of(TopTwoThompson(0.6), rows((1e6, 7e5), (1e4, 5e3), (1e4, 4.9e3), (1e6, 2e5)))
    assert p == pytest.approx([0.6, 0.4, 0.0, 0.0], abs=1e-9)
    p = p_of(TopTwoThompson(0.6), rows((1e9, 7e8), (1e3, 500), (1e3, 500), (1e6, 2e5)))
    assert p == pytest.approx([0.6, 0.2, 0.2, 0.0], abs=1e-9)


def test_the_only_allowed_arm_gets_all() -> None:
    fitted = TopTwoThompson().fit(rows((28, 9), (1e9, 1e9)))
    assert fitted(None, np.array([True, False])).tolist() == [1, 0]


def test_forbidden_arms_do_not_compete() -> None:
    fitted = TopTwoThompson(0.8).fit(rows((28, 9), (1000, 990), (28, 11)))
    p = fitted(None, np.array([True, False, True]))
    assert p == pytest.approx(np.insert(p_of(TopTwoThompson(0.8), rows((28, 9), (28, 11))), 1, 0), abs=1e-12)


@pytest.mark.parametrize("plays", [250, 270, 300])
def test_large_deviations_take_over_without_a_jump(plays: float) -> None:
    """While the probabilities of the others are still resolved, both say nearly the same."""
    n = plays * np.array([1, 1, 0.5, 0.2])
    a = 1 + n * [0.8, 0.5, 0.45, 0.3]
    b = 2 + n - a
    q = p_of(Thompson(), np.column_stack([n, a - 1, a - 1]))
    assert 1e-13 < q[1:].sum() < 1e-10
    assert another(q, a, b) == pytest.approx(challenge(np.intp(0), a, b), abs=0.02)


wide = st.tuples(st.floats(0, 15).map(lambda x: 10**x), st.floats(0, 1)).map(lambda pair: (pair[0], pair[0] * pair[1]))


@settings(max_examples=60, deadline=None)
@given(st.lists(wide, min_size=2, max_size=5), st.floats(0.1, 1))
def test_p_is_a_distribution_however_sure_the_posteriors_are(arms: list[tuple[float, float]], leader: float) -> None:
    p = p_of(TopTwoThompson(leader), rows(*arms))
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert p.max() <= max(leader, 1 - leader) + 1e-9 or len(arms) > 2 or leader == 1


@pytest.mark.parametrize(
    ("rates", "optimal"),
    [
        ((0.5, 0.45, 0.43, 0.4), (0.4165, 0.3903, 0.1362, 0.0570)),
        ((0.3, 0.21, 0.2, 0.19, 0.18), (0.3359, 0.2515, 0.1766, 0.1324, 0.1036)),
    ],
)
def test_the_plays_go_to_where_the_best_arm_is_found_soonest(
    rates: tuple[float, ...], optimal: tuple[float, ...]
) -> None:
    """Garivier and Kaufmann, "Optimal best arm identification with fixed confidence", COLT 2016: the oracle's shares.

    When the leader's share is the oracle's, the others' become so too: over 500,000 plays, in batches. Most of them are
    chosen when float64 holds no probability of a challenger any more.
    """
    policy, shares = TopTwoThompson(leader=optimal[0]), []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        sums = np.zeros((len(rates), policy.width))
        for batch in [20] * 250 + [500] * 990:
            plays = rng.multinomial(batch, p_of(policy, sums))
            sums += np.column_stack([plays, *[rng.binomial(plays, rates)] * 2])
        shares.append(sums[:, 0] / sums[:, 0].sum())
    assert np.mean(shares, axis=0)[0] == pytest.approx(optimal[0], abs=0.005)
    assert np.mean(shares, axis=0) == pytest.approx(optimal, abs=0.02)


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_a_leader_that_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^leader: "):
        TopTwoThompson(leader=wrong)


@pytest.mark.parametrize("wrong", [0.0, 0.01, math.nan, math.inf])
def test_a_prior_outside_its_range_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha: "):
        TopTwoThompson(alpha=wrong)
    with pytest.raises(ValueError, match=r"^beta: "):
        TopTwoThompson(beta=wrong)
