"""How likely each arm is to be the one that earns the most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandits import GaussianThompson, Mask, Policy, Thompson, TopTwoThompson, beta, student
from bandits.anytime.differences import FEWEST, FEWEST_PLAYS
from bandits.overlap import overlap_of
from bandits.predictions import ridge_predictions
from bandits.wrapper import Wrapper
from router.answers.costs import costs_of
from router.answers.study import Study
from router.answers.units import spread
from router.answers.value import named
from router.call import Vector
from router.config import Route as Settings
from router.config.reward import Range
from router.learning.lift import LEAST, lift_layout
from router.safety.comparisons import WEIGHED, difference_row

POSTERIOR = "the policy's posterior"
WEIGHTED = "means weighted by propensities"
BY_UNIT = "means weighted by propensities in the log, with units taken for independent"
OVER_CONTEXTS = "the log, as if one arm had answered in all the contexts seen (doubly robust)"
OVER_CONTEXTS_BY_UNIT = f"{OVER_CONTEXTS}, with units taken for independent"


@dataclass(frozen=True, slots=True)
class Best:
    """The probabilities [K] and what they are told from; or None, and why nothing can be said."""

    p: Vector | None = None
    by: str = ""
    why: str = ""


def best_by_log(policy: Policy, study: Study, settings: Settings, answering: Mask, *, together: bool) -> Best | None:
    """What the log says of the best of the arms that are `answering`, one flag an arm; None where sums know better.

    A policy that reads contexts draws in most of them few arms with any probability to speak of, so decisions that
    could have drawn any are rare, and of no usual context. There the best is the arm that would have earned the most
    had it answered in all of the contexts that the log has seen. `together` says that units came back and their rewards
    go together: what takes each decision for a new draw is too sure then, so units are counted. The best is that with
    the greatest mean reward less its cost.
    """
    if policy.features:
        return _over_contexts(study, settings, answering, together=together)
    return _by_unit(study, settings, answering) if together else None


def best_by_sums(
    policy: Policy,
    learnt: Vector,
    sums: Mapping[tuple[str, str], Vector],
    settings: Settings,
    answering: Mask,
) -> Best:
    """What is known of the best of the arms that are `answering` from all decisions that there ever were.

    A policy of the Thompson family has a posterior: what it believes of `learnt`, its sums, which are net of cost.
    Others have none; for them each arm's mean is taken from `sums`, those of the route, at the decisions that could
    have drawn any arm, weighted by 1 / propensity so that it does not matter who was sent where, less its cost.
    """
    believed = _posterior(policy, learnt, answering)
    if believed is not None:
        return Best(believed, POSTERIOR)
    return _weighted(sums, settings, answering)


def _weighted(sums: Mapping[tuple[str, str], Vector], settings: Settings, answering: Mask) -> Best:
    """Near enough a weighted mean has a Student-t distribution: nothing is said before a hundred decisions."""
    reward = settings.reward
    arms = tuple(arm for arm, answers in zip(settings.arms, answering, strict=True) if answers)
    layout, nothing = lift_layout(arms, reward.low, reward.high), np.zeros(WEIGHED)
    rows = [sums.get((layout, arm), nothing) for arm in arms]
    n = float(sum(row[0] for row in rows))
    if why := _too_few(n, [float(row[0]) for row in rows], arms, "decisions that could have drawn any arm"):
        return Best(why=why)
    values = np.array([difference_row(row, nothing, n) for row in rows])
    variance = np.maximum(values[:, 3], values[:, 4]) / n**2  # what is seen, or what was foreseen
    means = values[:, 1] / n - _costs(settings)[answering]
    return Best(_greatest(means, variance, values[:, 5], answering), WEIGHTED)


def _by_unit(study: Study, settings: Settings, answering: Mask) -> Best:
    rows = np.flatnonzero(_rewarded(study) & (study.probabilities[:, answering] >= LEAST).all(axis=1))
    if why := _too_few_by_unit(study, rows, answering):
        return Best(why=why)
    shares, w = _shares(study, rows, settings.reward), 1.0 / study.propensities[rows]
    means, variances, units = [], [], []
    for k in np.flatnonzero(answering):
        mine = study.chosen[rows] == k
        mean = float(w[mine] @ shares[mine] / w[mine].sum())
        m, variance = spread(study.units[rows[mine]], w[mine] * (shares[mine] - mean))
        means.append(mean)
        variances.append(variance / w[mine].sum() ** 2)
        units.append(float(m))
    worths = np.array(means) - _costs(settings)[answering]
    return Best(_greatest(worths, np.array(variances), np.array(units), answering), BY_UNIT)


def _over_contexts(study: Study, settings: Settings, answering: Mask, *, together: bool) -> Best:
    """Each arm's mean of q + (reward - q) / p where it was drawn, q elsewhere, for the contexts that there were.

    The contexts are taken as they are, so what is unknown is what the arm did in them: the errors of q where it was
    drawn, which are independent between arms.
    """
    rows = np.flatnonzero(_rewarded(study) & study.allowed[:, answering].all(axis=1))
    if why := _too_few_by_unit(study, rows, answering) if together else _too_few_plays(study, rows, answering):
        return Best(why=why)
    log = study.log(rows, low=settings.reward.low, high=settings.reward.high)
    q = ridge_predictions(log)
    means, variances, plays = [], [], []
    for k in np.flatnonzero(answering):
        always = np.zeros((len(log), log.K))
        always[:, k] = 1.0
        w = log.weights(always)
        overlap = overlap_of(log, always, w)
        if not overlap.answerable:
            remedy = "a higher floor, or more decisions," if settings.floor else "a floor"
            why = f"What {study.arms[k]} would have earned in all contexts the log cannot tell; with {remedy} it could."
            return Best(why=f"{why} {named(overlap.why, study.arms)}")
        errors = w * (log.rewards - q[:, k])
        m, variance = spread(study.units[rows][log.arms == k], errors[log.arms == k])
        means.append(float((q[:, k] + errors).mean()))
        variances.append(variance / len(log) ** 2)
        plays.append(float(m))
    by = OVER_CONTEXTS_BY_UNIT if together else OVER_CONTEXTS
    worths = np.array(means) - _costs(settings)[answering]
    return Best(_greatest(worths, np.array(variances), np.array(plays), answering), by)


def _costs(settings: Settings) -> Vector:
    """What a decision for each arm costs, [K], in parts of the range of rewards."""
    costs = costs_of(settings)
    if costs is None:
        return np.zeros(len(settings.arms))
    scaled: Vector = costs / (settings.reward.high - settings.reward.low)
    return scaled


def _greatest(mean: Vector, variance: Vector, plays: Vector, answering: Mask) -> Vector:
    p = np.zeros(len(answering))
    p[answering] = student.probability_best(mean, np.maximum(np.sqrt(variance), 1e-12), plays - 1.0)
    p /= p.sum()
    return p


def _rewarded(study: Study) -> Mask:
    """Whether a decision tells what its arm earns without a propensity that nobody knows."""
    rewarded: Mask = study.rewarded & study.answered & ~study.stood_in
    return rewarded


def _shares(study: Study, rows: NDArray[np.intp], reward: Range) -> Vector:
    shares: Vector = np.clip((study.rewards[rows] - reward.low) / (reward.high - reward.low), 0.0, 1.0)
    return shares


def _too_few_plays(study: Study, rows: NDArray[np.intp], answering: Mask) -> str:
    plays = [float((study.chosen[rows] == k).sum()) for k in np.flatnonzero(answering)]
    return _too_few(len(rows), plays, _names(study, answering), "rewarded decisions at which every arm was allowed")


def _too_few_by_unit(study: Study, rows: NDArray[np.intp], answering: Mask) -> str:
    units = [float(len(np.unique(study.units[rows[study.chosen[rows] == k]]))) for k in np.flatnonzero(answering)]
    what = "rewarded units that could have been sent to any arm"
    return _too_few(len(np.unique(study.units[rows])), units, _names(study, answering), what)


def _names(study: Study, answering: Mask) -> tuple[str, ...]:
    return tuple(study.arms[k] for k in np.flatnonzero(answering))


def _too_few(n: float, plays: list[float], arms: tuple[str, ...], what: str) -> str:
    fewest = int(np.argmin(plays))
    if n >= FEWEST and plays[fewest] >= FEWEST_PLAYS:
        return ""
    return (
        f"It takes {FEWEST} {what}, and {FEWEST_PLAYS} of each arm; so far: {n:,.0f}, {plays[fewest]:,.0f} of them of "
        f"{arms[fewest]}."
    )


def _posterior(policy: Policy, learnt: Vector, answering: Mask) -> Vector | None:
    while isinstance(policy, Wrapper):
        policy = policy.policy
    if isinstance(policy, TopTwoThompson):
        policy = Thompson(policy.alpha, policy.beta)
    p = np.zeros(len(learnt))
    if isinstance(policy, Thompson):
        p[answering] = beta.probability_best(*policy.posterior(learnt[answering]))
    elif isinstance(policy, GaussianThompson):
        p[answering] = student.probability_best(*policy.posterior(learnt[answering]))
    else:
        return None
    p /= p.sum()
    return p
