"""Does it pay to know what is known today? The routes beside each other and beside single arms, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from protos.messages import Evaluation
from router.demo.replay import Replayed
from router.demo.routes import CONTEXTUAL, PLAIN, ROUTES, RULES
from runtime.finance import Samples
from runtime.finance.evaluation import Difference, correct, paired

SIGNIFICANT = 0.05
"""Differences that chance alone would make more seldom are called significant."""


@dataclass(frozen=True)
class Rival:
    """Whom the contextual route is compared with: what it earned on each row [n], and the difference, paired by day."""

    name: str
    right: NDArray[np.float64]
    difference: Difference  # contextual minus it


def rewards(label: NDArray[np.bool_], done: Replayed) -> NDArray[np.float64]:
    """1.0 where the answer was right and 0.0 where it was wrong, [n]; NaN where there was none."""
    right = correct(label, np.nan_to_num(done.probability).astype(np.float32))
    return np.where(done.answered, right, np.nan)


def rivals(
    samples: Samples,
    done: Mapping[str, Replayed],
    hindsight: Mapping[str, NDArray[np.float32]],
    picked: str,
) -> tuple[Samples, NDArray[np.float64], list[Rival]]:
    """The rows that all routes answered, what the contextual route earned on them, and its rivals.

    `hindsight` is what each arm would have answered on every row [n] of `samples`; `picked` is the arm that would have
    been sent everything, had one to be chosen before the first day.
    """
    every = np.logical_and.reduce([each.answered for each in done.values()])
    seen = samples.where(every)
    earned = {route: rewards(samples.label, each)[every] for route, each in done.items()}
    arms = {name: correct(seen.label, p[every]) for name, p in hindsight.items()}
    best = max(arms, key=lambda name: float(arms[name].mean()))
    others = {f"the {ROUTES[route]}": earned[route] for route in (PLAIN, RULES)}
    others[f"{best}, best in hindsight"] = arms[best]
    others[f"{picked}, validation's pick"] = arms[picked]
    own = earned[CONTEXTUAL]
    return seen, own, [Rival(name, right, paired(own, right, seen.day)) for name, right in others.items()]


def print_comparison(
    console: Console,
    samples: Samples,
    done: Mapping[str, Replayed],
    hindsight: Mapping[str, NDArray[np.float32]],
    picked: str,
    judged: Evaluation,
) -> None:
    """Prints the section. `judged` is what the plain route's log says about the contextual policy."""
    if not np.logical_and.reduce([each.answered for each in done.values()]).any():
        console.print("No row was answered by all routes, so they cannot be compared.")
        return
    seen, own, others = rivals(samples, done, hindsight, picked)
    console.print(_table(seen, own, others))
    console.print(
        "Calm and rough: after a month below or above the year's median. Differences are of the same forecasts, paired"
        f" by day; their intervals hold together, all {len(others)} at 95 %. Hindsight flatters the arm that it finds"
        " best. A route's draws differ from run to run, and so does what it earns."
    )
    for rival in others:
        console.print(in_words(rival, looks=len(others)))
    console.print(off_policy(judged, rewards(samples.label, done[CONTEXTUAL])))


def _table(seen: Samples, own: NDArray[np.float64], others: list[Rival]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for column in ("chosen by", "reward", "calm", "rough", "contextual less it", "p"):
        table.add_column(column, justify="left" if column == "chosen by" else "right")

    def means(right: NDArray[np.float64]) -> list[str]:
        parts = (right, right[~seen.turbulent], right[seen.turbulent])
        return [f"{part.mean():.4f}" if len(part) else "-" for part in parts]

    table.add_row(f"the {ROUTES[CONTEXTUAL]}", *means(own), "", "")
    for rival in others:
        table.add_row(
            rival.name, *means(rival.right), said(rival.difference, looks=len(others)), f"{rival.difference.p:.2g}"
        )
    return table


def interval(difference: Difference, *, looks: int) -> tuple[float, float]:
    """Low and high of one of several differences, whose intervals all hold together at 95 % (Bonferroni)."""
    half = NormalDist().inv_cdf(1 - SIGNIFICANT / looks / 2) * difference.error
    return difference.mean - half, difference.mean + half


def said(difference: Difference, *, looks: int) -> str:
    """A difference and its interval."""
    low, high = interval(difference, looks=looks)
    return f"{difference.mean:+.4f} ({low:+.4f} to {high:+.4f})"


def in_words(rival: Rival, *, looks: int) -> str:
    """What a comparison, one of several looks, means."""
    low, high = interval(rival.difference, looks=looks)
    fewest, most = (f"{abs(n):.0f} {'more' if n > 0 else 'fewer'}" for n in (1e3 * low, 1e3 * high))
    verdict = "NOT significant: chance alone could do this"
    if low > 0 or high < 0:
        verdict = f"Contextual routing was {'better' if low > 0 else 'worse'}, significantly"
    return f"Against {rival.name}: {fewest} to {most} right answers in 1000. {verdict}."


def off_policy(judged: Evaluation, earned: NDArray[np.float64]) -> str:
    """What the log of a route says that the contextual policy would earn, beside what it did earn [n], by row."""
    start = f"Off-policy check, from the log of {judged.route} alone:"
    if not judged.answerable:
        return f"{start} it cannot tell. {judged.why}"
    error = next(each.error for each in judged.estimators if each.name == "dr")
    newer = earned[-int(judged.judged_on) :]
    real, (low, high) = float(np.nanmean(newer)), (judged.value.low, judged.value.high)
    return (
        f"{start} having learnt from its older {judged.learnt_from:.0f} rewards, the contextual policy would earn"
        f" {judged.value.value:.4f} (standard error {error:.4f}; at all times: {low:.4f} to {high:.4f}) on the newer"
        f" {judged.judged_on:.0f}. In service, learning from its own rewards, it earned {real:.4f} on those days,"
        f" {'inside' if low <= real <= high else 'OUTSIDE'} the interval."
    )
