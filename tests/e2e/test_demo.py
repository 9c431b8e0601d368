"""The demo's replay against a real server: everybody is paid a day late, and the report tells what came of it."""

from __future__ import annotations

import asyncio
import shlex
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torch import Tensor, nn

from router.__main__ import main
from router.client import Client
from router.demo.live import watched
from router.demo.next_steps import commands
from router.demo.past import INDEX, KNOWN, context_of, picked
from router.demo.report import print_report
from router.demo.routes import CALM, CONTEXTUAL, PLAIN, PNL, POLICY_FILE, ROUTES, RULES, TURBULENT, write_config
from runtime.finance import decisions
from runtime.finance.data import load
from runtime.finance.evaluation import correct
from runtime.finance.features import NAMES
from runtime.finance.task import samples, split
from tests.e2e.models import write_model
from tests.process import ANY_PORT, Router

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
def parts():
    return split(samples(load()))


@pytest.fixture(scope="module")
def test(parts):
    return parts.test.where(parts.test.day < np.unique(parts.test.day)[DAYS])


def config(folder, parts, **models):
    """The demo's own configuration, over models that are quickly made."""
    for name, model in models.items():
        write_model(folder / "models" / name, model, inputs=[FEATURES], outputs=[PROBABILITY])
    return write_config(folder, list(models), context_of(parts.train), listen=ANY_PORT, admin=ANY_PORT)


def replayed(address, test):
    """What came of a replay, what the server says about it, and what was printed meanwhile."""
    console = Console(file=StringIO(), width=100)
    return asyncio.run(watched(address, test, console)), console


def test_every_forecast_is_answered_paid_compared_and_explained(tmp_path, parts, test, capsys):
    with Router(config(tmp_path, parts, calm=Yesterday(), turbulent=Contrarian())) as router:
        everywhere, console = replayed(router.address, test)
        with Client(router.address) as client:
            described = {route: client.describe(route) for route in ROUTES}
            judged = client.evaluate(PLAIN, (tmp_path / POLICY_FILE).read_text("utf-8"))
            explained = [client.explain(everywhere[CONTEXTUAL].decision[row]) for row in (0, len(test) - 1)]
        n, today = len(test), test.features[:, -1]
        assert n == 2 * DAYS
        for route, done in everywhere.items():
            check_accounts(test, done, described[route])
        chosen = np.array(everywhere[RULES].arm)
        assert np.array_equal(chosen == TURBULENT, test.turbulent)
        assert 0 < test.turbulent.sum() < n

        for row, told in zip((0, -1), explained, strict=True):
            known = {feature.column: feature.value for feature in told.context}
            expected = {name: float(today[row, NAMES.index(column)]) for name, column in KNOWN.items()}
            words = {f"{INDEX}={word}": float(test.index[row] == word) for word in ("sp500", "nasdaq")}
            assert known == expected | words
            assert told.reproduced
        assert (judged.learnt_from, judged.judged_on) == (n / 2, n / 2)
        assert index_columns(router.address, test, {INDEX: "nasdaq"}) == [0.0, 1.0]
        assert index_columns(router.address, test, None) == [0.0, 0.0]

        hindsight = {CALM: sigmoid(today[:, 0]), TURBULENT: sigmoid(-today[:, 0])}
        print_report(console, test, everywhere, described[PLAIN], hindsight, CALM, judged)
        printed = console.file.getvalue()
        for part in ("base rate", "the rules", "best in hindsight", "validation's pick", "Off-policy check", "Sharpe"):
            assert part in printed
        assert f"{3 * n} forecasts, {3 * n} rewards" in printed
        assert "Errors: none" in printed

        for command in commands(tmp_path, everywhere[CONTEXTUAL].decision[-1], router.address):
            program, *arguments = shlex.split(command)
            assert Path(program).is_file()
            assert main(arguments) == 0
            assert capsys.readouterr().out


def index_columns(address, test, parameters):
    """What a decision's context says about the index that was asked about."""
    with Client(address) as client:
        answer = client.infer(CONTEXTUAL, {"features": test.features[:1]}, parameters=parameters)
        client.reward(answer.decision, 0.0)  # once that is committed, so is the decision
        told = client.explain(answer.decision)
    return [feature.value for feature in told.context if feature.column.startswith(INDEX)]


def check_accounts(test, done, described):
    """The route's accounts are those of its clients."""
    n, right = len(test), correct(test.label, done.probability)
    assert (done.answered.sum(), done.rewards, dict(done.errors)) == (n, n, {})
    arms = {arm.name: arm for arm in described.arms}
    assert sum(arm.decisions for arm in arms.values()) == n
    assert sum(arm.reward.n for arm in arms.values()) == n
    assert sum(arm.reward.sum for arm in arms.values()) == right.sum()
    assert sum(arm.metrics[PNL].sum for arm in arms.values()) == pytest.approx(done.result_bps.sum())
    for name, arm in arms.items():
        assert arm.decisions == done.arm.count(name)
    today = test.features[:, -1, 0]
    assert np.array_equal(decisions(done.probability) == (today > 0), np.array(done.arm) == CALM)


def test_failures_are_counted_and_the_replay_goes_on(tmp_path, parts, test):
    with Router(config(tmp_path, parts, calm=Fragile(), turbulent=Fragile())) as router:
        everywhere, console = replayed(router.address, test)
        with Client(router.address) as client:
            described = client.describe(PLAIN)
            judged = client.evaluate(PLAIN, (tmp_path / POLICY_FILE).read_text("utf-8"))
    quiet = test.features[:, -1, 0] < LULL
    assert 0 < quiet.sum() < len(test)
    for done in everywhere.values():
        assert np.array_equal(done.answered, ~quiet)
        assert (done.rewards, dict(done.errors)) == ((~quiet).sum(), {"INTERNAL": quiet.sum()})
    hindsight = dict.fromkeys((CALM, TURBULENT), np.full(len(test), 0.9))
    print_report(console, test, everywhere, described, hindsight, CALM, judged)
    assert f"Errors: {{'INTERNAL': {3 * quiet.sum()}}}" in console.file.getvalue()


def test_the_arm_that_validation_would_pick_is_the_better_one_there(tmp_path, parts):
    config(tmp_path, parts, contrarian=Contrarian(), yesterday=Yesterday())
    assert picked(tmp_path / "models", ["contrarian", "yesterday"], parts.validation) == "yesterday"


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
