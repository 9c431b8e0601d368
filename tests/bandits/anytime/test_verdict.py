from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from bandits.anytime.differences import FEWEST, difference, difference_sequence
from bandits.anytime.rates import rate_interval
from bandits.anytime.scores import TERMS, aipw_terms
from bandits.anytime.verdict import Guardrail, Rules, difference_guardrail, rate_guardrail

RULES = Rules()
WELL = Guardrail("errors", 0.001, 0.009, 0.01)
UNSETTLED = Guardrail("errors", 0.001, 0.02, 0.01)
BROKEN = Guardrail("errors", 0.02, 0.03, 0.01)


def terms(rng: np.random.Generator, n: int, champion: float, challenger: float) -> np.ndarray:
    arms = rng.integers(0, 2, n)
    rewards = (rng.random(n) < np.array([champion, challenger])[arms]).astype(float)
    return aipw_terms(arms, rewards, np.full(n, 0.5), 1, 0)


def row(champion: float, challenger: float, n: int = 10_000) -> np.ndarray:
    summed: np.ndarray = terms(np.random.default_rng(1), n, champion, challenger).sum(axis=0)
    return summed


BETTER, WORSE, ALIKE = row(0.2, 0.3), row(0.3, 0.2), row(0.25, 0.25)


# The rules


def test_a_better_challenger_is_promoted_once_every_guardrail_is_kept() -> None:
    promoted = RULES.judge(BETTER, guardrails=[WELL])
    assert promoted.kind == "promote"
    assert promoted.difference == difference(BETTER)
    assert promoted.difference.low > 0
    assert promoted.guardrails == (WELL,)
    assert RULES.judge(BETTER).kind == "promote"
    waiting = RULES.judge(BETTER, guardrails=[WELL, UNSETTLED])
    assert waiting.kind == "continue"
    assert "errors: perhaps above the limit of 0.01, between 0.001 and 0.02" in waiting.because


def test_a_worse_challenger_is_stopped_once_it_is_worse_by_the_margin() -> None:
    assert RULES.judge(WORSE).kind == "stop"
    assert Rules(margin=0.05).judge(WORSE).kind == "stop"
    assert Rules(margin=0.15).judge(WORSE).kind == "futile"
    assert Rules(margin=0.1).judge(WORSE).kind == "continue"


def test_a_broken_guardrail_stops_whatever_the_rewards_the_log_and_the_hour() -> None:
    assert RULES.judge(BETTER, guardrails=[WELL, BROKEN]).kind == "stop"
    assert RULES.judge(BETTER, guardrails=[BROKEN], mismatch=100.0).kind == "stop"
    early = RULES.judge(np.zeros(TERMS), guardrails=[rate_guardrail("errors", 30, 40, 0.01)])
    assert early.kind == "stop"
    assert early.because.startswith("A guardrail is broken. errors: above the limit of 0.01")


def test_no_good_news_counts_while_the_log_is_wrong() -> None:
    for mismatch in (math.log(1000), 50.0, math.inf):
        doubted = RULES.judge(BETTER, mismatch=mismatch)
        assert doubted.kind == "continue"
        assert doubted.because.startswith("The log is wrong")
    assert Rules(margin=0.1).judge(ALIKE, mismatch=50.0).kind == "continue"
    assert RULES.judge(WORSE, mismatch=50.0).kind == "stop"
    assert RULES.judge(BETTER, mismatch=math.log(999)).kind == "promote"


def test_equal_arms_are_futile_where_a_margin_says_what_would_matter() -> None:
    assert Rules(margin=0.05).judge(ALIKE).kind == "futile"
    assert Rules(margin=0.01).judge(ALIKE).kind == "continue"
    assert RULES.judge(ALIKE).kind == "continue"


def test_a_cheaper_challenger_is_promoted_when_it_is_not_worse_by_the_margin() -> None:
    cheaper = Rules(margin=0.05, non_inferior=True)
    assert cheaper.judge(ALIKE, guardrails=[WELL]).kind == "promote"
    assert cheaper.judge(ALIKE, guardrails=[UNSETTLED]).kind == "continue"
    assert cheaper.judge(WORSE).kind == "stop"
    assert "not worse by 0.05" in cheaper.judge(ALIKE).because


def test_too_early_is_no_verdict() -> None:
    for n in (0, 1, FEWEST - 1):
        early = RULES.judge(row(0.0, 1.0, n))
        assert early.kind == "continue"
        assert early.because == f"Too early to tell: {n} decisions so far, 100 and 20 plays of each arm are wanted."


def test_alpha_is_shared_by_the_challengers() -> None:
    alone, one_of_four = RULES.judge(BETTER), Rules(challengers=4).judge(BETTER)
    assert one_of_four.alpha == 0.0125
    assert one_of_four.difference == difference(BETTER, alpha=0.0125)
    assert one_of_four.difference.low < alone.difference.low


# What is said


def test_the_sentence_has_the_numbers_that_justify_it() -> None:
    promoted = RULES.judge(BETTER, guardrails=[WELL], matured=0.93)
    known = promoted.difference
    assert promoted.because == (
        f"The challenger is better: the difference is {known.effect:+.4g}, at all times between {known.low:+.4g} and "
        f"{known.high:+.4g} with 0.95 confidence (n = 10,000, e-value 10^{known.log_evidence / math.log(10):.0f}). "
        "Every guardrail is kept. Of the rewards, 93% are due."
    )
    assert str(promoted) == f"promote: {promoted.because}"
    assert "e-value 0." in RULES.judge(ALIKE).because
    assert "e-value infinite" in RULES.judge(BETTER, mismatch=math.inf).because


def test_a_verdict_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        RULES.judge(BETTER).kind = "stop"  # type: ignore[misc]


# Guardrails


def test_a_rate_is_guarded_by_its_interval() -> None:
    guardrail = rate_guardrail("errors", 3, 2000, 0.01)
    assert (guardrail.low, guardrail.high) == rate_interval(3, 2000, alpha=0.01, tightest_at=1000)
    assert guardrail.kept
    assert not guardrail.broken
    assert rate_guardrail("errors", 60, 2000, 0.01).broken
    unknown = rate_guardrail("errors", 0, 0, 0.01)
    assert not unknown.kept
    assert not unknown.broken


def test_a_difference_is_guarded_by_its_interval() -> None:
    worse = difference_guardrail("latency", BETTER, 0.05)  # more of something bad
    assert worse.broken
    assert (worse.low, worse.high) == (difference(BETTER, alpha=0.01).low, difference(BETTER, alpha=0.01).high)
    assert difference_guardrail("latency", BETTER, 0.15).kept
    unknown = difference_guardrail("latency", np.zeros(TERMS), 0.05)
    assert not unknown.kept
    assert not unknown.broken


# What is promised


def ever(rules: Rules, rows: np.ndarray, kind: str) -> bool:
    """Looks now and then, and whenever the interval leaves out a margin."""
    low, high = difference_sequence(rows, alpha=rules.alpha / rules.challengers)
    promising = np.flatnonzero((low > 0) | (low > -rules.margin) | (high < 0) | (high < -rules.margin))[:5]
    looks = {*promising.tolist(), *np.geomspace(FEWEST, len(rows) - 1, 10).astype(int).tolist()}
    return any(rules.judge(rows[t]).kind == kind for t in looks)


def test_a_challenger_that_is_no_better_is_seldom_ever_promoted() -> None:
    """Nor stopped, where it is no worse, though looked at all the time."""
    rng = np.random.default_rng(2)
    promoted = stopped = 0
    for _ in range(200):
        rows = terms(rng, 2000, 0.2, 0.2).cumsum(axis=0)
        promoted += ever(RULES, rows, "promote")
        stopped += ever(RULES, rows, "stop")
    assert promoted / 200 <= 0.05
    assert stopped / 200 <= 0.05


def test_of_many_challengers_that_are_no_better_seldom_any_is_ever_promoted() -> None:
    rng = np.random.default_rng(3)
    rules = Rules(challengers=3)
    promoted = 0
    for _ in range(100):
        arms = rng.integers(0, 4, 2000)
        rewards = (rng.random(2000) < 0.3).astype(float)
        logs = [aipw_terms(arms, rewards, np.full(2000, 0.25), k, 0).cumsum(axis=0) for k in (1, 2, 3)]
        promoted += any(ever(rules, rows, "promote") for rows in logs)
    assert promoted / 100 <= 0.05


def test_a_challenger_that_is_worse_by_the_margin_is_seldom_ever_promoted_as_not_worse() -> None:
    rng = np.random.default_rng(4)
    rules = Rules(margin=0.1, non_inferior=True)
    promoted = sum(ever(rules, terms(rng, 2000, 0.3, 0.2).cumsum(axis=0), "promote") for _ in range(200))
    assert promoted / 200 <= 0.05


def test_clear_cases_are_settled() -> None:
    rng = np.random.default_rng(5)
    for champion, challenger, kind in ((0.2, 0.35, "promote"), (0.35, 0.2, "stop")):
        assert all(ever(RULES, terms(rng, 3000, champion, challenger).cumsum(axis=0), kind) for _ in range(20))


# What is refused


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"margin": -0.1}, "margin"),
        ({"margin": math.inf}, "margin"),
        ({"margin": math.nan}, "margin"),
        ({"non_inferior": True}, "margin"),
        ({"challengers": 0}, "challengers"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"tightest_at": 0.0}, "tightest_at"),
    ],
)
def test_rules_that_cannot_be_are_refused(settings: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        Rules(**settings)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mismatch: "):
        RULES.judge(BETTER, mismatch=math.nan)
    with pytest.raises(ValueError, match=r"^matured: "):
        RULES.judge(BETTER, matured=1.5)
    with pytest.raises(ValueError, match=r"^row: "):
        RULES.judge(np.zeros(3))
