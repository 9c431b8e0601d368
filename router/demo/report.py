"""What the replay showed, and how sure one may be of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bandits.anytime.rates import rate_interval
from protos.messages import Evaluation, RouteDescription
from router.demo.comparison import SIGNIFICANT, print_comparison
from router.demo.replay import Replayed
from router.demo.routes import PLAIN, ROUTES
from runtime.finance import Samples, performance, results_bps
from runtime.finance.evaluation import Z95, Difference, correct, paired, score
from runtime.finance.strategy import COST_BPS, REDUCED

_TICKS = " ▁▂▃▄▅▆▇█"
_BUCKETS = 40


def print_report(
    console: Console,
    samples: Samples,
    everywhere: Mapping[str, Replayed],
    described: RouteDescription,
    hindsight: Mapping[str, NDArray[np.float32]],
    picked: str,
    judged: Evaluation,
) -> None:
    """Prints the end report: of the plain route, and then of all beside each other.

    `hindsight` is what each arm would have answered on every row [n] of `samples`, `picked` the arm to choose before
    the first of them, `judged` what the plain route's log says about the contextual policy.
    """
    done = everywhere[PLAIN]
    ok = done.answered
    if not ok.any():
        console.print(f"Nothing was answered, so there is nothing to report: {dict(done.errors)}.")
        return
    seen = samples.where(ok)
    right = correct(seen.label, done.probability[ok].astype(np.float32))
    by_arm = {name: correct(seen.label, p[ok]) for name, p in hindsight.items()}
    console.rule("The arms")
    console.print(_arms(done, described, by_arm))
    console.print("Intervals: 95 % for all arms at once and at all times, taking rewards as independent.")
    console.print("Hindsight: had the arm answered every request.", _told_apart(described))
    console.print("Share of the arms over the years, from left to right:")
    for name in by_arm:
        console.print(f"  {name:<14}{_over_time(done, name)}", highlight=False)
    console.rule("The policy")
    _print_policy(console, seen, done.probability[ok].astype(np.float32), right, by_arm)
    console.rule("Does it pay to know the day?")
    print_comparison(console, samples, everywhere, hindsight, picked, judged)
    console.rule("The business")
    console.print(_business(samples, everywhere))
    console.print(
        f"Held in full before a day forecast calm, {REDUCED:.0%} before a rough one; a turnover costs {COST_BPS:g} bp."
    )
    _print_edge(console, samples, done)
    console.rule("The service")
    seconds = np.concatenate([each.seconds[each.answered] for each in everywhere.values()]) * 1e3
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    errors = sum((each.errors for each in everywhere.values()), Counter[str]())
    rewards = sum(each.rewards for each in everywhere.values())
    console.print(
        f"{len(seconds)} forecasts, {rewards} rewards, each a day late and committed before it was acknowledged.\n"
        f"Answer at the client, six at once: p50 {p50:.1f} ms, p99 {p99:.1f} ms. Errors: {dict(errors) or 'none'}."
    )


def _arms(done: Replayed, described: RouteDescription, by_arm: Mapping[str, NDArray[np.float64]]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for column in ("arm", "share", "rewards", "mean reward", "interval", "hindsight"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    intervals = _intervals(described)
    for arm in described.arms:
        low, high = intervals[arm.name]
        table.add_row(
            arm.name,
            f"{done.arm.count(arm.name) / max(1, int(done.answered.sum())):.1%}",
            f"{arm.reward.n:.0f}",
            f"{arm.reward.sum / arm.reward.n:.3f}" if arm.reward.n else "-",
            f"{low:.3f} to {high:.3f}",
            f"{by_arm[arm.name].mean():.3f}",
        )
    return table


def _intervals(described: RouteDescription) -> dict[str, tuple[float, float]]:
    """By arm, low and high of its mean reward: all of them hold together, at 95 %."""
    alpha = SIGNIFICANT / len(described.arms)
    return {arm.name: rate_interval(arm.reward.sum, arm.reward.n, alpha=alpha) for arm in described.arms}


def _told_apart(described: RouteDescription) -> str:
    """Which arms are better than which, as far as their intervals say."""
    intervals = _intervals(described)
    pairs = [
        f"{better} over {worse}"
        for better, (low, _) in intervals.items()
        for worse, (_, high) in intervals.items()
        if low > high
    ]
    if pairs:
        return f"Told apart by their intervals: {', '.join(pairs)}."
    return "No two arms can be told apart by their intervals: more days, or larger differences, are needed."


def _over_time(done: Replayed, name: str) -> str:
    chosen = np.array([arm == name for arm in done.arm], dtype=np.float64)
    return "".join(_TICKS[round(part.mean() * (len(_TICKS) - 1))] for part in np.array_split(chosen, _BUCKETS))


def _print_policy(
    console: Console,
    seen: Samples,
    probability: NDArray[np.float32],
    right: NDArray[np.float64],
    by_arm: Mapping[str, NDArray[np.float64]],
) -> None:
    whole = score(seen.label, probability, seen.day)
    best = max(by_arm, key=lambda name: float(by_arm[name].mean()))
    even = np.mean(list(by_arm.values()), axis=0)
    console.print(
        f"Accuracy {whole.accuracy:.1%} (95 %: {whole.low:.1%} to {whole.high:.1%}), base rate {whole.base_rate:.1%}.\n"
        f"Mean reward {right.mean():.4f}; the best arm in hindsight, {best}, had {by_arm[best].mean():.4f},"
        f" an even split {even.mean():.4f}.\n"
        f"Against {best} all along: {_said(paired(right, by_arm[best], seen.day))}.\n"
        f"Against an even split: {_said(paired(right, even, seen.day))}."
    )


def _said(difference: Difference) -> str:
    half = Z95 * difference.error
    interval = f"{difference.mean:+.4f} (95 %: {difference.mean - half:+.4f} to {difference.mean + half:+.4f})"
    verdict = "significant" if difference.p < SIGNIFICANT else "NOT significant: chance alone could do this"
    return f"{interval}, {verdict} (p = {difference.p:.2g})"


def _daily(samples: Samples, result_bps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each day's result of half the capital in either index, [days]; a row without an answer earns nothing."""
    _, day = np.unique(samples.day, return_inverse=True)
    return np.bincount(day, np.nan_to_num(result_bps)) / 2


def _held(samples: Samples) -> NDArray[np.float64]:
    """The results of holding either index in full, by row."""
    result = np.empty(len(samples))
    for index in np.unique(samples.index):
        rows = samples.index == index
        result[rows] = results_bps(np.ones(int(rows.sum())), samples.next_return[rows])
    return result


def _business(samples: Samples, everywhere: Mapping[str, Replayed]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for column in ("position", "bp a day", "volatility", "Sharpe", "max drawdown"):
        table.add_column(column, justify="left" if column == "position" else "right")
    results = {f"timed by the {ROUTES[route]}": done.result_bps for route, done in everywhere.items()}
    for name, result in {**results, "buy and hold": _held(samples)}.items():
        shown = performance(_daily(samples, result))
        table.add_row(
            name,
            f"{shown.mean_bps:.2f}",
            f"{shown.volatility:.1%}",
            f"{shown.sharpe:.2f} ± {Z95 * shown.sharpe_error:.2f}",
            f"{shown.drawdown:.1%}",
        )
    return table


def _print_edge(console: Console, samples: Samples, done: Replayed) -> None:
    ours, held = _daily(samples, done.result_bps), _daily(samples, _held(samples))
    console.print(
        f"Timed by the {ROUTES[PLAIN]} minus held, bp a day: {_said(paired(ours, held, np.unique(samples.day)))}."
    )
