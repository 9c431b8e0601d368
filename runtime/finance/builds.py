"""Trains every recipe into a folder of served models, or finds that it has been done, and scores what lies there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runtime.finance.data import Market, load
from runtime.finance.evaluation import Report, report
from runtime.finance.export import SETTINGS_FILE, WEIGHTS_FILE, Exported, export
from runtime.finance.recipes import RECIPES
from runtime.finance.task import Samples, Split, samples, split
from runtime.finance.training import QUICK, Budget, constants, fit

Progress = Callable[[str, float], None]
"""Is told the model in training, and the share of its training done, 0 to 1."""

SEED = 0
RECORD_FILE = "build.json"
SHAPE_THE_MODELS = ("data", "features", "task", "networks", "recipes", "training", "export", "builds")
"""The modules whose text is part of a build's digest: change one, and the models are trained anew."""


@dataclass(frozen=True)
class Build:
    """A folder of models, ready to be served, and what they are worth on the held-out days."""

    folder: Path
    reused: bool
    """The models lay there already, made by the same code from the same data and seed."""
    validation_loss: Mapping[str, float]
    """By model, in nats; the held-out days had no part in it."""
    probability: Mapping[str, NDArray[np.float32]]
    """By model, [n] in the order of `held_out()`, from the exported files."""
    reports: Mapping[str, Report]
    """By model, on the held-out days."""

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order of RECIPES."""
        return tuple(self.reports)


def held_out() -> Samples:
    """The test years of both indices in time order, S&P first on each day: nothing was fitted or chosen on them."""
    return split(samples(load())).test


def build(out: Path, *, progress: Progress = lambda _name, _done: None, quick: bool = False) -> Build:
    """Makes `<out>/<name>/` for every recipe, unless it is there already, and scores the exported files.

    `quick` trains each for two epochs: to try things out, not for use.
    Raises ModuleNotFoundError where `arch` is missing and ValueError where its data cannot be right.
    """
    market, budget = load(), QUICK if quick else Budget()
    parts, digest = split(samples(market)), _digest(market, budget)
    record = _record(out, digest)
    reused = bool(record)
    if not reused:
        losses = _train(out, parts, budget, progress)
        record = {"digest": digest, "files": _files(out), "validation_loss": losses}
        # Written last: a build that was cut short has no record, and the next one starts over.
        partial = out / f"{RECORD_FILE}.partial"
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        partial.replace(out / RECORD_FILE)
    features = torch.from_numpy(parts.test.features)
    probability = {recipe.name: Exported(out, recipe.name)(features)[:, 0].numpy() for recipe in RECIPES}
    reports = {name: report(parts.test, chance) for name, chance in probability.items()}
    return Build(out, reused, record["validation_loss"], probability, reports)


def _train(out: Path, parts: Split, budget: Budget, progress: Progress) -> dict[str, float]:
    scaling, losses = constants(parts.train), {}
    for recipe in RECIPES:
        train, validation = (part.where(recipe.days(part)) for part in (parts.train, parts.validation))
        told = partial(progress, recipe.name)
        trained = fit(recipe.network, scaling, train, validation, seed=SEED, budget=budget, progress=told)
        export(trained.model, out, recipe.name)
        losses[recipe.name] = trained.validation_loss
    return losses


def _record(out: Path, digest: str) -> dict[str, Any]:
    """The record of a finished build with this digest whose files are still what was written; else empty."""
    try:
        record: dict[str, Any] = json.loads((out / RECORD_FILE).read_text(encoding="utf-8"))
        intact = record["digest"] == digest and record["files"] == _files(out)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        # Missing, cut short or of another version: not a build to reuse, and there is nothing to mend in it.
        return {}
    return record if intact else {}


def _files(out: Path) -> dict[str, str]:
    paths = [f"{recipe.name}/{file}" for recipe in RECIPES for file in (SETTINGS_FILE, WEIGHTS_FILE)]
    return {path: hashlib.sha256((out / path).read_bytes()).hexdigest() for path in paths}


def _digest(market: Market, budget: Budget) -> str:
    digest = hashlib.sha256(json.dumps([SEED, asdict(budget), torch.__version__, np.__version__]).encode())
    for module in SHAPE_THE_MODELS:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    for series in (market.sp500, market.nasdaq):
        for column in (series.day.astype(np.int64), series.high, series.low, series.close, series.volume):
            digest.update(column.tobytes())
    return digest.hexdigest()
