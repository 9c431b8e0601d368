"""What every arm would have earned in every row of a log, predicted from the other rows."""

from __future__ import annotations

import math

import numpy as np

from bandits.log import Log
from bandits.policy import Vector


def ridge_predictions(log: Log, *, l2: float = 1.0, folds: int = 5) -> Vector:
    """Predict the reward of each arm, float[n, K] in [0, 1], for off-policy evaluation.

    Row i is in fold i mod `folds` and is predicted from the other folds, so that no prediction knows its own reward
    (V. Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal 2018). For each arm it is a ridge
    regression on the standardised contexts and a bias; `l2` draws it to the mean reward of those folds, which is what
    an arm gets that they never played. Without contexts it is a shrunken mean of the arm.
    Raises ValueError unless `l2` is above 0 and `folds` from 2 to n.
    """
    n = len(log)
    if not 0.0 < l2 < math.inf:
        raise ValueError(f"l2: must be above 0, got {l2}")
    if not 2 <= folds <= n:
        raise ValueError(f"folds: must be from 2 to the {n} rows of the log, got {folds}")
    x = _features(log)
    fold = np.arange(n) % folds
    q = np.empty((n, log.K))
    for held in range(folds):
        out, rest = fold == held, fold != held
        base = log.rewards[rest].mean()
        for arm in range(log.K):
            mine = rest & (log.arms == arm)
            A = x[mine].T @ x[mine] + l2 * np.eye(x.shape[1])
            q[out, arm] = base + x[out] @ np.linalg.solve(A, x[mine].T @ (log.rewards[mine] - base))
    return np.clip(q, 0.0, 1.0)


def running_means(log: Log) -> Vector:
    """Predict the reward of each arm, float[n, K] in [0, 1], from earlier rows alone: by the arm's mean so far.

    An arm's mean begins as one play with the mean reward of all, and that as one play with the reward 1/2.
    """
    rows = np.arange(len(log))
    rewards = np.zeros((len(log), log.K))
    rewards[rows, log.arms] = log.rewards
    plays = np.zeros((len(log), log.K))
    plays[rows, log.arms] = 1.0
    before = np.cumsum(rewards, axis=0) - rewards, np.cumsum(plays, axis=0) - plays
    base = (0.5 + before[0].sum(axis=1, keepdims=True)) / (1.0 + before[1].sum(axis=1, keepdims=True))
    mean: Vector = (base + before[0]) / (1.0 + before[1])
    return np.clip(mean, 0.0, 1.0)


def _features(log: Log) -> Vector:
    """A one and the standardised contexts: float[n, 1 + d]."""
    ones = np.ones((len(log), 1))
    if log.contexts is None:
        return ones
    greatest = np.abs(log.contexts).max(axis=0)
    x = log.contexts / np.where(greatest > 0.0, greatest, 1.0)  # first, so that no square overflows
    x -= x.mean(axis=0)
    deviation = x.std(axis=0)
    return np.hstack((ones, x / np.where(deviation > 0.0, deviation, 1.0)))
