"""Financial models from real data: will tomorrow's range of an index exceed its one-year median."""

from __future__ import annotations

from runtime.finance.builds import Build, build, held_out
from runtime.finance.evaluation import decisions
from runtime.finance.recipes import RECIPES
from runtime.finance.strategy import exposures, performance, results_bps
from runtime.finance.task import Samples

__all__ = ["RECIPES", "Build", "Samples", "build", "decisions", "exposures", "held_out", "performance", "results_bps"]
