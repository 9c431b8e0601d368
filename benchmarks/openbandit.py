"""Two experiments of the Open Bandit Pipeline (obp), set up as there, seeds and all; written anew, after its examples.

Y. Saito, S. Aihara, M. Matsutani, Y. Narita, "Open Bandit Dataset and Pipeline", NeurIPS 2021, Datasets and Benchmarks;
its repository's README, examples/multiclass and examples/quickstart/obd.ipynb.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, train_test_split

from bandits.beta import probability_best
from bandits.log import Log
from bandits.offline import Estimate
from benchmarks.packages import read

Matrix: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]

SEED = 12345
PACKAGE = "obp==0.4.1"
POSITIONS = 3
SLOPE_LIMITS = (10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0, math.inf)


def digits(seed: int, behaviour: Any, alpha_b: float, evaluation: Any, alpha_e: float) -> tuple[Log, Matrix, float]:
    """The digits as a bandit: the log of one classifier, what another would choose, and the true value of that.

    Both learn from 30 % of the digits and guess uniformly with 1 - alpha; the others are the log.
    """
    x, y = load_digits(return_X_y=True)
    x_train, x_log, y_train, y_log = train_test_split(x, y, test_size=0.7, random_state=seed)
    rows = np.arange(len(y_log))

    def softened(classifier: Any, alpha: float) -> Matrix:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it was published so
            label = classifier.fit(x_train, y_train).predict(x_log)
        p = np.full((len(rows), 10), (1.0 - alpha) / 10)
        p[rows, label] = alpha + (1.0 - alpha) / 10
        return p

    p, target = softened(behaviour, alpha_b), softened(evaluation, alpha_e)
    u = np.random.RandomState(seed).uniform(size=len(rows))  # the published log was drawn from it
    arms = (p.cumsum(axis=1) > u[:, None]).argmax(axis=1)
    log = Log(arms, (arms == y_log).astype(np.float64), p[rows, arms], K=10, contexts=x_log)
    return log, target, float(target[rows, y_log].mean())


def boosted_predictions(log: Log) -> Matrix:
    """The reward model of the table of 30 runs: boosted trees on context and arm, in three folds."""
    q = np.empty((len(log), log.K))
    arm = np.eye(log.K)
    for fit, ask in KFold(3, shuffle=True, random_state=SEED).split(log.rewards):
        trees = GradientBoostingClassifier(
            n_estimators=30, learning_rate=0.01, max_depth=5, min_samples_leaf=10, random_state=SEED
        )
        trees.fit(np.c_[_contexts(log)[fit], arm[log.arms[fit]]], log.rewards[fit])
        for k in range(log.K):
            q[ask, k] = trees.predict_proba(np.c_[_contexts(log)[ask], np.tile(arm[k], (len(ask), 1))])[:, 1]
    return q


def slope(estimates: Mapping[float, Estimate]) -> float:
    """The value at the lowest limit that still agrees with all higher ones, as the table of 30 runs takes it.

    Y. Su, P. Srinath, A. Krishnamurthy, "Adaptive estimator selection for off-policy evaluation", ICML 2020, with the
    rule of G. Tucker, J. Lee, "Improved estimator selection for off-policy evaluation", 2021.
    """
    decile = 1.2816  # of the normal distribution; obp takes Student's, which is the same for so many rows
    agreed: list[Estimate] = []
    for limit in sorted(estimates, reverse=True):
        low = estimates[limit]
        widths = [decile * (low.error + (math.sqrt(6.0) - 1.0) * high.error) for high in agreed]
        if any(abs(low.value - high.value) > width for high, width in zip(agreed, widths, strict=True)):
            break
        agreed.append(low)
    return agreed[-1].value


@dataclass(frozen=True)
class Shop:
    """A fashion shop's front page, 10,000 rounds among 80 items in three positions: campaign "all", small sample."""

    log: Log
    """Logged uniformly; a context holds the user's categories, one of each left out."""
    position: Indices
    """On the page, 0 to 2, of each row."""
    items: Matrix
    """[80, 4], what obp's reward model knows of them."""
    alpha: Matrix
    beta: Matrix
    """The priors [80] of the Thompson sampling that the shop ran beside it."""
    earned: Matrix
    """The rewards that this earned, out of its own log."""


def shop() -> Shop:
    """Read it out of the package."""

    def table(member: str) -> list[dict[str, str]]:
        return list(csv.DictReader(read(PACKAGE, f"obp/dataset/obd/{member}").decode().splitlines()))

    rows = sorted(table("random/all/all.csv"), key=lambda row: row["timestamp"])
    users = [name for name in rows[0] if name.startswith("user_feature")]
    contexts = [
        [float(row[name] == value) for row in rows]
        for name in users
        for value in sorted({row[name] for row in rows})[1:]
    ]
    items = table("random/all/item_context.csv")
    categories = [np.unique([row[f"item_feature_{i}"] for row in items], return_inverse=True)[1] for i in (1, 2, 3)]
    prior = yaml.safe_load(read(PACKAGE, "obp/policy/conf/prior_bts.yaml"))["all"]
    return Shop(
        log=Log(
            np.array([int(row["item_id"]) for row in rows]),
            np.array([float(row["click"]) for row in rows]),
            np.array([float(row["propensity_score"]) for row in rows]),
            K=len(items),
            contexts=np.array(contexts).T,
        ),
        position=np.array([int(row["position"]) - 1 for row in rows]),
        items=np.column_stack([*categories, [float(row["item_feature_0"]) for row in items]]),
        alpha=np.array(prior["alpha"], dtype=np.float64),
        beta=np.array(prior["beta"], dtype=np.float64),
        earned=np.array([float(row["click"]) for row in table("bts/all/all.csv")]),
    )


def logistic_predictions(page: Shop) -> Matrix:
    """The reward model of the quickstart: for each position a logistic regression on user and item, in three folds."""
    log, x = page.log, _contexts(page.log)
    q = np.empty((len(log), log.K))
    for fold in KFold(3, shuffle=True, random_state=SEED).split(log.rewards):
        for position in range(POSITIONS):
            fit, ask = (rows[page.position[rows] == position] for rows in fold)
            # Far down: scikit-learn stops earlier by default than it did when the figures were published.
            model = LogisticRegression(max_iter=1000, random_state=SEED, tol=1e-9)
            model.fit(np.c_[x[fit], page.items[log.arms[fit]]], log.rewards[fit])
            for arm in range(log.K):
                q[ask, arm] = model.predict_proba(np.c_[x[ask], np.tile(page.items[arm], (len(ask), 1))])[:, 1]
    return q


def simulated_ranks(alpha: Matrix, beta: Matrix, draws: int = 100_000) -> Matrix:
    """[K, 3]: how often each item came first, second and third in obp's simulation."""
    rng = np.random.RandomState(SEED)  # the published one
    counts = np.zeros((len(alpha), POSITIONS))
    for _ in range(draws // 10_000):
        ranked = np.argsort(-rng.beta(alpha, beta, size=(10_000, len(alpha))), axis=1)
        for position in range(POSITIONS):
            counts[:, position] += np.bincount(ranked[:, position], minlength=len(alpha))
    return counts / draws


def exact_ranks(alpha: Matrix, beta: Matrix) -> Matrix:
    """[K, 3]: the probabilities of each item to come first, second and third.

    What is best without j is best of all, or second behind j; so the sum over j gives the second. That over pairs
    gives the third in the same way.
    """
    K = len(alpha)

    def best_without(*out: int) -> Matrix:
        rest = np.delete(np.arange(K), out)
        p = np.zeros(K)
        p[rest] = probability_best(alpha[rest], beta[rest])
        return p

    first, ones, twos = best_without(), np.zeros(K), np.zeros(K)
    for j in range(K):
        ones += best_without(j)
        for i in range(j):
            twos += best_without(i, j)
    second = ones - (K - 1) * first
    third = twos - (K - 2) * second - (K - 1) * (K - 2) / 2 * first
    return np.clip(np.column_stack([first, second, third]), 0.0, 1.0)


def _contexts(log: Log) -> Matrix:
    assert log.contexts is not None
    return log.contexts
