"""The tables that `python -m runtime.finance` prints."""

from __future__ import annotations

import timeit

import numpy as np
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.progress import Progress as Bars
from rich.progress import TaskID
from rich.table import Table

from runtime.finance.builds import Build, Progress
from runtime.finance.evaluation import Z95, Difference, Score, brier, correct, decisions, paired, report
from runtime.finance.export import Exported
from runtime.finance.features import NAMES
from runtime.finance.recipes import RECIPES
from runtime.finance.strategy import exposures, performance, results_bps
from runtime.finance.task import Samples

RULE = "last week's range"


def on_bars(bars: Bars) -> Progress:
    """Shows a build's progress as one bar a model."""
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: float) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(f"training {name}", total=1.0)
        bars.update(tasks[name], completed=done)

    return show


def persistence(samples: Samples) -> NDArray[np.float32]:
    """No model at all, [n]: tomorrow will be as the last five days were on average, above the median or below."""
    return np.asarray(samples.features[:, -1, NAMES.index("range_5")] > 0, np.float32)


def latency_us(model: Exported, window: NDArray[np.float32]) -> float:
    """Microseconds that `model` takes for one window [1, WINDOW, features] on one thread; the best of five means."""
    features, threads = torch.from_numpy(window), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timeit.timeit(lambda: model(features), number=50)
        return min(timeit.repeat(lambda: model(features), number=200, repeat=5)) / 200 * 1e6
    finally:
        torch.set_num_threads(threads)


def accuracy_table(build: Build, test: Samples) -> Table:
    """Each model's accuracy beside the base rate, on all days and on the calm and the turbulent ones."""
    title = f"Held out: {len(test):,} decisions, {test.day[0]} to {test.day[-1]}; % right (95 % interval)"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("model")
    for heading in ("all days", "calm", "turbulent", "Brier", "µs a call"):
        table.add_column(heading, justify="right", no_wrap=True)
    for recipe in RECIPES:
        scores = build.reports[recipe.name]
        microseconds = latency_us(Exported(build.folder, recipe.name), test.features[:1])
        accuracies = (_interval(score) for score in (scores.all, scores.calm, scores.turbulent))
        table.add_row(recipe.name, *accuracies, f"{scores.all.brier:.4f}", f"{microseconds:.0f}")
    rule = report(test, persistence(test))
    table.add_section()
    table.add_row(RULE, *map(_interval, (rule.all, rule.calm, rule.turbulent)))
    bases = (f"{score.base_rate:.1%}" for score in (rule.all, rule.calm, rule.turbulent))
    table.add_row("base rate", *bases)
    table.caption = f"{RULE}: no model, above its median or not; base rate: the better constant, in hindsight"
    table.caption_justify = "left"
    return table


def reasons() -> Table:
    """Each model, and why it is there."""
    table = Table(box=None, show_header=False)
    for recipe in RECIPES:
        table.add_row(recipe.name, recipe.why)
    return table


def paired_table(build: Build, test: Samples) -> Table:
    """Model minus rival on the same days: accuracy in points, and 1000 times the Brier score.

    Everyone's rival is the linear model; a specialist's is also the same network trained on all days. In brackets the
    p of there being no difference; it does not know that several models were compared.
    """
    pairs = [(name, "logistic") for name in build.names if name != "logistic"]
    pairs += [("calm", "lstm"), ("turbulent", "lstm")]
    table = Table(
        title="Model minus rival, paired: points of accuracy; Brier × 1000, lower is better (p of no difference)",
        title_justify="left",
    )
    table.add_column("model")
    table.add_column("rival")
    for heading in ("all days", "calm days", "turbulent days", "Brier, all days"):
        table.add_column(heading, justify="right")
    right = {name: correct(test.label, probability) for name, probability in build.probability.items()}
    loss = {name: brier(test.label, probability) for name, probability in build.probability.items()}
    for name, rival in pairs:
        masks = (np.ones(len(test), np.bool_), ~test.turbulent, test.turbulent)
        gains = [paired(right[name][mask], right[rival][mask], test.day[mask]) for mask in masks]
        losses = paired(loss[name], loss[rival], test.day)
        table.add_row(name, rival, *(_difference(gain, 100) for gain in gains), _difference(losses, 1000))
    return table


def strategy_table(build: Build, test: Samples) -> Table:
    """What each model's decisions would have earned on the S&P 500, beside holding it throughout."""
    title = "S&P 500, full before calm days and half before rough ones, 1 bp a unit of turnover"
    table = Table(title=title, title_justify="left")
    table.add_column("decisions of")
    for heading in ("bp a day", "volatility", "Sharpe", "worst fall"):
        table.add_column(heading, justify="right")
    own = test.index == "sp500"
    held = {name: exposures(decisions(probability[own])) for name, probability in build.probability.items()}
    held |= {RULE: exposures(decisions(persistence(test)[own])), "buy and hold": np.ones(own.sum())}
    for name, exposure in held.items():
        result = performance(results_bps(exposure, test.next_return[own]))
        sharpe = f"{result.sharpe:.2f} ± {result.sharpe_error:.2f}"
        table.add_row(name, f"{result.mean_bps:.2f}", f"{result.volatility:.1%}", sharpe, f"{result.drawdown:.1%}")
    return table


def _difference(difference: Difference, unit: float) -> str:
    return f"{unit * difference.mean:+.1f} ± {unit * Z95 * difference.error:.1f} ({difference.p:.3f})"


def _interval(score: Score) -> str:
    return f"{score.accuracy:.1%} ({score.low:.0%}-{score.high:.0%})"
