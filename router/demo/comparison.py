"""Does it pay to know what is known today? The routes beside each other and beside single arms, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from protos.messages import Evaluation
from router.demo.replay import Replayed
from router.demo.routes import CONTEXTUAL, PLAIN, ROUTES, RULES
from runtime.finance import Samples
from runtime.finance.evaluation import Z95, Difference, correct, paired

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
    others = {ROUTES[PLAIN]: earned[PLAIN], ROUTES[RULES]: earned[RULES]}
    others[f"{best}, the best arm in hindsight"] = arms[best]
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
        "Same rows, same rewards; differences are paired by day, their intervals are 95 % each. Four looks:\n"
        f"a difference counts as significant only below p = {SIGNIFICANT} / 4."
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

    table.add_row(ROUTES[CONTEXTUAL], *means(own), "", "")
    for rival in others:
        table.add_row(rival.name, *means(rival.right), said(rival.difference), f"{rival.difference.p:.2g}")
    return table


def said(difference: Difference) -> str:
    """A difference and its 95 % interval."""
    half = Z95 * difference.error
    return f"{difference.mean:+.4f} ({difference.mean - half:+.4f} to {difference.mean + half:+.4f})"


def in_words(rival: Rival, *, looks: int) -> str:
    """What a comparison, one of several looks, means."""
    mean, half = rival.difference.mean, Z95 * rival.difference.error
    if rival.difference.p < SIGNIFICANT / looks:
        verdict = f"Contextual routing did {'better' if mean > 0 else 'worse'}, and not by chance"
    else:
        verdict = "Not told apart"
    return (
        f"Against {rival.name}: {verdict}; of 1000 forecasts, {1e3 * (mean - half):+.0f} to {1e3 * (mean + half):+.0f}."
    )


def off_policy(judged: Evaluation, earned: NDArray[np.float64]) -> str:
    """What the log of a route says that the contextual policy would earn, beside what it did earn [n], by row."""
    start = f"Off-policy check, from the log of {judged.route} alone:"
    if not judged.answerable:
        return f"{start} it cannot tell. {judged.why}"
    newer = earned[-int(judged.judged_on) :]
    real, (low, high) = float(np.nanmean(newer)), (judged.value.low, judged.value.high)
    return (
        f"{start} having learnt from its older {judged.learnt_from:.0f} rewards,\n"
        f"the contextual policy would earn {judged.value.value:.4f} ({low:.4f} to {high:.4f}) on the newer"
        f" {judged.judged_on:.0f}. On those days it has\nreally earned {real:.4f}, "
        f"{'inside' if low <= real <= high else 'OUTSIDE'} the interval."
    )
