"""Does off-policy evaluation tell the truth? Ours beside the figures that the Open Bandit Pipeline (obp) publishes.

Digits: scikit-learn's digits turned into a bandit, where the truth is known. One run is reproduced to the last digit,
the table of 30 runs within its error: the classifiers have moved on since it was made.
Open Bandit: a shop's uniform log is asked for the value of the shop's Thompson sampling. With the probabilities that
obp simulates, all published digits are reproduced; then the exact ones are taken.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from bandits.offline import Estimate, Evaluation, evaluate
from benchmarks.openbandit import (
    SEED,
    SLOPE_LIMITS,
    Matrix,
    boosted_predictions,
    digits,
    exact_ranks,
    logistic_predictions,
    shop,
    simulated_ranks,
    slope,
)

PUBLISHED = {
    "digits: value of the target": "0.9634340222575517",
    "digits: ips, relative error": "0.01827255896321327",
    "Open Bandit: ips": "0.004553",
    "Open Bandit: ips over the log's mean": "1.198126",
    "Open Bandit: dm": "0.003545",
    "Open Bandit: dr": "0.004727",
}
"""What is claimed to the last digit."""

RUNS = 30
DIGITS = {
    "ips": (0.030288, 0.024506),
    "snips": (0.022764, 0.017917),
    "dm": (0.436541, 0.017629),
    "dr": (0.016156, 0.012679),
    "switch_dr": (0.034657, 0.018575),
    "dr_os": (0.015868, 0.012537),
}
"""Published mean and standard deviation of the relative error over the runs."""

OPEN_BANDIT = {"ips": "0.001531 to 0.009254", "dm": "0.003501 to 0.003589", "dr": "0.001702 to 0.009416"}
"""Published 95 % intervals, by bootstrap."""


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    claims: dict[str, str]
    theirs: dict[str, Estimate]
    """Relative error on the digits with obp's reward model and choice of limits: mean and standard error."""
    ours: dict[str, Estimate]
    """The same with the defaults of `evaluate`."""
    runs: int
    shop: Evaluation
    """With obp's reward model, of the exact probabilities."""
    earned: Estimate
    """What the shop's Thompson sampling earned, by its own log."""
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """The claims that do not hold."""
        return [name for name, published in PUBLISHED.items() if self.claims[name] != published]


def digits_once() -> dict[str, str]:
    """The run that is published to the last digit."""
    log, target, truth = digits(
        SEED, LogisticRegression(random_state=SEED), 0.8, RandomForestClassifier(random_state=SEED), 1.0
    )
    error = abs((truth - evaluate(log, target).ips.value) / truth)
    return {"digits: value of the target": repr(truth), "digits: ips, relative error": repr(error)}


def digits_often(runs: int) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Relative errors by estimator, theirs and ours."""
    theirs: dict[str, list[float]] = {}
    ours: dict[str, list[float]] = {}
    for run in range(runs):
        log, target, truth = digits(
            run,
            LogisticRegression(max_iter=10_000, C=100, random_state=SEED),
            0.4,
            RandomForestClassifier(n_estimators=30, max_depth=5, min_samples_leaf=10, random_state=SEED),
            0.9,
        )
        q = boosted_predictions(log)
        by_limit = {limit: evaluate(log, target, predictions=q, tau=limit, lam=limit) for limit in SLOPE_LIMITS}
        for name, estimate in evaluate(log, target).estimates.items():
            value = slope({limit: tried.estimates[name] for limit, tried in by_limit.items()})
            theirs.setdefault(name, []).append(abs(value - truth) / truth)
            ours.setdefault(name, []).append(abs(estimate.value - truth) / truth)
        print(f"digits: run {run + 1}/{runs}", file=sys.stderr, flush=True)
    return (
        {name: mean(np.array(errors)) for name, errors in theirs.items()},
        {name: mean(np.array(errors)) for name, errors in ours.items()},
    )


def mean(values: Matrix) -> Estimate:
    """With its standard error."""
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))


def measure(runs: int) -> Report:
    """Everything, with the progress on stderr."""
    start = time.perf_counter()
    claims = digits_once()
    theirs, ours = digits_often(runs)

    print("Open Bandit: the reward model", file=sys.stderr, flush=True)
    page = shop()
    q = logistic_predictions(page)
    published = evaluate(page.log, simulated_ranks(page.alpha, page.beta).T[page.position], predictions=q)
    claims["Open Bandit: ips"] = f"{published.ips.value:.6f}"
    claims["Open Bandit: ips over the log's mean"] = f"{published.ips.value / page.log.rewards.mean():.6f}"
    claims["Open Bandit: dm"] = f"{published.dm.value:.6f}"
    claims["Open Bandit: dr"] = f"{published.dr.value:.6f}"

    print("Open Bandit: exact probabilities of three positions", file=sys.stderr, flush=True)
    target = exact_ranks(page.alpha, page.beta).T[page.position]
    return Report(
        claims=claims,
        theirs=theirs,
        ours=ours,
        runs=runs,
        shop=evaluate(page.log, target, predictions=q, floor=1 / page.log.K),
        earned=mean(page.earned),
        seconds=time.perf_counter() - start,
    )


def show(report: Report) -> None:
    """The tables."""

    def row(*cells: object) -> None:
        print("".join(f"{cell!s:<38}" if i == 0 else f"{cell!s:<22}" for i, cell in enumerate(cells)).rstrip())

    def spread(estimate: Estimate) -> str:
        return f"{estimate.value:.4f} ± {estimate.error:.4f}"

    row("to the last digit", "ours", "published")
    for name, published in PUBLISHED.items():
        row(name, report.claims[name], published, "" if report.claims[name] == published else "DIFFERS")
    print()
    row(
        f"digits: relative error, {report.runs} runs",
        "as obp sets it up",
        f"published, {RUNS} runs",
        "with our defaults",
    )
    for name, ours in report.ours.items():
        published = "-"
        if name in DIGITS:
            published = spread(Estimate(DIGITS[name][0], DIGITS[name][1] / math.sqrt(RUNS)))
        row(name, spread(report.theirs[name]), published, spread(ours))
    print()
    row("Open Bandit: exact probabilities", "ours", "published interval, 95 %")
    for name, estimate in report.shop.estimates.items():
        row(name, f"{estimate.value:.6f} ± {estimate.error:.6f}", OPEN_BANDIT.get(name, "-"))
    row("what it earned", f"{report.earned.value:.6f} ± {report.earned.error:.6f}")
    row("interval valid at all times", f"{report.shop.low:.6f} to {report.shop.high:.6f}")
    overlap = report.shop.overlap
    row("effective rows of 10,000", f"{overlap.effective_rows:.0f}")
    row("mean weight", spread(Estimate(overlap.mean_weight, overlap.mean_weight_error)))
    row("largest weight", f"{overlap.largest_weight:.1f}")
    row("coverage", f"{overlap.coverage:.4f}")
    row("can the log answer?", "yes" if overlap.answerable else overlap.why)
    print(f"± standard error; {report.seconds:.0f} s")


def main() -> int:
    """Prints the tables; returns 1 when a figure differs that is claimed to the last digit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ope", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"5 runs of the table instead of {RUNS}")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    with threadpool_limits(1):  # the matrices are small
        report = measure(5 if arguments.quick else RUNS)
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        show(report)
    for name in report.wrong:
        print(f"{name}: {report.claims[name]} instead of {PUBLISHED[name]}", file=sys.stderr)
    return bool(report.wrong)


if __name__ == "__main__":
    sys.exit(main())
