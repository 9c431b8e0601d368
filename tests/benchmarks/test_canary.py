"""A short form of the benchmark: each canary comes to its end, and what is added up is what a router counts."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import canary as benchmark
from benchmarks.canary import ARMS, LOOK, WORLDS, Run, World
from router.call import Add, Decision, Vector
from router.safety import canary
from router.safety.tally import Tally, reported


@pytest.mark.parametrize("name", ["bad", "good", "equal"])
def test_a_canary_comes_to_the_end_that_it_should(name: str) -> None:
    world = WORLDS[name]
    runs = [benchmark.run(world, seed) for seed in range(100, 105)]  # one in twenty others may end wrong
    assert [each.outcome for each in runs] == [world.right] * 5
    if name == "bad":
        assert max(each.of_canary for each in runs) < 1_000


def test_what_is_added_up_at_once_is_what_a_router_counts_call_by_call() -> None:
    share, p = 0.25, (0.75, 0.25)
    world = World(errors=0.2, reward=0.7, right="")
    calls = benchmark.calls_at(np.random.default_rng(1), world, 100, share)
    watch = canary.watch(benchmark.SETTINGS, benchmark.GUARDRAILS, "champion", benchmark.REWARD, 0.0)
    at_once: dict[tuple[str, str], Vector] = {}
    counts = benchmark.add_up(calls, share, watch, at_once)
    assert counts[:, 0].sum() == LOOK

    tally = Tally("credit", ARMS, [watch])
    adds = []
    for index, failed, reward in zip(calls.arms, calls.failed, calls.rewards, strict=True):
        tally.count(index, 0.01, p, failed=bool(failed))
        if not failed:
            decision = Decision("d", "credit", ARMS[index], p[index], 1.0, "v", probabilities=p)
            rows = reported([watch], ARMS, decision, "reward", float(reward))
            adds += [Add("credit", layout, decision.arm, row) for layout, row in rows.items()]
    one_by_one: dict[tuple[str, str], Vector] = {}
    for add in [*tally.drain(), *adds]:
        key = add.layout, add.arm
        one_by_one[key] = one_by_one.get(key, np.zeros(len(add.row))) + add.row
    assert one_by_one.keys() == {key for key, row in at_once.items() if row.any()}
    for key, row in one_by_one.items():
        np.testing.assert_allclose(row, at_once[key], err_msg=str(key))


def test_wrong_ends_are_counted_at_the_step_where_they_came() -> None:
    runs = [
        Run("rolled_back", 0, 100, 5, 0),
        Run("promoted", 2, 900, 90, 50),
        *[Run("left_alone", 2, 1000, 100, 0)] * 98,
    ]
    row = benchmark.summary(WORLDS["equal"], runs)
    assert (row.wrong, row.right, row.twice) == (0.02, 0.98, 0.01)
    assert row.wrong_by_step == [0.01, 0.01, 0.02]
    assert row.wrong_at_least < 0.02 < row.wrong_at_most
    assert row.holds
    assert (row.calls, row.of_canary) == (1000, 100)


@pytest.mark.parametrize(
    ("outcomes", "holds"),
    [
        ({"left_alone": 200}, True),
        ({"left_alone": 192, "promoted": 8}, True),
        ({"left_alone": 170, "rolled_back": 30}, False),
        ({"left_alone": 180, "running": 20}, False),
    ],
)
def test_a_promise_is_broken_when_too_many_end_wrong_or_too_few_right(outcomes: dict[str, int], holds: bool) -> None:
    runs = [Run(outcome, 2, 1000, 100, 0) for outcome, n in outcomes.items() for _ in range(n)]
    assert benchmark.summary(WORLDS["equal"], runs).holds is holds


@pytest.mark.parametrize("json_too", [False, True])
def test_it_says_whether_the_promise_holds(monkeypatch, capsys, json_too: bool) -> None:
    good = benchmark.summary(WORLDS["good"], [Run("promoted", 2, 900, 90, 0)] * 20)
    bad = benchmark.summary(WORLDS["bad"], [Run("promoted", 2, 900, 90, 0)] * 20)
    monkeypatch.setattr(sys, "argv", ["canary", *["--json"] * json_too])
    monkeypatch.setattr(benchmark, "measure", lambda _runs: {"good": good, "bad": bad})
    assert benchmark.main() == 1
    out = capsys.readouterr().out
    if json_too:
        assert json.loads(out)["good"]["right"] == 1.0
    else:
        assert "BROKEN" in out
    monkeypatch.setattr(benchmark, "measure", lambda _runs: {"good": good})
    assert benchmark.main() == 0
