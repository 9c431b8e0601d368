"""The demo's replay against a real server: everybody is paid a day late, and the report tells what came of it."""

from __future__ import annotations

import asyncio
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from torch import Tensor, nn

from router.client import Client
from router.demo.live import watched
from router.demo.report import print_report
from router.demo.service import PNL, ROUTE
from runtime.finance import decisions, held_out
from runtime.finance.evaluation import correct
from tests.e2e.models import write_model
from tests.process import Router, write_config

DAYS = 40
LULL = -0.5
FEATURES = {"name": "features", "datatype": "FP32", "shape": [-1, 10, 12]}
PROBABILITY = {"name": "probability", "datatype": "FP32", "shape": [-1, 1]}


class Yesterday(nn.Module):
    """Tomorrow will be as today was."""

    def forward(self, features: Tensor) -> Tensor:
        return features[:, -1, 0:1].sigmoid()


class Contrarian(nn.Module):
    """Tomorrow will be as today was not."""

    def forward(self, features: Tensor) -> Tensor:
        return (-features[:, -1, 0:1]).sigmoid()


class Fragile(nn.Module):
    """Fails on very quiet days."""

    def forward(self, features: Tensor) -> Tensor:
        if bool((features[:, -1, 0] < -0.5).any()):  # LULL, which a script cannot read
            raise ValueError("too quiet")
        return features[:, -1, 0:1].sigmoid()


@pytest.fixture(scope="module")
def samples():
    everything = held_out()
    return everything.where(everything.day < np.unique(everything.day)[DAYS])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "models"
    write_model(root / "yesterday", Yesterday(), inputs=[FEATURES], outputs=[PROBABILITY])
    write_model(root / "contrarian", Contrarian(), inputs=[FEATURES], outputs=[PROBABILITY])
    return root


def config(folder, models):
    arms = {name: {"model": name} for name in ("yesterday", "contrarian")}
    settings = {"policy": {"kind": "thompson"}, "metrics": {PNL: {"unit": "basis points"}}, "arms": arms}
    return write_config(folder, {ROUTE: settings}, models=str(models), refresh_seconds=0.02)


def replayed(address, samples):
    """What came of a replay, and what it printed meanwhile."""
    console = Console(file=StringIO(), width=100)
    return asyncio.run(watched(address, samples, console)), console


def test_every_forecast_is_answered_paid_and_reported(tmp_path, models, samples):
    with Router(config(tmp_path, models)) as router:
        done, console = replayed(router.address, samples)
        with Client(router.address) as client:
            described = client.describe(ROUTE)
    n = len(samples)
    assert n == 2 * DAYS
    assert (done.answered.sum(), done.rewards, dict(done.errors)) == (n, n, {})
    right = correct(samples.label, done.probability)
    arms = {arm.name: arm for arm in described.arms}
    assert sum(arm.decisions for arm in arms.values()) == n
    assert sum(arm.reward.n for arm in arms.values()) == n
    assert sum(arm.reward.sum for arm in arms.values()) == right.sum()
    assert sum(arm.metrics[PNL].sum for arm in arms.values()) == pytest.approx(done.result_bps.sum())
    for name, arm in arms.items():
        assert arm.decisions == done.arm.count(name)

    today = samples.features[:, -1, 0]
    assert np.array_equal(decisions(done.probability) == (today > 0), np.array(done.arm) == "yesterday")
    hindsight = {name: 1 / (1 + np.exp(-sign * today)) for name, sign in (("yesterday", 1), ("contrarian", -1))}
    print_report(console, samples, done, described, hindsight)
    printed = console.file.getvalue()
    for part in ("base rate", "hindsight", "significant", "Sharpe", "buy and hold", "p99", "Errors: none"):
        assert part in printed


def test_failures_are_counted_and_the_replay_goes_on(tmp_path, models, samples):
    write_model(models / "fragile", Fragile(), inputs=[FEATURES], outputs=[PROBABILITY])
    settings = {"metrics": {PNL: {"unit": "basis points"}}, "arms": {"fragile": {"model": "fragile"}}}
    with Router(write_config(tmp_path, {ROUTE: settings}, models=str(models))) as router:
        done, console = replayed(router.address, samples)
        with Client(router.address) as client:
            described = client.describe(ROUTE)
    quiet = samples.features[:, -1, 0] < LULL
    assert 0 < quiet.sum() < len(samples)
    assert np.array_equal(done.answered, ~quiet)
    assert (done.rewards, dict(done.errors)) == ((~quiet).sum(), {"INTERNAL": quiet.sum()})
    print_report(console, samples, done, described, {"fragile": np.full(len(samples), 0.9)})
    assert f"Errors: {{'INTERNAL': {quiet.sum()}}}" in console.file.getvalue()
