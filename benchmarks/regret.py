"""How much is lost while a policy learns? Regret in the worlds of the literature, beside the literature's figures."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bandits.bernoulli import Bernoulli, Stationary, lai_robbins
from bandits.race import race
from bandits.simulate import Result, simulate
from benchmarks.curves import draw_curves
from benchmarks.literature import (
    TEN_CLOSE,
    Trial,
    Whose,
    constants,
    contextual,
    curve,
    drifting,
    mortal,
    stationary,
)

PICTURE = Path("build/regret.png")
SEED = 2011
CHUNK = 10_000_000
"""Rounds times arms that a thread plays before it shows progress."""

DRIFT_ORDER = ("Thompson, γ .995", "Thompson, γ .995, 5 % floor", "Thompson", "Thompson, 5 % floor")
"""Forgetting helps; a floor alone makes it worse, and with forgetting costs little."""

HELD = """\
Held: Thompson sampling within 10 % of the published figures; all within 4
standard errors of the earlier ones; Thompson and KL-UCB+ never above UCB1 but
where rates change; there, a floor without forgetting makes it worse."""

Results: TypeAlias = dict[Trial, Result]


class Figure(NamedTuple):
    """The regret at the end of so many runs, in the source's unit."""

    mean: float
    error: float
    sd: float
    q95: float
    runs: int


def figure(trial: Trial, result: Result) -> Figure:
    """What is told of a trial."""
    regret = trial.unit * result.regret[:, -1]
    sd = float(regret.std(ddof=1))
    return Figure(float(regret.mean()), sd / math.sqrt(len(regret)), sd, float(np.quantile(regret, 0.95)), len(regret))


# -------------------------------------------------------------------------------------------------------- playing


def everything(*, quick: bool) -> list[Trial]:
    """All that is played. If `quick`, a tenth of the runs."""
    trials = [*stationary(), *mortal(), *drifting(), *contextual(), *curve()]
    return [replace(trial, runs=max(2, trial.runs // 10)) for trial in trials] if quick else trials


def play(trial: Trial, chunk: int, runs: int) -> Result:
    """Play some runs of a trial. By the number of the chunk, all policies meet the same chances in a world."""
    game: Callable[..., Result] = race if isinstance(trial.world, Bernoulli) else simulate
    rng = np.random.default_rng([SEED, chunk])
    how: dict[str, Any] = {"feedback": trial.feedback, "checkpoints": trial.checkpoints}
    return game(trial.policy, trial.world, trial.steps, rng=rng, runs=runs, **how)


def measure(trials: Sequence[Trial], progress: Progress) -> Results:
    """Play all trials, shared among threads. What comes out does not depend on how many there are."""
    chunks: list[tuple[Trial, int, int]] = []
    for trial in trials:
        size = max(1, CHUNK // (trial.steps * trial.world.arms))
        chunks += [(trial, i, min(size, trial.runs - i * size)) for i in range(-(-trial.runs // size))]
    rounds = sum(trial.steps * trial.world.arms * runs for trial, _, runs in chunks)
    bar = progress.add_task("playing", total=rounds)
    parts: dict[Trial, dict[int, Result]] = defaultdict(dict)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        waiting: dict[Future[Result], tuple[Trial, int]] = {}
        for n in np.random.default_rng(SEED).permutation(len(chunks)):  # so that the GIL is rarely wanted twice
            trial, i, runs = chunks[n]
            waiting[threads.submit(play, trial, i, runs)] = trial, i
        for done in as_completed(waiting):
            trial, i = waiting[done]
            parts[trial][i] = done.result()
            progress.advance(bar, trial.steps * trial.world.arms * len(done.result().regret))
    return {trial: joined([parts[trial][i] for i in sorted(parts[trial])]) for trial in trials}


def joined(results: Sequence[Result]) -> Result:
    """The runs of several results as one."""
    regret, reward, shares = (
        np.concatenate([getattr(result, name) for result in results]) for name in ("regret", "reward", "shares")
    )
    return Result(results[0].steps, regret, reward, shares)


# -------------------------------------------------------------------------------------------------------- judging


def failures(results: Results) -> list[str]:
    """What is not as it has to be: one sentence each."""
    wrong = [
        f"the constant of {instance} is {lai_robbins(means):.6g}, not {known:.6g}"
        for instance, means, _, known in constants()
        if not math.isclose(lai_robbins(means), known, rel_tol=2e-6)
    ]
    figures = {(trial.table, trial.instance, trial.name): figure(trial, result) for trial, result in results.items()}
    for trial in results:
        ours = figures[trial.table, trial.instance, trial.name]
        who = f"{trial.table}: {trial.name} {trial.instance}".strip()
        if trial.known and not agrees(ours, *trial.known):
            wrong.append(f"{who} has the regret {ours.mean:.1f}, {trial.known.whose.value} was {trial.known.mean:.1f}")
        rival = figures.get((trial.table, trial.instance, "UCB1"))
        if rival and trial.table != "drifting" and ours.mean > rival.mean:
            wrong.append(f"{who} regrets more than UCB1: {ours.mean:.1f} against {rival.mean:.1f}")
    drift = [(name, figures["drifting", "", name].mean) for name in DRIFT_ORDER if ("drifting", "", name) in figures]
    for (better, less), (worse, more) in pairwise(drift):
        if less >= more:
            wrong.append(f"drifting: {better} should regret less than {worse}, but {less:.1f} is not below {more:.1f}")
    return wrong


def agrees(ours: Figure, whose: Whose, mean: float, error: float | None) -> bool:
    """Tell whether a figure of ours is what the known one lets expect."""
    if whose is Whose.PUBLISHED:
        return abs(ours.mean - mean) <= 0.1 * mean
    if whose is Whose.EARLIER:
        return abs(ours.mean - mean) <= 4 * math.hypot(ours.error, 0.01 * mean if error is None else error)
    return True


# -------------------------------------------------------------------------------------------------------- telling


def constants_table() -> Table:
    """The constants of Lai and Robbins."""
    table = _table("The least regret in the end: C ln T")
    for heading in ("instance", "C", "earlier", "T", "C ln T"):
        table.add_column(heading, justify="left" if heading == "instance" else "right")
    for instance, means, steps, known in constants():
        C = lai_robbins(means)
        table.add_row(instance, f"{C:,.3f}", f"{known:,.3f}", f"{steps:,}", f"{C * math.log(steps):,.1f}")
    return table


def regret_table(title: str, results: Results) -> Table:
    """The trials of one table: a section for each instance."""
    table = _table(title)
    bounded = ["C ln T"] if any(isinstance(trial.world, Stationary) for trial in results) else []
    whose = list(dict.fromkeys(trial.known.whose for trial in results if trial.known))
    for column in ("policy", "regret ±s.e.", "sd", "95 %", "runs", *bounded, *(one.value for one in whose)):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    instance = ""
    for trial, result in results.items():
        if trial.instance != instance:
            instance = trial.instance
            table.add_section()
            table.add_row(f"[bold]{instance}[/bold]")
        ours = figure(trial, result)
        cells = [trial.name, _number(ours.mean, ours.error), _number(ours.sd), _number(ours.q95), str(ours.runs)]
        if isinstance(trial.world, Stationary):
            cells.append(_number(lai_robbins(trial.world.means) * math.log(trial.steps)))
        for one in whose:
            known = trial.known if trial.known and trial.known.whose is one else None
            cells.append(_number(known.mean, known.error) if known else "")
        table.add_row(*cells)
    return table


TABLES = {
    "stationary": (
        "The best arm stays the best",
        """\
Published: the instances (Garivier and Cappé, COLT 2011, scenarios 1 and 2;
Russo et al., FnT in ML 2018) and C ln T. Earlier: measured by us before, with
an implementation that shares no code with this one.""",
    ),
    "mortal": (
        "Ten arms that come and go, for a million rounds",
        "Published: Chapelle and Li, NeurIPS 2011, table 1, means of 100 runs.",
    ),
    "drifting": (
        "The rates change every 1000 of 5000 rounds",
        """\
Published: the instance (SMPyBandits). γ is what a round leaves of what was
learnt. Of those who do not forget, UCB1 does best: it explores more than it
needs where rates stay.""",
    ),
    "contextual": (
        "Ten arms, rewards linear in ten features, 10,000 rounds",
        """\
Rewards from -1 to 1, fitted after each. Similar: measured by us before, with
models that have no intercept.""",
    ),
}


def slopes(curves: Mapping[str, Result]) -> dict[str, float]:
    """By policy, what the last tenfold of rounds has added to the regret, over C ln 10: 1 for the best in the end."""
    slope = {}
    for name, result in curves.items():
        mean = result.regret.mean(axis=0)
        tenth = np.searchsorted(result.steps, result.steps[-1] // 10)
        slope[name] = float(mean[-1] - mean[tenth]) / (lai_robbins(TEN_CLOSE) * math.log(10))
    return slope


def show(console: Console, results: Results) -> None:
    """Print the tables, and save the picture."""
    console.print(constants_table())
    console.print("Of any policy that is good everywhere (Lai and Robbins 1985); sooner, it may be less.")
    for name, (title, note) in TABLES.items():
        console.print()
        console.print(regret_table(title, _of(results, name)))
        console.print(note, highlight=False)
    curves = {trial.name: result for trial, result in _of(results, "curve").items()}
    draw_curves(curves, lai_robbins(TEN_CLOSE), "Regret in a world with one arm of .5 and nine of .4", PICTURE)
    told = ", ".join(f"{name} {slope:.2f}" for name, slope in slopes(curves).items())
    console.print(f"\nRegret over a million rounds beside C ln t, as a picture: {PICTURE}", highlight=False)
    console.print(f"Added by the last tenfold of them, over C ln 10: {told}", highlight=False)


def as_json(results: Results) -> dict[str, Any]:
    """The figures for a program."""
    return {
        "regret": [
            {"table": trial.table, "instance": trial.instance, "policy": trial.name, "steps": trial.steps}
            | figure(trial, result)._asdict()
            | ({"known": trial.known.mean, "whose": trial.known.whose.value} if trial.known else {})
            for trial, result in results.items()
        ],
        "lai_robbins": {instance: lai_robbins(means) for instance, means, _, _ in constants()},
        "slopes": slopes({trial.name: result for trial, result in _of(results, "curve").items()}),
        "failures": failures(results),
    }


def _of(results: Results, table: str) -> Results:
    return {trial: result for trial, result in results.items() if trial.table == table}


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def _number(value: float, error: float | None = None) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2
    return f"{value:,.{digits}f}" + ("" if error is None else f" ±{error:,.{digits}f}")


def main() -> int:
    """Prints the tables; returns 1 when a figure is not as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regret", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    arguments = parser.parse_args()
    with Progress(console=Console(stderr=True)) as progress:
        results = measure(everything(quick=arguments.quick), progress)
    if arguments.json:
        print(json.dumps(as_json(results)))
    else:
        show(Console(), results)
    wrong = failures(results)
    for sentence in wrong:
        print(f"not as it has to be: {sentence}", file=sys.stderr)
    if not wrong:
        print(HELD, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
