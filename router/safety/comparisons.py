"""An arm against the champion, from sums that merge by addition, however the probabilities of the two move.

Error rates rise and fall with the hour, and a canary's share with its steps: whoever pools both arms' calls and divides
takes a busy hour for a bad arm. Two ways around it, each with the probabilities that the calls were drawn by.

Odds, for what is rare and counted: whose was each failure? While the arm fails at most `times` as often as the
champion, whatever the hour and the context, a failure of one of the two is the arm's with probability at most

    q = times·p_arm / (times·p_arm + p_champion)

so its failures less the q of all failures of both fall in expectation, and Bennett's inequality bounds them at all
times. Calls that succeed need not be looked at. Exact for any number of failures; for a constant q, the idea is that of
M. Lindon, C. Sanden, V. Shirikian, "Rapid regression detection in software deployments through sequential testing",
KDD 2022.

Weighed rows, for means: what `bandits.anytime.difference` judges, put together from sums of each arm, so that a
correction can be subtracted and the arms' means, for predictions, need not be known beforehand. Right in the limit, as
`difference` is: `benchmarks.canary` measures how right.
"""

from __future__ import annotations

import math

import numpy as np

from bandits.anytime import Guardrail
from bandits.anytime.boundaries import GammaPoissonMixture
from bandits.anytime.scores import UNSEEN
from router.call import Vector

FAILURES = 5.0
"""The intrinsic time near which the odds are judged most sharply: some ten failures."""

WEIGHED = 8
"""Numbers in a weighed row: 1, x, x², 1/p, x/p, 1/p², x/p² and x²/p²."""


def odds_row(times: float, p_arm: float, p_champion: float) -> Vector:
    """What a failure of one of the two adds to the row of whose it is: 1, q and q (1 - q)."""
    expected = times * p_arm
    q = expected / (expected + p_champion)
    return np.array([1.0, q, q * (1.0 - q)])


def odds_guardrail(name: str, arm: Vector, champion: Vector, *, alpha: float) -> Guardrail:
    """The arm's part of the failures of both, where q on average is the limit. Rows are those of the two, summed.

    Either end of its interval alone is wrong with probability alpha at most.
    """
    failures, expected, variance = (arm + champion).tolist()
    if failures == 0.0:
        return Guardrail(name, 0.0, 1.0, 1.0)
    radius = GammaPoissonMixture(FAILURES, 1.0, alpha).boundary(variance)
    low, high = (float(arm[0]) + end for end in (-radius, radius))
    return Guardrail(name, max(0.0, low / failures), min(1.0, high / failures), expected / failures)


def weighed_row(x: float, propensity: float) -> Vector:
    """What an outcome x in [0, 1] adds to the row of the arm that was drawn, shape [8]."""
    w = 1.0 / propensity
    return np.array([1.0, x, x * x, w, x * w, w * w, x * w * w, x * x * w * w])


def difference_row(arm: Vector, champion: Vector, n: float) -> Vector:
    """The row, shape [7], that `difference` judges: the arm's mean less the champion's, over n decisions.

    Those are all decisions at which both could be drawn and whose outcome is due, also of other arms. It is that of
    `aipw_terms` with each arm's weighted mean Σ(x/p) / Σ(1/p) for its prediction. The variance foreseen is that of
    `aipw_terms` too, as if the arm's outcomes had come evenly: without it, an arm that was drawn seldom and has not
    failed yet would be taken for certain. One that was never drawn has no plays in the row, so nothing is said of it.
    """
    means, squares, foreseen = np.zeros(2), 0.0, 0.0
    for k, (plays, total, square, w, xw, ww, xww, xxww) in enumerate((arm, champion)):
        if plays == 0.0:
            continue
        mean = means[k] = xw / w
        squares += max(0.0, xxww - 2.0 * mean * xww + mean * mean * ww)
        around = max(0.0, square - total * total / plays)
        unsure = math.log1p(plays / (UNSEEN - 0.5)) / plays  # mean of 1 / (UNSEEN + i) over the i plays before each
        foreseen += ww * (UNSEEN / 4.0 * unsure + around / plays * (1.0 - UNSEEN * unsure))
    effect = means[0] - means[1]
    return np.array([n, n * effect, n * effect * effect + squares, squares, foreseen, arm[0], champion[0]])
