"""Draws regret over the rounds, beside the bound that no policy can beat in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bandits.simulate import Result

COLOURS = ("#1f77b4", "#2ca02c", "#d62728", "#9467bd")
FIRST = 100  # rounds, where the picture begins
LINE = 0.045  # of the picture's height, that a label takes


def draw_curves(results: Mapping[str, Result], constant: float, title: str, path: Path) -> None:
    """Save a picture of the mean regret by policy, with bands from the 5th to the 95th percentile of the runs.

    The dashed line is `constant` * ln t, the bound of Lai and Robbins. All curves end at the same round.
    """
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        axes = figure.subplots()
        ends: list[tuple[float, str, str]] = []  # of the curves: regret, label, colour
        last = max(int(result.steps[-1]) for result in results.values())
        for (name, result), colour in zip(results.items(), COLOURS, strict=False):
            shown = result.steps >= FIRST
            steps, regret = result.steps[shown], result.regret[:, shown]
            axes.fill_between(steps, *np.quantile(regret, [0.05, 0.95], axis=0), color=colour, alpha=0.15, linewidth=0)
            axes.plot(steps, regret.mean(axis=0), color=colour, linewidth=2)
            ends.append((float(regret[:, -1].mean()), name, colour))
        rounds = np.geomspace(FIRST, last, 100)
        axes.plot(rounds, constant * np.log(rounds), color="black", linestyle="--", linewidth=1.2)
        ends.append((constant * float(np.log(last)), "C ln t", "black"))
        axes.set_xscale("log")
        axes.set_xlim(FIRST, last)
        axes.set_ylim(bottom=0)
        ends.sort()
        heights = _apart([end for end, _, _ in ends], LINE * axes.get_ylim()[1])
        for (end, name, colour), height in zip(ends, heights, strict=True):
            beside = axes.get_yaxis_transform()  # in parts of the width, and in regret
            axes.text(1.015, height, f"{name}  {end:,.0f}", va="center", color=colour, transform=beside)
        axes.set_xlabel("rounds t, logarithmic")
        axes.set_ylabel("expected reward lost so far")
        axes.set_title(
            f"{title}\nMean and 5-95 % of runs. Dashed: the bound of Lai and Robbins", loc="left", fontsize=11
        )
        axes.grid(visible=True, alpha=0.25)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)


def _apart(rising: Sequence[float], gap: float) -> list[float]:
    """Where labels stand that want to be at these heights, each at least a gap above the one before."""
    heights: list[float] = []
    for height in rising:
        heights.append(max(height, heights[-1] + gap) if heights else height)
    return heights
